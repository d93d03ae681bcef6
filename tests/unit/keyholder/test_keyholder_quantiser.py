"""Quantisation, against Concrete ML's own client."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister_keyholder import InvalidClientPackage
from cloister_keyholder.encryption.quantiser import read_processing
from cloister_shared.artifact import CLIENT_ZIP


@pytest.fixture(scope="module")
def stock(digits_folder: Path) -> Any:
    from concrete.ml.deployment import FHEModelClient  # noqa: PLC0415 - takes seconds

    return FHEModelClient(str(digits_folder)).model


@pytest.fixture(scope="module")
def processing(digits_folder: Path) -> bytes:
    with zipfile.ZipFile(io.BytesIO((digits_folder / CLIENT_ZIP).read_bytes())) as archive:
        return archive.read("serialized_processing.json")


# Values half way between two levels are where another rounding would show.
unit_values = st.one_of(
    st.floats(0, 1), st.integers(0, 510).map(lambda i: i / 510), st.sampled_from([0.0, 1.0])
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=st.lists(unit_values, min_size=64, max_size=64))
def test_inputs_are_quantised_as_concrete_ml_does(
    row: list[float], stock: Any, processing: bytes
) -> None:
    quantiser, _ = read_processing(processing, 10)
    unit = np.array([row])
    np.testing.assert_array_equal(quantiser.quantise(unit), stock.quantize_input(unit))


@given(row=st.lists(st.integers(-(1 << 18), (1 << 18) - 1), min_size=10, max_size=10))
def test_scores_are_dequantised_as_concrete_ml_does(
    row: list[int], stock: Any, processing: bytes
) -> None:
    _, output = read_processing(processing, 10)
    integers = np.array([row])
    np.testing.assert_array_equal(output.dequantise(integers), stock.dequantize_output(integers))


def test_one_zero_point_serves_all_outputs(processing: bytes) -> None:
    parsed = json.loads(processing)
    parsed["output_quantizers"][0]["serialized_value"]["zero_point"] = {
        "type_name": "numpy_integer",
        "serialized_value": 5,
        "dtype": "int64",
    }
    _, output = read_processing(json.dumps(parsed).encode(), 3)
    np.testing.assert_array_equal(output.zero_point, [5, 5, 5])


def test_a_symmetric_grid_has_its_zero_point_plain(processing: bytes) -> None:
    parsed = json.loads(processing)
    parsed["output_quantizers"][0]["serialized_value"]["zero_point"] = 0
    _, output = read_processing(json.dumps(parsed).encode(), 3)
    np.testing.assert_array_equal(output.zero_point, [0, 0, 0])


def test_a_narrow_range_starts_one_higher(processing: bytes) -> None:
    parsed = json.loads(processing)
    parsed["input_quantizers"][0]["serialized_value"]["is_narrow"] = True
    quantiser, _ = read_processing(json.dumps(parsed).encode(), 10)
    assert (quantiser.low, quantiser.high) == (-127, 127)


@pytest.mark.parametrize(
    ("quantiser", "member", "value"),
    [
        ("input_quantizers", "no_clipping", True),
        ("input_quantizers", "n_bits", 64),
        ("input_quantizers", "n_bits", "8"),
        ("input_quantizers", "scale", {"type_name": "numpy_float", "serialized_value": 0.0}),
        ("output_quantizers", "scale", {"type_name": "numpy_float", "serialized_value": -1.0}),
        ("output_quantizers", "scale", {"type_name": "numpy_float", "serialized_value": "NaN"}),
        ("output_quantizers", "zero_point", {"type_name": "type", "serialized_value": "00"}),
        ("output_quantizers", "zero_point", "0"),
        ("output_quantizers", "zero_point", True),
        (
            "output_quantizers",
            "zero_point",
            {"type_name": "numpy_integer", "serialized_value": 1 << 63},
        ),
        (
            "output_quantizers",
            "zero_point",
            {"type_name": "numpy_array", "serialized_value": [[1, 2]]},
        ),
    ],
)
def test_processing_of_another_kind_is_refused(
    quantiser: str, member: str, value: Any, processing: bytes
) -> None:
    parsed = json.loads(processing)
    parsed[quantiser][0]["serialized_value"][member] = value
    with pytest.raises(InvalidClientPackage):
        read_processing(json.dumps(parsed).encode(), 10)


@pytest.mark.parametrize(
    ("member", "value"),
    [("is_training", True), ("ciphertext_format", "tfhe_rs"), ("input_quantizers", [])],
)
def test_models_of_another_kind_are_refused(member: str, value: Any, processing: bytes) -> None:
    parsed = {**json.loads(processing), member: value}
    with pytest.raises(InvalidClientPackage, match=member):
        read_processing(json.dumps(parsed).encode(), 10)
