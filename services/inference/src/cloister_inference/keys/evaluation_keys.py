"""Evaluation keys: taken in once they are verified, and put into circuits that need them."""

import asyncio
import hashlib
import logging
import signal
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from cloister_inference.evaluation.circuit import EncryptedCircuit
from cloister_inference.keys import key_trial
from cloister_inference.keys.keyset_cache import KeysetCache
from cloister_inference.keys.keystore import EvaluationKeyStore, Held, check_client
from cloister_inference.options import KeyOptions
from cloister_inference.problems import (
    MalformedRequestError,
    UnavailableError,
    UnknownError,
)
from cloister_inference.serving.model import KeyedCircuit, Model
from cloister_inference.serving.repository import Repository
from cloister_shared.digests import digest_bytes
from cloister_shared.open_inference import (
    CLIENT_DIGEST,
    EVALUATION_KEY,
    EVALUATION_KEY_PARAMETER,
)

CHUNK_BYTES = 1 << 20
"""What is hashed and written in one go."""
TRIAL_SECONDS = 180.0
"""The longest that one evaluation with new keys may take."""
SWEEP_SECONDS = 3600.0

log = logging.getLogger(__name__)


class KeyedEvaluator:
    """Evaluates with a set of evaluation keys, which is read when an evaluation begins.

    So what waits in the queue holds no keys, and reading them counts for a request's deadline.
    """

    name = EncryptedCircuit.name

    def __init__(self, circuit: Callable[[], EncryptedCircuit]) -> None:
        """Evaluate with what ``circuit`` returns, which may read it and raise ``ProblemError``."""
        self._circuit = circuit

    def evaluate(self, payload: bytes) -> bytes:
        """See ``Evaluator.evaluate``.

        Raises:
            UnknownError: the keys were removed meanwhile, or are damaged.
            UnavailableError: the store cannot be read.
        """
        return self._circuit().evaluate(payload)


class EvaluationKeys:
    """Everything that is asked of the service about evaluation keys.

    Belongs to one event loop. Files are read and written in threads of the loop's own pool; one set
    of keys at a time is tried, in a process of its own.
    """

    def __init__(self, repository: Repository, options: KeyOptions) -> None:
        """Keep keys for the models of a repository.

        Args:
            repository: the models.
            options: folder and limits.
        """
        self._repository = repository
        self._store = EvaluationKeyStore(
            options.dir, quota_bytes=options.quota_bytes, days=options.days
        )
        self._cache = KeysetCache(options.cache_bytes)
        self.limit = options.key_bytes
        """Bytes that one set may have."""
        self._trying = asyncio.Lock()

    async def expected(self, client_digest: str | None, length: int) -> Model:
        """Return the model whose keys are announced, before any of them is read.

        Args:
            client_digest: of the client.zip that they were made with.
            length: their bytes.

        Raises:
            MalformedRequestError: the digest is missing, the model needs no evaluation keys, or its
                own have another length.
            UnknownError: no model has such a client.zip.
            UnavailableError: the model cannot be served.
        """
        if client_digest is None:
            raise MalformedRequestError(
                "state the SHA-256 of the client.zip that the evaluation keys were made with, as "
                f"the header {CLIENT_DIGEST}"
            )
        model = await asyncio.to_thread(self._repository.by_client, client_digest)
        if model is None:
            raise UnknownError(
                f"no model has the client.zip {client_digest[:64]!r}; GET /v2/models/{{name}} "
                "states the digest of each version's"
            )
        if model.keyed is None:
            raise MalformedRequestError(
                f"version {model.version} of {model.name} needs no evaluation keys: send inputs "
                "without"
            )
        if length != model.keyed.form.length:
            raise MalformedRequestError(
                f"evaluation keys of version {model.version} of {model.name} have "
                f"{model.keyed.form.length} bytes, not {length}"
            )
        return model

    async def put(
        self, owner: str, digest: str, model: Model, length: int, chunks: AsyncIterable[bytes]
    ) -> bool:
        """Take in evaluation keys, verified.

        Args:
            owner: who uploads them.
            digest: SHA-256 that they must have.
            model: as ``expected`` returned it.
            length: their bytes.
            chunks: of them, as they arrive.

        Returns:
            Whether they are new to the owner.

        Raises:
            MalformedRequestError: they have another digest, or are not evaluation keys of the
                model.
            OtherClientError: the owner has the same keys for another client.zip.
            InsufficientStorageError: the owner's quota or the disk is full.
            UnavailableError: the store cannot be used, or the keys could not be tried.
        """
        held = await asyncio.to_thread(self._store.find, owner, digest)
        if held:
            check_client(held, model.client.digest)
            _check_digest(await _hash(chunks), digest)
            return False
        upload = await asyncio.to_thread(self._store.begin, owner, length)
        try:
            async for chunk in _gather(chunks):
                await asyncio.to_thread(upload.write, chunk)
            _check_digest(await asyncio.to_thread(upload.finish), digest)
            client_digest = model.client.digest
            if not await asyncio.to_thread(self._store.has_for, digest, client_digest):
                await self._verify(model, upload.path)
            return await asyncio.to_thread(self._store.commit, upload, owner, digest, client_digest)
        finally:
            upload.discard()

    async def find(self, owner: str, digest: str) -> Held:
        """Return what is known of an owner's keys.

        Raises:
            UnknownError: the owner has no such keys.
            UnavailableError: the store cannot be read.
        """
        held = await asyncio.to_thread(self._store.find, owner, digest)
        if held is None:
            raise UnknownError(_unknown(digest))
        return held

    async def delete(self, owner: str, digest: str) -> None:
        """Remove an owner's keys.

        Raises:
            UnknownError: the owner has no such keys.
            UnavailableError: the store cannot be written.
        """
        if not await asyncio.to_thread(self._store.delete, owner, digest):
            raise UnknownError(_unknown(digest))
        self._cache.retain(await asyncio.to_thread(self._store.digests))

    async def bind(
        self, model: Model, owner: str, in_header: str | None, in_parameters: str | None
    ) -> Model:
        """Return ``model`` with the evaluation keys that a request names, if it needs any.

        They are read, where they are not in memory, when an evaluation begins.

        Args:
            model: to evaluate with.
            owner: of the request.
            in_header: digest of the keys as the HTTP header states it, 64 hex digits.
            in_parameters: digest of the keys as the request's parameters state it, likewise.

        Raises:
            MalformedRequestError: keys are named and not needed, needed and not named, or named
                differently in both places.
            UnknownError: the owner has no such keys.
            OtherClientError: they were made with another client.zip.
            UnavailableError: the store cannot be read.
        """
        stated = _stated(in_header, in_parameters)
        if model.keyed is None:
            if stated is not None:
                raise MalformedRequestError(
                    f"version {model.version} of {model.name} needs no evaluation keys: leave out "
                    f"{EVALUATION_KEY} and {EVALUATION_KEY_PARAMETER}"
                )
            return model
        if stated is None:
            raise MalformedRequestError(
                f"version {model.version} of {model.name} needs evaluation keys: make them with "
                "its client.zip, PUT them to /v2/keys/{sha256}, and state that SHA-256 as the "
                f"header {EVALUATION_KEY} or the parameter {EVALUATION_KEY_PARAMETER}"
            )
        return await asyncio.to_thread(self._bind, model, model.keyed, owner, stated)

    def _bind(self, model: Model, keyed: KeyedCircuit, owner: str, digest: str) -> Model:
        held = self._store.find(owner, digest)
        if held is None:
            raise UnknownError(_unknown(digest))
        check_client(held, model.client.digest)
        self._store.touch(owner, digest, held.used)
        circuit = partial(
            self._cache.get,
            (model.name, model.version, digest),
            keyed.form.length,
            partial(self._load, keyed, digest),
        )
        return model.with_evaluator(KeyedEvaluator(circuit))

    def _load(self, keyed: KeyedCircuit, digest: str) -> EncryptedCircuit:
        path = self._store.path(digest)
        try:
            with path.open("rb") as stream:
                fits = keyed.form.matches(stream)
                stream.seek(0)
                content = stream.read() if fits else b""
        except FileNotFoundError:
            raise UnknownError(_unknown(digest)) from None
        except OSError as error:
            log.error("evaluation keys cannot be read: %s", error)
            raise UnavailableError(
                "the evaluation keys cannot be read; the service's log says why"
            ) from error
        # What a broken disk made of them could run without end in Concrete's reader.
        if not fits or digest_bytes(content) != digest:
            log.error("%s is damaged and removed: its owners must upload the keys again", path)
            self._store.forget(digest)
            raise UnknownError(_unknown(digest))
        return keyed.circuit.with_keys(content)

    async def _verify(self, model: Model, path: Path) -> None:
        """Hold uploaded keys to their form, then evaluate with them once."""
        keyed = model.keyed
        if keyed is None or not await asyncio.to_thread(_matches, keyed, path):
            raise MalformedRequestError(_not_keys(model))
        async with self._trying:
            length = await _try(keyed, path)
        if length != model.details.circuit.output_bytes:
            raise MalformedRequestError(_not_keys(model))

    async def sweep(self) -> None:
        """Remove what is old or abandoned, now and every hour, until cancelled."""
        while True:
            with suppress(UnavailableError):
                await asyncio.to_thread(self._store.sweep)
                self._cache.retain(await asyncio.to_thread(self._store.digests))
            await asyncio.sleep(SWEEP_SECONDS)


async def _gather(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Join pieces into chunks of about ``CHUNK_BYTES``."""
    chunk = bytearray()
    async for piece in pieces:
        chunk += piece
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


async def _hash(pieces: AsyncIterable[bytes]) -> str:
    digest = hashlib.sha256()
    async for chunk in _gather(pieces):
        await asyncio.to_thread(digest.update, chunk)
    return digest.hexdigest()


def _check_digest(found: str, expected: str) -> None:
    if found != expected:
        raise MalformedRequestError(
            f"the SHA-256 of these evaluation keys is {found}, not the address's: they changed on "
            "the way, or the address is wrong"
        )


def _matches(keyed: KeyedCircuit, path: Path) -> bool:
    with path.open("rb") as stream:
        return keyed.form.matches(stream)


async def _try(keyed: KeyedCircuit, path: Path) -> int | None:
    """Evaluate with keys in another process; return the output's length, or None if that fails.

    Raises:
        UnavailableError: it took too long, or the system ended the process.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", key_trial.__name__),
        *(str(keyed.library_dir), keyed.circuit.circuit_name, str(path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(TRIAL_SECONDS):
            output, _ = await process.communicate(keyed.input_template)
    except TimeoutError:
        output = b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode in (-signal.SIGKILL, -signal.SIGXCPU):
        log.error("new evaluation keys could not be tried: out of time or memory")
        raise UnavailableError("the evaluation keys could not be tried: try again later")
    return int(output) if process.returncode == 0 and output.isdigit() else None


def _stated(in_header: str | None, in_parameters: str | None) -> str | None:
    if in_header and in_parameters and in_header != in_parameters:
        raise MalformedRequestError(
            f"the header {EVALUATION_KEY} and the parameter {EVALUATION_KEY_PARAMETER} differ"
        )
    return in_header or in_parameters


def _unknown(digest: str) -> str:
    return (
        f"you have no evaluation keys {digest}: they were never uploaded, were deleted, or were "
        f"not used for long; PUT them to /v2/keys/{digest}"
    )


def _not_keys(model: Model) -> str:
    return (
        f"these are not evaluation keys of version {model.version} of {model.name}: make them with "
        "this version's client.zip"
    )
