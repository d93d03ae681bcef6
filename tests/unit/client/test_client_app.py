"""What a site answers to Flower's messages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from measuring import metrics_of

from cloister_client.app import app
from cloister_client.data.shard import read_shard
from cloister_client.site import REQUIRE_SECURE_AGGREGATION, SHARD_DIR
from cloister_client.training.fitting import fit
from cloister_shared import flower
from cloister_shared.datasets import DatasetName, schema
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import estimator
from cloister_shared.standardising import Standardisation
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
    *,
    node_config: dict[str, Any] | None = None,
    **changes: Any,
) -> RecordDict:
    config = ConfigRecord(
        {
            flower.SCHEMA_DIGEST: schema(dataset).digest,
            flower.ESTIMATOR: name,
            flower.PARAMETERS: json.dumps(PARAMETERS),
            flower.OUT_OF_BOUNDS: "refuse",
        }
        | changes
    )
    arrays = ArrayRecord(
        {flower.COEF: Array(weights.coef), flower.INTERCEPT: Array(weights.intercept)}
    )
    content = RecordDict({flower.ARRAYS: arrays, flower.CONFIG: config})
    message = Message(content, dst_node_id=1, message_type=kind)
    config_of_node = {SHARD_DIR: str(site)} | (node_config or {})
    context = Context(1, 1, config_of_node, RecordDict(), {})
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
    metrics = metrics_of(received, shard.validation)
    assert dict(content.metric_records[flower.METRICS]) == {
        flower.EXAMPLES: 270,
        flower.VALIDATION_EXAMPLES: 30,
        flower.ACCURACY: metrics.quality,
        flower.LOSS: metrics.loss,
    }


def test_an_evaluation_carries_metrics_and_nothing_else(site: Path) -> None:
    weights = some_weights()
    content = ask(site, "evaluate", weights)
    assert set(content) == {flower.METRICS}
    loss = metrics_of(weights, read_shard(site, "refuse").validation).loss
    assert content.metric_records[flower.METRICS][flower.LOSS] == loss


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_run_for_another_schema_is_refused(site: Path, kind: str) -> None:
    with pytest.raises(CloisterError, match="same dataset"):
        ask(site, kind, some_weights(), dataset="mnist")


def test_an_estimator_that_is_not_known_is_refused(site: Path) -> None:
    with pytest.raises(CloisterError, match="use one of: LogisticRegression"):
        ask(site, "train", some_weights(), name="os.system")


QUIET: dict[str, Any] = {flower.REPORT: False, flower.CLIPPING_NORM: 0.5}
"""What a trainer under differential privacy sends."""


def test_a_site_that_is_to_report_nothing_sends_its_weights_alone(site: Path) -> None:
    received = some_weights()
    content = ask(site, "train", received, **QUIET)
    assert set(content) == {flower.ARRAYS, flower.METRICS}
    assert dict(content.metric_records[flower.METRICS]) == {flower.EXAMPLES: 1}
    arrays = content.array_records[flower.ARRAYS]
    update = LinearWeights(
        arrays[flower.COEF].numpy() - received.coef,
        arrays[flower.INTERCEPT].numpy() - received.intercept,
    )
    assert update.l2_norm == pytest.approx(0.5)


def test_a_site_that_is_to_report_nothing_evaluates_nothing(site: Path) -> None:
    with pytest.raises(CloisterError, match="report no metrics"):
        ask(site, "evaluate", some_weights(), **QUIET)


def test_a_site_that_is_to_report_nothing_tells_no_reason(
    site: Path, write_site: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    rows = np.zeros((10, 64))
    rows[7, 3] = 99
    write_site(rows, np.arange(10))
    with pytest.raises(CloisterError) as told:
        ask(site, "train", some_weights(), **QUIET)
    assert str(told.value) == "the site could not answer; its own log says why"
    assert told.value.__cause__ is None
    # The site itself has it.
    assert "row 7 (counted from 0), column 'pixel_0_3'" in caplog.text
    with pytest.raises(CloisterError, match="row 7"):
        ask(site, "train", some_weights())


@pytest.mark.parametrize("norm", [0.0, -1.0, float("inf"), float("nan"), 1, "1"])
def test_a_clipping_norm_that_is_none_is_refused(site: Path, norm: Any) -> None:
    with pytest.raises(CloisterError, match="clipping-norm"):
        ask(site, "train", some_weights(), **dict[str, Any]({flower.CLIPPING_NORM: norm}))


@pytest.mark.parametrize("kind", ["train", "evaluate", "query"])
@pytest.mark.parametrize("stated", [True, "true", "True"])
def test_a_site_that_requires_secure_aggregation_answers_nothing_plain(
    site: Path, kind: str, stated: bool | str
) -> None:
    policy = {REQUIRE_SECURE_AGGREGATION: stated}
    with pytest.raises(CloisterError, match="CLOISTER_SECURE_AGGREGATION=true"):
        ask(site, kind, some_weights(), node_config=policy)


@pytest.mark.parametrize("stated", [False, "false"])
def test_a_site_that_does_not_require_it_answers(site: Path, stated: bool | str) -> None:
    policy = {REQUIRE_SECURE_AGGREGATION: stated}
    assert flower.METRICS in ask(site, "evaluate", some_weights(), node_config=policy)


def test_weights_of_another_shape_or_that_are_none_are_refused(site: Path) -> None:
    with pytest.raises(CloisterError, match="shape"):
        ask(site, "train", LinearWeights(np.zeros((9, 64)), np.zeros(9)))
    with pytest.raises(CloisterError, match="not finite"):
        ask(site, "evaluate", LinearWeights(np.full((10, 64), np.nan), np.zeros(10)))


def test_the_sums_of_its_inputs_are_of_the_rows_it_fits_and_all_it_sends(site: Path) -> None:
    content = ask(site, "query", some_weights())
    assert set(content) == {flower.ARRAYS}
    (array,) = content.array_records[flower.ARRAYS].values()
    inputs = read_shard(site, "refuse").train.features
    assert len(inputs) == 270
    expected = np.concatenate([[270], inputs.sum(axis=0), (inputs**2).sum(axis=0)])
    np.testing.assert_allclose(array.numpy(), expected, rtol=1e-12)


def test_sums_of_inputs_are_not_told_where_nothing_is_reported(site: Path) -> None:
    with pytest.raises(CloisterError, match="report no sums of their inputs"):
        ask(site, "query", some_weights(), **QUIET)


def test_sums_of_inputs_are_for_runs_with_this_data(site: Path) -> None:
    with pytest.raises(CloisterError, match="same dataset"):
        ask(site, "query", some_weights(), dataset="mnist")


def stated() -> Standardisation:
    generator = np.random.default_rng(6)
    means, deviations = generator.random(64), generator.random(64) / 2 + 0.1
    return Standardisation(means=tuple(means.tolist()), deviations=tuple(deviations.tolist()))


def test_a_site_fits_and_measures_standardised_rows_where_the_run_says_by_what(site: Path) -> None:
    received, shard = some_weights(), read_shard(site, "refuse")
    told = dict[str, Any]({flower.STANDARDISATION: stated().model_dump_json()})
    content = ask(site, "train", received, **told)
    own = shard.standardised(stated())
    expected = fit(
        estimator("LogisticRegression"), PARAMETERS, received, own.train, schema("digits")
    )
    arrays = content.array_records[flower.ARRAYS]
    assert np.array_equal(arrays[flower.COEF].numpy(), expected.coef)
    metrics = content.metric_records[flower.METRICS]
    assert metrics[flower.LOSS] == metrics_of(received, own.validation).loss
    # As of the folded model on the rows as they are.
    folded = metrics_of(stated().fold(received), shard.validation)
    assert metrics[flower.LOSS] == pytest.approx(folded.loss)
    # What is kept for the next message is not standardised.
    again = ask(site, "evaluate", received)
    loss = metrics_of(received, shard.validation).loss
    assert again.metric_records[flower.METRICS][flower.LOSS] == loss


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "this is no standardisation"),
        ('{"means": [0.5], "deviations": [0.5]}', "is of 1 inputs, and digits has 64"),
    ],
)
def test_what_cannot_standardise_is_refused(site: Path, text: str, told: str) -> None:
    with pytest.raises(CloisterError, match=told):
        ask(site, "train", some_weights(), **dict[str, Any]({flower.STANDARDISATION: text}))
