"""Secure aggregation: updates are summed so that the server sees the sum, and no site's own.

The protocol is Flower's SecAgg+, with masks of our own (``cloister_shared.secure_aggregation``).

How far the result is from the plain mean. Site i of n has n_i rows and the update x_i, no value of
which is beyond the clipping range R. It sends its weight as d_i = round(n_i T / M) / T, where M is
the largest weight allowed and T the number of steps, and d_i x_i rounded at random to one of the
two nearest multiples of q = 2 R / T. The server divides the sum of the second by D, the sum of the
d_i. Against the plain mean with weights n_i / N, N = n_1 + ... + n_n:
- rounding of values moves each of n terms by less than q, so the quotient by less than n q / D;
- d_i is at most 1 / (2 T) from n_i / M, so the weights d_i / D are together at most n / (T D) from
  n_i / N, and the quotient moves by at most R n / (T D) = n q / (2 D).
So no value of the mean is off by 1.5 n q / D = 3 n R / (T D) or more (``error_bound``). T is as
large as the modulus 2^32 leaves: both sums stay below it, as every term is at most T and n T below
2^32. That is 2^28 steps for ten sites, and the 2^22 of Flower's default for the 1023 at most.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common import FitIns, Scalar, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.compat.common.recorddict_compat import parameters_to_arrayrecord
from flwr.server import ClientManager, LegacyContext
from flwr.server.strategy import Strategy
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import WorkflowState
from flwr.serverapp import Grid

from cloister_shared import flower
from cloister_shared.card import FinalMetrics
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import estimator
from cloister_shared.models import Model, linear
from cloister_shared.schema import DatasetSchema
from cloister_shared.secure_aggregation import (
    MODULUS,
    quantisation_range,
    strengthen,
    sum_error,
    unpack_metrics,
    unpack_sums,
)
from cloister_shared.standardising import Moments
from cloister_shared.sums import Sums
from cloister_shared.weights import LinearWeights
from cloister_trainer.collection import Collected
from cloister_trainer.records import synthetic_reply, told_reasons
from cloister_trainer.secure_replies import why_invalid

Floats = npt.NDArray[np.float64]

strengthen(SecAggPlusWorkflow.unmask_stage)

log = logging.getLogger(__name__)


def error_bound(sites: int, clipping_range: float, max_weight: float, rows: int) -> float:
    """Return by how much less than this every value is off the plain mean; see the module.

    Args:
        sites: in the sum; as many were asked.
        clipping_range: largest magnitude of a value.
        max_weight: largest weight of a site.
        rows: of all sites together, at least one each.
    """
    steps = quantisation_range(sites)
    total = rows / max_weight - sites / (2 * steps)
    # The last term is for float64: a value is rounded a few times before and after it is masked.
    return 3 * sites * clipping_range / (steps * total) + 1e-12 * clipping_range


@dataclass(frozen=True)
class Masking:
    """What sites are told about the form of their numbers."""

    clipping_range: float
    """Largest magnitude of one value of an update; a site with a larger one refuses."""
    max_examples: int
    """Most rows of one site; a site with more refuses. The more, the less exact: see ``T``."""


class SecureCollection:
    """Collects updates of all sites that are online, as one sum."""

    def __init__(
        self,
        grid: Grid,
        data: DatasetSchema,
        config: ConfigRecord,
        await_sites: Callable[[], list[int]],
        *,
        quorum: int,
        timeout: float,
        masking: Masking,
    ) -> None:
        """Prepare to collect.

        Args:
            grid: reaches the sites.
            data: the schema of their data.
            config: what they are told in every round, as in plain messages.
            await_sites: waits for the quorum and returns the sites that are online.
            quorum: sites that must be in the sum.
            timeout: seconds for which each of the four stages awaits replies.
            masking: form of the numbers.
        """
        self._grid = grid
        self._data = data
        self._config = config
        self._await_sites = await_sites
        self._quorum = quorum
        self._timeout = timeout
        self._masking = masking
        self._reports = bool(config.get(flower.REPORT, True))
        row = estimator(cast("str", config[flower.ESTIMATOR]))
        self._sums = row.aggregation == "statistics"

    def moments(self) -> Moments:
        """Have all sites that are online sum their inputs, and return the total.

        Raises:
            CloisterError: the protocol halted, or fewer sites than the quorum are in the sum, or
                it cannot be one.
        """
        # No model is asked about; nothing hangs on the number but the names of Flower's messages.
        zeros = LinearWeights.zeros(self._data)
        _, sites, values = self._summed(0, flower.TASK_MOMENTS, zeros, Moments.shape(self._data))
        moments = Moments(values)
        moments.check(self._data, sum_error(sites, self._masking.max_examples))
        return moments

    def train(self, server_round: int, model: Model) -> Collected:
        """Have all sites that are online fit, and return the mean, or total, as the single reply.

        Raises:
            CloisterError: the protocol halted, or fewer sites than the quorum are in the sum.
        """
        weights = linear(model)
        if self._sums:
            return self._total(server_round, weights)
        shapes = [weights.coef.shape, weights.intercept.shape]
        asked, sites, (coef, intercept, tail) = self._mean(
            server_round, flower.TASK_TRAIN, weights, shapes, self._reports
        )
        after = weights + LinearWeights(coef, intercept)
        metrics = self._metrics(tail) if self._reports else None
        return Collected(asked, sites, [synthetic_reply(after)], None, metrics)

    def _total(self, server_round: int, weights: LinearWeights) -> Collected:
        """Return the total of the sites' sums, in which every site's own counts its rows."""
        shape = Sums.shape(self._data)
        asked, sites, gram = self._summed(server_round, flower.TASK_TRAIN, weights, shape)
        return Collected(asked, sites, [synthetic_reply(Sums(gram))], None, None)

    def _summed(
        self, server_round: int, task: str, weights: LinearWeights, shape: tuple[int, ...]
    ) -> tuple[int, int, Floats]:
        """Return how many sites were asked, how many are in the total, and the total."""
        asked, sites, (packed, _) = self._mean(
            server_round, task, weights, [(2, *shape)], reports=False
        )
        most, clipping_range = self._masking.max_examples, self._masking.clipping_range
        return asked, sites, unpack_sums(packed, sites, most, clipping_range)

    def evaluate(self, model: Model) -> FinalMetrics | None:
        """Have all sites that are online measure this model, and return the mean.

        Raises:
            CloisterError: the protocol halted, or fewer sites than the quorum are in the sum.
        """
        if not self._reports:
            return None
        # Rounds count from 1; nothing hangs on the number but the names of Flower's messages.
        _, sites, (tail,) = self._mean(0, flower.TASK_EVALUATE, linear(model), [], reports=True)
        return FinalMetrics(sites=sites, **self._metrics(tail))

    def _metrics(self, tail: Floats) -> dict[str, float]:
        quality, loss = unpack_metrics(tail, self._masking.clipping_range, self._data)
        return {flower.QUALITY[self._data.task]: quality, flower.LOSS: loss}

    def _mean(
        self,
        server_round: int,
        task: str,
        weights: LinearWeights,
        shapes: Sequence[tuple[int, ...]],
        reports: bool,
    ) -> tuple[int, int, list[Floats]]:
        """Return how many sites were asked, how many are in the mean, and the mean's arrays.

        These are of ``shapes``, and the tail after them, which has metrics where sites report any;
        else every site counts the same.
        """
        nodes = list(self._grid.get_node_ids())
        if len(nodes) < self._quorum:
            nodes = self._await_sites()
        log.info("asking %d sites, in four stages", len(nodes))
        steps = quantisation_range(len(nodes))
        protocol = _Protocol(
            self._grid,
            # More than half, or two groups of sites could be told opposite things about a third.
            threshold=max(self._quorum, len(nodes) // 2 + 1),
            max_weight=float(self._masking.max_examples) if reports else 1.0,
            clipping_range=self._masking.clipping_range,
            steps=steps,
            timeout=self._timeout,
            shapes=[*shapes, (3,) if reports else (1,)],
        )
        config = ConfigRecord({**self._config, flower.ROUND: server_round, flower.TASK: task})
        if self._sums or task == flower.TASK_MOMENTS:
            config[flower.MAX_EXAMPLES] = self._masking.max_examples
        if flower.CLIPPING_NORM in config:
            config[flower.CLIPPING_NORM] = self._norm_before_rounding(weights, steps)
        return len(nodes), *protocol.run(server_round, nodes, weights, config)

    def _norm_before_rounding(self, weights: LinearWeights, steps: int) -> float:
        # Rounding moves each value by less than a step, and must not carry the update past the
        # norm that the noise of differential privacy is made for.
        size = weights.coef.size + weights.intercept.size
        step = 2 * self._masking.clipping_range / steps
        norm = cast("float", self._config[flower.CLIPPING_NORM]) - step * float(np.sqrt(size))
        if norm <= 0:
            raise CloisterError(
                "CLOISTER_SECAGG_CLIPPING_RANGE is too large beside CLOISTER_CLIPPING_NORM: leave "
                "it empty"
            )
        return norm


class _Protocol(SecAggPlusWorkflow):
    """One run of Flower's protocol, which tells why it halted.

    Flower's own waits at the end for shares of sites that were lost before they had given any to
    the others, and halts without them. Here such a site is as if it had not been asked.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        threshold: int,
        max_weight: float,
        clipping_range: float,
        steps: int,
        timeout: float,
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        super().__init__(
            1.0,
            threshold,
            max_weight=max_weight,
            clipping_range=clipping_range,
            quantization_range=steps,
            modulus_range=MODULUS,
            timeout=timeout,
        )
        self._grid = _Checked(grid, shapes)
        self._threshold = threshold
        self._shapes = shapes

    def run(
        self, server_round: int, nodes: list[int], weights: LinearWeights, config: ConfigRecord
    ) -> tuple[int, list[Floats]]:
        """Return how many sites are in the mean, and the mean's arrays.

        Raises:
            CloisterError: it halted, or what came out cannot be.
        """
        parameters = ndarrays_to_parameters([weights.coef, weights.intercept])
        state = RecordDict(
            {
                MAIN_CONFIGS_RECORD: ConfigRecord({WorkflowKey.CURRENT_ROUND: server_round}),
                MAIN_PARAMS_RECORD: parameters_to_arrayrecord(parameters, keep_input=True),
            }
        )
        outcome = _Outcome(nodes, FitIns(parameters, cast("dict[str, Scalar]", dict(config))))
        context = LegacyContext(
            Context(0, 0, {}, state, {}),
            strategy=cast("Strategy", outcome),
            client_manager=cast("ClientManager", outcome),
        )
        try:
            self(cast("Grid", self._grid), context)
        except Exception as error:
            raise CloisterError(
                f"secure aggregation failed at the stage {self._grid.stage}: "
                f"{error or type(error).__name__}"
            ) from error
        if outcome.mean is None:
            raise CloisterError(self._why_halted(len(nodes)))
        self._check(outcome.mean, len(nodes))
        return outcome.sites, outcome.mean

    def setup_stage(self, grid: Grid, context: LegacyContext, state: WorkflowState) -> bool:
        """Agree on the parameters and collect public keys."""
        self._grid.stage = "setup"
        passed = super().setup_stage(grid, context, state)
        _forget_lost(state)
        return passed

    def share_keys_stage(self, grid: Grid, context: LegacyContext, state: WorkflowState) -> bool:
        """Have sites share their secrets with one another."""
        self._grid.stage = "share keys"
        passed = super().share_keys_stage(grid, context, state)
        _forget_lost(state)
        return passed

    def collect_masked_vectors_stage(
        self, grid: Grid, context: LegacyContext, state: WorkflowState
    ) -> bool:
        """Have sites compute, mask and send."""
        self._grid.stage = "collect masked updates"
        return super().collect_masked_vectors_stage(grid, context, state)

    def unmask_stage(self, grid: Grid, context: LegacyContext, state: WorkflowState) -> bool:
        """Have sites give what takes the masks off the sum."""
        self._grid.stage = "unmask"
        return super().unmask_stage(grid, context, state)

    def _why_halted(self, asked: int) -> str:
        why = told_reasons(self._grid.reasons.values())
        return (
            f"secure aggregation halted at the stage {self._grid.stage}: {self._grid.left} of "
            f"{asked} sites are left, and {self._threshold} are needed{why}"
        )

    def _check(self, mean: list[Floats], asked: int) -> None:
        # Under masks that stayed on, every value is anything, and the last array's constant too.
        most = error_bound(asked, self.clipping_range, self.max_weight, rows=asked)
        if (
            [array.shape for array in mean] != list(self._shapes)
            or not all((np.abs(array) <= self.clipping_range + most).all() for array in mean)
            or not abs(mean[-1][0] - self.clipping_range) <= most
        ):
            raise CloisterError(
                "secure aggregation came to no mean of updates: a site sent a share or an update "
                "that is not of the protocol, or is of another version"
            )


def _forget_lost(state: WorkflowState) -> None:
    state.sampled_node_ids = set(state.active_node_ids)
    state.nid_to_neighbours = {
        node: neighbours & state.active_node_ids
        for node, neighbours in state.nid_to_neighbours.items()
        if node in state.active_node_ids
    }


class _Checked:
    """The part of a grid that the protocol uses; drops replies that cannot be used.

    Attributes:
        stage: what is going on.
        left: sites whose reply in the last stage can be used.
        reasons: why the first reply that cannot be used cannot, for each site that sent one.
    """

    def __init__(self, grid: Grid, shapes: Sequence[tuple[int, ...]]) -> None:
        self.stage = "setup"
        self.left = 0
        self.reasons: dict[int, str] = {}
        self._grid = grid
        self._shapes = shapes

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send messages and return the replies that can be used, at most one a site."""
        asked = {message.metadata.dst_node_id: message for message in messages}
        used: dict[int, Message] = {}
        for reply in self._grid.send_and_receive(asked.values(), timeout=timeout):
            node = reply.metadata.src_node_id
            why = why_invalid(reply, asked.get(node), self._shapes)
            if why is None and node not in used:
                used[node] = reply
            elif why is not None:
                log.warning("site %d: no valid reply at the stage %s: %s", node, self.stage, why)
                self.reasons.setdefault(node, why)
        if len(used) < len(asked):
            log.warning(
                "%d of %d sites are lost at the stage %s",
                len(asked) - len(used),
                len(asked),
                self.stage,
            )
        self.left = len(used)
        return [used[node] for node in sorted(used)]


@dataclass(frozen=True)
class _Proxy:
    """All that the protocol wants to know of a site."""

    node_id: int


class _Outcome:
    """What Flower's protocol takes for a strategy and a list of clients.

    Attributes:
        sites: how many are in the mean.
        mean: its arrays, or None when the protocol halted.
    """

    def __init__(self, nodes: list[int], instructions: FitIns) -> None:
        self.sites = 0
        self.mean: list[Floats] | None = None
        self._nodes = nodes
        self._instructions = instructions

    def num_available(self) -> int:
        """Return how many sites there are."""
        return len(self._nodes)

    def configure_fit(self, *_: object) -> list[tuple[_Proxy, FitIns]]:
        """Ask every site the same."""
        return [(_Proxy(node), self._instructions) for node in self._nodes]

    def aggregate_fit(
        self, _round: int, results: list[Any], _failures: list[Any]
    ) -> tuple[None, dict[str, Any]]:
        """Take the mean, which is in every result."""
        self.sites = len(results)
        self.mean = parameters_to_ndarrays(results[0][1].parameters)
        return None, {}
