"""The outer form of Cap'n Proto messages."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from cloister_keyholder.encryption.framing import SEGMENTS_LIMIT, is_one_message

segment_sizes = st.lists(st.integers(0, 20), min_size=1, max_size=12)


def message(sizes: list[int]) -> bytes:
    table = struct.pack(f"<{len(sizes) + 1}I", len(sizes) - 1, *sizes)
    return table + bytes(-len(table) % 8) + bytes(8 * sum(sizes))


@given(segment_sizes)
def test_a_message_is_one(sizes: list[int]) -> None:
    assert is_one_message(message(sizes))


@given(segment_sizes, st.integers(-64, 64).filter(bool))
def test_a_message_of_another_length_is_none(sizes: list[int], change: int) -> None:
    whole = message(sizes)
    assert not is_one_message(whole[:change] if change < 0 else whole + bytes(change))


@given(segment_sizes, st.data())
def test_a_segment_that_is_not_there_is_noticed(sizes: list[int], data: st.DataObject) -> None:
    whole = bytearray(message(sizes))
    position = 4 + data.draw(st.integers(0, 4 * len(sizes) - 1))
    whole[position] = data.draw(st.integers(0, 255).filter(lambda v: v != whole[position]))
    assert not is_one_message(bytes(whole))


@given(st.binary(max_size=64))
def test_any_bytes_get_an_answer(data: bytes) -> None:
    assert is_one_message(data) in (True, False)


def test_the_number_of_segments_is_limited() -> None:
    assert is_one_message(message([0] * SEGMENTS_LIMIT))
    assert not is_one_message(message([0] * (SEGMENTS_LIMIT + 1)))
