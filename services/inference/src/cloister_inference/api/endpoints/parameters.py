"""What the endpoints' functions take."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Path, Request

from cloister_inference.access.credentials import ANONYMOUS
from cloister_inference.api.examples import DIGEST, HEADER_BYTES, KEY_DIGEST
from cloister_inference.keys.evaluation_keys import EvaluationKeys
from cloister_inference.lifecycle import Lifecycle
from cloister_inference.protocol import DIGEST_PATTERN
from cloister_inference.serving.data_plane import DataPlane
from cloister_inference.serving.model import Model
from cloister_shared.open_inference import CLIENT_DIGEST, EVALUATION_KEY, HEADER_LENGTH

MODEL = "/v2/models/{name}"
VERSION = MODEL + "/versions/{version}"


# Each of these is a coroutine function because FastAPI calls others in a thread.
async def _data_plane(request: Request) -> DataPlane:
    plane: DataPlane = request.app.state.data_plane
    return plane


async def _lifecycle(request: Request) -> Lifecycle:
    lifecycle: Lifecycle = request.app.state.lifecycle
    return lifecycle


async def _evaluation_keys(request: Request) -> EvaluationKeys:
    keys: EvaluationKeys = request.app.state.evaluation_keys
    return keys


async def _owner(request: Request) -> str:
    """Whose request it is."""
    return str(getattr(request.state, "owner", ANONYMOUS))


Keys = Annotated[EvaluationKeys, Depends(_evaluation_keys)]
Owner = Annotated[str, Depends(_owner)]
State = Annotated[Lifecycle, Depends(_lifecycle)]
Plane = Annotated[DataPlane, Depends(_data_plane)]
# Stated and not checked here: another one is not there, which is what the answer says.
Name = Annotated[
    str,
    Path(
        description="Name of the model.",
        examples=["digits"],
        json_schema_extra={"pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
    ),
]
Version = Annotated[
    str,
    Path(
        description="Number of the version.",
        examples=["1"],
        json_schema_extra={"pattern": "^[1-9][0-9]{0,8}$"},
    ),
]
IfNoneMatch = Annotated[
    str | None,
    Header(
        description="Entity tags that the client has; one of them answers 304.",
        examples=[f'"{DIGEST}"'],
    ),
]
HeaderLength = Annotated[
    int | None,
    Header(
        alias=HEADER_LENGTH,
        ge=1,
        examples=[HEADER_BYTES],
        description="Bytes of the JSON header at the start of the body; absent where the body is "
        "one raw ciphertext.",
    ),
]
ClientDigest = Annotated[
    str | None,
    Header(
        alias=CLIENT_DIGEST,
        pattern=DIGEST_PATTERN,
        examples=[DIGEST],
        description="SHA-256 of the client.zip that the input was encrypted with. May be left out "
        "where the address names the version, or the JSON header the parameter client_digest.",
    ),
]
KeyDigest = Annotated[
    str,
    Path(
        description="SHA-256 of the evaluation keys.",
        examples=[KEY_DIGEST],
        pattern=DIGEST_PATTERN,
    ),
]


class StatedKey:
    """The evaluation keys that a request names in its HTTP header, if it names any."""

    def __init__(self, keys: EvaluationKeys, owner: str, digest: str | None) -> None:
        """Name keys.

        Args:
            keys: of everybody.
            owner: of the request.
            digest: SHA-256 of the keys.
        """
        self._keys = keys
        self._owner = owner
        self._digest = digest

    async def bind(self, model: Model, in_parameters: str | None) -> Model:
        """Return ``model`` with the keys that the request names; see ``EvaluationKeys.bind``.

        Args:
            model: to evaluate with.
            in_parameters: digest of the keys as the request's parameters state it.
        """
        return await self._keys.bind(model, self._owner, self._digest, in_parameters)


@dataclass(frozen=True)
class StatedHeaders:
    """What the HTTP headers of an inference request say of it."""

    header_length: int | None
    client_digest: str | None
    key: StatedKey


async def _stated_headers(
    keys: Keys,
    owner: Owner,
    header_length: HeaderLength = None,
    client_digest: ClientDigest = None,
    key_digest: Annotated[
        str | None,
        Header(
            alias=EVALUATION_KEY,
            pattern=DIGEST_PATTERN,
            examples=[KEY_DIGEST],
            description="SHA-256 of the uploaded evaluation keys to evaluate with, for models that "
            "need them. May be the parameter evaluation_key of the JSON header instead.",
        ),
    ] = None,
) -> StatedHeaders:
    return StatedHeaders(header_length, client_digest, StatedKey(keys, owner, key_digest))


Stated = Annotated[StatedHeaders, Depends(_stated_headers)]
