"""A forest's trees are added up as Concrete ML does it, to the last bit."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from cloister_compiler.tree import quantise_trees
from cloister_shared.card import ModelCard
from cloister_shared.reference import OutputScale
from cloister_shared.schema import DatasetSchema, Feature, Target
from cloister_shared.trees import Trees

N_TREES, N_CLASSES = 10, 3


def model_of(name: str) -> Any:
    """Concrete ML's model of a forest."""
    is_regression = name == "RandomForestRegressor"
    generator = np.random.default_rng(0)
    rows = generator.random((60, 2))
    answers: Any = generator.normal(size=60) if is_regression else np.arange(60) % N_CLASSES
    known = RandomForestRegressor if is_regression else RandomForestClassifier
    fitted = known(N_TREES, max_depth=2, random_state=0).fit(rows, answers)
    card = ModelCard(
        name="forest",
        estimator=name,
        parameters={"n_estimators": N_TREES, "max_depth": 2},
        data=DatasetSchema(
            dataset="made",
            task="regression" if is_regression else "classification",
            features=tuple(Feature(name=f"f{i}", low=0, high=1) for i in range(2)),
            classes=() if is_regression else tuple(range(N_CLASSES)),
            target=Target(low=-4, high=4) if is_regression else None,
        ),
        rounds=(),
        libraries={},
        created=datetime.now(UTC),
    )
    return quantise_trees(card, Trees.of(fitted).ranked(), 8)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: model_of(name) for name in ("RandomForestClassifier", "RandomForestRegressor")}


@pytest.mark.parametrize(
    ("name", "n_outputs"), [("RandomForestClassifier", N_CLASSES), ("RandomForestRegressor", 1)]
)
@given(data=st.data(), n_rows=st.integers(1, 4))
def test_trees_are_added_up_as_concrete_ml_does(
    models: dict[str, Any], name: str, n_outputs: int, data: st.DataObject, n_rows: int
) -> None:
    model = models[name]
    shape = (n_rows, n_outputs, N_TREES)
    integers = data.draw(arrays(np.int64, shape, elements=st.integers(-255, 255)))
    quantizer = model.output_quantizers[0]
    zero_point = np.full(n_outputs, int(quantizer.zero_point))
    scale = OutputScale(float(quantizer.scale), zero_point, N_TREES)
    found = scale.dequantise(integers.reshape(n_rows, -1))
    # One row at a time, as a result is decrypted.
    expected = [
        np.ravel(model.post_processing(model.dequantize_output(row[None]))) for row in integers
    ]
    np.testing.assert_array_equal(found, np.array(expected))
