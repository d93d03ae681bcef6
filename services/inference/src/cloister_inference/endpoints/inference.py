"""Inference requests, framed or raw."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from cloister_inference import openapi, protocol
from cloister_inference.body import read_body
from cloister_inference.data_plane import DataPlane, check_client
from cloister_inference.endpoints.parameters import (
    MODEL,
    TAKES_KEYS,
    VERSION,
    ClientDigest,
    HeaderLength,
    Name,
    Plane,
    Version,
)
from cloister_inference.openapi import OCTETS
from cloister_inference.problems import MediaTypeError
from cloister_shared.open_inference import HEADER_LENGTH

router = APIRouter()


@router.post(
    MODEL + "/infer",
    summary="Evaluate with the current version",
    response_class=Response,
    responses=openapi.INFERENCE,
    openapi_extra=openapi.INFERENCE_REQUEST,
    dependencies=[TAKES_KEYS],
)
async def infer(
    request: Request,
    name: Name,
    plane: Plane,
    header_length: HeaderLength = None,
    client_digest: ClientDigest = None,
) -> Response:
    """Evaluate encrypted inputs; the request must state the digest of its client.zip."""
    return await _infer(request, plane, name, None, header_length, client_digest)


@router.post(
    VERSION + "/infer",
    summary="Evaluate with a version",
    response_class=Response,
    responses=openapi.INFERENCE,
    openapi_extra=openapi.INFERENCE_REQUEST,
    dependencies=[TAKES_KEYS],
)
async def version_infer(
    request: Request,
    name: Name,
    version: Version,
    plane: Plane,
    header_length: HeaderLength = None,
    client_digest: ClientDigest = None,
) -> Response:
    """Evaluate encrypted inputs; a digest of client.zip, where stated, must be the version's."""
    return await _infer(request, plane, name, version, header_length, client_digest)


async def _infer(
    request: Request,
    plane: DataPlane,
    name: str,
    version: str | None,
    header_length: int | None,
    digest: str | None,
) -> Response:
    model = await plane.model(name, version)
    _check_media_type(request, framed=header_length is not None)
    body = await read_body(request, plane.body_limit(model))
    stated = version is not None
    headers = {"Cloister-Model-Version": str(model.version)}
    if header_length is None:
        check_client(model, digest, None, version_stated=stated)
        model = await request.state.stated_key.bind(request, model, None)
        evaluation = await plane.evaluate(model, [body])
        (content,) = evaluation.results
    else:
        asked, elements = protocol.parse_framed(body, header_length, plane.max_batch)
        check_client(model, digest, asked.parameters.client_digest, version_stated=stated)
        model = await request.state.stated_key.bind(request, model, asked.parameters.evaluation_key)
        evaluation = await plane.evaluate(model, elements)
        content, length = protocol.build_framed(
            model.name, str(model.version), asked.id, evaluation.results
        )
        headers[HEADER_LENGTH] = str(length)
    headers["Server-Timing"] = f"evaluate;dur={evaluation.seconds * 1000:.3f}"
    return Response(content, media_type=OCTETS, headers=headers)


def _check_media_type(request: Request, *, framed: bool) -> None:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise MediaTypeError(
            "send the body without a Content-Encoding: ciphertexts do not compress"
        )
    # Clients of the extension state various types or none; its own header says what the body is.
    stated = request.headers.get("content-type", OCTETS).partition(";")[0].strip().lower()
    if not framed and stated != OCTETS:
        raise MediaTypeError(
            f"send one raw ciphertext as {OCTETS}, or a JSON header and binary data with the "
            f"header {HEADER_LENGTH}; a ciphertext has no form in plain JSON"
        )
