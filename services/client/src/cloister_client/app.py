"""The Flower ClientApp: what a site does with a message."""

import json
from pathlib import Path
from typing import cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from cloister_client.shard import Shard, read_shard
from cloister_client.training import Metrics, evaluate, fit
from cloister_shared import flower
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import estimator
from cloister_shared.scaling import OutOfBounds
from cloister_shared.weights import LinearWeights

SHARD_DIR = "shard-dir"
"""Key of the SuperNode's node config: the folder with the site's shard."""

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Measure the received model, fit from it on, and send the new weights with the metrics."""
    shard, received = _shard(message, context), _weights(message)
    config = _config(message)
    metrics = evaluate(received, shard.validation)
    parameters = json.loads(cast("str", config[flower.PARAMETERS]))
    row = estimator(cast("str", config[flower.ESTIMATOR]))
    fitted = fit(row, parameters, received, shard.train, shard.data)
    arrays = ArrayRecord(
        {flower.COEF: Array(fitted.coef), flower.INTERCEPT: Array(fitted.intercept)}
    )
    content = RecordDict({flower.ARRAYS: arrays, flower.METRICS: _metrics(metrics, shard)})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate_only(message: Message, context: Context) -> Message:
    """Measure the received model and send the metrics."""
    shard = _shard(message, context)
    metrics = evaluate(_weights(message), shard.validation)
    return Message(RecordDict({flower.METRICS: _metrics(metrics, shard)}), reply_to=message)


def _config(message: Message) -> ConfigRecord:
    return message.content.config_records[flower.CONFIG]


def _shard(message: Message, context: Context) -> Shard:
    config = _config(message)
    folder = Path(str(context.node_config[SHARD_DIR]))
    shard = read_shard(folder, cast("OutOfBounds", config[flower.OUT_OF_BOUNDS]))
    if shard.data.digest != config[flower.SCHEMA_DIGEST]:
        raise CloisterError(
            f"this site's data is {shard.data.dataset}, described by another schema than the "
            "run's: give trainer and dealer, or site, the same dataset"
        )
    return shard


def _weights(message: Message) -> LinearWeights:
    arrays = message.content.array_records[flower.ARRAYS]
    return LinearWeights(
        arrays[flower.COEF].numpy().astype(np.float64),
        arrays[flower.INTERCEPT].numpy().astype(np.float64),
    )


def _metrics(metrics: Metrics, shard: Shard) -> MetricRecord:
    return MetricRecord(
        {
            flower.EXAMPLES: len(shard.train.classes),
            flower.VALIDATION_EXAMPLES: metrics.examples,
            flower.ACCURACY: metrics.accuracy,
            flower.LOSS: metrics.loss,
        }
    )
