"""What the OpenAPI document says of the endpoints' requests and answers."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel

from cloister_inference import protocol
from cloister_inference.api import examples
from cloister_inference.api.answers import MEDIA_TYPE, Problem
from cloister_shared.open_inference import (
    CLIENT_DIGEST,
    COMPACT_TYPE,
    EVALUATION_KEY,
    HEADER_LENGTH,
    OCTETS,
)

OPEN_PATHS = frozenset({"/v2/health/live", "/v2/health/ready"})
"""What needs no API key: gateways and Compose ask for it, and it tells nothing."""
ZIP = "application/zip"
JSON = "application/json"
_SCHEMAS = "#/components/schemas/"

DESCRIPTION = f"""
Evaluates models on encrypted inputs. The service never sees an input, a score or a key that
decrypts: a client downloads `client.zip`, encrypts with it, posts the ciphertext, and decrypts
what comes back.

The protocol is the [Open Inference Protocol](https://github.com/kserve/open-inference-protocol) v2
with Triton's extensions for binary tensor data and for the repository of models. A ciphertext is
one element of a BYTES tensor; several go in one request. There are two forms of a body:

- **raw**: one serialised ciphertext in, one out, as `{OCTETS}`;
- **framed**: a JSON header (`InferenceHeader`, answered by `InferenceAnswer`), whose length in
  bytes the HTTP header `{HEADER_LENGTH}` states, followed by the tensor's data, in which each
  ciphertext is preceded by its length as a little-endian uint32.

Where a model's metadata has `compact`, messages may be rounded and packed: a query is a master seed
and its bodies, a result its words, with far fewer bytes and the same integers. A raw body is then
`{COMPACT_TYPE}`, which `Accept` asks for of a result; of a framed one, the parameter `form` of the
tensors is `compact`.

A ciphertext fits one `client.zip` alone. So a request states the SHA-256 of its own, by the HTTP
header `{CLIENT_DIGEST}` or the request parameter `client_digest`, or names the version in its
address.

Some models need evaluation keys, which decrypt nothing: their metadata says so
(`evaluation_key_bytes`). Whoever queries one makes them with its `client.zip`, puts them at
`/v2/keys/{{sha256}}` once, and states that SHA-256 with each request, by the HTTP header
`{EVALUATION_KEY}` or the request parameter `evaluation_key`.

Every error is a problem (RFC 9457) whose `detail` says what is wrong and what to do; the same text
is in the protocol's member `error`.
"""
TAGS = [
    {"name": "server", "description": "What the server is, and whether it lives and is ready."},
    {"name": "models", "description": "What models take and give, and what key holders need."},
    {"name": "inference", "description": "Encrypted evaluation."},
    {"name": "keys", "description": "Evaluation keys, for models that need them; by their owner."},
    {"name": "repository", "description": "Which versions are loaded; loading and unloading."},
]

Responses = dict[int | str, dict[str, Any]]


def operation_id(route: APIRoute) -> str:
    """Return the name of the endpoint's function."""
    return route.name


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of ``app``, made once."""
    if app.openapi_schema is None:
        made = FastAPI.openapi(app)
        for operations in made["paths"].values():
            for operation in operations.values():
                # FastAPI's own form of errors, which is never sent.
                operation["responses"].pop("422", None)
                for parameter in operation.get("parameters", ()):
                    _without_null(parameter["schema"])
        schemas = made["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for message in (Problem, *_MESSAGES):
            schemas |= _schemas(message)
    assert app.openapi_schema is not None  # noqa: S101 - FastAPI keeps what it returns
    return app.openapi_schema


def _without_null(schema: dict[str, Any]) -> None:
    """Leave null out of a parameter's types: it is how FastAPI says that one may be absent."""
    types = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    if len(types) == 1:
        del schema["anyOf"]
        schema |= types[0]


def _schemas(message: type[BaseModel]) -> dict[str, Any]:
    schema = message.model_json_schema(ref_template=_SCHEMAS + "{model}")
    parts: dict[str, Any] = schema.pop("$defs", {})
    return parts | {message.__name__: schema}


def _request_body(message: type[BaseModel], shown: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a JSON body that may be left out."""
    schema = {"$ref": _SCHEMAS + message.__name__}
    return {"requestBody": {"content": {JSON: {"schema": schema, "examples": dict(shown)}}}}


def _problems(
    descriptions: dict[int, str], shown: Mapping[int, Mapping[str, Any]] = examples.PROBLEMS
) -> Responses:
    stated = descriptions | {500: "The service failed to answer."}
    return {
        status: problem(status, description, shown.get(status))
        for status, description in sorted(stated.items())
    }


def problem(
    status: int, description: str, shown: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Describe a problem of a status, with an example."""
    shown = shown or examples.PROBLEMS.get(status, {"detail": description})
    example = {"title": HTTPStatus(status).phrase, "status": status, "error": shown["detail"]}
    response: dict[str, Any] = {
        "description": description,
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": f"{_SCHEMAS}Problem"},
                "example": {"type": "about:blank", **example, **shown},
            }
        },
    }
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        response["headers"] = {
            "Retry-After": {
                "description": "Seconds after which to ask again.",
                "schema": {"type": "integer"},
            }
        }
    return response


def _answer(description: str, example: object) -> Responses:
    return {200: {"description": description, "content": {JSON: {"example": example}}}}


def _done(description: str) -> Responses:
    return {200: {"description": description}}


def _binary(
    media_type: str,
    description: str,
    headers: dict[str, str],
    shown: Mapping[str, Any],
    further: Mapping[str, Any] | None = None,
) -> Responses:
    return {
        200: {
            "description": description,
            "content": {
                media_type: {
                    "schema": {"type": "string", "format": "binary"},
                    "examples": dict(shown),
                }
            }
            | dict(further or {}),
            "headers": {
                name: {"description": text, "schema": {"type": "string"}}
                for name, text in headers.items()
            },
        }
    }


def _shown(summary: str, value: str) -> dict[str, str]:
    return {"summary": summary, "value": value}


_MESSAGES = (
    protocol.InferenceHeader,
    protocol.InferenceAnswer,
    protocol.IndexRequest,
    protocol.LoadRequest,
    protocol.PromoteRequest,
    protocol.UnloadRequest,
)
"""Bodies, and parts of them, that the endpoints take apart themselves."""

_UNKNOWN = "There is no such model or version, or the model is unloaded."
_UNAVAILABLE = "The model is published but cannot be served; the detail says why."
_CACHING = {"ETag": "The SHA-256 of the file.", "Cache-Control": "The file never changes."}
_NOT_MODIFIED: Responses = {304: {"description": "The client has it already."}}
_NO_MODEL = {404: _UNKNOWN, 503: _UNAVAILABLE}
_BODY = {
    400: "The body is not what it should be.",
    411: "The request does not state the length of its body.",
    413: "The body is too large.",
    415: "The body is compressed.",
}
_CONTROL = _BODY | {403: "Clients may not load and unload models here."}

SERVER = _answer("What it is.", examples.SERVER) | _problems({})
LIVE = _answer("The process runs.", examples.LIVE) | _problems({})
READY = _answer("Some model can be served.", examples.READY) | _problems(
    {404: "The service is stopping.", 503: "No model can be served."}
)
MODEL = _answer("The version that serves.", examples.MODEL) | _problems(_NO_MODEL)
DETAILS = _answer("The details of its manifest.", examples.DETAILS) | _problems(_NO_MODEL)
VERSIONS = _answer("Every version, the newest first.", examples.VERSIONS) | _problems(
    {404: "There is no such model.", 503: "The registry of artifacts cannot be read."}
)
MODEL_READY = _answer("It can be served.", examples.MODEL_READY) | _problems(_NO_MODEL)
CLIENT = (
    _binary(
        ZIP,
        "Concrete ML's client side, with the model card.",
        _CACHING,
        {"archive": _shown("A zip archive", "PK...")},
    )
    | _NOT_MODIFIED
    | _problems(_NO_MODEL)
)
REFERENCE = (
    _binary(
        OCTETS,
        "The circuit in the clear, as NumPy arrays.",
        _CACHING,
        {"archive": _shown("An .npz archive", "PK...")},
    )
    | _NOT_MODIFIED
    | _problems({404: f"{_UNKNOWN} Or it was published without.", 503: _UNAVAILABLE})
)
INDEX = _answer("The state of every version.", examples.INDEX) | _problems(
    _BODY | {503: "The registry of artifacts cannot be read."}, examples.REPOSITORY_PROBLEMS
)
LOAD = _done("The version is loaded, and serves.") | _problems(
    _CONTROL | {404: "There is no such model or version.", 503: _UNAVAILABLE},
    examples.REPOSITORY_PROBLEMS,
)
UNLOAD = _done("The model is no longer served.") | _problems(
    _CONTROL | {404: "There is no such model.", 503: "The registry of artifacts cannot be read."},
    examples.REPOSITORY_PROBLEMS,
)
PROMOTE = _done("The version serves.") | _problems(
    _BODY
    | {
        403: "Clients may not put versions into use here, or this API key is no operator's.",
        404: "There is no such model or version.",
        415: "The body is not application/json, or is compressed.",
        503: f"{_UNAVAILABLE} Or the choice cannot be kept.",
    },
    examples.REPOSITORY_PROBLEMS,
)
INDEX_REQUEST = _request_body(protocol.IndexRequest, examples.INDEX_REQUESTS)
LOAD_REQUEST = _request_body(protocol.LoadRequest, examples.LOAD_REQUESTS)
PROMOTE_REQUEST = _request_body(protocol.PromoteRequest, examples.PROMOTE_REQUESTS)
PROMOTE_REQUEST["requestBody"]["required"] = True
UNLOAD_REQUEST = _request_body(protocol.UnloadRequest, examples.UNLOAD_REQUESTS)


def _compact(summary: str, value: str) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary"}
    return {COMPACT_TYPE: {"schema": schema, "examples": {"compact": _shown(summary, value)}}}


INFERENCE = _binary(
    OCTETS,
    "One result; or, where the request was framed, a JSON header and the results.",
    {
        "Server-Timing": "evaluate;dur=: milliseconds of encrypted evaluation, over all elements.",
        "Cloister-Model-Version": "The version that evaluated.",
        HEADER_LENGTH: "Bytes of the JSON header; absent from a raw result.",
    },
    {
        "raw": _shown("Raw: one result", "<108264 bytes>"),
        "framed": _shown(
            "Framed: a JSON header and two results",
            examples.FRAMED_ANSWER,
        ),
    },
    _compact("Compact: one result", "<50850 bytes>"),
) | _problems(
    {
        400: "The request or a ciphertext is malformed, or nothing says what it was encrypted for; "
        "or evaluation keys are needed and not stated, or stated and not needed.",
        404: f"{_UNKNOWN} Or the caller owns no such evaluation keys.",
        408: "The body takes too long to arrive.",
        409: "The input was encrypted for another client.zip, or the evaluation keys made for it.",
        411: "The request does not state the length of its body.",
        413: "The body or the batch is too large.",
        415: "The body is neither a raw ciphertext nor in the binary tensor extension, or the "
        "version takes and gives no compact messages.",
        503: f"{_UNAVAILABLE} Or the service is busy, or did not evaluate in time: send the "
        "request again after the seconds that Retry-After gives.",
    }
)
INFERENCE_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": (
            f"One serialised ciphertext; or, with the header {HEADER_LENGTH}, an inference "
            "request's JSON header (the schema InferenceHeader) followed by the binary data of its "
            "one BYTES tensor, in which each ciphertext is preceded by its length as a "
            "little-endian uint32."
        ),
        "content": {
            OCTETS: {
                "schema": {"type": "string", "format": "binary"},
                "examples": {
                    "raw": _shown("Raw: one ciphertext", "<1800 bytes>"),
                    "framed": _shown(
                        "Framed: a JSON header and two ciphertexts",
                        examples.FRAMED_REQUEST,
                    ),
                },
            }
        }
        | _compact("Compact: one input", "<267 bytes>"),
    }
}

_NOT_OWNED = "The caller owns no such evaluation keys."
_STORE = "The store of evaluation keys cannot be used; the detail says what to do."
_KEY = {400: "The address is no SHA-256.", 404: _NOT_OWNED, 503: _STORE}
_LOCATION = {"Location": {"description": "Their address.", "schema": {"type": "string"}}}

KEY = _answer("What is known of them.", examples.KEY) | _problems(_KEY, examples.KEY_PROBLEMS)
_REMOVED: Responses = {204: {"description": "They are removed."}}
KEY_REMOVAL = _REMOVED | _problems(_KEY, examples.KEY_PROBLEMS)
_KEPT: Responses = {
    200: {"description": "The caller owned them already.", "headers": _LOCATION},
    201: {"description": "They are verified and kept.", "headers": _LOCATION},
}
KEY_UPLOAD = _KEPT | _problems(
    {
        400: "The bytes have another SHA-256 or are not evaluation keys of the client.zip, no "
        "client.zip is stated, or its model needs no evaluation keys.",
        404: "No model has this client.zip, or its model is unloaded.",
        408: "The body takes too long to arrive.",
        409: "The caller owns the same keys for another client.zip.",
        411: "The request does not state the length of its body.",
        413: "Sets of this length are not taken.",
        415: f"The body is not {OCTETS}, or is compressed.",
        503: f"{_UNAVAILABLE} Or: {_STORE}",
        507: "The caller's quota, or the disk, is full; the detail says which and what to do.",
    },
    examples.UPLOAD_PROBLEMS,
)
KEY_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A serialised set of evaluation keys, made with the client.zip whose "
        f"SHA-256 the header {CLIENT_DIGEST} states.",
        "content": {
            OCTETS: {
                "schema": {"type": "string", "format": "binary"},
                "examples": {"keys": _shown("A set", "<63121248 bytes>")},
            }
        },
    }
}

_SCHEME = "apiKey"
_REFUSALS: Responses = {
    401: problem(401, "The service has API keys, and the request states no valid one.")
    | {"headers": {"WWW-Authenticate": {"schema": {"const": "Bearer"}}}},
    429: problem(429, "The API key's rate limit is used up."),
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
    operation["responses"] |= {str(status): refusal for status, refusal in _REFUSALS.items()}
