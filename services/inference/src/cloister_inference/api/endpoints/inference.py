"""Inference requests, framed or raw."""

from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response

from cloister_inference import protocol
from cloister_inference.api import openapi
from cloister_inference.api.body import (
    BODY_SECONDS,
    HeldBytes,
    HeldResponse,
    disconnected,
    read_body,
    stated_length,
)
from cloister_inference.api.endpoints.access import Allowance, Allowed
from cloister_inference.api.endpoints.parameters import (
    MODEL,
    VERSION,
    Name,
    Plane,
    Stated,
    StatedHeaders,
    Version,
)
from cloister_inference.forms import Form, Forms
from cloister_inference.problems import MediaTypeError
from cloister_inference.serving.data_plane import DataPlane, check_client, check_forms
from cloister_shared.open_inference import COMPACT_TYPE, HEADER_LENGTH, OCTETS

_NO_JSON = (
    f"send one raw ciphertext as {OCTETS} or {COMPACT_TYPE}, or a JSON header and binary data with "
    f"the header {HEADER_LENGTH}; a ciphertext has no form in plain JSON"
)

router = APIRouter(tags=["inference"])


@router.post(
    MODEL + "/infer",
    summary="Evaluate with the current version",
    response_class=Response,
    responses=openapi.INFERENCE,
    openapi_extra=openapi.INFERENCE_REQUEST,
)
async def infer(
    request: Request,
    name: Name,
    plane: Plane,
    allowance: Allowed,
    stated: Stated,
) -> Response:
    """Evaluate encrypted inputs; the request must state the digest of its client.zip."""
    return await _infer(request, plane, allowance, stated, name, None)


@router.post(
    VERSION + "/infer",
    summary="Evaluate with a version",
    response_class=Response,
    responses=openapi.INFERENCE,
    openapi_extra=openapi.INFERENCE_REQUEST,
)
async def version_infer(
    request: Request,
    name: Name,
    version: Version,
    plane: Plane,
    allowance: Allowed,
    stated: Stated,
) -> Response:
    """Evaluate encrypted inputs; a digest of client.zip, where stated, must be the version's."""
    return await _infer(request, plane, allowance, stated, name, version)


async def _infer(
    request: Request,
    plane: DataPlane,
    allowance: Allowance,
    stated: StatedHeaders,
    name: str,
    version: str | None,
) -> Response:
    model = await plane.model(name, version)
    header_length, digest = stated.header_length, stated.client_digest
    _check_media_type(request, framed=header_length is not None)
    version_stated = version is not None
    limit = plane.body_limit(model)
    length = stated_length(request, limit)
    held: HeldBytes = request.app.state.held
    # Refused before any of the body is read.
    plane.check_room(model, length - (header_length or 0))
    held.check_room(length)
    body = await read_body(
        request,
        limit,
        seconds=min(BODY_SECONDS, plane.deadline_seconds),
        held=held,
    )
    if header_length is None:
        asked, elements, forms = None, [body], _raw_forms(request)
        if forms.input == Form.CONCRETE:
            _check_not_json(body)
        check_client(model, digest, None, version_stated=version_stated)
    else:
        asked, elements = protocol.parse_framed(body, header_length, plane.max_batch)
        forms = asked.forms
        check_client(model, digest, asked.parameters.client_digest, version_stated=version_stated)
    check_forms(model, forms)
    allowance.take_ciphertexts(len(elements))
    # Held in memory once, as elements, while they wait.
    del body
    # Counted before, since it reads files.
    model = await stated.key.bind(model, asked.parameters.evaluation_key if asked else None)
    seconds = plane.deadline_seconds
    if asked and asked.parameters.timeout:
        seconds = min(seconds, asked.parameters.timeout / 1e6)
    evaluation = await plane.evaluate(
        model,
        elements,
        forms,
        deadline=request.state.arrived + seconds,
        gone=partial(disconnected, request),
    )
    headers = {
        "Cloister-Model-Version": str(model.version),
        "Server-Timing": f"evaluate;dur={evaluation.seconds * 1000:.3f}",
    }
    if asked is None:
        (content,) = evaluation.results
    else:
        with plane.metrics.serialise_seconds.time():
            content, length = protocol.build_framed(
                model.name, str(model.version), asked.id, evaluation.results
            )
        headers[HEADER_LENGTH] = str(length)
    is_compact = asked is None and forms.output == Form.COMPACT
    return HeldResponse(content, held, headers, COMPACT_TYPE if is_compact else OCTETS)


def _raw_forms(request: Request) -> Forms:
    """Return the forms that a raw body's Content-Type and Accept state."""
    accepted = request.headers.get("accept", "").lower().split(",")
    kinds = {kind.partition(";")[0].strip() for kind in accepted}
    return Forms(
        Form.COMPACT if _media_type(request) == COMPACT_TYPE else Form.CONCRETE,
        Form.COMPACT if COMPACT_TYPE in kinds else Form.CONCRETE,
    )


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", OCTETS).partition(";")[0].strip().lower()


def _check_media_type(request: Request, *, framed: bool) -> None:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise MediaTypeError(
            "send the body without a Content-Encoding: ciphertexts do not compress"
        )
    # Clients of the extension state various types or none; its own header says what the body is.
    if not framed and _media_type(request) not in (OCTETS, COMPACT_TYPE):
        raise MediaTypeError(_NO_JSON)


def _check_not_json(body: bytes) -> None:
    # Clients of the protocol send a plain JSON request without a type; no ciphertext of Concrete's
    # begins so, while a compact one may.
    if body[:1] == b"{":
        raise MediaTypeError(_NO_JSON)
