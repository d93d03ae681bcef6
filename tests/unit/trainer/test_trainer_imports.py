"""Models that were trained elsewhere: what is published predicts as they do."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.card import ModelCard, read_card
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import ESTIMATORS, sklearn_class
from cloister_shared.links import class_indices, has_probabilities, link, probabilities, values
from cloister_shared.preprocessing import to_inputs
from cloister_shared.registry import Registry
from cloister_shared.schema import DatasetSchema, Feature, Target
from cloister_shared.weights import LinearWeights
from cloister_trainer.imports import archives
from cloister_trainer.imports.folding import fold
from cloister_trainer.imports.foreign import Foreign, Step
from cloister_trainer.imports.importing import Request, import_model
from cloister_trainer.imports.settings import Settings

LINEAR = [row for row in ESTIMATORS.values() if row.family == "linear"]
Floats = np.ndarray[Any, Any]
Take = Callable[..., None]


def save_skops(model: object, path: Path) -> None:
    skops.io.dump(model, path)


def save_pickle(model: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(model))


def save_joblib(model: object, path: Path) -> None:
    joblib.dump(model, path)


def save_compressed(model: object, path: Path) -> None:
    joblib.dump(model, path, compress=3)


SAVERS = (save_skops, save_pickle, save_joblib, save_compressed)


def progression() -> DatasetSchema:
    return DatasetSchema(
        dataset="progression",
        task="regression",
        features=tuple(
            Feature(name=name, low=-40, high=400) for name in load_diabetes().feature_names
        ),
        target=Target(low=1, high=360),
    )


def rows_of(task: str) -> tuple[DatasetSchema, Floats, Floats]:
    if task == "classification":
        features, labels = load_digits(return_X_y=True)
        return schema("digits"), features[:400], labels[:400]
    found = load_diabetes(scaled=False)
    return progression(), found.data, found.target


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(models_dir=tmp_path / "models")


@pytest.fixture
def take(settings: Settings, tmp_path: Path) -> Take:
    """Import a model, saved by a saver or written already, under the name ``taken``."""

    def take_over(
        model: object,
        data: DatasetSchema,
        save: Callable[[Any, Path], None] = save_skops,
        **changes: Any,
    ) -> None:
        path, described = tmp_path / "model", tmp_path / "schema.json"
        if isinstance(model, Path):
            path = model
        else:
            save(model, path)
        described.write_text(data.model_dump_json())
        fields: dict[str, Any] = {
            "path": path,
            "schema": str(described),
            "name": "taken",
            "allow_pickle": save is not save_skops,
        }
        import_model(settings, Request(**(fields | changes)))

    return take_over


def published(settings: Settings) -> tuple[ModelCard, LinearWeights]:
    version = Registry(settings.models_dir).open_current("taken")
    version.verify()
    return read_card(version.file(CARD)), LinearWeights.read(version.file(WEIGHTS))


def scores_of(settings: Settings, unit: Floats) -> Floats:
    _, weights = published(settings)
    scores: Floats = unit @ weights.coef.T + weights.intercept
    return scores


def check_predictions(settings: Settings, model: Any, raw: Floats, unit: Floats) -> None:
    """Compare what is published with the model itself, on the same rows."""
    card, _ = published(settings)
    scores = scores_of(settings, unit)
    meaning = link(card.estimator, card.parameters, len(card.data.classes))
    if card.data.task == "regression":
        np.testing.assert_allclose(values(scores, meaning), model.predict(raw), rtol=1e-7)
        return
    np.testing.assert_array_equal(card.data.labels(class_indices(scores)), model.predict(raw))
    if has_probabilities(meaning):
        found = probabilities(scores, meaning)
        np.testing.assert_allclose(found, model.predict_proba(raw), atol=1e-9)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("row", LINEAR, ids=lambda row: str(row.name))
def test_every_linear_estimator_predicts_as_before(
    row: Any, take: Take, settings: Settings
) -> None:
    data, features, answers = rows_of(row.task)
    model = sklearn_class(row)(**row.defaults).fit(features / 100, answers)
    # Fitted on values that the scaler brings to where these estimators converge.
    pipeline = Pipeline(
        [("scaler", MinMaxScaler().fit(features)), ("pass", "passthrough"), ("model", model)]
    )
    take(pipeline, data)
    card, _ = published(settings)
    assert (card.estimator, card.final, card.federation) == (row.name, None, None)
    check_predictions(settings, pipeline, features, to_inputs(features, data))


@pytest.mark.parametrize("save", SAVERS)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_kind_of_file_does_not_matter(
    save: Callable[[Any, Path], None], task: str, take: Take, settings: Settings
) -> None:
    data, features, answers = rows_of(task)
    estimator = SGDClassifier(loss="log_loss", random_state=np.random.RandomState(0))
    model = make_pipeline(
        StandardScaler(), estimator if task == "classification" else LinearRegression()
    ).fit(features, answers)
    take(model, data, save)
    check_predictions(settings, model, features, to_inputs(features, data))
    take(model, data, save_skops)
    assert Registry(settings.models_dir).versions("taken") == [1]


def test_a_model_of_scaled_values_is_taken_as_it_is(take: Take, settings: Settings) -> None:
    data, features, labels = rows_of("classification")
    unit = to_inputs(features, data)
    model = LogisticRegression(max_iter=1000).fit(unit, labels)
    take(model, data, fitted_on="unit")
    _, weights = published(settings)
    np.testing.assert_array_equal(weights.coef, model.coef_)
    check_predictions(settings, model, unit, unit)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_model_is_measured_on_rows_where_there_are_some(
    task: str, take: Take, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, features, answers = rows_of(task)
    model = make_pipeline(
        StandardScaler(), LogisticRegression() if task == "classification" else LinearRegression()
    ).fit(features, answers)
    np.savez(tmp_path / "rows.npz", X=features, y=answers)
    with caplog.at_level("INFO"):
        take(model, data, rows=tmp_path / "rows.npz")
    final = published(settings)[0].final
    assert final is not None
    if task == "classification":
        assert final.accuracy == model.score(features, answers)
        # What the model does not take tells itself.
        take(model, data, rows=tmp_path / "rows.npz", fitted_on="unit")
        misread = published(settings)[0].final
        assert misread is not None
        assert (misread.accuracy or 0) < 0.5
    else:
        error = np.abs(model.predict(features) - answers).mean()
        assert final.absolute_error == pytest.approx(error)
    assert f"on {len(answers)} rows: " in caplog.text


def the_recipe() -> tuple[LogisticRegression, Floats]:
    """Flower's sklearn-logreg-mnist, on digits: a few rounds in which weights are set by hand."""

    def create() -> LogisticRegression:
        model = LogisticRegression(penalty="l2", max_iter=1, warm_start=True)
        model.classes_ = np.array(list(range(10)))
        model.coef_ = np.zeros((10, 64))
        model.intercept_ = np.zeros((10,))
        return model

    features, labels = load_digits(return_X_y=True)
    features = features / 16
    parameters = [create().coef_, create().intercept_]
    for _ in range(3):
        found = []
        for site in range(3):
            model = create()
            model.coef_, model.intercept_ = (array.copy() for array in parameters)
            model.fit(features[site::3], labels[site::3])
            found.append([model.coef_, model.intercept_])
        parameters = [np.mean(arrays, axis=0) for arrays in zip(*found, strict=True)]
    model = create()
    model.coef_, model.intercept_ = parameters
    return model, features


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", ["arrays", "pickle", "skops"])
def test_a_model_of_flowers_recipe_works_unchanged(
    kind: str, take: Take, settings: Settings, tmp_path: Path
) -> None:
    model, features = the_recipe()
    if kind == "arrays":
        path, card = tmp_path / "round-3-weights.npz", tmp_path / "card.json"
        np.savez(path, *[model.coef_, model.intercept_])
        described = {
            "estimator": "LogisticRegression",
            "parameters": {"penalty": "l2", "max_iter": 1, "warm_start": True},
        }
        card.write_text(json.dumps(described))
        take(path, schema("digits"), fitted_on="unit", card=card)
    else:
        save = save_skops if kind == "skops" else save_pickle
        take(model, schema("digits"), save, fitted_on="unit")
    card_written, weights = published(settings)
    np.testing.assert_array_equal(weights.coef, model.coef_)
    assert card_written.parameters["warm_start"] is True
    assert model.score(features, load_digits().target) > 0.8
    check_predictions(settings, model, features, features)


@given(
    seed=st.integers(0, 2**32 - 1),
    n_features=st.integers(1, 6),
    n_classes=st.integers(0, 5).filter(lambda n: n != 1),
    scalers=st.lists(
        st.sampled_from(
            (
                StandardScaler(),
                StandardScaler(with_mean=False),
                StandardScaler(with_std=False),
                MinMaxScaler(feature_range=(-3, 5)),
            )
        ),
        max_size=2,
    ),
    fitted_on=st.sampled_from(("raw", "unit")),
)
def test_folding_changes_no_score(
    seed: int, n_features: int, n_classes: int, scalers: list[Any], fitted_on: Any
) -> None:
    generator = np.random.default_rng(seed)
    lows = generator.normal(size=n_features) * 10.0 ** generator.integers(-2, 3, n_features)
    widths = generator.uniform(0.1, 1, n_features) * 10.0 ** generator.integers(-2, 3, n_features)
    classes = tuple(generator.permutation(n_classes).tolist())
    names = [f"f{i}" for i in range(n_features)]
    data = DatasetSchema(
        dataset="d",
        task="classification" if n_classes else "regression",
        features=tuple(
            Feature(name=name, low=low, high=low + width)
            for name, low, width in zip(names, lows, widths, strict=True)
        ),
        classes=classes,
        target=None if n_classes else Target(low=0, high=1),
    )
    raw = data.bounds.lows + generator.random((20, n_features)) * (
        data.bounds.highs - data.bounds.lows
    )
    unit = to_inputs(raw, data, "clip")
    # The model has the features, and the classes, in another order.
    order = generator.permutation(n_features)
    given_rows = (raw if fitted_on == "raw" else unit)[:, order]
    transformed = given_rows
    steps = []
    for scaler in scalers:
        fitted = type(scaler)(**scaler.get_params()).fit(transformed)
        transformed = fitted.transform(transformed)
        steps.append(Step(type(scaler).__name__, vars(fitted)))
    n_outputs = data.n_outputs
    coef, intercept = (
        generator.normal(size=(n_outputs, n_features)),
        generator.normal(size=n_outputs),
    )
    attributes: dict[str, Any] = {"coef_": coef, "intercept_": intercept}
    attributes["feature_names_in_"] = np.array(names, dtype=object)[order]
    kind = "LinearRegression"
    expected = transformed @ coef.T + intercept
    if n_classes:
        kind = "LogisticRegression"
        attributes["classes_"] = np.arange(n_classes)
        if n_classes > 2:
            expected = expected[:, list(classes)]
        elif classes == (1, 0):
            expected = -expected
    weights = fold(Foreign(tuple(steps), Step(kind, attributes)), data, fitted_on)
    scores = unit @ weights.coef.T + weights.intercept
    scale = 1 + np.abs(transformed).max() * n_features
    # What cancels where a scaler takes a large mean from narrow bounds.
    scale += np.abs(given_rows).max() * np.abs(weights.coef).max() / widths.min()
    np.testing.assert_allclose(scores, expected, atol=1e-10 * scale)


def test_labels_are_compared_as_text_and_taken_in_the_schemas_order(
    take: Take, settings: Settings
) -> None:
    _, features, labels = rows_of("classification")
    for classes in ((3, "1", 2), ("1", 3)):
        data = schema("digits").model_copy(update={"classes": classes})
        kept = np.isin(labels, [int(label) for label in classes])
        model = LogisticRegression(max_iter=5000).fit(features[kept], labels[kept].astype(float))
        take(model, data)
        scores = scores_of(settings, to_inputs(features[kept], data))
        found = data.labels(class_indices(scores)).astype(float)
        np.testing.assert_array_equal(found, model.predict(features[kept]))


def test_features_of_other_names_are_told(
    take: Take, settings: Settings, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path, card = tmp_path / "m.npz", tmp_path / "card.json"
    np.savez(path, coef=np.ones((1, 10)), intercept=np.zeros(1))
    names = [f"column {i}" for i in range(10)]
    card.write_text(json.dumps({"estimator": "Ridge", "features": names}))
    take(path, progression(), card=card)
    assert "names its features otherwise than progression" in caplog.text


def test_a_second_import_of_the_same_model_does_nothing(take: Take, settings: Settings) -> None:
    data, features, labels = rows_of("classification")
    for model in (LogisticRegression(C=1), LogisticRegression(C=1), LogisticRegression(C=2)):
        take(model.set_params(max_iter=5000).fit(features, labels), data)
    assert Registry(settings.models_dir).versions("taken") == [1, 2]


def digits_model(**parameters: Any) -> LogisticRegression:
    model = LogisticRegression(**parameters)
    model.classes_ = np.arange(10)
    model.coef_, model.intercept_ = np.ones((10, 64)), np.zeros(10)
    return model


def changed(**attributes: Any) -> LogisticRegression:
    model = digits_model()
    for name, value in attributes.items():
        if value is None:
            delattr(model, name)
        else:
            setattr(model, name, value)
    return model


class OwnEstimator(BaseEstimator):  # type: ignore[misc]
    """Not one of scikit-learn's."""


@pytest.mark.parametrize("save", [save_skops, save_pickle])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (changed(coef_=None), "has no coef_: it is not fitted"),
        (changed(coef_=np.ones((10, 63))), "takes 63 features, and digits has 64"),
        (changed(coef_=np.ones((9, 64))), "coef of shape|9 rows"),
        (changed(coef_=np.full((10, 64), np.nan)), "coef holds values that are not finite"),
        (changed(intercept_=np.full(10, np.inf)), "intercept holds values that are not finite"),
        (changed(coef_=np.ones((10, 64)) * 1j), "coef holds complex128"),
        (changed(coef_=np.ones((10, 64)).astype(str)), "coef holds <U"),
        (changed(coef_=np.ones((2, 10, 64))), "make no linear model"),
        (changed(coef_=[[1.0] * 64] * 10), "coef_ is no array"),
        (changed(classes_=np.arange(1, 11)), "the model's classes are 1, .* of digits are 0, 1"),
        (changed(classes_=np.arange(9)), "the model's classes are 0"),
        (changed(classes_=np.zeros(10)), "the model's classes are 0"),
        (digits_model(C=-1.0), "the model's parameters: .*does not take this"),
        (SGDClassifier(loss="hinge"), "loss='hinge' cannot be compiled"),
        (LinearRegression(), "digits is a classification, and LinearRegression does a regression"),
        (DecisionTreeClassifier(), "publish it by .*publish_tree"),
        (StandardScaler(), "ends with a scaler"),
        (make_pipeline(digits_model(), StandardScaler()), "ends with a scaler|LogisticRegression"),
        (make_pipeline(digits_model(), digits_model()), "has a LogisticRegression before its end"),
        (make_pipeline(StandardScaler(), digits_model()), "StandardScaler has no scale_"),
        (
            make_pipeline(MinMaxScaler(clip=True).fit(np.eye(64)), digits_model()),
            "that clips cannot be folded",
        ),
        (
            make_pipeline(StandardScaler().fit(np.eye(63)), digits_model()),
            r"scale_ is float64 of shape \(63,\)",
        ),
        (
            make_pipeline(FunctionTransformer(), digits_model()),
            r"a sklearn\S*\.FunctionTransformer",
        ),
        (OwnEstimator(), r"a \S*OwnEstimator; .*scikit-learn's own LogisticRegression"),
    ],
)
def test_what_is_no_model_of_the_schema_is_refused(
    model: Any, message: str, save: Callable[[Any, Path], None], take: Take, settings: Settings
) -> None:
    with pytest.raises(CloisterError, match=message):
        take(model, schema("digits"), save)
    assert Registry(settings.models_dir).names() == []


@pytest.mark.parametrize("save", [save_skops, save_pickle])
def test_another_version_of_scikit_learn_is_told_with_both(
    save: Callable[[Any, Path], None],
    take: Take,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = settings.models_dir.parent / "old"
    with monkeypatch.context() as patched:
        patched.setattr("sklearn.base.__version__", "1.2.9")
        save(digits_model(), path)
    take(path, schema("digits"), save, allow_pickle=True)
    assert "made by scikit-learn 1.2.9, and this is 1.5.0" in caplog.text
    assert published(settings)[0].libraries == {"scikit-learn": "1.2.9"}


@pytest.mark.parametrize(
    ("card", "arrays", "message"),
    [
        (None, {}, "holds arrays alone: say by --card"),
        ("{", {}, "does not describe a model"),
        ({"parameters": {}}, {}, "does not describe a model"),
        ({"estimator": "Ridge", "name": "x"}, {}, "does not describe a model"),
        ({"estimator": "Perceptron"}, {}, "use one of: LogisticRegression"),
        ({"estimator": "Ridge", "parameters": {"C": 1}}, {}, "Ridge has no parameter 'C'"),
        ({"estimator": "Ridge"}, {"coef": np.ones((1, 9))}, "takes 9 features"),
        ({"estimator": "Ridge"}, {"coef": np.ones((2, 10))}, "make no linear|not \\(1, 10\\)"),
        (
            {"estimator": "Ridge"},
            {"weights": np.ones((1, 10))},
            "lacks the arrays .*coef and inter",
        ),
        (
            {"estimator": "Ridge"},
            {"coef": np.array([None] * 10, dtype=object)},
            "no array of object",
        ),
    ],
)
def test_arrays_that_are_no_model_are_refused(
    card: Any, arrays: dict[str, Floats], message: str, take: Take, tmp_path: Path
) -> None:
    path, described = tmp_path / "m.npz", tmp_path / "card.json"
    fields = {"intercept": np.zeros(1), **(arrays or {"coef": np.ones((1, 10))})}
    np.savez(path, allow_pickle=True, **fields)
    if card is not None:
        described.write_text(card if isinstance(card, str) else json.dumps(card))
    with pytest.raises(CloisterError, match=message):
        take(path, progression(), card=None if card is None else described)


def test_sgds_default_loss_is_not_taken_for_one_that_can_be_served(
    take: Take, tmp_path: Path
) -> None:
    path, card = tmp_path / "m.npz", tmp_path / "card.json"
    np.savez(path, coef=np.ones((10, 64)), intercept=np.zeros(10))
    card.write_text(json.dumps({"estimator": "SGDClassifier"}))
    with pytest.raises(CloisterError, match="loss='hinge' cannot be compiled"):
        take(path, schema("digits"), card=card)


class Writes:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("save", [save_pickle, save_joblib, save_compressed])
@pytest.mark.parametrize("name", ["model.pkl", "model.skops", "model.npz", "model"])
def test_nothing_is_unpickled_without_being_allowed(
    save: Callable[[Any, Path], None], name: str, take: Take, tmp_path: Path
) -> None:
    evidence, path = tmp_path / "was here", tmp_path / name
    save(Writes(evidence), path)
    with pytest.raises(CloisterError, match=r"runs whatever code is in it.*add --allow-pickle"):
        take(path, schema("digits"), allow_pickle=False)
    assert not evidence.exists()
    # It would have.
    with pytest.raises(CloisterError, match="NoneType"):
        take(path, schema("digits"), allow_pickle=True)
    assert evidence.exists()


def test_a_pickle_within_an_npz_is_not_unpickled(take: Take, tmp_path: Path) -> None:
    evidence, path, card = tmp_path / "was here", tmp_path / "m.npz", tmp_path / "card.json"
    coef = np.array([Writes(evidence)] * 10, dtype=object)
    np.savez(path, allow_pickle=True, coef=coef, intercept=np.zeros(1))
    card.write_text(json.dumps({"estimator": "Ridge"}))
    with pytest.raises(CloisterError, match=r"is damaged: coef\.npy"):
        take(path, progression(), card=card, allow_pickle=True)
    assert not evidence.exists()


def skops_of(tmp_path: Path, tree: Any, **files: bytes) -> Path:
    path = tmp_path / "crafted.skops"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", tree if isinstance(tree, str) else json.dumps(tree))
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def node(loader: str, module: str, name: str, content: Any) -> dict[str, Any]:
    return {"__loader__": loader, "__module__": module, "__class__": name, "content": content}


def members(**found: Any) -> dict[str, Any]:
    return node(
        "ObjectNode", "sklearn.linear_model._logistic", "LogisticRegression", {"content": found}
    )


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("{", "is not what skops writes"),
        ("[" * 100_000, "is not what skops writes"),
        ([], "is not what skops writes"),
        ({}, "is not what skops writes"),
        (node("FunctionNode", "os", "system", {}), r"the model holds a os\.system"),
        (node("OperatorFuncNode", "operator", "call", {}), r"the model holds a operator\.call"),
        (
            # The name is let through, the loader runs another function.
            node("OperatorFuncNode", "sklearn.linear_model", "Ridge", {"attrs": {}}),
            "OperatorFuncNode named Ridge",
        ),
        (
            node("ObjectNode", "sklearnx.linear_model", "Ridge", {}),
            r"a sklearnx\.linear_model\.Ridge",
        ),
        (members(coef_={"__loader__": "NdArrayNode", "type": "numpy", "file": "no.npy"}), "no.npy"),
        (members(coef_={"__loader__": "NdArrayNode", "type": "numpy", "file": 7}), "damaged"),
        (members(coef_={"__loader__": "JsonNode", "content": "NaN"}), "coef_ is no array"),
        (members(coef_={"__loader__": "MethodNode"}), "coef_ is no array"),
    ],
)
def test_a_crafted_skops_file_is_refused(
    tree: Any, message: str, take: Take, tmp_path: Path
) -> None:
    with pytest.raises(CloisterError, match=message):
        take(skops_of(tmp_path, tree), schema("digits"))


def test_an_array_that_only_claims_to_be_large_is_refused(take: Take, tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(  # type: ignore[no-untyped-call]
        stream, {"descr": "<f8", "fortran_order": False, "shape": (1 << 40, 1 << 20)}
    )
    array = {"__loader__": "NdArrayNode", "type": "numpy", "file": "large.npy"}
    path = skops_of(tmp_path, members(coef_=array), **{"large.npy": stream.getvalue()})
    with pytest.raises(CloisterError, match=r"large\.npy: its content is no array of float64"):
        take(path, schema("digits"))


def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.npz"
    monkeypatch.setattr(archives, "LARGEST_BYTES", 1000)
    np.savez_compressed(path, coef=np.zeros(10_000), intercept=np.zeros(1))
    assert path.stat().st_size < 1000
    with pytest.raises(CloisterError, match=r"would unpack to 80,\d+ bytes"):
        take(path, schema("digits"))


@pytest.mark.parametrize("save", SAVERS)
def test_a_file_that_is_cut_short_anywhere_is_refused(
    save: Callable[[Any, Path], None], take: Take, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "whole"
    save(digits_model(), path)
    content = path.read_bytes()
    # The last bytes of a compressed file are a checksum, which joblib does not read.
    for length in range(0, len(content) - 8, max(len(content) // 20, 1)):
        path.write_bytes(content[:length])
        with pytest.raises(CloisterError, match=r"damaged|cannot be unpickled|is no model"):
            take(path, schema("digits"), allow_pickle=True)
    assert Registry(settings.models_dir).names() == []


@given(content=st.binary(max_size=200))
def test_any_other_bytes_are_refused(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(content)
    with pytest.raises(CloisterError, match=r"is no model|add --allow-pickle|damaged"):
        import_model(Settings(), Request(path=path, schema="digits", name="taken"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "nothing.json"}, r"nothing\.json is missing"),
        ({"path": Path("nothing")}, "nothing cannot be read: No such file"),
        ({"name": "mnist"}, "--name mnist is the name of another dataset"),
        ({"name": "No Name"}, "is not a model name"),
        ({"card": Path("card.json")}, "--card is for an .npz"),
    ],
)
def test_what_is_asked_for_wrongly_is_told(
    changes: dict[str, Any], message: str, take: Take
) -> None:
    with pytest.raises(CloisterError, match=message):
        take(digits_model(), schema("digits"), **changes)


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cloister_trainer.imports", *arguments],
        env=os.environ | {"CLOISTER_MODELS_DIR": str(folder / "models")},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_program_warns_of_a_pickle_and_refuses_it_unless_allowed(tmp_path: Path) -> None:
    save_pickle(digits_model(), tmp_path / "model.pkl")
    arguments = ("model.pkl", "--schema", "digits", "--name", "mine", "--fitted-on", "unit")
    refused = run(tmp_path, *arguments)
    assert refused.returncode == 1
    assert "add --allow-pickle" in refused.stderr
    assert "Traceback" not in refused.stderr
    taken = run(tmp_path, *arguments, "--allow-pickle")
    assert taken.returncode == 0, taken.stderr
    assert (
        "WARNING trainer: --allow-pickle: unpickling model.pkl runs whatever code" in taken.stderr
    )
    assert "published version 1 of mine: LogisticRegression" in taken.stderr
    again = run(tmp_path, *arguments, "--allow-pickle")
    assert again.returncode == 0, again.stderr
    assert Registry(tmp_path / "models").versions("mine") == [1]
