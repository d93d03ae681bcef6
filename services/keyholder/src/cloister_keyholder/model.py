"""A model behind an inference service, used like one of scikit-learn's."""

import math
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import numpy as np
import numpy.typing as npt

from cloister_keyholder.encryption.circuit import Query, QueryKey
from cloister_keyholder.encryption.client import ClientSetting
from cloister_keyholder.encryption.parameters import ClientSpecs
from cloister_keyholder.errors import (
    InvalidAnswer,
    InvalidSamples,
    KeyholderError,
    KeyUnusable,
)
from cloister_keyholder.keys.keyed import KeyState, UploadedKeys
from cloister_keyholder.keys.stored_key import KeyFolder, StoredKeys
from cloister_keyholder.package.content import ClientPackage, open_package
from cloister_keyholder.querying import background
from cloister_keyholder.querying.flow import Flow
from cloister_keyholder.querying.pipeline import Answer, Limits, Pipeline
from cloister_keyholder.service.api import Description, InferenceService, KeyService, infer_headers
from cloister_keyholder.service.transport import Exchanges, Transport
from cloister_shared.artifact import ArtifactDetails
from cloister_shared.card import ModelCard
from cloister_shared.errors import CloisterError
from cloister_shared.links import Link, class_indices, has_probabilities, probabilities, values
from cloister_shared.preprocessing import OutOfBounds, Row, Table, to_inputs
from cloister_shared.reference import ClearCircuit

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Labels = npt.NDArray[np.generic]


@dataclass(frozen=True)
class _Opened:
    description: Description
    package: ClientPackage
    pipeline: Pipeline
    keys: UploadedKeys | None


def decision(scores: Floats) -> Floats:
    """Return scores of shape (n, n_outputs) as scikit-learn does: of two classes, shape (n,)."""
    return scores[:, 0] if scores.shape[1] == 1 else scores


class LocalModel:
    """What a synchronous and an asynchronous model have in common: all but sending requests.

    Args:
        name: of the model.
        transport: to its service.
        out_of_bounds: as ``EncryptedModel`` has it.
        limits: on what happens at a time.
        key_folder: for the stored keys of models that need evaluation keys.
        client: what makes keys, encrypts and decrypts.
        compact: whether messages are compact where the service and the client can.
    """

    def __init__(
        self,
        name: str,
        transport: Exchanges,
        out_of_bounds: OutOfBounds | None,
        limits: Limits | None,
        key_folder: KeyFolder | None,
        client: ClientSetting,
        *,
        compact: bool,
    ) -> None:
        self.name = name
        self._service = InferenceService(transport, name)
        self._url = transport.url
        self._stated_out_of_bounds = out_of_bounds
        self._limits = limits or Limits()
        self._exchanges = transport
        self._key_folder = key_folder
        self._client = client
        self._compact = compact
        self._opened: _Opened | None = None

    @property
    def card(self) -> ModelCard:
        """The model card: features, bounds, classes, metrics of the training."""
        return self._package.card

    @property
    def description(self) -> Description:
        """The version in use and the digest of its client.zip."""
        return self._description

    @property
    def classes_(self) -> npt.NDArray[np.generic]:
        """Class labels, in the order of the columns of ``predict_proba``.

        Raises:
            AttributeError: the model is a regression, which has none.
        """
        if self.card.data.task == "regression":
            raise AttributeError(f"{self.card.estimator} is a regression: it has no classes")
        return np.array(self.card.data.classes)

    def scale(self, rows: Table) -> Floats:
        """Map raw rows to the model's inputs in [0, 1] by the card, shape (n, n_inputs).

        Raises:
            CloisterError: as ``predict``.
        """
        return to_inputs(rows, self.card.data, self._out_of_bounds)

    def quantise(self, rows: Table) -> Integers:
        """Scale and quantise raw rows; raises as ``scale``.

        Returns:
            The inputs that the circuit takes, shape (n, n_circuit_features).
        """
        return self._package.quantise(self.scale(rows))

    def dequantise(self, integer_scores: Integers) -> Floats:
        """Turn integer scores, shape (n, n_integers), into scores, shape (n, n_outputs)."""
        return self._package.output_scale.dequantise(integer_scores)

    def probabilities(self, scores: Floats) -> Floats:
        """Turn what ``dequantise`` gives into class probabilities, shape (n, n_classes).

        Those of a tree are its quantised ones, and add up to 1 as nearly as their steps allow.

        Raises:
            KeyholderError: the estimator has none, in scikit-learn neither.
        """
        self._check_probabilities()
        return probabilities(scores, self._package.link)

    def answers(self, scores: Floats) -> Labels:
        """Turn what ``dequantise`` gives into class labels, or the values of a regression, (n,)."""
        if self.card.data.task == "regression":
            # Beyond all that it was made for, an exponential may be more than a float holds.
            with np.errstate(over="ignore"):
                return values(scores, self._package.link)
        return self.card.data.labels(class_indices(scores))

    def encrypt(self, quantised: Integers) -> Query:
        """Encrypt one row of ``quantise``, shape (n_circuit_features,), under a new key.

        Raises:
            KeyUnusable: queries of this model are under a stored key, which does not leave.
        """
        if self._package.circuit.specs.needs_evaluation_keys:
            raise KeyUnusable(
                "queries of this model are encrypted under a stored key: use predict, which keeps "
                "it here"
            )
        return self._package.circuit.encrypt(quantised)

    def read_key(self, serialised: bytes) -> QueryKey:
        """Return a key that ``QueryKey.export`` wrote.

        Raises:
            KeyUnusable: these bytes are not a key of this model's circuit.
        """
        return self._package.circuit.read_key(serialised)

    @property
    def specs(self) -> ClientSpecs:
        """The encryption parameters of the model's circuit, as they were checked."""
        return self._package.circuit.specs

    @property
    def link(self) -> Link:
        """What the model's scores mean."""
        return self._package.link

    @property
    def client(self) -> str:
        """What makes keys, encrypts and decrypts for this model: ``native`` or ``concrete``."""
        return self._package.circuit.client.name

    @property
    def key_state(self) -> KeyState | None:
        """How far the stored key is of a model that needs evaluation keys; None for others."""
        keys = self._is_open().keys
        return keys.state if keys else None

    @property
    def infer_url(self) -> str:
        """Where a ciphertext is posted."""
        return self._url + self._service.infer_path(self._description.version)

    @property
    def infer_headers(self) -> dict[str, str]:
        """The headers it is posted with."""
        return infer_headers(self._description)

    @property
    def _out_of_bounds(self) -> OutOfBounds:
        return self._stated_out_of_bounds or self.card.out_of_bounds

    @property
    def _description(self) -> Description:
        return self._is_open().description

    @property
    def _package(self) -> ClientPackage:
        return self._is_open().package

    @property
    def _pipeline(self) -> Pipeline:
        return self._is_open().pipeline

    def _is_open(self) -> _Opened:
        if self._opened is None:
            raise KeyholderError("the model is not open: use it inside of `async with`")
        return self._opened

    def _open(self, version: int | None) -> Flow[None]:
        """Fetch and check what queries need."""
        description = yield from self._service.describe(version)
        if not self._compact:
            description = replace(description, compact=None)
        package = open_package((yield from self._service.client_zip(description)), self._client)
        keys = self._uploaded_keys(description, package)
        pipeline = Pipeline(self._service, description, package.circuit, self._limits, keys)
        self._opened = _Opened(description, package, pipeline, keys)
        # A model that is forgotten must not leave processes with keys behind.
        self._release = weakref.finalize(self, pipeline.close)

    def _uploaded_keys(
        self, description: Description, package: ClientPackage
    ) -> UploadedKeys | None:
        if not package.circuit.specs.needs_evaluation_keys:
            return None
        if self._key_folder is None:
            raise KeyUnusable(
                "this model needs evaluation keys, and so a secret key that is kept: name a folder "
                "for it, key_folder or CLOISTER_KEY_STORE_DIR"
            )
        return UploadedKeys(
            KeyService(self._exchanges, description.client_digest),
            StoredKeys(self._key_folder, description.client_digest, package.circuit.client),
        )

    def _reference(self) -> Flow[ClearCircuit | None]:
        reference = yield from self._service.reference(
            self._description.version, self._package.read_reference
        )
        if reference and not self._package.is_of(reference):
            raise InvalidAnswer("the service's reference is of another model")
        return reference

    def _scores_of(self, answers: list[Answer]) -> Floats:
        """Return scores of shape (n, n_outputs)."""
        integers = [answer.integer_scores for answer in answers]
        shape = (len(answers), math.prod(self._package.circuit.specs.output_shape))
        return self.dequantise(np.array(integers, dtype=np.int64).reshape(shape))

    def _check_scores(self) -> None:
        if self.card.data.task == "regression":
            raise KeyholderError("a regression has no decision function: use predict")
        if self._package.family == "tree":
            raise KeyholderError("a tree has no decision function: use predict_proba")

    def _check_probabilities(self) -> None:
        if not has_probabilities(self._package.link):
            instead = "predict" if self.card.data.task == "regression" else "decision_function"
            raise KeyholderError(f"{self.card.estimator} has no probabilities: use {instead}")

    def _answer_of(self, answer: Answer) -> np.generic:
        (found,) = self.answers(self._scores_of([answer]))
        one: np.generic = found
        return one

    def _quantise_next(self, row: Row, index: int) -> Integers:
        """Quantise one row of a stream."""
        try:
            quantised: Integers = self.quantise([row])[0]
        except CloisterError as error:
            raise InvalidSamples(f"row {index} of the stream: {error}") from None
        return quantised


class EncryptedModel(LocalModel):
    """Predicts on values that the service never sees.

    ``predict``, ``predict_proba`` and ``decision_function`` are those of a fitted scikit-learn
    classifier. Rows are raw values, in the units of the model card; each is scaled, quantised,
    encrypted under a key of its own, and that key is dropped with the result. Keys are never
    stored or sent, and neither scores nor failures to decrypt go back to the service.

    Trees need evaluation keys at the service, of tens of megabytes: for them one secret key
    is made, kept in ``key_folder`` and used for all queries until it is replaced. What follows
    about processes and batches is for other models.

    Many rows are encrypted on several cores, and sent several to a request and several
    requests at a time; a bounded number of rows is under way. A row's result
    is the same however it travels. One model may be used from several threads.

    The version is chosen once, when the model is opened, and stays.

    >>> with EncryptedModel("http://127.0.0.1:8000", "digits") as model:
    ...     model.predict(rows)

    Args:
        url: of the inference service.
        name: of the model.
        version: to query; the current one by default.
        transport: what httpx sends through; its own by default.
        retry_seconds: how long one request is repeated while the service is unreachable or busy.
        out_of_bounds: ``refuse`` or ``clip`` values outside their declared bounds; what the model
            card says by default.
        limits: on cores that encrypt, on requests at a time and on queries in a request.
        api_key: of the service, where it needs one.
        ca_path: PEM file with the CA certificates that are trusted for https, the usual ones by
            default.
        key_folder: for the stored keys of models that need evaluation keys; without one these
            models are refused.
        client: what makes keys, encrypts and decrypts: ``native``, ``concrete``, or ``auto``, the
            native one where it fits the model.
        compact: whether messages are compact where the service and the client can: a third or less
            of the bytes, and the same results.

    Raises:
        ClientUnavailable: the client that is asked for does not fit the model, or is not installed.
        KeyUnusable: the model needs a stored key, and there is no ``key_folder``.
        ServiceUnavailable: the service does not answer.
        RequestRefused: there is no such model or version.
        InvalidAnswer: the service's answer is not what it announced.
        InvalidClientPackage: its client.zip is damaged, incompatible or not safe to use.
    """

    def __init__(  # noqa: PLR0913 - each of them is a caller's to choose
        self,
        url: str,
        name: str,
        *,
        version: int | None = None,
        transport: httpx.BaseTransport | None = None,
        retry_seconds: float = 60.0,
        out_of_bounds: OutOfBounds | None = None,
        limits: Limits | None = None,
        api_key: str | None = None,
        ca_path: Path | None = None,
        key_folder: KeyFolder | None = None,
        client: ClientSetting = "auto",
        compact: bool = True,
    ) -> None:
        self._transport = Transport(
            url,
            retry_seconds=retry_seconds,
            transport=transport,
            api_key=api_key,
            ca_path=ca_path,
        )
        try:
            super().__init__(
                name, self._transport, out_of_bounds, limits, key_folder, client, compact=compact
            )
            self._transport.run(self._open(version))
        except BaseException:
            self._transport.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop all keys, and end processes and connections."""
        self._release()
        self._transport.close()

    def predict(self, X: Table) -> Labels:  # noqa: N803 - scikit-learn's
        """Return the predicted class label, or value of a regression, of every row, shape (n,).

        Args:
            X: raw values, shape (n, n_features): numbers, and labels where features are
                categories; or a data frame with the features' names.

        Raises:
            CloisterError: values of the wrong shape, missing, not finite, unknown, or out of
                bounds, unless the card has a policy for them; or as the class says.
            InvalidAnswer: the service answered something that is no result.
            WorkerLost: a process that encrypts ended before its rows were done.
        """
        return self.answers(self._scores(X))

    def predict_proba(self, X: Table) -> Floats:  # noqa: N803 - scikit-learn's name
        """Return class probabilities, shape (n, n_classes); see ``predict``."""
        self._check_probabilities()
        return self.probabilities(self._scores(X))

    def decision_function(self, X: Table) -> Floats:  # noqa: N803 - scikit-learn's name
        """Return the scores, shape (n,) for two classes, else (n, n_classes); see ``predict``.

        Raises:
            KeyholderError: the model is a tree, which has no scores.
        """
        self._check_scores()
        return decision(self._scores(X))

    def iter_predict(self, rows: Iterable[Row]) -> Iterator[np.generic]:
        """Give the predicted class label of each row, in order, while further rows are under way.

        Args:
            rows: each of shape (n_features,); any number. Those of about
                ``limits.connections + 2`` requests are taken before the first label is given.

        Raises:
            CloisterError: as ``predict``, once the label of the row in question is due or earlier.
        """
        quantised = (self._quantise_next(row, index) for index, row in enumerate(rows))
        flows = self._pipeline.stream(quantised)
        for answer in background.stream(flows, self._transport, self._pipeline.window):
            yield self._answer_of(answer)

    def ask(self, quantised: Integers) -> Answer:
        """Query the service with one row of ``quantise``; raises as ``predict``."""
        (answer,) = self._transport.run(self._pipeline.ask(quantised))
        return answer

    def ask_all(self, quantised: Integers) -> Iterator[Answer]:
        """Query with the rows of ``quantise``, and give the answers in their order.

        Raises as ``predict``.
        """
        flows = self._pipeline.chunks(quantised)
        return background.stream(flows, self._transport, self._pipeline.window)

    def details(self) -> ArtifactDetails | None:
        """Return what was compiled and proven, as the service tells it; None where it does not.

        Raises:
            InvalidAnswer: it is of another client.zip, or something else.
        """
        told = self._transport.run(self._service.details(self._description.version))
        if told is not None and told.client_digest != self._description.client_digest:
            raise InvalidAnswer("the service tells details of another client.zip than it serves")
        return told

    def reference(self) -> ClearCircuit | None:
        """Return the circuit in the clear, or None where the service does not publish it.

        Raises:
            InvalidAnswer: it is damaged, or of another model.
        """
        return self._transport.run(self._reference())

    def _scores(self, rows: Table) -> Floats:
        quantised = self.quantise(rows)
        if len(quantised) == 1:
            return self._scores_of([self.ask(quantised[0])])
        return self._scores_of(list(self.ask_all(quantised)))
