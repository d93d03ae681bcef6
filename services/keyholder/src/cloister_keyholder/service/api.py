"""The inference service's HTTP interface: the Open Inference Protocol v2 and Cloister's own part.

Source: https://github.com/kserve/open-inference-protocol
"""

import logging
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloister_keyholder.errors import InvalidAnswer, InvalidClientPackage, RequestRefused
from cloister_keyholder.package.archive import read_members
from cloister_keyholder.querying.flow import Flow
from cloister_keyholder.service.batch import answer_limit, pack, unpack
from cloister_keyholder.service.transport import Exchanges, FileBody
from cloister_shared.artifact import REFERENCE, ArtifactDetails
from cloister_shared.compact import Compact
from cloister_shared.digests import digest_bytes
from cloister_shared.errors import CloisterError
from cloister_shared.open_inference import CLIENT_DIGEST, COMPACT_TYPE, EVALUATION_KEY, OCTETS

METADATA_LIMIT = 1 << 20
CLIENT_LIMIT = 16 << 20
REFERENCE_LIMIT = 256 << 20
"""Bytes: 1 MiB, 16 MiB and 256 MiB. MNIST's client.zip has 73 KB, its reference 128 KB."""

Read = TypeVar("Read")

log = logging.getLogger(__name__)

_EVALUATE = re.compile(r"(?:^|,)\s*evaluate\s*;(?:[^,]*;)?\s*dur=(\d+(?:\.\d+)?)")


class _Compact(Compact):
    model_config = ConfigDict(extra="ignore")


class _Parameters(BaseModel):
    version: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,8}$")]
    client_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    compact: _Compact | None = None
    evaluator: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")] | None = None


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="ignore")

    parameters: _Parameters


@dataclass(frozen=True)
class Description:
    """What the service says of one version of the model."""

    version: int
    client_digest: str
    """SHA-256 of its client.zip."""
    compact: Compact | None = None
    """How far messages are rounded in the compact form, where the service takes it."""
    evaluator: str | None = None
    """What evaluates at the service, as it says: ``native`` or ``concrete``; None where it does not
    say."""


@dataclass(frozen=True)
class Inference:
    """The answer to one encrypted query, and what the request that carried it took."""

    result: bytes
    evaluate_ms: float | None
    """Time of the encrypted evaluation of one query, in milliseconds: what the service states for
    the request, divided by its queries."""
    request_ms: float
    """From first sending the request to holding its whole answer, repetitions included."""
    queries: int
    """That the request carried."""


class InferenceService:
    """The requests about one model, as flows for its transport to run.

    Every method raises what ``Transport.post`` raises, beside what it names itself.
    """

    def __init__(self, transport: Exchanges, model: str) -> None:
        self._transport = transport
        self._model = f"/v2/models/{quote(model, safe='')}"

    def check_ready(self) -> Flow[None]:
        """Return if the model can be queried."""
        yield from self._transport.exchange("GET", f"{self._model}/ready", limit=METADATA_LIMIT)

    def describe(self, version: int | None) -> Flow[Description]:
        """Describe a version, or the current one.

        Raises:
            InvalidAnswer: the description is malformed, or of another version.
        """
        path = self._model if version is None else self._version(version)
        reply = yield from self._transport.exchange("GET", path, limit=METADATA_LIMIT)
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
        return Description(
            described, parameters.client_digest, parameters.compact, parameters.evaluator
        )

    def client_zip(self, description: Description) -> Flow[bytes]:
        """Return the client.zip of a version.

        Raises:
            InvalidAnswer: its SHA-256 is not the description's, or not that of its ETag.
        """
        reply = yield from self._transport.exchange(
            "GET", f"{self._version(description.version)}/client", limit=CLIENT_LIMIT
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

    def details(self, version: int) -> Flow[ArtifactDetails | None]:
        """Return what a version was compiled to and proven by, or None where it is not told.

        Raises:
            InvalidAnswer: it is something else.
        """
        path = f"{self._version(version)}/details"
        try:
            reply = yield from self._transport.exchange("GET", path, limit=METADATA_LIMIT)
        except RequestRefused as error:
            if error.status == 404:
                return None
            raise
        try:
            return ArtifactDetails.model_validate_json(reply.body)
        except ValidationError:
            raise InvalidAnswer(
                f"{self._transport.url}{path} does not tell of a compiled model"
            ) from None

    def reference(self, version: int, read: Callable[[Path], Read]) -> Flow[Read | None]:
        """Return the circuit in the clear, or None where it is not published.

        Args:
            version: of the model.
            read: makes it of an .npz file, and raises CloisterError where it is damaged.

        Raises:
            InvalidAnswer: it is damaged.
        """
        try:
            reply = yield from self._transport.exchange(
                "GET", f"{self._version(version)}/reference", limit=REFERENCE_LIMIT
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
                return read(path)
        except InvalidClientPackage as error:
            raise InvalidAnswer(f"the service's {REFERENCE} is damaged: {error}") from None
        except (CloisterError, MemoryError):
            raise InvalidAnswer(f"the service's {REFERENCE} is damaged") from None

    def infer(
        self,
        description: Description,
        ciphertexts: Sequence[bytes],
        *,
        result_limit: int,
        evaluation_key: str | None = None,
        compact: bool = False,
    ) -> Flow[list[Inference]]:
        """Return the encrypted results of ciphertexts, in their order, by one request.

        Args:
            description: of the version whose client.zip the ciphertexts were made with.
            ciphertexts: serialised inputs, at least one. One goes by itself, several are framed.
            result_limit: the most bytes that a result may have.
            evaluation_key: digest of the evaluation keys to evaluate with, where some are needed.
            compact: whether ciphertexts are, and results are to be, in the compact form.

        Raises:
            InvalidAnswer: the answer is not one result for each ciphertext.
        """
        headers, body = infer_headers(description), ciphertexts[0]
        if compact:
            headers |= {"Content-Type": COMPACT_TYPE, "Accept": COMPACT_TYPE}
        if evaluation_key:
            headers[EVALUATION_KEY] = evaluation_key
        limit = result_limit
        if len(ciphertexts) > 1:
            framing, body = pack(ciphertexts, compact=compact)
            headers |= framing
            limit = answer_limit(len(ciphertexts), result_limit)
        start = time.perf_counter()
        reply = yield from self._transport.exchange(
            "POST", self.infer_path(description.version), limit=limit, content=body, headers=headers
        )
        request_ms = 1000 * (time.perf_counter() - start)
        queries = len(ciphertexts)
        results = unpack(reply.headers, reply.body, queries) if queries > 1 else [reply.body]
        timing = _EVALUATE.search(reply.headers.get("Server-Timing", ""))
        evaluate_ms = float(timing[1]) / queries if timing else None
        return [Inference(result, evaluate_ms, request_ms, queries) for result in results]

    def infer_path(self, version: int) -> str:
        """Where ciphertexts for a version are posted, below the service's address."""
        return f"{self._version(version)}/infer"

    def _version(self, version: int) -> str:
        return f"{self._model}/versions/{version}"


class KeyService:
    """The requests about evaluation keys for one client.zip, as flows like those about the model.

    Every method raises what ``Transport.post`` raises.
    """

    def __init__(self, transport: Exchanges, client_digest: str) -> None:
        self._transport = transport
        self._client_digest = client_digest

    def has(self, digest: str) -> Flow[bool]:
        """Whether the service has the caller's evaluation keys of this SHA-256."""
        try:
            yield from self._transport.exchange("GET", _key_path(digest), limit=METADATA_LIMIT)
        except RequestRefused as error:
            if error.status == 404:
                return False
            raise
        return True

    def upload(self, digest: str, path: Path) -> Flow[None]:
        """Let the service take in a file of evaluation keys, and return once it has verified them.

        Raises:
            OSError: the file cannot be read.
        """
        content = FileBody(path)
        log.info("uploading evaluation keys, %.1f MB, once", content.size / 1e6)
        yield from self._transport.exchange(
            "PUT",
            _key_path(digest),
            limit=METADATA_LIMIT,
            content=content,
            headers={
                "Content-Type": OCTETS,
                CLIENT_DIGEST: self._client_digest,
            },
        )
        log.info("the service has verified the evaluation keys")

    def delete(self, digest: str) -> Flow[None]:
        """Let the service remove evaluation keys; those that it does not have are removed."""
        try:
            yield from self._transport.exchange("DELETE", _key_path(digest), limit=METADATA_LIMIT)
        except RequestRefused as error:
            if error.status != 404:
                raise


def _key_path(digest: str) -> str:
    return f"/v2/keys/{digest}"


def infer_headers(description: Description) -> dict[str, str]:
    """Return the headers of every inference request; those of one ciphertext need no others."""
    return {
        "Content-Type": OCTETS,
        CLIENT_DIGEST: description.client_digest,
    }
