"""The repository of models."""

from fastapi import APIRouter

from cloister_inference import protocol
from cloister_inference.endpoints.parameters import Plane

router = APIRouter()


@router.post("/v2/repository/index", summary="State of all models")
async def repository_index(plane: Plane) -> list[protocol.IndexEntry]:
    """All versions of all models, whether each can be served, and why not."""
    return await plane.index()
