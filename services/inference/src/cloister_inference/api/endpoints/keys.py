"""Evaluation keys: uploaded, described and removed by their owners."""

from datetime import datetime

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from cloister_inference.api import openapi
from cloister_inference.api.body import Body, stated_length
from cloister_inference.api.endpoints.parameters import ClientDigest, KeyDigest, Keys, Owner
from cloister_inference.problems import MediaTypeError, ProblemError
from cloister_shared.open_inference import OCTETS

UPLOAD_SECONDS = 600.0
"""The longest that evaluation keys may take to arrive."""
PATH = "/v2/keys/{sha256}"

router = APIRouter(tags=["keys"])


class KeyState(BaseModel):
    """A set of evaluation keys that the caller owns."""

    sha256: str
    client_digest: str
    """SHA-256 of the client.zip that they were made with."""
    bytes: int
    created: datetime
    used: datetime
    """When they were last used, to the hour."""


@router.put(
    PATH,
    summary="Upload evaluation keys",
    status_code=201,
    response_class=Response,
    responses=openapi.KEY_UPLOAD,
    openapi_extra=openapi.KEY_REQUEST,
)
async def put_key(
    request: Request,
    sha256: KeyDigest,
    keys: Keys,
    owner: Owner,
    client_digest: ClientDigest = None,
) -> Response:
    """Take in a serialised set of evaluation keys: 201 if it is new, 200 if it was there."""
    body = None
    try:
        _check_media_type(request)
        length = stated_length(request, keys.limit)
        model = await keys.expected(client_digest, length)
        body = Body(request, length, UPLOAD_SECONDS)
        created = await keys.put(owner, sha256, model, length, body)
    except ProblemError as error:
        error.leaves_body = body is None or not body.complete
        raise
    return Response(status_code=201 if created else 200, headers={"Location": f"/v2/keys/{sha256}"})


@router.get(PATH, summary="Describe evaluation keys", responses=openapi.KEY)
@router.head(PATH, include_in_schema=False)
async def describe_key(sha256: KeyDigest, keys: Keys, owner: Owner) -> KeyState:
    """Say what is known of evaluation keys that the caller owns."""
    held = await keys.find(owner, sha256)
    record = held.record
    return KeyState(
        sha256=sha256,
        client_digest=record.client_digest,
        bytes=record.bytes,
        created=record.created,
        used=held.used,
    )


@router.delete(
    PATH,
    summary="Remove evaluation keys",
    status_code=204,
    response_class=Response,
    responses=openapi.KEY_REMOVAL,
)
async def delete_key(sha256: KeyDigest, keys: Keys, owner: Owner) -> Response:
    """Remove evaluation keys that the caller owns; the same keys of others stay."""
    await keys.delete(owner, sha256)
    return Response(status_code=204)


def _check_media_type(request: Request) -> None:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise MediaTypeError(
            "send evaluation keys without a Content-Encoding: they do not compress"
        )
    stated = request.headers.get("content-type", OCTETS).partition(";")[0].strip().lower()
    if stated != OCTETS:
        raise MediaTypeError(f"send evaluation keys as {OCTETS}")
