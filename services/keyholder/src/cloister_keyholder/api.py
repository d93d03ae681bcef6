"""The inference service's HTTP interface: the Open Inference Protocol v2 and Cloister's own part.

Source: https://github.com/kserve/open-inference-protocol
"""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloister_keyholder.archive import read_members
from cloister_keyholder.errors import InvalidAnswer, InvalidClientPackage, RequestRefused
from cloister_keyholder.transport import Transport
from cloister_shared.artifact import REFERENCE
from cloister_shared.digests import digest_bytes
from cloister_shared.errors import CloisterError
from cloister_shared.open_inference import CLIENT_DIGEST, EVALUATION_KEY
from cloister_shared.reference import Reference

METADATA_LIMIT = 1 << 20
CLIENT_LIMIT = 16 << 20
REFERENCE_LIMIT = 256 << 20
"""Bytes: 1 MiB, 16 MiB and 256 MiB. MNIST's client.zip has 73 KB, its reference 128 KB."""

_EVALUATE = re.compile(r"(?:^|,)\s*evaluate\s*;(?:[^,]*;)?\s*dur=(\d+(?:\.\d+)?)")


class _Parameters(BaseModel):
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
    client_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="ignore")

    parameters: _Parameters


@dataclass(frozen=True)
class Description:
    """What the service says of one version of the model."""

    version: int
    client_digest: str
    """SHA-256 of its client.zip."""


@dataclass(frozen=True)
class Inference:
    """The answer to one encrypted query."""

    result: bytes
    evaluate_ms: float | None
    """Time of the encrypted evaluation as the service states it, in milliseconds."""


class InferenceService:
    """The requests about one model.

    Every method raises what ``Transport.post`` raises, beside what it names itself.
    """

    def __init__(self, transport: Transport, model: str) -> None:
        self._transport = transport
        self._model = f"/v2/models/{quote(model, safe='')}"

    def check_ready(self) -> None:
        """Return if the model can be queried."""
        self._transport.get(f"{self._model}/ready", limit=METADATA_LIMIT)

    def describe(self, version: int | None) -> Description:
        """Describe a version, or the current one.

        Raises:
            InvalidAnswer: the description is malformed, or of another version.
        """
        path = self._model if version is None else self._version(version)
        reply = self._transport.get(path, limit=METADATA_LIMIT)
        try:
            parameters = _Metadata.model_validate_json(reply.body).parameters
        except ValidationError:
            raise InvalidAnswer(
                f"{self._transport.url}{path} does not describe a model that is served encrypted: "
                "see that this is the address of Cloister's inference service"
            ) from None
        described = int(parameters.version)
        if version not in (None, described):
            raise InvalidAnswer(f"asked for version {version}, the service described {described}")
        return Description(described, parameters.client_digest)

    def client_zip(self, description: Description) -> bytes:
        """Return the client.zip of a version.

        Raises:
            InvalidAnswer: its SHA-256 is not the description's, or not that of its ETag.
        """
        reply = self._transport.get(
            f"{self._version(description.version)}/client", limit=CLIENT_LIMIT
        )
        digest = digest_bytes(reply.body)
        etag = reply.headers.get("ETag", f'"{digest}"').removeprefix("W/").strip('"')
        if digest != description.client_digest or digest != etag:
            raise InvalidAnswer(
                f"client.zip has the SHA-256 {digest}, but the service announced "
                f"{description.client_digest}, and {etag} as its ETag: it was changed on the way, "
                "or the service is broken"
            )
        return reply.body

    def reference(self, version: int) -> Reference | None:
        """Return the circuit in the clear, or None where it is not published.

        Raises:
            InvalidAnswer: it is damaged.
        """
        try:
            reply = self._transport.get(
                f"{self._version(version)}/reference", limit=REFERENCE_LIMIT
            )
        except RequestRefused as error:
            if error.status == 404:
                return None
            raise
        try:
            read_members(reply.body, limit=REFERENCE_LIMIT)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / REFERENCE
                path.write_bytes(reply.body)
                return Reference.read(path)
        except InvalidClientPackage as error:
            raise InvalidAnswer(f"the service's {REFERENCE} is damaged: {error}") from None
        except (CloisterError, MemoryError):
            raise InvalidAnswer(f"the service's {REFERENCE} is damaged") from None

    def infer(
        self,
        description: Description,
        ciphertext: bytes,
        *,
        result_limit: int,
        evaluation_key: str | None = None,
    ) -> Inference:
        """Return the encrypted result for one ciphertext.

        Args:
            description: of the version whose client.zip the ciphertext was made with.
            ciphertext: one serialised input.
            result_limit: the most bytes that a result may have.
            evaluation_key: digest of the evaluation keys to evaluate with, where some are needed.
        """
        headers = infer_headers(description)
        if evaluation_key:
            headers[EVALUATION_KEY] = evaluation_key
        reply = self._transport.post(
            self.infer_path(description.version),
            ciphertext,
            headers,
            limit=result_limit,
        )
        timing = _EVALUATE.search(reply.headers.get("Server-Timing", ""))
        return Inference(reply.body, float(timing[1]) if timing else None)

    def infer_path(self, version: int) -> str:
        """Where ciphertexts for a version are posted, below the service's address."""
        return f"{self._version(version)}/infer"

    def _version(self, version: int) -> str:
        return f"{self._model}/versions/{version}"


def infer_headers(description: Description) -> dict[str, str]:
    """Return the headers of a request whose body is one ciphertext."""
    return {
        "Content-Type": "application/octet-stream",
        CLIENT_DIGEST: description.client_digest,
    }
