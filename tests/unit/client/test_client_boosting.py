"""Boosting at sites, against XGBoost itself."""

from typing import Any

import numpy as np
import pytest
import xgboost

from cloister_client.data.shard import Sample
from cloister_client.training.boosting import grow
from cloister_client.training.fitting import Task
from cloister_client.training.request import task_of
from cloister_shared import flower
from cloister_shared.boosting import joined, no_trees
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import estimator
from cloister_shared.schema import DatasetSchema, Feature, Target
from cloister_shared.trees import Trees

N_INPUTS = 3


def schema_of(n_classes: int) -> DatasetSchema:
    return DatasetSchema(
        dataset="made",
        task="classification" if n_classes else "regression",
        features=tuple(Feature(name=f"f{i}", low=0, high=1) for i in range(N_INPUTS)),
        classes=tuple(range(n_classes)),
        target=None if n_classes else Target(low=0, high=10),
    )


def rows_of(n_classes: int) -> Sample:
    generator = np.random.default_rng(n_classes)
    inputs = generator.random((200, N_INPUTS))
    noisy = 4 * inputs[:, 0] + inputs[:, 1] + generator.normal(size=200) / 3
    if not n_classes:
        return Sample(inputs, 1 + np.abs(noisy))
    edges = np.quantile(noisy, np.arange(1, n_classes) / n_classes)
    return Sample(inputs, np.searchsorted(edges, noisy))


def task(n_classes: int, **parameters: Any) -> Task:
    name = "XGBClassifier" if n_classes else "XGBRegressor"
    return Task(estimator(name), {"max_depth": 2, "n_estimators": 1, **parameters})


def alone(what: Task, rounds: int, sample: Sample, data: DatasetSchema) -> Trees:
    """What one site comes to in several rounds."""
    reached = no_trees(np.zeros(data.n_outputs))
    for server_round in range(1, rounds + 1):
        new = grow(what, server_round, reached, sample, data)
        assert new.n_rounds == what.parameters["n_estimators"]
        base = np.array(reached.base) + np.array(new.base)
        reached = joined([reached, new], base)
    return reached


@pytest.mark.parametrize(
    ("n_classes", "objective"),
    [
        (0, None),
        (0, "count:poisson"),
        (0, "reg:gamma"),
        (2, None),
        (2, "binary:logistic"),
        (4, None),
        (4, "binary:logistic"),
        (3, "multi:softmax"),
    ],
)
@pytest.mark.parametrize("each", [1, 2])
def test_one_site_alone_comes_to_what_xgboost_does(
    n_classes: int, objective: str | None, each: int
) -> None:
    data, sample = schema_of(n_classes), rows_of(n_classes)
    stated = {} if objective is None else {"objective": objective}
    reached = alone(task(n_classes, n_estimators=each, **stated), 4 // each, sample, data)
    # From where sites begin: even shares, or the mean.
    base = float(sample.answers.mean()) if not n_classes else 0.5
    known = xgboost.XGBClassifier if n_classes else xgboost.XGBRegressor
    own = known(max_depth=2, n_estimators=4, base_score=base, **stated)
    own.fit(sample.features.astype(np.float32), sample.answers)
    margins = own.predict(sample.features, output_margin=True).reshape(len(sample.answers), -1)
    scores = reached.scores(sample.features)
    if n_classes > 2:
        # The same base for all classes is none to the probabilities.
        scores, margins = scores - scores[:, :1], margins - margins[:, :1]
    np.testing.assert_allclose(scores, margins, atol=1e-4)


def test_a_stated_base_is_where_all_sites_begin() -> None:
    data, sample = schema_of(0), rows_of(0)
    grown = grow(task(0, base_score=2.5), 1, no_trees(np.zeros(1)), sample, data)
    assert grown.base == pytest.approx([2.5])
    even = grow(task(2, base_score=0.25), 1, no_trees(np.zeros(1)), rows_of(2), schema_of(2))
    assert even.base == pytest.approx([np.log(1 / 3)])


def test_later_rounds_add_nothing_to_the_base() -> None:
    data, sample = schema_of(0), rows_of(0)
    first = grow(task(0), 1, no_trees(np.zeros(1)), sample, data)
    assert grow(task(0), 2, first, sample, data).base == pytest.approx([0.0])


def test_a_site_that_lacks_a_class_grows_trees_for_all() -> None:
    data, sample = schema_of(3), rows_of(3)
    kept = sample.answers != 1
    grown = grow(
        task(3), 1, no_trees(np.zeros(3)), Sample(sample.features[kept], sample.answers[kept]), data
    )
    assert grown.n_outputs == 3
    grown.check(data)
    # What it has no row of, it holds for unlikely.
    scores = grown.scores(sample.features)
    assert (scores[:, 1] <= scores.max(axis=1)).all()
    assert scores[:, 1].mean() < 0


def test_every_round_draws_other_rows() -> None:
    data, sample = schema_of(0), rows_of(0)
    received = no_trees(np.zeros(1))
    drawn = [
        grow(task(0, subsample=0.3), at, received, sample, data).scores(sample.features)
        for at in (1, 2, 1)
    ]
    assert np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], drawn[1])


def test_targets_of_zero_have_a_base_whose_logarithm_is_finite() -> None:
    data, sample = schema_of(0), rows_of(0)
    nothing = Sample(sample.features, np.zeros(len(sample.answers)))
    grown = grow(task(0, objective="count:poisson"), 1, no_trees(np.zeros(1)), nothing, data)
    assert grown.base == pytest.approx([np.log(1e-6)])


def test_parameters_that_xgboost_refuses_are_told() -> None:
    with pytest.raises(CloisterError, match="XGBRegressor could not be fitted"):
        grow(task(0, subsample=7.0), 1, no_trees(np.zeros(1)), rows_of(0), schema_of(0))


@pytest.mark.parametrize("change", [{flower.CLIPPING_NORM: 1.0}, {flower.REPORT: False}])
def test_a_site_does_not_pass_trees_off_as_private(change: dict[str, Any]) -> None:
    asked = {flower.ESTIMATOR: "XGBRegressor", flower.PARAMETERS: "{}"}
    assert task_of(asked).estimator.boosted
    with pytest.raises(CloisterError, match="not bounded by clipping"):
        task_of(asked | change)
