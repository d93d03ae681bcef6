"""What the OpenAPI document says of the endpoints' requests and responses."""

from typing import Any

from cloister_inference.problems import MEDIA_TYPE, Problem
from cloister_shared.open_inference import HEADER_LENGTH

OCTETS = "application/octet-stream"
ZIP = "application/zip"

Responses = dict[int | str, dict[str, Any]]


def _problems(descriptions: dict[int, str]) -> Responses:
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    stated = descriptions | {500: "The service failed to answer."}
    responses: Responses = {
        status: {"description": description, "content": content}
        for status, description in stated.items()
    }
    # Without it FastAPI lists a 422 of a form that is never sent.
    responses["default"] = {"description": "Another problem.", "content": content}
    return responses


def _binary(media_type: str, description: str, headers: dict[str, str]) -> Responses:
    return {
        200: {
            "description": description,
            "content": {media_type: {"schema": {"type": "string", "format": "binary"}}},
            "headers": {
                name: {"description": text, "schema": {"type": "string"}}
                for name, text in headers.items()
            },
        }
    }


_UNKNOWN = "There is no such model or version."
_UNAVAILABLE = "The model is published but cannot be served; the detail says why."
_CACHING = {"ETag": "The SHA-256 of the file.", "Cache-Control": "The file never changes."}
_NOT_MODIFIED: Responses = {304: {"description": "The client has it already."}}

READY = _problems({503: "No model can be served."})
MODEL = _problems({404: _UNKNOWN, 503: _UNAVAILABLE})
CLIENT = (
    _binary(ZIP, "Concrete ML's client side, with the model card.", _CACHING)
    | _NOT_MODIFIED
    | MODEL
)
REFERENCE = (
    _binary(OCTETS, "The circuit in the clear, as NumPy arrays.", _CACHING)
    | _NOT_MODIFIED
    | _problems({404: f"{_UNKNOWN} Or it was published without.", 503: _UNAVAILABLE})
)
INFERENCE = _binary(
    OCTETS,
    "One result; or, where the request was framed, a JSON header and the results.",
    {
        "Server-Timing": "evaluate;dur=: milliseconds of encrypted evaluation, over all elements.",
        "Cloister-Model-Version": "The version that evaluated.",
        HEADER_LENGTH: "Bytes of the JSON header; absent from a raw result.",
    },
) | _problems(
    {
        400: "The request or a ciphertext is malformed, or nothing says what it was encrypted for; "
        "or evaluation keys are needed and not stated, or stated and not needed.",
        404: f"{_UNKNOWN} Or the caller owns no such evaluation keys.",
        409: "The input was encrypted for another client.zip, or the evaluation keys made for it.",
        411: "The request does not state the length of its body.",
        413: "The body or the batch is too large.",
        415: "The body is neither a raw ciphertext nor in the binary tensor extension.",
        503: _UNAVAILABLE,
    }
)
INFERENCE_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": (
            f"One serialised ciphertext; or, with the header {HEADER_LENGTH}, an inference "
            "request's JSON header followed by the binary data of its one BYTES tensor, in which "
            "each ciphertext is preceded by its length as a little-endian uint32."
        ),
        "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}},
    }
}

_NOT_OWNED = "The caller owns no such evaluation keys."
_STORE = "The store of evaluation keys cannot be used; the detail says what to do."

KEY = _problems({400: "The address is no SHA-256.", 404: _NOT_OWNED, 503: _STORE})
_REMOVED: Responses = {204: {"description": "They are removed."}}
KEY_REMOVAL = _REMOVED | KEY
_KEPT: Responses = {
    201: {"description": "They are verified and kept."},
    200: {"description": "The caller owned them already."},
}
KEY_UPLOAD = _KEPT | _problems(
    {
        400: "The bytes have another SHA-256 or are not evaluation keys of the client.zip, no "
        "client.zip is stated, or its model needs no evaluation keys.",
        404: "No model has this client.zip.",
        408: "The body takes too long to arrive.",
        409: "The caller owns the same keys for another client.zip.",
        411: "The request does not state the length of its body.",
        413: "Sets of this length are not taken.",
        415: "The body is not application/octet-stream.",
        503: f"{_UNAVAILABLE} Or: {_STORE}",
        507: "The caller's quota, or the disk, is full; the detail says which and what to do.",
    }
)
KEY_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A serialised set of evaluation keys, made with the client.zip whose "
        "SHA-256 the header Cloister-Client-Digest states.",
        "content": {OCTETS: {"schema": {"type": "string", "format": "binary"}}},
    }
}
