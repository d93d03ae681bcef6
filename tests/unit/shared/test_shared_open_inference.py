"""The binary tensor extension."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister_shared.errors import CloisterError
from cloister_shared.open_inference import decode_elements, encode_elements

elements = st.lists(st.binary(max_size=64), max_size=8)


@given(elements)
def test_what_is_encoded_decodes_to_itself(drawn: list[bytes]) -> None:
    data = encode_elements(drawn)
    assert decode_elements(data, len(drawn)) == drawn
    assert decode_elements(memoryview(data), len(drawn)) == drawn


def test_the_wire_form_is_the_published_one() -> None:
    assert encode_elements([b"ab", b""]) == b"\x02\x00\x00\x00ab\x00\x00\x00\x00"
    assert encode_elements([]) == b""


@given(st.binary(max_size=64), st.integers(-2, 5))
def test_any_bytes_decode_to_what_encodes_to_them_or_are_refused(data: bytes, count: int) -> None:
    try:
        decoded = decode_elements(data, count)
    except CloisterError:
        return
    assert len(decoded) == count
    assert encode_elements(decoded) == data


@given(elements.filter(bool), st.data())
def test_a_byte_less_or_more_or_another_count_is_refused(
    drawn: list[bytes], data: st.DataObject
) -> None:
    encoded, count = encode_elements(drawn), len(drawn)
    kept = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(CloisterError, match=r"ends before|is said to have"):
        decode_elements(encoded[:kept], count)
    with pytest.raises(CloisterError, match="1 bytes follow the last"):
        decode_elements(encoded + b"\0", count)
    with pytest.raises(CloisterError, match=f"ends before element {count} of {count + 1}"):
        decode_elements(encoded, count + 1)
    with pytest.raises(CloisterError, match="follow the last"):
        decode_elements(encoded, count - 1)


def test_a_length_beyond_the_data_is_refused_before_anything_is_read() -> None:
    with pytest.raises(CloisterError, match="said to have 4294967295 bytes; 1 follow"):
        decode_elements(struct.pack("<I", 2**32 - 1) + b"x", 1)
    with pytest.raises(CloisterError, match="ends before element 0"):
        decode_elements(b"", 10**18)
    with pytest.raises(CloisterError, match="-1 elements"):
        decode_elements(b"", -1)


def test_an_element_too_long_for_its_length_is_refused() -> None:
    class Long(bytes):
        def __len__(self) -> int:
            return 1 << 32

    with pytest.raises(CloisterError, match="below 4 GiB"):
        encode_elements([Long()])


def test_a_view_of_words_is_taken_as_bytes() -> None:
    data = encode_elements([b"abcd"])
    assert decode_elements(memoryview(data).cast("I"), 1) == [b"abcd"]
