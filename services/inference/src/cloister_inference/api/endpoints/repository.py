"""The repository of models: Triton's extension of the protocol."""

from typing import TypeVar

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from cloister_inference import protocol
from cloister_inference.api import openapi
from cloister_inference.api.body import read_optional_body
from cloister_inference.api.endpoints.parameters import Name, Plane
from cloister_inference.problems import MediaTypeError, NoControlError

REPOSITORY_MODEL = "/v2/repository/models/{name}"

Message = TypeVar(
    "Message",
    protocol.IndexRequest,
    protocol.LoadRequest,
    protocol.PromoteRequest,
    protocol.UnloadRequest,
)

router = APIRouter(tags=["repository"])


async def _check_control(request: Request) -> None:
    if not request.app.state.model_control:
        raise NoControlError(
            "models are not loaded and unloaded by clients here (CLOISTER_MODEL_CONTROL); a "
            "version that becomes current is loaded by itself"
        )


CONTROL = [Depends(_check_control)]


@router.post(
    "/v2/repository/index",
    summary="State of all models",
    responses=openapi.INDEX,
    openapi_extra=openapi.INDEX_REQUEST,
)
async def repository_index(request: Request, plane: Plane) -> list[protocol.IndexEntry]:
    """All versions of all models, whether each is loaded, and why not; loads none for it."""
    asked = await _read(request, protocol.IndexRequest)
    return await plane.index(ready=asked.ready)


@router.post(
    REPOSITORY_MODEL + "/load",
    summary="Load a model now",
    response_class=Response,
    responses=openapi.LOAD,
    dependencies=CONTROL,
    openapi_extra=openapi.LOAD_REQUEST,
)
async def repository_load(request: Request, name: Name, plane: Plane) -> Response:
    """Look at the registry now, and answer once the current version serves.

    Also serves again what was unloaded, and tries again what was refused. With the parameter
    ``version`` that version is loaded ahead of the first request that names it; which one is
    current is decided in the registry alone.
    """
    version = (await _read(request, protocol.LoadRequest)).parameters.version
    await plane.load(name, None if version is None else str(version))
    return Response()


async def _check_operator(request: Request) -> None:
    if not request.state.caller.operator:
        raise NoControlError(
            "this API key may not put versions into use: that is for an operator's "
            "(api-keys create NAME --operator)"
        )


async def _check_json(request: Request) -> None:
    # A page elsewhere may send other types without asking first.
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if media_type != "application/json":
        raise MediaTypeError("send the body as application/json")


@router.post(
    REPOSITORY_MODEL + "/promote",
    summary="Put a version into use",
    response_class=Response,
    responses=openapi.PROMOTE,
    dependencies=[*CONTROL, Depends(_check_operator), Depends(_check_json)],
    openapi_extra=openapi.PROMOTE_REQUEST,
)
async def repository_promote(request: Request, name: Name, plane: Plane) -> Response:
    """Have a version serve requests that name none, once it is loaded.

    It serves at all replicas, through restarts, until the registry of artifacts puts another
    version into use: by a publication, or by ``promote`` or ``rollback`` there.
    """
    await plane.promote(name, (await _read(request, protocol.PromoteRequest)).parameters.version)
    return Response()


@router.post(
    REPOSITORY_MODEL + "/unload",
    summary="Unload a model",
    response_class=Response,
    responses=openapi.UNLOAD,
    dependencies=CONTROL,
    openapi_extra=openapi.UNLOAD_REQUEST,
)
async def repository_unload(request: Request, name: Name, plane: Plane) -> Response:
    """Stop serving all versions of a model until it is loaded again; what runs, ends."""
    await _read(request, protocol.UnloadRequest)
    await plane.unload(name)
    return Response()


async def _read(request: Request, message: type[Message]) -> Message:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise MediaTypeError("send the body without a Content-Encoding")
    # Of whatever type: clients of the extension state various types or none.
    body = await read_optional_body(request, protocol.HEADER_BYTES_LIMIT)
    return protocol.parse_json(body or b"{}", message, "the body is not a request of this kind")
