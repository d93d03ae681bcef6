"""Results from a service that is broken or hostile."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from fake_service import FakeService
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister_keyholder import EncryptedModel, InvalidAnswer, InvalidResult, KeyUnusable
from cloister_keyholder.encryption.parameters import ENVELOPE_LIMIT

pytestmark = pytest.mark.timeout(120, method="thread")


def replace(position: int, value: int) -> Callable[[bytes], bytes]:
    return lambda result: result[:position] + bytes([value]) + result[position + 1 :]


def lengthened(result: bytes) -> bytes:
    """Add words that the segment table accounts for."""
    (last,) = struct.unpack_from("<I", result)
    words = ENVELOPE_LIMIT // 8
    grown = bytearray(result + bytes(8 * words))
    struct.pack_into("<I", grown, 4 * (last + 1), words + result_words(result, last))
    return bytes(grown)


def result_words(result: bytes, segment: int) -> int:
    words: int = struct.unpack_from("<I", result, 4 * (segment + 1))[0]
    return words


HOSTILE = {
    "lengthened in good form": lengthened,
    "empty": lambda _: b"",
    "random": lambda result: np.random.default_rng(0).bytes(len(result)),
    "random and short": lambda _: np.random.default_rng(0).bytes(100),
    "zeros": lambda result: bytes(len(result)),
    "truncated by a byte": lambda result: result[:-1],
    "truncated by a word": lambda result: result[:-8],
    "half": lambda result: result[: len(result) // 2],
    "a byte more": lambda result: result + b"\0",
    "a word more": lambda result: result + bytes(8),
    "longer than any result": lambda result: result + bytes(ENVELOPE_LIMIT),
    "huge": lambda _: bytes(50_000_000),
    "many segments": replace(3, 255),
    "segment size, byte 10": replace(10, 64),
    "segment size, byte 11": replace(11, 1),
    "segment size, byte 10, by one": replace(10, 1),
    "root pointer": replace(20, 255),
}


@pytest.mark.parametrize("tamper", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_result_is_refused(
    tamper: Callable[[bytes], bytes],
    breast_cancer: EncryptedModel,
    breast_cancer_service: FakeService,
) -> None:
    breast_cancer_service.tamper = tamper
    with pytest.raises(InvalidAnswer):
        breast_cancer.ask(np.zeros(30, dtype=np.int64))


@pytest.mark.parametrize("tamper", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_result_from_a_file_is_refused_and_costs_the_key(
    tamper: Callable[[bytes], bytes],
    breast_cancer: EncryptedModel,
    breast_cancer_service: FakeService,
) -> None:
    query = breast_cancer.encrypt(np.zeros(30, dtype=np.int64))
    result = breast_cancer_service.run(query.ciphertext)
    with pytest.raises(InvalidResult):
        query.decrypt(tamper(result))
    with pytest.raises(KeyUnusable):
        query.decrypt(result)


def test_another_circuits_result_is_refused(
    digits: EncryptedModel, digits_service: FakeService, breast_cancer: EncryptedModel
) -> None:
    (row,) = digits.quantise(np.zeros((1, 64)))
    result = digits_service.run(digits.encrypt(row).ciphertext)
    with pytest.raises(InvalidResult):
        breast_cancer.encrypt(np.zeros(30, dtype=np.int64)).decrypt(result)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_envelope_is_refused_or_decrypts_to_the_right_shape(
    data: st.DataObject, breast_cancer: EncryptedModel, breast_cancer_service: FakeService
) -> None:
    query = breast_cancer.encrypt(np.zeros(30, dtype=np.int64))
    result = bytearray(breast_cancer_service.run(query.ciphertext))
    envelope = [*range(64), *range(64 + 8 * 1423, len(result))]
    changes = st.dictionaries(st.sampled_from(envelope), st.integers(0, 255), max_size=4)
    for position, value in data.draw(changes).items():
        if position < len(result):
            result[position] = value
    try:
        scores = query.decrypt(bytes(result))
    except InvalidResult:
        return
    assert scores.shape == (1,)
    assert scores.dtype == np.int64
