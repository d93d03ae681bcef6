"""The public description of a dataset."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cloister_shared.errors import CloisterError
from cloister_shared.schema import DatasetSchema, Feature, Target, read_schema


def category(name: str = "a", **changes: Any) -> dict[str, Any]:
    return {"name": name, "categories": ["x", "y"]} | changes


def schema(**changes: Any) -> DatasetSchema:
    valid: dict[str, Any] = {
        "dataset": "small",
        "features": [{"name": f"f{i}", "low": 0, "high": 1} for i in range(4)],
        "classes": [0, 1, 2],
    }
    return DatasetSchema.model_validate(valid | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": []}, "features"),
        ({"features": [{"name": "a", "low": 0, "high": 1}] * 2}, "names must be unique"),
        ({"features": [{"name": "a", "low": 1, "high": 1}]}, "must be below"),
        ({"features": [{"name": "a", "low": 2, "high": 1}]}, "must be below"),
        ({"features": [{"name": "a", "low": float("nan"), "high": 1}]}, "finite"),
        ({"features": [{"name": "a", "low": 0, "high": float("inf")}]}, "finite"),
        ({"features": [{"name": "a", "low": -1e308, "high": 1e308}]}, "too far apart"),
        ({"features": [{"name": "", "low": 0, "high": 1}]}, "name"),
        ({"features": [{"name": "a", "low": 0, "high": 1, "unit": "m"}]}, "unit"),
        ({"classes": [0]}, "classes"),
        ({"classes": [0, 0]}, "classes must be unique"),
        ({"classes": [1, "1"]}, "classes must be unique"),
        ({"image_shape": [3, 2]}, "does not hold 4 features"),
        ({"image_shape": [-2, -2]}, "greater than 0"),
        ({"task": "regression"}, "task"),
        ({"features": [{"name": "a", "low": 0, "high": 1, "missing": 2}]}, "must be within"),
        ({"features": [{"name": "a", "categories": ["x"]}]}, "at least 2"),
        ({"features": [{"name": "a", "categories": ["1", 1]}]}, "categories must be unique"),
        ({"features": [category(missing="z")]}, "missing must be one of the categories"),
        ({"features": [category(unknown="guess")]}, "refuse"),
        ({"features": [category(low=0)]}, "low"),
        ({"features": [category(name="a", categories=list(range(65537)))]}, "65536 are the most"),
        ({"pool": 2}, "give image_shape too"),
        ({"image_shape": [2, 2], "pool": 3}, "does not divide"),
        ({"image_shape": [2, 1], "features": [category("a"), category("b")]}, "no categories"),
        ({"dataset": ""}, "dataset"),
        ({"rows": 3}, "rows"),
    ],
)
def test_a_schema_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        schema(**changes)


def test_shapes_follow_scikit_learn() -> None:
    assert (schema().n_features, schema().n_outputs) == (4, 3)
    assert schema(classes=["no", "yes"]).n_outputs == 1
    assert schema(image_shape=[2, 2]).image_shape == (2, 2)


def test_categories_are_an_input_each_and_pools_one_for_their_pixels() -> None:
    mixed = schema(features=[{"name": "age", "low": 0, "high": 1}, category("sex")])
    assert (mixed.n_features, mixed.n_inputs) == (2, 3)
    assert mixed.input_names == ("age", "sex=x", "sex=y")
    assert mixed.has_categories
    pooled = schema(image_shape=[2, 2], pool=2)
    assert (pooled.n_features, pooled.n_inputs, pooled.input_names) == (4, 1, ("pool_0_0",))
    assert schema().input_names == ("f0", "f1", "f2", "f3")


REGRESSION = schema(task="regression", classes=(), target=Target(low=-1, high=3))


def test_targets_are_numbers_in_their_own_unit() -> None:
    for values in ([-1, 0.5, 3], np.array([-1, 0, 3]), ["-1", "0.5", " 3"]):
        found = REGRESSION.answers(values)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, np.array(values, dtype=np.float64))
    with pytest.raises(CloisterError, match="small is a classification: it has no target"):
        schema().targets([1])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([0, 3.01], r"row 1: the target is missing, or outside its declared bounds \[-1.0, 3.0\]"),
        ([-1.01, 0], "row 0: the target is missing, or outside"),
        ([0, 0, np.nan], "row 2: the target is missing, or outside"),
        (["red"], "targets must be numbers"),
        ([[1, 2]], r"shape \(1, 2\); they must be one column"),
    ],
)
def test_what_is_no_target_is_refused(values: Any, told: str) -> None:
    with pytest.raises(CloisterError, match=told):
        REGRESSION.targets(values)


def test_a_schema_that_was_used_is_equal_to_one_that_was_not() -> None:
    used = schema()
    assert used.bounds.lows.tolist() == [0] * 4
    assert used == schema()
    assert used != schema(classes=[0, 1])


@given(st.lists(st.integers(0, 2)))
def test_labels_and_indices_are_inverse(indices: list[int]) -> None:
    description = schema(classes=["red", "green", "7"])
    labels = description.labels(np.array(indices, dtype=np.int64))
    np.testing.assert_array_equal(description.class_indices(labels), indices)


@pytest.mark.parametrize(
    "labels",
    [[7, 9, 7], ["7", "9", "7"], [7.0, 9.0, 7.0], np.array([7, 9, 7], dtype=np.float32)],
)
def test_a_label_is_the_same_class_as_number_and_as_text(labels: Any) -> None:
    indices = schema(classes=[7, 8, 9]).class_indices(labels)
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(indices, [0, 2, 0])


@pytest.mark.parametrize("label", [7, 1.5, float("nan"), float("inf"), "x", None])
def test_an_unknown_label_is_refused_by_row_and_not_shown(label: Any) -> None:
    with pytest.raises(CloisterError, match=r"row 2: .*the classes are 0, 1, 2") as refusal:
        schema().class_indices(np.array([0, 1, label], dtype=object))
    assert str(refusal.value) == (
        "row 2: the label is not a class of small; the classes are 0, 1, 2"
    )


def test_labels_in_several_columns_are_refused() -> None:
    with pytest.raises(CloisterError, match="one column"):
        schema().class_indices([[0, 1], [1, 0]])


def test_the_digest_is_of_the_meaning() -> None:
    reordered = json.loads(schema().model_dump_json())
    reordered = dict(reversed(reordered.items()))
    assert DatasetSchema.model_validate(reordered).digest == schema().digest
    changed = [
        schema(dataset="other"),
        schema(classes=[0, 2, 1]),
        schema(image_shape=[2, 2]),
        schema(features=[{"name": f"f{i}", "low": 0, "high": 2} for i in range(4)]),
        schema(features=[{"name": f"f{i}", "low": 0, "high": 1} for i in (1, 0, 2, 3)]),
    ]
    assert len({one.digest for one in (*changed, schema())}) == len(changed) + 1


def test_a_schema_read_from_its_json_is_equal(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    written = schema(features=[{"name": "größe", "low": 0.1, "high": 0.3}])
    path.write_text(written.model_dump_json(), encoding="utf-8")
    assert read_schema(path) == written
    assert read_schema(path).features == (Feature(name="größe", low=0.1, high=0.3),)


@given(content=st.binary() | st.text().map(str.encode) | st.just(b"[" * 100_000))
def test_any_other_file_is_refused_by_its_path(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "schema.json"
    path.write_bytes(content)
    with pytest.raises(CloisterError, match=r"schema\.json is not a schema"):
        read_schema(path)


def test_a_missing_schema_is_named(tmp_path: Path) -> None:
    with pytest.raises(CloisterError, match=r"schema\.json is missing"):
        read_schema(tmp_path / "schema.json")


@pytest.mark.parametrize("text", ["a\x1b[2J", "two\nlines", ""])
def test_text_that_a_terminal_would_obey_is_refused(text: str) -> None:
    features = [{"name": "x", "low": 0, "high": 1}]
    for changed in (
        {"dataset": text},
        {"features": [features[0] | {"name": text}]},
        {"classes": [text, "b"]},
    ):
        whole = {"dataset": "d", "features": features, "classes": ["a", "b"]} | changed
        with pytest.raises(ValidationError):
            DatasetSchema.model_validate(whole)
