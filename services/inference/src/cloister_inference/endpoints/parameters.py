"""What the endpoints' functions take."""

from typing import Annotated

from fastapi import Depends, Header, Path, Request

from cloister_inference.data_plane import DataPlane
from cloister_inference.evaluation_keys import EvaluationKeys
from cloister_inference.model import Model
from cloister_shared.open_inference import CLIENT_DIGEST, EVALUATION_KEY, HEADER_LENGTH

MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"


def _data_plane(request: Request) -> DataPlane:
    plane: DataPlane = request.app.state.data_plane
    return plane


def _evaluation_keys(request: Request) -> EvaluationKeys:
    keys: EvaluationKeys = request.app.state.evaluation_keys
    return keys


def owner(request: Request) -> str:
    """Whose request it is."""
    return str(getattr(request.state, "owner", "anonymous"))


Keys = Annotated[EvaluationKeys, Depends(_evaluation_keys)]
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
KeyDigest = Annotated[
    str, Path(description="SHA-256 of the evaluation keys, as 64 hex digits.", examples=["0" * 64])
]


class StatedKey:
    """The evaluation keys that a request names in its header."""

    def __init__(
        self,
        request: Request,
        keys: Keys,
        digest: Annotated[
            str | None,
            Header(
                alias=EVALUATION_KEY,
                description="SHA-256 of the uploaded evaluation keys to evaluate with, for models "
                "that need them. May be the parameter evaluation_key of the JSON header instead.",
            ),
        ] = None,
    ) -> None:
        self._keys = keys
        self._digest = digest
        request.state.stated_key = self

    async def bind(self, request: Request, model: Model, in_parameters: str | None) -> Model:
        """Return ``model`` with the keys that the request names; see ``EvaluationKeys.bind``."""
        return await self._keys.bind(model, owner(request), self._digest, in_parameters)


TAKES_KEYS = Depends(StatedKey)
"""Puts ``stated_key`` into the request's state."""
