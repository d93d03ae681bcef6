"""What the OpenAPI document says of the endpoints' requests and responses."""

from typing import Any

from fastapi import FastAPI

from cloister_inference.problems import MEDIA_TYPE, Problem
from cloister_shared.open_inference import HEADER_LENGTH

OPEN_PATHS = frozenset({"/v2/health/live", "/v2/health/ready"})
"""What needs no API key: gateways and Compose ask for it, and it tells nothing."""
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

READY = _problems({404: "The service is stopping.", 503: "No model can be served."})
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
        400: "The request or a ciphertext is malformed, or nothing says what it was encrypted for.",
        404: _UNKNOWN,
        409: "The input was encrypted for another client.zip.",
        411: "The request does not state the length of its body.",
        413: "The body or the batch is too large.",
        415: "The body is neither a raw ciphertext nor in the binary tensor extension.",
        503: f"{_UNAVAILABLE} Or the service is busy, or did not evaluate in time: send the "
        "request again after the seconds that Retry-After gives.",
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

_SCHEME = "apiKey"
_REFUSALS: Responses = {
    401: {
        "description": "The service has API keys, and the request states no valid one.",
        "headers": {"WWW-Authenticate": {"schema": {"const": "Bearer"}}},
    },
    429: {
        "description": "The API key's rate limit is used up.",
        "headers": {
            "Retry-After": {
                "description": "Seconds until there is room.",
                "schema": {"type": "integer", "minimum": 1},
            }
        },
    },
}


def describe_access(app: FastAPI) -> None:
    """Add API keys and rate limits, which hold for all endpoints but health, to the document."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        made = app.openapi_schema is not None
        document = describe()
        if not made:
            schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes[_SCHEME] = {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key, needed where the service has any.",
            }
            for path, operations in document["paths"].items():
                if path not in OPEN_PATHS:
                    for operation in operations.values():
                        _require_key(operation)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way FastAPI documents


def _require_key(operation: dict[str, Any]) -> None:
    # The second, empty alternative: a service without API keys serves everybody.
    operation["security"] = [{_SCHEME: []}, {}]
    for status, refusal in _REFUSALS.items():
        content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
        operation["responses"][str(status)] = {**refusal, "content": content}
