"""The Flower ClientApp: what a site does with a message."""

from typing import Any, cast

import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from cloister_client.site import Site
from cloister_client.training import secure
from cloister_client.training.boosting import grow
from cloister_client.training.fitting import sums_of
from cloister_client.training.fitting import train as train_locally
from cloister_client.training.request import (
    discreet,
    matching_shard,
    read_inputs,
    reports,
    task_of,
)
from cloister_shared import flower
from cloister_shared.errors import CloisterError
from cloister_shared.measuring import Metrics
from cloister_shared.models import Model, boosted, from_arrays, linear, to_arrays
from cloister_shared.schema import DatasetSchema
from cloister_shared.standardising import Moments


class SiteApp(ClientApp):
    """Serves plain messages itself, and hands those of secure aggregation to ``secure``."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer one message.

        Raises:
            CloisterError: it asks for something that this site does not give.
        """
        if secure.is_secure(message):
            return secure.app(message, context)
        if Site.of(context.node_config).require_secure_aggregation:
            raise CloisterError(
                "this site takes part in secure aggregation only: set "
                "CLOISTER_SECURE_AGGREGATION=true at the trainer"
            )
        return super().__call__(message, context)


app = SiteApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Measure the received model, and send the weights, trees or sums that the site comes to."""
    config = _config(message)
    with discreet(config):
        received = _model(message)
        shard = read_inputs(config, context.node_config, received)
        task = task_of(config)
        found: dict[str, npt.NDArray[Any]]
        if task.estimator.aggregation == "statistics":
            found = {flower.SUMS: sums_of(shard).gram}
            examples = len(shard.train.answers)
            measured: Metrics | None = task.measure(received, shard)
        elif task.estimator.aggregation == "bagging":
            server_round = int(cast("int", config[flower.ROUND]))
            grown = grow(task, server_round, boosted(received), shard.train, shard.data)
            found, examples = to_arrays(grown), len(shard.train.answers)
            measured = task.measure(received, shard)
        else:
            trained = train_locally(task, linear(received), shard)
            found = to_arrays(trained.weights)
            examples, measured = trained.examples, trained.metrics
    arrays = ArrayRecord({name: Array(array) for name, array in found.items()})
    metrics = MetricRecord({flower.EXAMPLES: examples})
    if measured is not None:
        metrics = _metrics(measured, examples, shard.data)
    return Message(RecordDict({flower.ARRAYS: arrays, flower.METRICS: metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure the received model and send the metrics.

    Raises:
        CloisterError: the run is one in which sites report nothing.
    """
    config = _config(message)
    if not reports(config):
        raise CloisterError("this run is one in which sites report no metrics")
    received = _model(message)
    shard = read_inputs(config, context.node_config, received)
    measured = task_of(config).measure(received, shard)
    metrics = _metrics(measured, len(shard.train.answers), shard.data)
    return Message(RecordDict({flower.METRICS: metrics}), reply_to=message)


@app.query()
def sum_inputs(message: Message, context: Context) -> Message:
    """Send the sums that means and deviations of the inputs follow from.

    Raises:
        CloisterError: the run is one in which sites report nothing.
    """
    config = _config(message)
    if not reports(config):
        raise CloisterError("this run is one in which sites report no sums of their inputs")
    shard = matching_shard(config, context.node_config)
    moments = Moments.of(shard.train.features)
    arrays = ArrayRecord({flower.MOMENTS: Array(moments.values)})
    return Message(RecordDict({flower.ARRAYS: arrays}), reply_to=message)


def _config(message: Message) -> ConfigRecord:
    return message.content.config_records[flower.CONFIG]


def _model(message: Message) -> Model:
    record = message.content.array_records[flower.ARRAYS]
    return from_arrays({name: array.numpy() for name, array in record.items()})


def _metrics(metrics: Metrics, rows: int, data: DatasetSchema) -> MetricRecord:
    return MetricRecord(
        {
            flower.EXAMPLES: rows,
            flower.VALIDATION_EXAMPLES: metrics.examples,
            flower.QUALITY[data.task]: metrics.quality,
            flower.LOSS: metrics.loss,
        }
    )
