"""Training where all rows are in one place: what is published, and what is refused."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits
from sklearn.metrics import mean_absolute_error, mean_squared_error
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.card import ModelCard, read_card
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import ESTIMATORS, sklearn_class
from cloister_shared.links import class_indices, link, probabilities, values
from cloister_shared.registry import Registry, Version
from cloister_shared.schema import DatasetSchema, Feature, Target
from cloister_shared.service import load_settings
from cloister_shared.weights import LinearWeights
from cloister_trainer.local.plan import estimator_parameters, inputs_digest
from cloister_trainer.local.rows import Rows, read_rows, split
from cloister_trainer.local.search import best, search
from cloister_trainer.local.settings import Settings
from cloister_trainer.local.training import train_locally

Make = Callable[..., Settings]
LINEAR = [row for row in ESTIMATORS.values() if row.family == "linear"]


def shapes() -> DatasetSchema:
    return DatasetSchema(
        dataset="shapes",
        features=tuple(Feature(name=f"pixel_{i}", low=0, high=16) for i in range(64)),
        classes=("zero", "one", "two"),
    )


def progression() -> DatasetSchema:
    names = load_diabetes().feature_names
    return DatasetSchema(
        dataset="progression",
        task="regression",
        features=tuple(Feature(name=name, low=0, high=400) for name in names),
        target=Target(low=1, high=360),
    )


def shape_rows(n: int = 200) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    features, digits = load_digits(n_class=3, return_X_y=True)
    return features[:n], np.array(shapes().classes)[digits[:n]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Settings of a training on rows of shapes, or of progression, with changes."""
    paths: dict[str, Path] = {}
    for data in (shapes(), progression()):
        paths[data.task] = tmp_path / f"{data.dataset}.json"
        paths[data.task].write_text(data.model_dump_json())
    features, labels = shape_rows()
    np.savez(tmp_path / "classification.npz", X=features, y=labels)
    found = load_diabetes(scaled=False)
    np.savez(tmp_path / "regression.npz", X=found.data, y=found.target)

    def make_settings(task: str = "classification", **changes: Any) -> Settings:
        fields: dict[str, Any] = {
            "schema_path": paths[task],
            "data_path": tmp_path / f"{task}.npz",
            "models_dir": tmp_path / "models",
        }
        return Settings(**(fields | changes))

    return make_settings


def published(settings: Settings) -> tuple[Version, ModelCard, LinearWeights]:
    version = Registry(settings.models_dir).open_current(settings.name)
    version.verify()
    return version, read_card(version.file(CARD)), LinearWeights.read(version.file(WEIGHTS))


def both(settings: Settings) -> tuple[Rows, Rows]:
    rows = read_rows(settings.data_path, settings.reading)
    return split(rows, settings.data, settings.validation_share, settings.seed)


@pytest.mark.parametrize("row", LINEAR, ids=lambda row: str(row.name))
def test_what_is_published_predicts_as_scikit_learns_own_fit(make: Make, row: Any) -> None:
    settings = make(row.task, estimator=row.name)
    train_locally(settings)
    _, card, weights = published(settings)
    assert (card.federation, card.rounds, card.estimator) == (None, (), row.name)
    assert set(card.libraries) == {"numpy", "scikit-learn"}
    fitted, kept = both(settings)
    own = sklearn_class(row)(**card.parameters).fit(fitted.inputs, fitted.answers)
    scores = kept.inputs @ weights.coef.T + weights.intercept
    meaning = link(row.name, card.parameters, len(card.data.classes))
    assert card.final is not None
    if row.task == "classification":
        np.testing.assert_array_equal(class_indices(scores), own.predict(kept.inputs))
        if hasattr(own, "predict_proba"):
            np.testing.assert_allclose(
                probabilities(scores, meaning), own.predict_proba(kept.inputs), atol=1e-12
            )
        assert card.final.accuracy == own.score(kept.inputs, kept.answers)
        assert own.score(kept.inputs, kept.answers) > 0.9
        assert card.final.absolute_error is None
    else:
        predicted = own.predict(kept.inputs)
        np.testing.assert_allclose(values(scores, meaning), predicted, rtol=1e-9)
        assert card.final.accuracy is None
        assert card.final.absolute_error == pytest.approx(
            mean_absolute_error(kept.answers, predicted)
        )
        assert card.final.loss == pytest.approx(mean_squared_error(kept.answers, predicted))


def test_a_second_run_does_nothing_unless_it_is_told_to(make: Make) -> None:
    first = train_locally(make())
    again = train_locally(make())
    assert (first.is_new, again.is_new) == (True, False)
    assert again.published.manifest.version == 1
    assert train_locally(make(retrain=True)).published.manifest.version == 2


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"validation_share": 0.2},
        {"estimator_parameters": {"C": 0.5}},
        {"grid": [{"C": [1]}]},
        {"grid": [{"C": [1]}], "folds": 3},
        {"out_of_bounds": "clip"},
        {"estimator": "LinearSVC"},
    ],
)
def test_another_training_has_another_digest(make: Make, change: dict[str, Any]) -> None:
    assert inputs_digest(make(**change)) != inputs_digest(make())
    assert inputs_digest(make(**change)) == inputs_digest(make(**change, model="other"))


def test_the_seed_is_of_the_splits_too(make: Make) -> None:
    # This one draws no random numbers itself.
    fixed = {"task": "regression", "estimator": "LinearRegression"}
    assert inputs_digest(make(**fixed, seed=1)) != inputs_digest(make(**fixed, seed=2))
    (one, _), (other, _) = both(make(seed=1)), both(make(seed=2))
    assert not np.array_equal(one.inputs, other.inputs)


def test_a_fit_goes_to_its_end(make: Make) -> None:
    assert estimator_parameters(make()) == {"random_state": 0}
    found = estimator_parameters(make(estimator="SGDClassifier", seed=3))
    assert found == {"random_state": 3, "loss": "log_loss"}


def test_every_class_has_its_share_of_the_rows_to_measure_on(make: Make) -> None:
    features, labels = shape_rows()
    kept = (labels != "two") | (np.cumsum(labels == "two") <= 10)
    settings = make(validation_share=0.2)
    np.savez(settings.data_path, X=features[kept], y=labels[kept])
    fitted, measured = both(settings)
    assert [np.bincount(rows.answers.astype(int))[2] for rows in (fitted, measured)] == [8, 2]


def test_other_rows_and_another_schema_are_another_training(make: Make) -> None:
    before = inputs_digest(make())
    features, labels = shape_rows(150)
    np.savez(make().data_path, X=features, y=labels)
    assert inputs_digest(make()) != before
    # Without a grid there are no folds.
    assert inputs_digest(make(folds=3)) == inputs_digest(make(folds=4))


def test_a_search_finds_what_scikit_learns_finds(make: Make) -> None:
    grid = {"C": [0.0001, 0.01, 1.0], "fit_intercept": [True, False]}
    settings = make(grid=[grid], folds=3)
    trained = train_locally(settings)
    fitted, _ = both(settings)
    own = GridSearchCV(
        sklearn_class(ESTIMATORS["LogisticRegression"])(random_state=0),
        grid,
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
    ).fit(fitted.inputs, fitted.answers)
    assert [one.parameters for one in trained.search] == own.cv_results_["params"]
    np.testing.assert_allclose(
        np.array([[one.mean, one.deviation] for one in trained.search], dtype=np.float64),
        np.column_stack([own.cv_results_["mean_test_score"], own.cv_results_["std_test_score"]]),
    )
    chosen = best(trained.search, settings.data)
    assert chosen.mean == own.best_score_
    assert trained.card.bits is None
    assert trained.card.parameters.items() >= chosen.parameters.items()


def test_bits_are_searched_with_the_rest_and_go_into_the_card(make: Make) -> None:
    grid = {"alpha": [1e-3, 10.0], "n_bits": [2, 8]}
    settings = make("regression", estimator="Ridge", grid=[grid], folds=3)
    trained = train_locally(settings)
    errors = {tuple(one.parameters.values()): one.mean or 0.0 for one in trained.search}
    assert len(errors) == 4
    # Coarse weights predict worse, and a smaller error is better.
    assert errors[1e-3, 2] > errors[1e-3, 8]
    assert trained.card.bits == 8
    assert trained.card.parameters["alpha"] == 1e-3
    assert "n_bits" not in trained.card.parameters
    # What a second run tells is what the first one found.
    assert train_locally(settings).search == trained.search


def test_of_equal_scores_the_fewest_bits_are_taken(make: Make) -> None:
    features, labels = shape_rows()
    easy = np.where(labels[:, None] == np.array(shapes().classes), 16.0, 0.0)
    settings = make(grid=[{"n_bits": [8, 4, 6]}], folds=2)
    np.savez(settings.data_path, X=np.hstack([easy, features[:, 3:] * 0]), y=labels)
    trained = train_locally(settings)
    assert [one.mean for one in trained.search] == [1.0, 1.0, 1.0]
    assert trained.card.bits == 4


def pipeline(row: Any, parameters: dict[str, Any]) -> Any:
    return make_pipeline(StandardScaler(), sklearn_class(row)(**parameters))


@pytest.mark.parametrize("row", LINEAR, ids=lambda row: str(row.name))
def test_standardised_it_predicts_as_scikit_learns_pipeline(make: Make, row: Any) -> None:
    settings = make(row.task, estimator=row.name, standardise=True)
    train_locally(settings)
    _, card, weights = published(settings)
    assert card.standardised
    fitted, kept = both(settings)
    own = pipeline(row, card.parameters).fit(fitted.inputs, fitted.answers)
    scores = weights.scores(kept.inputs)
    if row.task == "classification":
        decided = own.decision_function(kept.inputs)
        np.testing.assert_allclose(scores, decided, rtol=1e-9, atol=1e-9)
        assert card.final is not None
        assert card.final.accuracy == own.score(kept.inputs, kept.answers)
    else:
        meaning = link(row.name, card.parameters, 0)
        np.testing.assert_allclose(values(scores, meaning), own.predict(kept.inputs), rtol=1e-9)
    other = make(row.task, estimator=row.name)
    assert inputs_digest(settings) != inputs_digest(other)
    assert not published_anew(other).standardised


def published_anew(settings: Settings) -> ModelCard:
    train_locally(settings)
    return published(settings)[1]


def test_a_search_standardises_by_the_rows_that_a_fit_is_of(make: Make) -> None:
    settings = make(standardise=True, folds=3, grid=[{"C": [0.001, 1.0]}])
    trained = train_locally(settings)
    fitted, _ = both(settings)
    expected = GridSearchCV(
        pipeline(ESTIMATORS["LogisticRegression"], {}),
        {"logisticregression__C": [0.001, 1.0]},
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
    ).fit(fitted.inputs, fitted.answers)
    assert [one.parameters for one in trained.search] == [{"C": 0.001}, {"C": 1.0}]
    means = [one.mean for one in trained.search]
    assert means == pytest.approx(expected.cv_results_["mean_test_score"].tolist())
    _, card, weights = published(settings)
    assert card.parameters["C"] == expected.best_params_["logisticregression__C"]
    decided = expected.decision_function(fitted.inputs)
    np.testing.assert_allclose(weights.scores(fitted.inputs), decided, rtol=1e-9, atol=1e-9)


def test_a_search_over_bits_quantises_what_takes_inputs_as_they_are(make: Make) -> None:
    trained = train_locally(make(standardise=True, folds=2, grid=[{"n_bits": [2, 8]}]))
    coarse, fine = (one.mean or 0.0 for one in trained.search)
    assert fine > 0.95
    assert coarse < fine


def test_standardised_inputs_are_pruned_as_such_and_count_with_their_mean(make: Make) -> None:
    settings = make(standardise=True, prune=0.5)
    train_locally(settings)
    _, card, weights = published(settings)
    assert (card.standardised, card.pruned) == (True, 0.5)
    fitted, kept = both(settings)
    own = pipeline(ESTIMATORS[card.estimator], card.parameters).fit(fitted.inputs, fitted.answers)
    coef = own[-1].coef_
    least = np.argsort(np.abs(coef).max(axis=0), kind="stable")[:32]
    assert not weights.coef[:, least].any()
    without = kept.inputs.copy()
    without[:, least] = fitted.inputs[:, least].mean(axis=0)
    np.testing.assert_allclose(
        weights.scores(kept.inputs), own.decision_function(without), rtol=1e-9, atol=1e-9
    )


def test_several_grids_keep_apart_what_does_not_go_together(make: Make) -> None:
    grids = [
        {"penalty": ["l1"], "solver": ["liblinear"]},
        {"penalty": ["l2"], "solver": ["lbfgs"], "C": [0.1, 1], "n_bits": [5, 6]},
    ]
    trained = train_locally(make(grid=grids, folds=2))
    assert len(trained.search) == 5
    assert [one.bits for one in trained.search] == [None, 5, 6, 5, 6]


def test_a_combination_that_cannot_be_fitted_everywhere_is_not_chosen(make: Make) -> None:
    settings = make("regression", estimator="SGDRegressor")
    fitted, _ = both(settings)
    grid: dict[str, list[Any]] = {"eta0": [1e300, 1e-3], "learning_rate": ["constant"]}
    row = ESTIMATORS["SGDRegressor"]
    found = search(
        row, sklearn_class(row)(random_state=0), [grid], fitted, settings.data, folds=2, seed=0
    )
    assert [one.mean is None for one in found] == [True, False]
    assert best(found, settings.data).parameters["eta0"] == 1e-3
    with pytest.raises(CloisterError, match="no fit succeeded"):
        search(row, sklearn_class(row)(eta0=1e300), [{}], fitted, settings.data, folds=2, seed=0)


def test_a_large_search_says_how_large_it_is_and_goes_on(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloister_trainer.local.plan.MANY_FITS", 5)
    trained = train_locally(make(grid=[{"C": [0.1, 1], "n_bits": [4, 5, 6]}], folds=3))
    assert len(trained.search) == 6
    (record,) = [one for one in caplog.records if "searching" in one.getMessage()]
    assert record.getMessage() == "searching 6 combinations in 3 folds: 6 fits"
    assert record.levelname == "WARNING"


def test_a_fit_that_has_not_converged_is_told(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    train_locally(make(estimator_parameters={"max_iter": 1}))
    assert "stopped before it had converged" in caplog.text


def test_how_large_a_search_is_comes_before_all_else(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tried(*_: object) -> None:
        assert "searching 2 combinations in 5 folds: 10 fits" in caplog.text
        raise CloisterError("tried")

    monkeypatch.setattr("cloister_trainer.local.plan.check_suitable", tried)
    with caplog.at_level("INFO"), pytest.raises(CloisterError, match="tried"):
        train_locally(make(grid=[{"C": [0.1, 1]}]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimator": "Perceptron"}, "use one of: LogisticRegression"),
        ({"estimator": "Ridge"}, "Ridge does a regression: set CLOISTER_ESTIMATOR to one of Log"),
        ({"estimator_parameters": {"D": 1}}, "CLOISTER_ESTIMATOR_PARAMETERS: .*'D'"),
        ({"estimator_parameters": {"n_bits": 6}}, "n_bits is for CLOISTER_GRID, or CLOISTER_BITS"),
        ({"estimator_parameters": {"C": -1}}, "does not take this: .*'C' parameter"),
        ({"estimator_parameters": {"C": float("nan")}}, "finite|'C' parameter"),
        (
            {"estimator": "SGDClassifier", "estimator_parameters": {"loss": "hinge"}},
            "loss='hinge' cannot be compiled",
        ),
        ({"grid": [{"C": [1, -1]}]}, r"CLOISTER_GRID, {'C': -1}: .*does not take this"),
        ({"grid": [{"D": [1]}]}, r"CLOISTER_GRID, {'D': 1}: .*'D'"),
        ({"grid": [{"n_bits": [9]}]}, "n_bits is 9; it must be 2 to 8"),
        ({"grid": [{"n_bits": [True]}]}, "n_bits is True"),
        ({"model": "digits"}, "the name of another dataset"),
        (
            {
                "estimator": "DecisionTreeClassifier",
                "estimator_parameters": {"max_depth": 2},
                "standardise": True,
            },
            "CLOISTER_STANDARDISE is nothing to a DecisionTreeClassifier",
        ),
        ({"data_path": Path("nowhere.npz")}, "CLOISTER_DATA_PATH: nowhere.npz cannot be read"),
        ({"schema_path": Path("nowhere.json")}, "nowhere.json is missing"),
        ({"validation_share": 0.99}, "lower CLOISTER_VALIDATION_SHARE"),
        ({"grid": [{"C": [1]}], "folds": 150}, "lower CLOISTER_FOLDS"),
    ],
)
def test_what_cannot_be_done_is_refused(make: Make, change: dict[str, Any], message: str) -> None:
    settings = make(**change)
    with pytest.raises(CloisterError, match=message):
        train_locally(settings)
    assert Registry(settings.models_dir).names() == []


def damaged(what: str) -> dict[str, np.ndarray[Any, Any]]:
    features, labels = shape_rows()
    match what:
        case "a value is missing":
            features[3, 7] = np.nan
        case "a value is outside":
            features[3, 7] = 17
        case "a column is missing":
            features = features[:, 1:]
        case "a row has no label":
            labels = labels[1:]
        case "another label":
            labels = np.where(labels == "two", "three", labels)
        case "a class is missing":
            features, labels = features[labels != "two"], labels[labels != "two"]
        case "one class only":
            features, labels = features[labels == "two"], labels[labels == "two"]
        case "one row of a class":
            kept = (labels != "two") | (np.cumsum(labels == "two") == 1)
            features, labels = features[kept], labels[kept]
        case "no rows":
            features, labels = features[:0], labels[:0]
    return {"X": features, "y": labels}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("a value is missing", "row 3 .*, column 'pixel_7': the value is missing"),
        ("a value is outside", r"row 3 .*, column 'pixel_7': the value is outside .*\[0.0, 16.0\]"),
        ("a column is missing", r"X has shape \(200, 63\); shapes needs \(n, 64\)"),
        ("a row has no label", "has 200 rows of features and 199 labels"),
        ("another label", "the label is not a class; the classes are zero, one, two"),
        ("a class is missing", "class two has 0 rows to fit, and 2 are needed"),
        ("one class only", "class zero has 0 rows"),
        ("one row of a class", "class two has 1 rows to fit, and 2 are needed"),
        ("no rows", "it holds 0 rows"),
    ],
)
def test_rows_that_do_not_fit_are_refused(make: Make, what: str, message: str) -> None:
    settings = make()
    np.savez(settings.data_path, **damaged(what))
    with pytest.raises(CloisterError, match=message):
        train_locally(settings)
    assert Registry(settings.models_dir).names() == []


def test_values_outside_are_clipped_where_that_is_the_policy(make: Make) -> None:
    settings = make(out_of_bounds="clip")
    np.savez(settings.data_path, **damaged("a value is outside"))
    assert train_locally(settings).card.out_of_bounds == "clip"


def test_too_few_rows_of_a_regression_are_refused(make: Make) -> None:
    settings = make("regression", estimator="Ridge")
    np.savez(settings.data_path, X=np.ones((2, 10)), y=np.array([5.0, 6.0]))
    with pytest.raises(CloisterError, match="too few left to fit"):
        train_locally(settings)


def test_a_model_that_learnt_nothing_is_not_published(make: Make) -> None:
    settings = make("regression", estimator="Lasso", estimator_parameters={"alpha": 1e6})
    with pytest.raises(CloisterError, match="every weight is 0"):
        train_locally(settings)
    assert Registry(settings.models_dir).names() == []


def test_a_grid_comes_from_the_environment_as_one_object_or_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for text in ('{"C": [1, 2]}', '[{"C": [1, 2]}]'):
        monkeypatch.setenv("CLOISTER_GRID", text)
        assert load_settings(Settings).grid == [{"C": [1, 2]}]
    for wrong in ("C=1", '{"C": 1}', '{"C": []}', "[1]"):
        monkeypatch.setenv("CLOISTER_GRID", wrong)
        with pytest.raises(CloisterError, match="CLOISTER_GRID"):
            load_settings(Settings)


def environment(settings: Settings, **more: str) -> dict[str, str]:
    named = {
        f"CLOISTER_{name.upper()}": str(getattr(settings, name))
        for name in ("schema_path", "data_path", "models_dir")
    }
    return os.environ | named | more


def run(settings: Settings, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cloister_trainer.local", *arguments],
        env=environment(settings, **more),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_program_prints_a_table_or_json_on_standard_output(make: Make) -> None:
    search = {"CLOISTER_GRID": '{"C": [0.1, 1], "n_bits": [3, 8]}', "CLOISTER_FOLDS": "2"}
    told = run(make(), **search)
    assert told.returncode == 0, told.stderr
    lines = [line.split("│") for line in told.stdout.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in cells[1:3]] for cells in lines] == [
        *(["0.1", "3"], ["0.1", "8"], ["1", "3"], ["1", "8"])
    ]
    assert [cells[5].strip() for cells in lines].count("chosen") == 1
    assert "shapes, version 1: LogisticRegression" in told.stdout
    assert "published version 1 of shapes" in told.stderr
    again = run(make(), "--json", **search)
    assert again.returncode == 0, again.stderr
    shown = json.loads(again.stdout)
    assert (shown["version"], shown["trained"], shown["score"]) == (1, False, "accuracy")
    (chosen,) = [one for one in shown["search"] if one["chosen"]]
    assert chosen["parameters"]["n_bits"] == shown["bits"]
    assert "version 1 of shapes is trained already" in again.stderr


def test_the_program_refuses_in_one_line(make: Make) -> None:
    failed = run(make(), CLOISTER_ESTIMATOR_PARAMETERS='{"C": -1}')
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "ERROR" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_search_that_is_interrupted_leaves_nothing(make: Make) -> None:
    settings = make()
    grid = json.dumps({"C": [0.1 * step for step in range(1, 2000)]})
    with subprocess.Popen(
        [sys.executable, "-m", "cloister_trainer.local"],
        env=environment(settings, CLOISTER_GRID=grid),
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stderr is not None
        for line in program.stderr:
            if "searching" in line:
                break
        program.send_signal(signal.SIGINT)
        program.stderr.read()
    assert program.returncode == 130
    assert Registry(settings.models_dir).names() == []
    assert list(settings.models_dir.glob("*/*")) == []


def test_it_needs_no_flower() -> None:
    script = """
import sys
import cloister_trainer.local.__main__
assert not {"flwr", "grpc", "concrete", "torch"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
