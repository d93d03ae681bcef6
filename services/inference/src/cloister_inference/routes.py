"""The HTTP endpoints."""

from importlib.metadata import version as package_version
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request
from fastapi.responses import Response

from cloister_inference import openapi, protocol
from cloister_inference.body import read_body
from cloister_inference.data_plane import DataPlane, check_client
from cloister_inference.model import Download
from cloister_inference.openapi import OCTETS, ZIP
from cloister_inference.problems import MediaTypeError
from cloister_shared.open_inference import CLIENT_DIGEST, HEADER_LENGTH

MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"


def _data_plane(request: Request) -> DataPlane:
    plane: DataPlane = request.app.state.data_plane
    return plane


Plane = Annotated[DataPlane, Depends(_data_plane)]
Name = Annotated[str, Path(description="Name of the model.", examples=["digits"])]
Version = Annotated[str, Path(description="Number of the version.", examples=["1"])]
IfNoneMatch = Annotated[
    str | None, Header(description="Entity tags that the client has; one of them answers 304.")
]
HeaderLength = Annotated[
    int | None,
    Header(
        alias=HEADER_LENGTH,
        ge=1,
        description="Bytes of the JSON header at the start of the body; absent where the body is "
        "one raw ciphertext.",
    ),
]
ClientDigest = Annotated[
    str | None,
    Header(
        alias=CLIENT_DIGEST,
        description="SHA-256 of the client.zip that the input was encrypted with. May be left out "
        "where the address names the version, or the JSON header the parameter client_digest.",
    ),
]


router = APIRouter()


@router.get("/v2", summary="What this server is")
async def server_metadata() -> protocol.ServerMetadata:
    """Name, version and the extensions of the protocol that are supported."""
    return protocol.ServerMetadata(
        name="cloister",
        version=package_version("cloister-inference"),
        extensions=protocol.EXTENSIONS,
    )


@router.get("/v2/health/live", summary="Whether the process runs")
async def live() -> protocol.Live:
    """Answer as long as the process can."""
    return protocol.Live()


@router.get(
    "/v2/health/ready",
    summary="Whether some model can be served",
    responses=openapi.READY,
)
async def ready(plane: Plane) -> protocol.Ready:
    """Answer 200 once the current version of at least one model is loaded."""
    await plane.check_ready()
    return protocol.Ready()


@router.post("/v2/repository/index", summary="State of all models")
async def repository_index(plane: Plane) -> list[protocol.IndexEntry]:
    """All versions of all models, whether each can be served, and why not."""
    return await plane.index()


@router.get(MODEL, summary="Describe the current version", responses=openapi.MODEL)
async def model_metadata(name: Name, plane: Plane) -> protocol.ModelMetadata:
    """Inputs, outputs, sizes and the digest of client.zip."""
    return await plane.metadata(name, None)


@router.get(VERSION, summary="Describe a version", responses=openapi.MODEL)
async def version_metadata(name: Name, version: Version, plane: Plane) -> protocol.ModelMetadata:
    """Inputs, outputs, sizes and the digest of client.zip."""
    return await plane.metadata(name, version)


@router.get(
    MODEL + "/ready", summary="Whether the current version can be served", responses=openapi.MODEL
)
async def model_ready(name: Name, plane: Plane) -> protocol.ModelReady:
    """Load the version if need be, and answer 200 if it can be served."""
    return protocol.ModelReady(name=(await plane.model(name, None)).name)


@router.get(VERSION + "/ready", summary="Whether a version can be served", responses=openapi.MODEL)
async def version_ready(name: Name, version: Version, plane: Plane) -> protocol.ModelReady:
    """Load the version if need be, and answer 200 if it can be served."""
    return protocol.ModelReady(name=(await plane.model(name, version)).name)


@router.get(
    VERSION + "/client",
    summary="Download client.zip",
    response_class=Response,
    responses=openapi.CLIENT,
)
async def client(
    name: Name, version: Version, plane: Plane, if_none_match: IfNoneMatch = None
) -> Response:
    """Everything that a key holder needs to encrypt inputs and decrypt results."""
    return _download(await plane.client(name, version), ZIP, if_none_match)


@router.get(
    VERSION + "/reference",
    summary="Download reference.npz",
    response_class=Response,
    responses=openapi.REFERENCE,
)
async def reference(
    name: Name, version: Version, plane: Plane, if_none_match: IfNoneMatch = None
) -> Response:
    """The circuit in the clear, with which results can be checked; 404 where not published."""
    return _download(await plane.reference(name, version), OCTETS, if_none_match)


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
        evaluation = await plane.evaluate(model, [body])
        (content,) = evaluation.results
    else:
        asked, elements = protocol.parse_framed(body, header_length, plane.max_batch)
        check_client(model, digest, asked.parameters.client_digest, version_stated=stated)
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


def _download(file: Download, media_type: str, if_none_match: str | None) -> Response:
    tag = f'"{file.digest}"'
    headers = {"ETag": tag, "Cache-Control": "public, max-age=31536000, immutable"}
    known = {known.strip().removeprefix("W/") for known in (if_none_match or "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=media_type, headers=headers)
