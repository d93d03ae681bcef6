"""What a site answers to Flower's messages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from cloister_client.app import SHARD_DIR, app
from cloister_client.shard import read_shard
from cloister_client.training import fit, measure
from cloister_shared import flower
from cloister_shared.datasets import DatasetName, schema
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import estimator
from cloister_shared.weights import LinearWeights

PARAMETERS = {"penalty": "l2", "C": 1.0, "max_iter": 20, "warm_start": True}


@pytest.fixture
def site(write_site: Callable[..., Path], digits_data: tuple[Any, Any]) -> Path:
    return write_site(digits_data[0][:300], digits_data[1][:300])


@pytest.fixture(autouse=True)
def task(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Flower sets in the processes that it starts."""
    for field in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, field, 1)


def ask(
    site: Path,
    kind: str,
    weights: LinearWeights,
    dataset: DatasetName = "digits",
    name: str = "LogisticRegression",
) -> RecordDict:
    config = ConfigRecord(
        {
            flower.SCHEMA_DIGEST: schema(dataset).digest,
            flower.ESTIMATOR: name,
            flower.PARAMETERS: json.dumps(PARAMETERS),
            flower.OUT_OF_BOUNDS: "refuse",
        }
    )
    arrays = ArrayRecord(
        {flower.COEF: Array(weights.coef), flower.INTERCEPT: Array(weights.intercept)}
    )
    content = RecordDict({flower.ARRAYS: arrays, flower.CONFIG: config})
    message = Message(content, dst_node_id=1, message_type=kind)
    context = Context(1, 1, {SHARD_DIR: str(site)}, RecordDict(), {})
    return app(message, context).content


def some_weights() -> LinearWeights:
    generator = np.random.default_rng(4)
    return LinearWeights(generator.normal(size=(10, 64)), generator.normal(size=10))


def test_a_fit_carries_new_weights_and_the_metrics_of_those_received(site: Path) -> None:
    received, shard = some_weights(), read_shard(site, "refuse")
    content = ask(site, "train", received)
    expected = fit(
        estimator("LogisticRegression"), PARAMETERS, received, shard.train, schema("digits")
    )
    arrays = content.array_records[flower.ARRAYS]
    assert np.array_equal(arrays[flower.COEF].numpy(), expected.coef)
    assert np.array_equal(arrays[flower.INTERCEPT].numpy(), expected.intercept)
    metrics = measure(received, shard.validation)
    assert dict(content.metric_records[flower.METRICS]) == {
        flower.EXAMPLES: 270,
        flower.VALIDATION_EXAMPLES: 30,
        flower.ACCURACY: metrics.accuracy,
        flower.LOSS: metrics.loss,
    }


def test_an_evaluation_carries_metrics_and_nothing_else(site: Path) -> None:
    weights = some_weights()
    content = ask(site, "evaluate", weights)
    assert set(content) == {flower.METRICS}
    loss = measure(weights, read_shard(site, "refuse").validation).loss
    assert content.metric_records[flower.METRICS][flower.LOSS] == loss


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_run_for_another_schema_is_refused(site: Path, kind: str) -> None:
    with pytest.raises(CloisterError, match="same dataset"):
        ask(site, kind, some_weights(), dataset="mnist")


def test_an_estimator_that_is_not_known_is_refused(site: Path) -> None:
    with pytest.raises(CloisterError, match="use one of: LogisticRegression"):
        ask(site, "train", some_weights(), name="os.system")
