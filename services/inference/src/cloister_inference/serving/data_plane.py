"""What the endpoints do, apart from HTTP: find models, check requests, evaluate batches."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from cloister_inference.forms import Forms
from cloister_inference.observability.metrics import Metrics
from cloister_inference.options import Options
from cloister_inference.problems import (
    MalformedRequestError,
    OtherClientError,
    UnavailableError,
    UnknownError,
    UnservedFormError,
)
from cloister_inference.protocol import (
    HEADER_BYTES_LIMIT,
    CompactParameters,
    IndexEntry,
    ModelMetadata,
    ModelParameters,
    ModelVersion,
    ModelVersions,
)
from cloister_inference.serving.catalogue import Published
from cloister_inference.serving.model import Download, Model
from cloister_inference.serving.repository import Repository, State
from cloister_inference.serving.scheduler import Scheduler
from cloister_shared.artifact import ArtifactDetails
from cloister_shared.open_inference import CLIENT_DIGEST, CLIENT_DIGEST_PARAMETER, OCTETS

CONCRETES = Forms()
ELEMENT_LENGTH_BYTES = 4
"""Precede every element of a BYTES tensor, and say how long it is."""


@dataclass(frozen=True)
class Evaluation:
    """The results of a batch."""

    results: list[bytes]
    """Serialised outputs, one for each input, in the same order."""
    seconds: float
    """Time of encrypted evaluation, summed over the elements."""


class DataPlane:
    """Everything that is asked of the service.

    Files are read and models compiled in threads of the event loop's own pool, and ciphertexts
    evaluated in those of the scheduler, so that neither holds up the event loop or the other.
    """

    def __init__(
        self, repository: Repository, scheduler: Scheduler, options: Options, metrics: Metrics
    ) -> None:
        """Serve the models of a repository.

        Args:
            repository: the models.
            scheduler: runs as many evaluations at a time as it has threads.
            options: bounds of a batch, and of a request's time.
            metrics: times evaluations.
        """
        self._repository = repository
        self._scheduler = scheduler
        self.metrics = metrics
        self.max_batch = options.max_batch
        self.deadline_seconds = options.deadline_seconds

    async def model(self, name: str, version: str | None) -> Model:
        """Return a version of a model, the one that serves where ``version`` is None.

        Raises:
            UnknownError: there is no such model or version.
            UnavailableError: it cannot be served.
        """
        # Nearly always it is, and a thread would only cost time.
        model = self._repository.loaded(name, version)
        if model is None:
            model = await asyncio.to_thread(self._repository.get, name, version)
        return model

    async def metadata(self, name: str, version: str | None) -> ModelMetadata:
        """Describe a version of a model; raises as ``model`` does."""
        model = await self.model(name, version)
        versions = await asyncio.to_thread(self._repository.versions, name)
        return ModelMetadata(
            name=name,
            versions=tuple(str(number) for number in versions),
            parameters=ModelParameters(
                version=str(model.version),
                client_digest=model.client.digest,
                input_bytes=model.details.circuit.input_bytes,
                output_bytes=model.details.circuit.output_bytes,
                reference=model.reference is not None,
                compact=_compact(model),
                evaluator=model.circuit.name,
                evaluator_reason=model.evaluation.reason,
                evaluation_key_bytes=model.keyed.form.length if model.keyed else 0,
            ),
        )

    async def details(self, name: str, version: str) -> ArtifactDetails:
        """Return what was compiled and proven; raises as ``model`` does."""
        return (await self.model(name, version)).details

    async def client(self, name: str, version: str) -> Download:
        """Return client.zip; raises as ``model`` does."""
        return (await self.model(name, version)).client

    async def reference(self, name: str, version: str) -> Download:
        """Return reference.npz; raises as ``model`` does, and UnknownError without one."""
        reference = (await self.model(name, version)).reference
        if reference is None:
            raise UnknownError(f"version {version} of {name} was published without a reference")
        return reference

    async def check_ready(self) -> None:
        """Raise unless some model can be served.

        Raises:
            UnavailableError: none can.
        """
        if not await asyncio.to_thread(self._repository.any_servable):
            raise UnavailableError(
                "no model can be served: publish one, or see /v2/repository/index for the reasons"
            )

    async def index(self, *, ready: bool) -> list[IndexEntry]:
        """Return the state of every version of every model, or only of those that are ready."""
        return [
            IndexEntry(
                name=state.name,
                version=str(state.version),
                state="UNAVAILABLE" if state.reason else "READY",
                reason=state.reason,
            )
            for state in await asyncio.to_thread(self._repository.states)
            if not (ready and state.reason)
        ]

    async def load(self, name: str, version: str | None) -> None:
        """Load a version of a model, the current one where ``version`` is None.

        Raises:
            UnknownError: there is no such model or version.
            UnavailableError: it cannot be served.
        """
        await asyncio.to_thread(self._repository.load, name, version)

    async def promote(self, name: str, version: str) -> None:
        """Put a version into use; raises as ``Repository.promote`` does."""
        await asyncio.to_thread(self._repository.promote, name, version)

    async def versions(self, name: str) -> ModelVersions:
        """Tell all that is known of a model's versions, loading none for it.

        Raises:
            UnknownError: there is no such model.
            UnavailableError: the registry cannot be read, and none is loaded.
        """
        published = await asyncio.to_thread(self._repository.published, name)
        serving, in_use = await asyncio.to_thread(self._repository.serving, name)
        return ModelVersions(
            name=name,
            serving=None if serving is None else str(serving),
            registered=None if in_use is None else str(in_use),
            versions=tuple(
                self._version(name, state, about) for state, about in reversed(published)
            ),
        )

    def _version(self, name: str, state: State, about: Published) -> ModelVersion:
        model = None if state.reason else self._repository.loaded(name, str(state.version))
        return ModelVersion(
            version=str(state.version),
            state="UNAVAILABLE" if state.reason else "READY",
            reason=state.reason,
            evaluator=model.circuit.name if model else None,
            evaluator_reason=model.evaluation.reason if model else None,
            **dict(about),
        )

    async def unload(self, name: str) -> None:
        """Stop serving a model; raises as ``load`` does."""
        await asyncio.to_thread(self._repository.unload, name)

    def body_limit(self, model: Model) -> int:
        """Bytes of the longest inference request that ``model`` takes."""
        element = model.details.circuit.input_bytes + ELEMENT_LENGTH_BYTES
        return self.max_batch * element + HEADER_BYTES_LIMIT

    def check_room(self, model: Model, body_bytes: int) -> None:
        """Raise unless the ciphertexts of a request could be queued now.

        Args:
            model: would evaluate them.
            body_bytes: length of the request's body without a JSON header, not yet read.

        Raises:
            QueueFullError: they could not.
        """
        elements = body_bytes // (model.details.circuit.input_bytes + ELEMENT_LENGTH_BYTES)
        self._scheduler.check_room(max(1, elements))

    async def evaluate(
        self,
        model: Model,
        payloads: Sequence[bytes],
        forms: Forms = CONCRETES,
        *,
        deadline: float = math.inf,
        gone: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> Evaluation:
        """Evaluate a batch; an input that is not of the model's form stops it before it starts.

        Args:
            model: evaluates each payload by itself.
            payloads: serialised inputs, from anywhere.
            forms: of the inputs and of the results, which ``check_forms`` has let pass.
            deadline: when to give up, by ``time.monotonic()``.
            gone: returns when nobody waits for the results any more.

        Raises:
            MalformedRequestError: naming the element.
            QueueFullError: the batch does not fit into the queue.
            DeadlineError: the deadline has passed.
            ClientGoneError: ``gone`` has returned.
        """
        for index, payload in enumerate(payloads):
            model.check(payload, index, forms.input)
        observe = self.metrics.evaluate_seconds.labels(
            model.name, model.version, model.circuit.name
        ).observe
        evaluated = await self._scheduler.run(
            [partial(_timed, model, payload, forms, observe) for payload in payloads],
            deadline=deadline,
            gone=gone,
        )
        return Evaluation(
            [result for result, _ in evaluated], sum(seconds for _, seconds in evaluated)
        )


def _compact(model: Model) -> CompactParameters | None:
    if model.compact is None:
        return None
    compact, sizes = model.compact.compact, model.details.circuit
    return CompactParameters(
        body_bits=compact.body_bits,
        word_bits=compact.word_bits,
        input_bytes=compact.input_bytes(sizes.n_features),
        output_bytes=compact.result_bytes(sizes.n_outputs, sizes.lwe_dimension),
    )


def check_client(
    model: Model, in_header: str | None, in_parameters: str | None, *, version_stated: bool
) -> None:
    """Raise unless a request's ciphertexts were made for ``model``.

    Args:
        model: what they would be evaluated with.
        in_header: client digest as the HTTP header states it.
        in_parameters: client digest as the request's parameters state it.
        version_stated: whether the address names the version, which may stand for the digest.

    Raises:
        MalformedRequestError: the two differ, or nothing says what the ciphertexts were made for.
        OtherClientError: they were made for another client.
    """
    if in_header and in_parameters and in_header != in_parameters:
        raise MalformedRequestError(
            f"the header {CLIENT_DIGEST} and the parameter {CLIENT_DIGEST_PARAMETER} differ"
        )
    stated = in_header or in_parameters
    if stated is None and not version_stated:
        raise MalformedRequestError(
            "state the SHA-256 of the client.zip that the input was encrypted with, as the header "
            f"{CLIENT_DIGEST} or the parameter {CLIENT_DIGEST_PARAMETER}, or name the version in "
            "the address"
        )
    if stated is not None and stated != model.client.digest:
        raise OtherClientError(
            f"the input was encrypted for another client.zip than that of version {model.version} "
            f"of {model.name}: download /v2/models/{model.name}/versions/{model.version}/client "
            "and encrypt again"
        )


def check_forms(model: Model, forms: Forms) -> None:
    """Raise unless a version takes inputs and gives results in these forms.

    Raises:
        UnservedFormError: it takes messages in Concrete's form alone.
    """
    if not forms.are_concretes and model.compact is None:
        raise UnservedFormError(
            f"version {model.version} of {model.name} takes and gives no compact messages: send "
            f"{OCTETS} and ask for it, which is the default"
        )


def _timed(
    model: Model, payload: bytes, forms: Forms, observe: Callable[[float], None]
) -> tuple[bytes, float]:
    start = time.perf_counter()
    result = model.evaluate(payload, forms)
    seconds = time.perf_counter() - start
    observe(seconds)
    return result, seconds
