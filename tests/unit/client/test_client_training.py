"""Fitting and measuring at one site, against scikit-learn itself."""

from typing import Any

import numpy as np
import pytest
from measuring import metrics_of
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from cloister_client.data.shard import Sample, Shard
from cloister_client.training.fitting import Task, fit, train
from cloister_shared.datasets import DatasetName, schema
from cloister_shared.estimators import estimator
from cloister_shared.preprocessing import to_inputs
from cloister_shared.weights import LinearWeights

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
PARAMETERS: dict[str, Any] = {"penalty": "l2", "C": 1.0, "max_iter": 20, "warm_start": True}


def sample_of(name: DatasetName, data: Data) -> Sample:
    description = schema(name)
    return Sample(to_inputs(data[0], description), description.class_indices(data[1]))


@pytest.fixture(params=["digits", "breast_cancer"])
def name(request: pytest.FixtureRequest) -> DatasetName:
    dataset: DatasetName = request.param
    return dataset


@pytest.fixture
def sample(name: DatasetName, request: pytest.FixtureRequest) -> Sample:
    return sample_of(name, request.getfixturevalue(f"{name}_data"))


@pytest.fixture
def digits(digits_data: Data) -> Sample:
    return sample_of("digits", digits_data)


@pytest.fixture
def breast_cancer(breast_cancer_data: Data) -> Sample:
    return sample_of("breast_cancer", breast_cancer_data)


def only(sample: Sample, *classes: int) -> Sample:
    kept = np.isin(sample.answers, classes)
    return Sample(sample.features[kept], sample.answers[kept])


def half(sample: Sample, which: int) -> Sample:
    return Sample(sample.features[which::2], sample.answers[which::2])


def some_weights(name: DatasetName) -> LinearWeights:
    data = schema(name)
    generator = np.random.default_rng(3)
    return LinearWeights(
        generator.normal(size=(data.n_outputs, data.n_features)),
        generator.normal(size=data.n_outputs),
    )


def fitted(received: LinearWeights, sample: Sample, name: DatasetName) -> LinearWeights:
    return fit(estimator("LogisticRegression"), PARAMETERS, received, sample, schema(name))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_it_is_scikit_learns_own_warm_start(name: DatasetName, sample: Sample) -> None:
    model = LogisticRegression(**PARAMETERS)
    model.fit(half(sample, 0).features, half(sample, 0).answers)
    received = LinearWeights(model.coef_.copy(), model.intercept_.copy())
    result = fitted(received, half(sample, 1), name)
    model.fit(half(sample, 1).features, half(sample, 1).answers)
    np.testing.assert_allclose(result.coef, model.coef_, rtol=1e-9)
    np.testing.assert_allclose(result.intercept, model.intercept_, rtol=1e-9)


def test_an_unfinished_fit_is_not_warned_of_and_does_not_silence_others(digits: Sample) -> None:
    fitted(some_weights("digits"), digits, "digits")
    with pytest.warns(ConvergenceWarning):
        LogisticRegression(max_iter=1).fit(digits.features, digits.answers)


def test_what_is_received_is_not_changed(name: DatasetName, sample: Sample) -> None:
    received = some_weights(name)
    before = LinearWeights(received.coef.copy(), received.intercept.copy())
    for rows in (sample, only(sample, 1)):
        fitted(received, rows, name)
        assert np.array_equal(received.coef, before.coef)
        assert np.array_equal(received.intercept, before.intercept)


def test_the_loss_on_the_fitted_rows_falls(name: DatasetName, sample: Sample) -> None:
    for received in (LinearWeights.zeros(schema(name)), some_weights(name)):
        result = fitted(received, sample, name)
        assert metrics_of(result, sample).loss < 0.5 * metrics_of(received, sample).loss


@pytest.mark.parametrize("present", [(0, 1, 2, 4, 5, 6, 8, 9), (2, 5), (4,)])
def test_an_absent_class_keeps_the_row_it_received(
    digits: Sample, present: tuple[int, ...]
) -> None:
    received, rows = some_weights("digits"), only(digits, *present)
    result = fitted(received, rows, "digits")
    result.check(schema("digits"))
    absent = [row for row in range(10) if row not in present]
    assert np.array_equal(result.coef[absent], received.coef[absent])
    assert np.array_equal(result.intercept[absent], received.intercept[absent])
    for row in present:
        assert not np.allclose(result.coef[row], received.coef[row])
    assert metrics_of(result, rows).loss < metrics_of(received, rows).loss


@pytest.mark.parametrize("present", [0, 1])
def test_where_one_of_two_classes_is_absent_the_single_row_is_kept(
    breast_cancer: Sample, present: int
) -> None:
    received = some_weights("breast_cancer")
    result = fitted(received, only(breast_cancer, present), "breast_cancer")
    assert np.array_equal(result.coef, received.coef)
    assert np.array_equal(result.intercept, received.intercept)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_metrics_are_scikit_learns(name: DatasetName, sample: Sample) -> None:
    model = LogisticRegression(max_iter=5).fit(sample.features, sample.answers)
    metrics = metrics_of(LinearWeights(model.coef_, model.intercept_), sample)
    assert metrics.examples == len(sample.answers)
    assert metrics.quality == model.score(sample.features, sample.answers)
    expected = log_loss(sample.answers, model.predict_proba(sample.features))
    assert metrics.loss == pytest.approx(expected)


def test_metrics_of_one_class_and_of_zero_weights(name: DatasetName, sample: Sample) -> None:
    zeros = LinearWeights.zeros(schema(name))
    n_classes = len(schema(name).classes)
    assert metrics_of(zeros, sample).loss == pytest.approx(np.log(n_classes))
    assert metrics_of(zeros, only(sample, 0)).quality == 1
    assert metrics_of(zeros, only(sample, 1)).quality == 0


def shard_of(name: DatasetName, sample: Sample) -> Shard:
    return Shard(schema(name), train=half(sample, 0), validation=half(sample, 1))


def task(**changes: Any) -> Task:
    return Task(estimator("LogisticRegression"), PARAMETERS, **changes)


def test_training_gives_what_was_fitted_and_how_the_received_model_did(
    name: DatasetName, sample: Sample
) -> None:
    received, shard = some_weights(name), shard_of(name, sample)
    trained = train(task(), received, shard)
    expected = fitted(received, shard.train, name)
    assert np.array_equal(trained.weights.coef, expected.coef)
    assert np.array_equal(trained.weights.intercept, expected.intercept)
    assert np.array_equal(trained.update.coef, expected.coef - received.coef)
    assert np.array_equal(trained.update.intercept, expected.intercept - received.intercept)
    assert trained.examples == len(shard.train.answers)
    assert trained.metrics == metrics_of(received, shard.validation)


def test_training_is_pure(name: DatasetName, sample: Sample) -> None:
    received, shard = some_weights(name), shard_of(name, sample)
    first, second = (train(task(clipping_norm=1.0), received, shard) for _ in range(2))
    assert np.array_equal(first.weights.coef, second.weights.coef)
    assert first.metrics == second.metrics


@pytest.mark.parametrize("share", [1e-6, 0.3, 1 - 1e-12])
def test_an_update_beyond_the_norm_is_scaled_to_it(
    name: DatasetName, sample: Sample, share: float
) -> None:
    received, shard = some_weights(name), shard_of(name, sample)
    free = train(task(), received, shard).update
    clipped = train(task(clipping_norm=share * free.l2_norm), received, shard)
    assert clipped.update.l2_norm == pytest.approx(share * free.l2_norm, rel=1e-9)
    np.testing.assert_allclose(clipped.update.coef, share * free.coef, rtol=1e-9)
    np.testing.assert_allclose(clipped.update.intercept, share * free.intercept, rtol=1e-9)
    np.testing.assert_allclose(clipped.weights.coef, received.coef + clipped.update.coef)


def test_an_update_within_the_norm_stays_as_it_is(name: DatasetName, sample: Sample) -> None:
    received, shard = some_weights(name), shard_of(name, sample)
    free = train(task(), received, shard)
    same = train(task(clipping_norm=1.001 * free.update.l2_norm), received, shard)
    assert np.array_equal(same.weights.coef, free.weights.coef)
    assert np.array_equal(same.update.intercept, free.update.intercept)


def test_a_site_that_reports_nothing_counts_one(name: DatasetName, sample: Sample) -> None:
    trained = train(task(report=False), some_weights(name), shard_of(name, sample))
    assert trained.examples == 1
    assert trained.metrics is None


def test_the_norm_is_of_coefficients_and_intercepts_as_one_vector() -> None:
    assert LinearWeights(np.array([[2.0, 4.0]]), np.array([4.0])).l2_norm == 6.0
