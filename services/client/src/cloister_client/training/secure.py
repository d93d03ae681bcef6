"""The same training behind Flower's older client interface, the one that has secure aggregation.

Flower's SecAgg+ masks what a site sends so that the server learns the sum over sites alone. It
protects from a server that runs the protocol and is curious. ``secure_rules`` refuses what a server
that does not run it could ask; what remains to such a server is in docs/privacy.md.
"""

import numpy as np
import numpy.typing as npt
from flwr.app import Context, Message
from flwr.client import Client, NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp
from flwr.common import Scalar
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS

from cloister_client.training.fitting import sums_of, train
from cloister_client.training.request import discreet, read_inputs, reports, task_of
from cloister_client.training.secure_rules import check_rows, limits_of, secure_rules
from cloister_shared import flower
from cloister_shared.errors import CloisterError
from cloister_shared.measuring import Metrics
from cloister_shared.secure_aggregation import pack_sums, pack_tail, strengthen
from cloister_shared.standardising import Moments
from cloister_shared.weights import LinearWeights

Arrays = list[npt.NDArray[np.float64]]

strengthen(secaggplus_mod)


class SecureSite(NumPyClient):
    """Answers the one message of a round that asks for the site's own numbers."""

    def __init__(self, context: Context) -> None:
        self._node_config = context.node_config
        self._limits = limits_of(context)

    def fit(
        self, parameters: Arrays, config: dict[str, Scalar]
    ) -> tuple[Arrays, int, dict[str, Scalar]]:
        """Return what is masked and summed, and its weight.

        Args:
            parameters: coefficients and intercepts of the global model.
            config: as of a plain message, and the task.

        Returns:
            To train, the updates of coefficients and intercepts, or the packed sums; those of the
            inputs alone, where they are asked for. Then the packed tail, with metrics unless sites
            report nothing or send sums. And the weight of all that in the mean.

        Raises:
            CloisterError: what is asked cannot be given; a value or the weight is beyond the
                range in which it can be masked.
        """
        with discreet(config):
            if len(parameters) != 2:
                raise CloisterError(f"{len(parameters)} arrays came, not coef and intercept")
            received = LinearWeights(*(array.astype(np.float64) for array in parameters))
            shard = read_inputs(config, self._node_config, received)
            task = task_of(config)
            if task.estimator.aggregation == "bagging":
                raise CloisterError("trees of several sites have no sum that could be masked")
            clipping_range = self._limits.clipping_range
            arrays: Arrays = []
            metrics: Metrics | None
            training = config[flower.TASK] == flower.TASK_TRAIN
            summing = training and task.estimator.aggregation == "statistics"
            if summing or (config[flower.TASK] == flower.TASK_MOMENTS and reports(config)):
                # Every site counts the same: the sums themselves count its rows.
                most = float(config[flower.MAX_EXAMPLES])
                check_rows(len(shard.train.answers), most)
                sums = sums_of(shard).gram if summing else Moments.of(shard.train.features).values
                arrays.append(pack_sums(sums, most, clipping_range))
                metrics, examples = None, 1
            elif training:
                trained = train(task, received, shard)
                arrays += [trained.update.coef, trained.update.intercept]
                metrics, examples = trained.metrics, trained.examples
            elif config[flower.TASK] == flower.TASK_EVALUATE and reports(config):
                metrics = task.measure(received, shard)
                examples = metrics.examples
            else:
                raise CloisterError(f"{flower.TASK} is none that this site does")
            told = None if metrics is None else (metrics.quality, metrics.loss)
            arrays.append(pack_tail(clipping_range, told, shard.data))
            self._limits.check(arrays, examples)
        return arrays, examples, {}


def _client(context: Context) -> Client:
    return SecureSite(context).to_client()


app = ClientApp(_client, mods=[secure_rules, secaggplus_mod])


def is_secure(message: Message) -> bool:
    """Return whether a message belongs to secure aggregation."""
    return message.has_content() and RECORD_KEY_CONFIGS in message.content.config_records
