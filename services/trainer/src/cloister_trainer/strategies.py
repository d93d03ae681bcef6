"""How the replies of a round become one model.

By one of Flower's strategies; by a fit of their total; or by taking all trees together.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy.fedopt import FedOpt

from cloister_shared import flower
from cloister_shared.boosting import joined
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import Estimator
from cloister_shared.models import Model, boosted
from cloister_shared.schema import DatasetSchema
from cloister_shared.standardising import Standardisation
from cloister_shared.strategies import Strategy
from cloister_shared.sums import Sums
from cloister_shared.trees import Trees
from cloister_shared.weights import LinearWeights
from cloister_trainer.least_squares import fit_sums
from cloister_trainer.records import sums_of, to_record, to_weights, trees_of

MOMENTS = ("m_t", "v_t")
"""What the strategies with an optimiser at the server keep from round to round, by array."""

log = logging.getLogger(__name__)


class Totals:
    """Fits the total of the sites' sums, which is a fit of all their rows."""

    def __init__(
        self,
        row: Estimator,
        parameters: Mapping[str, Any],
        data: DatasetSchema,
        standardisation: Standardisation | None = None,
    ) -> None:
        """Prepare to fit.

        Args:
            row: of the estimator.
            parameters: of its constructor.
            data: the schema of the rows.
            standardisation: of the inputs that are fitted, while sites sum those in [0, 1]; None:
                these are fitted.
        """
        self._row = row
        self._parameters = parameters
        self._data = data
        self._standardisation = standardisation

    def aggregate(
        self, server_round: int, received: Model, replies: Sequence[Message]
    ) -> LinearWeights:
        """Return the model; what it holds is to be checked.

        Args:
            server_round: 1, the only one.
            received: not used: there is nothing to begin from.
            replies: valid ones.

        Raises:
            CloisterError: scikit-learn does not take the parameters.
        """
        del server_round, received
        total = Sums(np.sum([sums_of(reply).gram for reply in replies], axis=0))
        if self._standardisation is not None:
            total = total.standardised(self._standardisation)
        return fit_sums(total, self._row, self._parameters, self._data)

    def state(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return nothing: there is no second round."""
        return {}

    def restore(self, state: Mapping[str, npt.NDArray[np.float64]]) -> None:
        """Go on from what ``state`` returned."""
        del state


class Bagging:
    """Adds the trees of all sites to those there are, each site's by its share of the rows.

    What the sites' trees answer together is the mean of what each would: a step as large as one
    site's alone. Flower's FedXgbBagging adds them whole, so that every site makes steps longer:
    https://flower.ai/docs/framework/ref-api/flwr.serverapp.strategy.FedXgbBagging.html
    """

    def __init__(self, most: int) -> None:
        """Prepare to add trees of at most so many sites a round, which bounds the circuit."""
        self._most = most

    def aggregate(self, server_round: int, received: Model, replies: Sequence[Message]) -> Trees:
        """Return the next global model; what it holds is to be checked.

        Args:
            server_round: from 1.
            received: the model that sites improve on.
            replies: valid ones.
        """
        del server_round
        before = boosted(received)
        # Of more sites than were expected those with most rows; the order stays.
        largest = sorted(replies, key=_examples, reverse=True)[: self._most]
        if len(largest) < len(replies):
            log.warning(
                "trees of %d sites with fewest rows are left out: they are for CLOISTER_CLIENTS=%d",
                len(replies) - len(largest),
                self._most,
            )
        taken = [reply for reply in replies if reply in largest]
        rows = sum(map(_examples, taken))
        parts, base = [before], np.array(before.base)
        for reply in taken:
            trees, share = trees_of(reply), _examples(reply) / rows
            parts.append(replace(trees, value=share * trees.value))
            base += share * np.array(trees.base)
        return joined(parts, base)

    def state(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return nothing: all that is kept is the model."""
        return {}

    def restore(self, state: Mapping[str, npt.NDArray[np.float64]]) -> None:
        """Go on from what ``state`` returned."""
        del state


def _examples(reply: Message) -> int:
    return cast("int", reply.content.metric_records[flower.METRICS][flower.EXAMPLES])


class Aggregation:
    """Aggregates replies by one of Flower's strategies, whose state can be kept and restored."""

    def __init__(self, row: Strategy, parameters: Mapping[str, float | int]) -> None:
        """Build Flower's class from its row of the table, with these parameters."""
        module, name = row.flower_class.rsplit(".", 1)
        self._strategy: FedAvg = getattr(import_module(module), name)(
            weighted_by_key=flower.EXAMPLES,
            arrayrecord_key=flower.ARRAYS,
            configrecord_key=flower.CONFIG,
            # Metrics are the collection's; sites of a round without any have no more than weights.
            train_metrics_aggr_fn=_no_metrics,
            **parameters,
        )

    def aggregate(
        self, server_round: int, received: Model, replies: Sequence[Message]
    ) -> LinearWeights:
        """Return the next global model; what it holds is to be checked.

        Args:
            server_round: from 1.
            received: the model that sites fitted from.
            replies: valid ones; their arrays may be taken out of them.

        Raises:
            CloisterError: there is no reply, or they do not fit together.
        """
        if isinstance(self._strategy, FedOpt):
            # Flower sets it when it makes the messages itself.
            self._strategy.current_arrays = {
                key: array.numpy() for key, array in to_record(received).items()
            }
        # A site can send what overflows where it is squared: it is then far from all others, and
        # of what comes out all is checked.
        with np.errstate(over="ignore", invalid="ignore"):
            arrays, _ = self._strategy.aggregate_train(server_round, list(replies))
        if arrays is None:
            raise CloisterError(f"round {server_round} has no replies to aggregate")
        return to_weights(arrays)

    def state(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return what the strategy keeps from round to round, by name; often nothing."""
        kept = {}
        for moment in MOMENTS:
            for key, array in (getattr(self._strategy, moment, None) or {}).items():
                kept[f"{moment}.{key}"] = array
        return kept

    def restore(self, state: Mapping[str, npt.NDArray[np.float64]]) -> None:
        """Go on from what ``state`` returned."""
        for moment in MOMENTS:
            arrays = {
                name.split(".", 1)[1]: array
                for name, array in state.items()
                if name.split(".", 1)[0] == moment
            }
            if arrays:
                setattr(self._strategy, moment, arrays)


def _no_metrics(_contents: list[RecordDict], _weighted_by: str) -> MetricRecord:
    return MetricRecord()
