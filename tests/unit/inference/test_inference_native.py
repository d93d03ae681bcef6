"""The native kernels, against Concrete's own run and against the definition of the circuit."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lwe_definition import mask

from cloister_inference.evaluation.native import NativeCircuit, kernels
from cloister_shared.linear import LinearCircuit

Integers = npt.NDArray[np.int64]

DATA_OFFSET = 64
KERNELS = kernels()


def test_the_extension_is_installed() -> None:
    assert KERNELS[-1] == "portable"


def by_definition(linear: LinearCircuit, inputs: bytes) -> bytes:
    """Weights times ciphertexts plus the encoded bias, modulo 2^64."""
    n = linear.lwe_dimension
    ciphertexts = np.array(
        [
            np.append(mask(lwe[:16], n), np.frombuffer(lwe[16:], dtype="<u8"))
            for lwe in (inputs[at : at + 24] for at in range(0, len(inputs), 24))
        ]
    )
    result = linear.weights.T.astype(np.uint64) @ ciphertexts
    result[:, -1] += linear.bias.astype(np.uint64) << np.uint64(64 - linear.width - 1)
    return bytes(result.astype("<u8").tobytes())


@st.composite
def circuits(draw: st.DrawFn) -> tuple[LinearCircuit, bytes]:
    # Tiles have 256 words and groups 2 or 4 inputs: sizes on both sides of their ends.
    n_features = draw(st.integers(1, 40))
    n_outputs = draw(st.integers(1, 12))
    dimension = draw(st.one_of(st.integers(1, 600), st.sampled_from([255, 256, 257, 511, 512])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    limit = draw(st.sampled_from([2, 256, 2**30]))
    linear = LinearCircuit(
        weights=rng.integers(-limit + 1, limit, (n_features, n_outputs)),
        bias=rng.integers(-(2**40), 2**40, n_outputs),
        lwe_dimension=dimension,
        width=draw(st.integers(1, 30)),
    )
    return linear, rng.bytes(24 * n_features)


@pytest.mark.parametrize("kernel", KERNELS)
@given(circuit=circuits())
def test_every_kernel_computes_the_definition(
    kernel: str, circuit: tuple[LinearCircuit, bytes]
) -> None:
    linear, inputs = circuit
    assert NativeCircuit(linear, 0, kernel).evaluate(inputs) == by_definition(linear, inputs)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", [(2000, 1), (1, 100), (2000, 100), (784, 10)])
def test_every_kernel_computes_large_circuits(kernel: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    linear = LinearCircuit(rng.integers(-255, 256, shape), rng.integers(-9, 9, shape[1]), 700, 23)
    inputs = rng.bytes(24 * shape[0])
    assert NativeCircuit(linear, 0, kernel).evaluate(inputs) == by_definition(linear, inputs)


Run = tuple[LinearCircuit, list[tuple[bytes, bytes]]]


@pytest.fixture(scope="module")
def run_concrete() -> Callable[[tuple[int, int], int], Run]:
    from concrete import fhe  # noqa: PLC0415 - takes seconds

    def run(shape: tuple[int, int], n_bits: int) -> Run:
        """Compile a random circuit, and return it with encrypted inputs and their results."""
        rng = np.random.default_rng(n_bits)
        weights = rng.integers(-(2 ** (n_bits - 1)), 2 ** (n_bits - 1), shape)
        bias = rng.integers(-(2**n_bits), 2**n_bits, shape[1])
        highest = 2**n_bits - 1
        extremes = [
            (sign * weights[:, j] > 0) * highest for j in range(shape[1]) for sign in (1, -1)
        ]

        def linear(q: Any) -> Any:
            return q @ weights + bias

        circuit = fhe.Compiler(linear, {"q": "encrypted"}).compile(
            extremes, compress_input_ciphertexts=True
        )
        runs = []
        for row in [rng.integers(0, highest + 1, shape[0]), extremes[0]]:
            encrypted = circuit.client.encrypt(row)
            keys = circuit.client.evaluation_keys
            result = circuit.server.run(encrypted, evaluation_keys=keys)
            assert np.array_equal(circuit.client.decrypt(result), row @ weights + bias)
            runs.append((encrypted.serialize(), result.serialize()))
        (specs,) = json.loads(circuit.client.specs.serialize())["circuits"]
        output = specs["outputs"][0]["typeInfo"]["lweCiphertext"]
        dimension = output["encryption"]["lweDimension"]
        width = output["encoding"]["integer"]["width"]
        return LinearCircuit(weights, bias, dimension, width), runs

    return run


@pytest.mark.parametrize(
    ("shape", "n_bits"),
    [
        ((1, 1), 2),
        ((2, 100), 3),
        ((5, 3), 4),
        ((30, 1), 5),
        ((64, 10), 6),
        ((257, 7), 7),
        ((784, 10), 8),
        ((2000, 2), 8),
        ((2000, 100), 2),
    ],
)
def test_every_kernel_equals_concrete_byte_by_byte(
    run_concrete: Callable[[tuple[int, int], int], Run], shape: tuple[int, int], n_bits: int
) -> None:
    linear, runs = run_concrete(shape, n_bits)
    for payload, result in runs:
        for kernel in KERNELS:
            native = NativeCircuit(linear, DATA_OFFSET, kernel)
            head, found, tail = result.partition(native.evaluate(payload))
            assert found
            enveloped = NativeCircuit(linear, DATA_OFFSET, kernel, (head, tail))
            assert enveloped.evaluate(payload) == result


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.full((3, 2), 2**30)}, "a weight is out of range"),
        ({"weights": np.full((3, 2), -(2**63))}, "a weight is out of range"),
        ({"bias": np.zeros(3, dtype=np.int64)}, "do not fit each other"),
        ({"bias": np.zeros(0, dtype=np.int64)}, "out of range"),
        ({"lwe_dimension": 0}, "out of range"),
        ({"lwe_dimension": 2**40}, "out of range"),
        ({"lwe_dimension": -1}, "out of range"),
    ],
)
@pytest.mark.parametrize("kernel", KERNELS)
def test_sizes_are_checked(kernel: str, changes: dict[str, Any], message: str) -> None:
    parts: dict[str, Any] = {
        "weights": np.ones((3, 2), dtype=np.int64),
        "bias": np.zeros(2, dtype=np.int64),
        "lwe_dimension": 10,
        "width": 5,
    }
    native = NativeCircuit(LinearCircuit(**(parts | changes)), 0, kernel)
    with pytest.raises(ValueError, match=message):
        native.evaluate(bytes(72))


@pytest.mark.parametrize("length", [0, 1, 23, 24, 71])
@pytest.mark.parametrize("kernel", KERNELS)
def test_an_input_that_is_too_short_is_refused(kernel: str, length: int) -> None:
    ones = np.ones((3, 2), dtype=np.int64)
    linear = LinearCircuit(ones, np.zeros(2, dtype=np.int64), 10, 5)
    with pytest.raises(ValueError, match=r"fit each other|out of range"):
        NativeCircuit(linear, 0, kernel).evaluate(bytes(length))


def test_a_kernel_that_this_processor_lacks_is_refused() -> None:
    linear = LinearCircuit(np.ones((1, 1), dtype=np.int64), np.zeros(1, dtype=np.int64), 1, 1)
    with pytest.raises(ValueError, match="no kernel sse9"):
        NativeCircuit(linear, 0, "sse9").evaluate(bytes(24))
