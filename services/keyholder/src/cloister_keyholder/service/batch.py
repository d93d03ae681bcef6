"""Several ciphertexts in one request, and their results in one answer.

The form is the Open Inference Protocol's binary tensor extension: a JSON header, then a BYTES
tensor. See ``cloister_shared.open_inference``.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloister_keyholder.errors import InvalidAnswer
from cloister_shared.errors import CloisterError
from cloister_shared.open_inference import (
    FORM_PARAMETER,
    HEADER_LENGTH,
    INPUT_NAME,
    OCTETS,
    OUTPUT_NAME,
    decode_elements,
    encode_elements,
)

HEADER_LIMIT = 16 << 10
"""The most bytes that an answer's JSON header may have; Cloister's own has about 200."""
LENGTH_BYTES = 4
"""Before every element of a tensor."""


class _Answered(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Size(_Answered):
    binary_data_size: int


class _Output(_Answered):
    name: Literal["result"]
    datatype: Literal["BYTES"]
    shape: tuple[Annotated[int, Field(ge=0)]]
    parameters: _Size


class _Header(_Answered):
    outputs: tuple[_Output]


def pack(ciphertexts: Sequence[bytes], *, compact: bool = False) -> tuple[dict[str, str], bytes]:
    """Return the framing's HTTP headers and the body of a request.

    Args:
        ciphertexts: serialised inputs.
        compact: whether they are, and the results are to be, in the compact form.
    """
    data = encode_elements(ciphertexts)
    form = {FORM_PARAMETER: "compact"} if compact else {}
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": INPUT_NAME,
                    "datatype": "BYTES",
                    "shape": [len(ciphertexts)],
                    "parameters": {"binary_data_size": len(data)} | form,
                }
            ],
            "outputs": [{"name": OUTPUT_NAME, "parameters": {"binary_data": True} | form}],
        }
    ).encode()
    return {HEADER_LENGTH: str(len(header)), "Content-Type": OCTETS}, header + data


def answer_limit(count: int, result_limit: int) -> int:
    """Return the most bytes of an answer with ``count`` results of ``result_limit`` bytes."""
    return HEADER_LIMIT + count * (LENGTH_BYTES + result_limit)


def unpack(headers: httpx.Headers, body: bytes, count: int) -> list[bytes]:
    """Return the ``count`` results of an answer; they need not be any circuit's.

    Args:
        headers: of the HTTP answer.
        body: of the same, within ``answer_limit``.
        count: how many were asked for.

    Raises:
        InvalidAnswer: the body is not a header and exactly so many elements.
    """
    stated = headers.get(HEADER_LENGTH, "")
    length = int(stated) if stated.isascii() and stated.isdecimal() and len(stated) < 8 else 0
    if not 0 < length <= min(len(body), HEADER_LIMIT):
        raise InvalidAnswer(f"a batch was answered without a {HEADER_LENGTH} that fits the answer")
    try:
        (output,) = _Header.model_validate_json(body[:length]).outputs
    except ValidationError:
        raise InvalidAnswer("a batch was answered with a header that is no batch's") from None
    data = memoryview(body)[length:]
    if output.shape != (count,) or output.parameters.binary_data_size != len(data):
        raise InvalidAnswer(
            f"{count} ciphertexts were answered with {output.shape[0]} results in "
            f"{output.parameters.binary_data_size} bytes, of which {len(data)} came"
        )
    try:
        return decode_elements(data, count)
    except CloisterError as error:
        raise InvalidAnswer(f"a batch was answered in the wrong form: {error}") from None
