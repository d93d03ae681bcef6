"""What the endpoints' functions take."""

from typing import Annotated

from fastapi import Depends, Header, Path, Request

from cloister_inference.data_plane import DataPlane
from cloister_inference.lifecycle import Lifecycle
from cloister_shared.open_inference import CLIENT_DIGEST, HEADER_LENGTH

MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"


# Each of these is a coroutine function because FastAPI calls others in a thread.
async def _data_plane(request: Request) -> DataPlane:
    plane: DataPlane = request.app.state.data_plane
    return plane


async def _lifecycle(request: Request) -> Lifecycle:
    lifecycle: Lifecycle = request.app.state.lifecycle
    return lifecycle


State = Annotated[Lifecycle, Depends(_lifecycle)]
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
