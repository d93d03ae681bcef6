"""The datasets known by name, against the data and its published description."""

import re
from decimal import Decimal
from typing import Any, cast

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits

from cloister_shared.datasets import DATASETS, DatasetName, schema
from cloister_shared.errors import CloisterError
from cloister_shared.preprocessing import to_inputs
from cloister_shared.schema import Feature

LOADERS: dict[DatasetName, Any] = {"digits": load_digits, "breast_cancer": load_breast_cancer}


@pytest.mark.parametrize("name", LOADERS)
def test_the_data_lie_within_the_declared_bounds_in_the_declared_columns(name: DatasetName) -> None:
    data, description = LOADERS[name](), schema(name)
    assert [str(column) for column in data.feature_names] == [
        feature.name for feature in description.features
    ]
    unit = to_inputs(data.data, description)
    assert unit.shape == data.data.shape
    np.testing.assert_array_equal(
        description.class_indices(data.target_names[data.target]), data.target
    )


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_is_called_by_its_own_name(name: DatasetName) -> None:
    assert schema(name).dataset == name
    assert len(schema(name).classes) == {"breast_cancer": 2, "diabetes": 0}.get(name, 10)


def test_diabetes_is_a_regression_within_its_bounds() -> None:
    data, description = load_diabetes(scaled=False), schema("diabetes")
    assert data.feature_names == [feature.name for feature in description.features]
    assert to_inputs(data.data, description).shape == data.data.shape
    np.testing.assert_array_equal(description.answers(data.target), data.target)
    assert (description.task, description.n_outputs) == ("regression", 1)


@pytest.mark.parametrize(("name", "side", "high"), [("digits", 8, 16), ("mnist", 28, 255)])
def test_images_are_rows_of_pixels(name: DatasetName, side: int, high: float) -> None:
    description = schema(name)
    assert description.image_shape == (side, side)
    assert description.features[side + 2].name == "pixel_1_2"
    assert set(description.bounds.lows) == {0}
    assert set(description.bounds.highs) == {high}
    assert description.classes == tuple(range(10))


def test_breast_cancer_bounds_are_the_published_ones_widened_by_their_last_digit() -> None:
    table = re.findall(
        r"^ *([a-z ]+?)(?: \((mean|standard error|worst)\))?: +([\d.]+) +([\d.]+)$",
        load_breast_cancer().DESCR,
        flags=re.MULTILINE,
    )
    prefix = {"mean": "mean {}", "standard error": "{} error", "worst": "worst {}"}
    published = {
        prefix[kind].format(name): (Decimal(low), Decimal(high)) for name, kind, low, high in table
    }
    assert len(published) == 30

    def unit_of_last_digit(value: Decimal) -> Decimal:
        return Decimal((0, (1,), cast("int", value.as_tuple().exponent)))

    for feature in schema("breast_cancer").features:
        assert isinstance(feature, Feature)
        low, high = published[feature.name]
        expected_low = max(low - unit_of_last_digit(low), Decimal(0))
        assert feature.low == float(expected_low), feature.name
        assert feature.high == float(high + unit_of_last_digit(high)), feature.name


def test_an_unknown_dataset_lists_those_there_are() -> None:
    with pytest.raises(CloisterError, match=r"iris.*digits, mnist, breast_cancer"):
        schema(cast("DatasetName", "iris"))
