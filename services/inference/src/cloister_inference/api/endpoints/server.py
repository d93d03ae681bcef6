"""The server itself: what it is, whether it lives, whether it is ready."""

from importlib.metadata import version as package_version

from fastapi import APIRouter

from cloister_inference import protocol
from cloister_inference.api import openapi
from cloister_inference.api.endpoints.parameters import Plane, State
from cloister_inference.problems import StoppingError

router = APIRouter(tags=["server"])


@router.get("/v2", summary="What this server is", responses=openapi.SERVER)
async def server_metadata() -> protocol.ServerMetadata:
    """Name, version and the extensions of the protocol that are supported."""
    return protocol.ServerMetadata(
        name="cloister",
        version=package_version("cloister-inference"),
        extensions=protocol.EXTENSIONS,
    )


@router.get("/v2/health/live", summary="Whether the process runs", responses=openapi.LIVE)
async def live() -> protocol.Live:
    """Answer as long as the process can."""
    return protocol.Live()


@router.get(
    "/v2/health/ready",
    summary="Whether some model can be served",
    responses=openapi.READY,
)
async def ready(plane: Plane, lifecycle: State) -> protocol.Ready:
    """Answer 200 once the current version of at least one model is loaded, until it stops."""
    if lifecycle.stopping:
        raise StoppingError
    await plane.check_ready()
    return protocol.Ready()
