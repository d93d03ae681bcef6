"""Messages and keys without Concrete: its own at any shape, and none with a byte changed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from concrete.compiler import ClientProgram, Keyset, ProgramInfo, Value
from fake_service import FakeService, specs_of
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister_keyholder import InvalidResult, KeyUnusable
from cloister_keyholder.encryption import wire
from cloister_keyholder.encryption.parameters import (
    ClientSpecs,
    read_specs,
    smallest_safe_log2_std,
)
from cloister_keyholder.package.content import open_package
from cloister_shared.artifact import CLIENT_ZIP

SEEDED_BYTES = 24


@pytest.fixture(scope="module")
def archive(digits_folder: Path) -> bytes:
    return (digits_folder / CLIENT_ZIP).read_bytes()


@pytest.fixture(scope="module")
def specs(archive: bytes) -> ClientSpecs:
    return open_package(archive).circuit.specs


def resized(
    archive: bytes, *, n_features: int, dimension: int, log2_std: float, encoding: dict[str, Any]
) -> ClientSpecs:
    """Return the parameters of the same circuit for other inputs."""
    raw = specs_of(archive)
    raw["keyset"]["lweSecretKeys"][0]["params"]["lweDimension"] = dimension
    (circuit,) = raw["circuits"]
    for side, count, words in (("inputs", n_features, 3), ("outputs", 10, dimension + 1)):
        (gate,) = circuit[side]
        ciphertext = gate["typeInfo"]["lweCiphertext"]
        ciphertext["encryption"] |= {"lweDimension": dimension, "variance": 2.0 ** (2 * log2_std)}
        ciphertext["encoding"]["integer"] |= encoding
        ciphertext["abstractShape"]["dimensions"] = [1, count]
        ciphertext["concreteShape"]["dimensions"] = [1, count, words]
        gate["rawInfo"]["shape"]["dimensions"] = [1, count, words]
    return read_specs(json.dumps(raw).encode())


@settings(max_examples=150)
@given(data=st.data())
def test_inputs_and_keys_of_any_shape_are_concretes(archive: bytes, data: st.DataObject) -> None:
    dimension = data.draw(st.integers(450, 3000), "dimension")
    specs = resized(
        archive,
        n_features=data.draw(st.integers(1, 1100), "features"),
        dimension=dimension,
        log2_std=data.draw(st.floats(smallest_safe_log2_std(dimension), -0.5), "log2_std"),
        encoding={
            "width": data.draw(st.integers(1, 60), "width"),
            "isSigned": data.draw(st.booleans(), "signed"),
        },
    )
    info = ProgramInfo.deserialize(specs.program_info())
    keyset = Keyset(info, None, 0, 0, 0, 0, None)
    client = ClientProgram.create_encrypted(info, keyset).get_client_circuit(specs.circuit_name)
    message = client.prepare_input(Value(np.zeros((1, specs.n_features), np.int64)), 0).serialize()
    head, tail = wire.input_envelope(specs)
    assert len(message) == len(head) + SEEDED_BYTES * specs.n_features + len(tail)
    assert message.startswith(head)
    assert message.endswith(tail)
    bits = wire.read_keyset(keyset.serialize(), specs)
    assert wire.write_keyset(specs, bits) == keyset.serialize()


@given(data=st.data())
def test_a_key_is_read_as_it_was_written(specs: ClientSpecs, data: st.DataObject) -> None:
    size = specs.lwe_dimension
    packed = np.frombuffer(
        data.draw(st.binary(min_size=-(-size // 8), max_size=-(-size // 8))), "u1"
    )
    bits = np.unpackbits(packed)[:size]
    for written in (wire.write_keyset(specs, bits), wire.write_secret_key(specs, bits)):
        np.testing.assert_array_equal(wire.read_any_key(written, specs), bits)


@pytest.mark.parametrize("write", [wire.write_keyset, wire.write_secret_key])
def test_a_key_with_a_byte_changed_is_another_key_or_none(specs: ClientSpecs, write: Any) -> None:
    bits = np.resize(np.array([0, 1], dtype=np.uint8), specs.lwe_dimension)
    written = bytearray(write(specs, bits))
    first = len(written) - 8 * specs.lwe_dimension
    for at, byte in enumerate(written):
        of_bit = at >= first and (at - first) % 8 == 0
        for change in (0x01, 0x02, 0x80, 0xFF):
            written[at] = byte ^ change
            if of_bit and change == 1:
                changed = bits.copy()
                changed[(at - first) // 8] ^= 1
                np.testing.assert_array_equal(wire.read_any_key(bytes(written), specs), changed)
            else:
                with pytest.raises(KeyUnusable):
                    wire.read_any_key(bytes(written), specs)
        written[at] = byte


def test_a_result_with_a_byte_changed_has_other_ciphertexts_or_none(
    specs: ClientSpecs, digits_service: FakeService
) -> None:
    query = open_package(digits_service.client_zip).circuit.encrypt(
        np.zeros(specs.n_features, dtype=np.int64)
    )
    result = bytearray(digits_service.run(query.ciphertext))
    words = bytes(wire.result_ciphertexts(bytes(result), specs))
    first = bytes(result).index(words)
    around = {*range(first), *range(first + len(words), len(result))}
    for at in sorted({*around, first, first + len(words) - 1}):
        byte = result[at]
        for change in (0x01, 0x10, 0x80, 0xFF):
            result[at] = byte ^ change
            if at in around:
                with pytest.raises(InvalidResult):
                    wire.result_ciphertexts(bytes(result), specs)
            else:
                found = wire.result_ciphertexts(bytes(result), specs)
                assert found == bytes(result[first : first + len(words)])
        result[at] = byte


@given(st.binary(max_size=400))
def test_bytes_that_are_none_are_refused(specs: ClientSpecs, data: bytes) -> None:
    with pytest.raises(InvalidResult):
        wire.result_ciphertexts(data, specs)
    with pytest.raises(KeyUnusable):
        wire.read_any_key(data, specs)


@given(st.data())
def test_a_length_that_is_not_the_circuits_is_refused(
    specs: ClientSpecs, data: st.DataObject
) -> None:
    key = wire.write_keyset(specs, np.zeros(specs.lwe_dimension, dtype=np.uint8))
    cut = data.draw(st.integers(0, len(key) - 1), "cut")
    more = data.draw(st.binary(min_size=1, max_size=64), "more")
    for other in (key[:cut], key + more):
        with pytest.raises(KeyUnusable):
            wire.read_any_key(other, specs)
