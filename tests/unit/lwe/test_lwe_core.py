"""Encryption and decryption by every kernel, against their definition."""

import math
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lwe_definition import (
    MODULUS,
    Bits,
    centred,
    decode,
    keystream,
    mask,
    pack,
    phase,
    phases,
    unpack,
)

from cloister_lwe import SEED_BYTES, SEEDED_BYTES, Key, Scheme, kernels

CURVE_SLOPE, CURVE_BIAS = -0.025696778711484593, 2.675931372549016
TAIL = 8.6
"""Standard deviations beyond which there is no noise."""


def smallest_std(dimension: int) -> float:
    return math.exp2(max(CURVE_SLOPE * dimension + CURVE_BIAS, -62))


def scheme(dimension: int = 1577, width: int = 8, **changes: object) -> Scheme:
    fields = {
        "dimension": dimension,
        "std": smallest_std(dimension),
        "input_width": width,
        "output_width": width,
        "output_is_signed": True,
    }
    return Scheme(**(fields | changes))  # type: ignore[arg-type]


def random_key(dimension: int, seed: int) -> Key:
    return Key.from_bits(np.random.default_rng(seed).integers(0, 2, dimension, dtype=np.uint8))


def bits_of(key: Key) -> Bits:
    return np.frombuffer(key.bits(), dtype=np.uint8)


def test_the_core_is_built() -> None:
    assert kernels()[-1] == "portable"


# A tile has 2048 words and a group 128 blocks: dimensions on both sides of their ends.
DIMENSIONS = st.one_of(
    st.integers(767, 2600), st.sampled_from([1023, 1024, 2047, 2048, 2049, 4096, 4097, 16384])
)


@pytest.mark.parametrize("kernel", kernels())
@given(
    dimension=DIMENSIONS,
    messages=st.lists(st.integers(-128, 255), min_size=1, max_size=5),
    width=st.integers(8, 14),
    seed=st.integers(0, 2**32),
)
def test_a_ciphertext_is_its_message_and_little_noise(
    kernel: str, dimension: int, messages: list[int], width: int, seed: int
) -> None:
    used = scheme(dimension, width, kernel=kernel)
    key = random_key(dimension, seed)
    ciphertexts = used.encrypt(key, np.array(messages))
    assert len(ciphertexts) == len(messages) * SEEDED_BYTES
    bound = TAIL * used.std * MODULUS + 1
    for found, message in zip(phases(ciphertexts, bits_of(key)), messages, strict=True):
        assert abs(centred(found - (message << (63 - width)))) <= bound


@pytest.mark.parametrize("kernel", kernels())
@given(
    dimension=DIMENSIONS,
    count=st.one_of(st.integers(1, 70), st.sampled_from([1023, 1024, 1025])),
    bits=st.integers(8, 56),
    seed=st.integers(0, 2**32),
)
def test_a_compact_ciphertext_is_a_master_seed_and_rounded_bodies(
    kernel: str, dimension: int, count: int, bits: int, seed: int
) -> None:
    used = scheme(dimension, kernel=kernel)
    key = random_key(dimension, seed)
    messages = np.random.default_rng(seed).integers(-128, 128, count)
    compact = used.encrypt_compact(key, messages, bits)
    assert len(compact) == SEED_BYTES + math.ceil(count * bits / 8)
    seeds = keystream(compact[:SEED_BYTES], count)
    bodies = unpack(compact[SEED_BYTES:], bits)
    assert compact[SEED_BYTES:] == pack(bodies[:count], bits), "the padding is zero"
    bound = TAIL * used.std * MODULUS + 1 + (1 << (63 - bits))
    for at in {0, count // 2, count - 1}:
        body = bodies[at] << (64 - bits)
        found = phase(seeds[16 * at : 16 * at + 16], body, bits_of(key))
        assert abs(centred(found - (int(messages[at]) << (63 - 8)))) <= bound


@given(
    dimension=st.integers(450, 1700),
    width=st.integers(1, 61),
    is_signed=st.booleans(),
    count=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_decryption_is_that_of_the_definition(
    dimension: int, width: int, is_signed: bool, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**64, (count, dimension + 1), dtype=np.uint64)
    key = random_key(dimension, seed)
    used = scheme(dimension, output_width=width, output_is_signed=is_signed)
    products = (words[:, :-1] * bits_of(key)).sum(axis=1, dtype=np.uint64)
    expected = [decode(int(found), width, is_signed=is_signed) for found in words[:, -1] - products]
    assert used.decrypt(key, words.astype("<u8").tobytes(), count).tolist() == expected
    # Unaligned, as it lies in a message.
    shifted = memoryview(b"x" + words.astype("<u8").tobytes())[1:]
    assert used.decrypt(key, shifted, count).tolist() == expected


@given(
    dimension=st.integers(450, 900),
    bits=st.integers(8, 56),
    count=st.integers(1, 4),
    seed=st.integers(0, 2**32),
)
def test_packed_words_decrypt_as_the_words_that_they_stand_for(
    dimension: int, bits: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**bits, count * (dimension + 1), dtype=np.uint64)
    words = (values << np.uint64(64 - bits)).astype("<u8").tobytes()
    key = random_key(dimension, seed)
    used = scheme(dimension, output_width=20)
    found = used.decrypt_compact(key, pack(values.tolist(), bits), count, bits)
    assert found.tolist() == used.decrypt(key, words, count).tolist()


@given(phase_=st.integers(0, MODULUS - 1), width=st.integers(1, 61), is_signed=st.booleans())
def test_every_phase_is_decoded_as_defined(phase_: int, width: int, is_signed: bool) -> None:
    dimension = 450
    used = scheme(dimension, output_width=width, output_is_signed=is_signed)
    trivial = bytes(8 * dimension) + phase_.to_bytes(8, "little")
    found = used.decrypt(random_key(dimension, 0), trivial, 1)
    assert found.tolist() == [decode(phase_, width, is_signed=is_signed)]


def test_all_kernels_decrypt_what_any_encrypts() -> None:
    key = random_key(1577, 1)
    messages = np.arange(-128, 128)
    for kernel in kernels():
        ciphertexts = scheme(kernel=kernel).encrypt(key, messages)
        expanded = b"".join(
            mask(lwe[:16], 1577).tobytes() + lwe[16:]
            for lwe in (ciphertexts[at : at + 24] for at in range(0, len(ciphertexts), 24))
        )
        assert (scheme().decrypt(key, expanded, 256) == messages).all()


def test_nothing_repeats() -> None:
    used, messages = scheme(), np.zeros(500, dtype=np.int64)
    keys = {used.new_key().bits() for _ in range(100)}
    assert len(keys) == 100
    key = used.new_key()
    ciphertexts = used.encrypt(key, messages) + used.encrypt(key, messages)
    seeds = {ciphertexts[at : at + 16] for at in range(0, len(ciphertexts), 24)}
    bodies = {ciphertexts[at + 16 : at + 24] for at in range(0, len(ciphertexts), 24)}
    assert len(seeds) == len(bodies) == 1000
    assert len({used.encrypt_compact(key, messages, 38)[:16] for _ in range(100)}) == 100


def test_half_of_a_keys_bits_are_set() -> None:
    used = scheme(16384)
    share = np.mean([bits_of(used.new_key()) for _ in range(64)], axis=0)
    # 2^20 bits: a standard deviation of 2^-11; of one place over 64 keys, 2^-4.
    assert abs(share.mean() - 0.5) < 6 * 2**-11
    assert abs(share - 0.5).max() < 6.5 * 2**-4


class TestKeys:
    def test_a_key_is_what_it_was_made_of(self) -> None:
        bits = np.random.default_rng(0).integers(0, 2, 1350, dtype=np.uint8).tobytes()
        key = Key.from_bits(bits)
        assert key.bits() == bits
        assert key.dimension == 1350

    @pytest.mark.parametrize("bits", [b"\0\1\2" * 200, b"\1" * 449, b"", b"\xff" * 600])
    def test_what_is_no_key_is_refused(self, bits: bytes) -> None:
        with pytest.raises(ValueError, match=r"bits are 0 or 1|out of range"):
            Key.from_bits(bits)

    def test_a_wiped_key_is_of_no_use(self) -> None:
        used = scheme()
        key = used.new_key()
        key.wipe()
        key.wipe()
        with pytest.raises(ValueError, match="wiped"):
            key.bits()
        with pytest.raises(ValueError, match="wiped"):
            used.encrypt(key, np.zeros(1, dtype=np.int64))
        with pytest.raises(ValueError, match="wiped"):
            used.encrypt_compact(key, np.zeros(1, dtype=np.int64), 38)
        with pytest.raises(ValueError, match="wiped"):
            used.decrypt(key, bytes(8 * 1578), 1)

    def test_a_key_that_is_wiped_in_the_middle_of_its_use_still_hides_what_it_encrypts(
        self,
    ) -> None:
        used = scheme()
        messages = np.full(100_000, 127)
        for _ in range(5):
            key = used.new_key()
            bits = bits_of(key)
            done: list[bytes] = []
            started = threading.Barrier(2)

            def encrypt() -> None:
                started.wait()  # noqa: B023 - it ends in the same round
                done.append(used.encrypt(key, messages))  # noqa: B023

            thread = threading.Thread(target=encrypt)
            interval = sys.getswitchinterval()
            sys.setswitchinterval(1e-5)
            thread.start()
            started.wait()
            key.wipe()
            thread.join()
            sys.setswitchinterval(interval)
            for ciphertexts in done:
                last = ciphertexts[-24:]
                found = centred(phases(last, bits)[0] - (127 << 55))
                assert abs(found) <= TAIL * used.std * MODULUS + 1

    def test_a_key_of_another_dimension_is_refused(self) -> None:
        with pytest.raises(ValueError, match="dimension of 1000; these parameters take 1577"):
            scheme().encrypt(Key(1000), np.zeros(1, dtype=np.int64))


class TestParameters:
    @given(dimension=st.integers(450, 16384), above=st.floats(0, 10))
    def test_what_is_on_the_curve_or_above_is_taken(self, dimension: int, above: float) -> None:
        std = min(smallest_std(dimension) * 2**above, 2**-6)
        scheme(dimension, std=std)

    @given(dimension=st.integers(450, 16384), below=st.floats(1e-5, 100))
    def test_what_is_below_the_curve_is_refused(self, dimension: int, below: float) -> None:
        with pytest.raises(ValueError, match="below 128 bits of security"):
            scheme(dimension, std=smallest_std(dimension) * 2**-below)

    @pytest.mark.parametrize("std", [0.0, -1e-9, math.nan, math.inf, 5e-324, 0.5])
    def test_a_deviation_that_is_none_is_refused(self, std: float) -> None:
        with pytest.raises(ValueError, match="out of range"):
            scheme(std=std)

    @pytest.mark.parametrize("dimension", [-1, 0, 449, 16385, 2**40])
    def test_a_dimension_out_of_range_is_refused(self, dimension: int) -> None:
        with pytest.raises(ValueError, match="out of range"):
            scheme(dimension, std=2**-6)
        with pytest.raises(ValueError, match="out of range"):
            Key(dimension)

    def test_an_unknown_kernel_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no kernel fast"):
            scheme(kernel="fast").encrypt(Key(1577), np.zeros(1, dtype=np.int64))

    @pytest.mark.parametrize("width", [0, 62, -1])
    def test_a_width_out_of_range_is_refused(self, width: int) -> None:
        used = scheme(width=width)
        with pytest.raises(ValueError, match="width is out of range"):
            used.encrypt(Key(1577), np.zeros(1, dtype=np.int64))
        with pytest.raises(ValueError, match="width is out of range"):
            used.decrypt(Key(1577), bytes(8 * 1578), 1)

    @pytest.mark.parametrize("bits", [0, 7, 57, 64, -1])
    def test_bits_out_of_range_are_refused(self, bits: int) -> None:
        with pytest.raises(ValueError, match="bits of a word are out of range"):
            scheme().encrypt_compact(Key(1577), np.zeros(1, dtype=np.int64), bits)
        with pytest.raises(ValueError, match="bits of a word are out of range"):
            scheme().decrypt_compact(Key(1577), bytes(1578), 1, bits)

    def test_no_messages_are_refused(self) -> None:
        with pytest.raises(ValueError, match="1 to 2"):
            scheme().encrypt(Key(1577), np.zeros(0, dtype=np.int64))

    @given(length=st.integers(0, 3 * 8 * 1578), count=st.integers(-1, 4))
    def test_a_result_of_another_length_is_refused(self, length: int, count: int) -> None:
        used, key = scheme(), Key(1577)
        if length == 8 * 1578 * count and count > 0:
            assert len(used.decrypt(key, bytes(length), count)) == count
            return
        with pytest.raises(ValueError, match=r"length of so many|out of range"):
            used.decrypt(key, bytes(length), count)

    @pytest.mark.parametrize("excess", [-1, 1])
    def test_a_packed_result_of_another_length_is_refused(self, excess: int) -> None:
        with pytest.raises(ValueError, match="length of so many"):
            scheme().decrypt_compact(Key(1577), bytes(1578 * 31 // 8 + 1 + excess), 1, 31)
