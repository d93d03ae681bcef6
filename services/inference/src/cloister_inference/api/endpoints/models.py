"""Models and their versions: descriptions, readiness, downloads."""

from fastapi import APIRouter
from fastapi.responses import Response

from cloister_inference import protocol
from cloister_inference.api import openapi
from cloister_inference.api.endpoints.parameters import (
    MODEL,
    VERSION,
    IfNoneMatch,
    Name,
    Plane,
    Version,
)
from cloister_inference.api.openapi import ZIP
from cloister_inference.serving.model import Download
from cloister_shared.artifact import ArtifactDetails
from cloister_shared.open_inference import OCTETS

router = APIRouter(tags=["models"])


@router.get(MODEL, summary="Describe the current version", responses=openapi.MODEL)
async def model_metadata(name: Name, plane: Plane) -> protocol.ModelMetadata:
    """Inputs, outputs, sizes and the digest of client.zip."""
    return await plane.metadata(name, None)


@router.get(VERSION, summary="Describe a version", responses=openapi.MODEL)
async def version_metadata(name: Name, version: Version, plane: Plane) -> protocol.ModelMetadata:
    """Inputs, outputs, sizes and the digest of client.zip."""
    return await plane.metadata(name, version)


@router.get(
    MODEL + "/versions",
    summary="All that is known of a model's versions",
    responses=openapi.VERSIONS,
)
async def model_versions(name: Name, plane: Plane) -> protocol.ModelVersions:
    """Which serves, and of each version metrics, sizes and cost; loads none for it."""
    return await plane.versions(name)


@router.get(
    MODEL + "/ready",
    summary="Whether the current version can be served",
    responses=openapi.MODEL_READY,
)
async def model_ready(name: Name, plane: Plane) -> protocol.ModelReady:
    """Load the version if need be, and answer 200 if it can be served."""
    return protocol.ModelReady(name=(await plane.model(name, None)).name)


@router.get(
    VERSION + "/ready", summary="Whether a version can be served", responses=openapi.MODEL_READY
)
async def version_ready(name: Name, version: Version, plane: Plane) -> protocol.ModelReady:
    """Load the version if need be, and answer 200 if it can be served."""
    return protocol.ModelReady(name=(await plane.model(name, version)).name)


@router.get(
    VERSION + "/details",
    summary="What was compiled, and what was proven before it was published",
    responses=openapi.DETAILS,
)
async def version_details(name: Name, version: Version, plane: Plane) -> ArtifactDetails:
    """Bits, sizes, verification, agreement with the float model, versions of libraries."""
    return await plane.details(name, version)


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


def _download(file: Download, media_type: str, if_none_match: str | None) -> Response:
    tag = f'"{file.digest}"'
    headers = {"ETag": tag, "Cache-Control": "public, max-age=31536000, immutable"}
    known = {known.strip().removeprefix("W/") for known in (if_none_match or "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=media_type, headers=headers)
