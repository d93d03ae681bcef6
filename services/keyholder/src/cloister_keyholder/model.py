"""A model behind an inference service, used like one of scikit-learn's."""

import time
from types import TracebackType
from typing import Self

import httpx
import numpy as np
import numpy.typing as npt

from cloister_keyholder.answer import Answer
from cloister_keyholder.api import Description, InferenceService, infer_headers
from cloister_keyholder.circuit import Query, QueryKey
from cloister_keyholder.errors import InvalidAnswer, KeyholderError, KeyUnusable
from cloister_keyholder.keyed import KeyedQueries
from cloister_keyholder.package import open_package
from cloister_keyholder.stored_key import KeyFolder, StoredKeys
from cloister_keyholder.transport import Transport
from cloister_shared.card import ModelCard
from cloister_shared.classification import class_indices, probabilities
from cloister_shared.reference import Reference
from cloister_shared.scaling import OutOfBounds, to_unit

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class EncryptedModel:
    """Predicts on values that the service never sees.

    ``predict``, ``predict_proba`` and ``decision_function`` are those of a fitted scikit-learn
    classifier. Rows are raw values, in the units of the model card; each is scaled, quantised,
    encrypted under a key of its own, and that key is dropped with the result. Keys are never
    stored or sent, and neither scores nor failures to decrypt go back to the service.

    A decision tree needs evaluation keys at the service, of tens of megabytes: there one secret key
    is made, kept in ``key_folder`` and used for all queries until it is replaced.

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
        key_folder: for the stored keys of models that need evaluation keys; without one these
            models are refused.

    Raises:
        KeyUnusable: the model needs a stored key, and there is no ``key_folder``.
        ServiceUnavailable: the service does not answer.
        RequestRefused: there is no such model or version.
        InvalidAnswer: the service's answer is not what it announced.
        InvalidClientPackage: its client.zip is damaged, incompatible or not safe to use.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        version: int | None = None,
        transport: httpx.BaseTransport | None = None,
        retry_seconds: float = 60.0,
        out_of_bounds: OutOfBounds | None = None,
        key_folder: KeyFolder | None = None,
    ) -> None:
        self._transport = Transport(url, retry_seconds=retry_seconds, transport=transport)
        try:
            self._service = InferenceService(self._transport, name)
            self._description = self._service.describe(version)
            self._package = open_package(self._service.client_zip(self._description))
            self._keyed = self._keyed_queries(key_folder)
        except BaseException:
            self._transport.close()
            raise
        self.name = name
        self._out_of_bounds = out_of_bounds or self.card.out_of_bounds

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
        """Close the connections to the service."""
        self._transport.close()

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
        """Class labels, in the order of the columns of ``predict_proba``."""
        return np.array(self.card.data.classes)

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.generic]:  # noqa: N803 - scikit-learn's
        """Return the predicted class label of every row, shape (n,).

        Args:
            X: raw values, shape (n, n_features).

        Raises:
            CloisterError: values of the wrong shape, not finite, or out of bounds; or as the
                class says.
            InvalidResult: the service answered something that is no result.
        """
        return self.card.data.labels(class_indices(self._scores(X)))

    def predict_proba(self, X: npt.ArrayLike) -> Floats:  # noqa: N803 - scikit-learn's name
        """Return class probabilities, shape (n, n_classes); see ``predict``.

        Those of a tree are its quantised ones, and add up to 1 as nearly as their steps allow.
        """
        scores = self._scores(X)
        return scores if self._package.family == "tree" else probabilities(scores)

    def decision_function(self, X: npt.ArrayLike) -> Floats:  # noqa: N803 - scikit-learn's name
        """Return the scores, shape (n,) for two classes, else (n, n_classes); see ``predict``.

        Raises:
            KeyholderError: the model is a tree, which has no scores.
        """
        if self._package.family == "tree":
            raise KeyholderError("a tree has no decision function: use predict_proba")
        scores = self._scores(X)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def scale(self, rows: npt.ArrayLike) -> Floats:
        """Map raw rows to [0, 1] by the card's bounds, shape (n, n_features).

        Raises:
            CloisterError: as ``predict``.
        """
        return to_unit(rows, self.card.data, self._out_of_bounds)

    def quantise(self, rows: npt.ArrayLike) -> Integers:
        """Scale and quantise raw rows, shape (n, n_features); raises as ``scale``."""
        return self._package.quantiser.quantise(self.scale(rows))

    def dequantise(self, integer_scores: Integers) -> Floats:
        """Turn integer scores of shape (n, n_outputs) into scores."""
        return self._package.output_scale.dequantise(integer_scores)

    def ask(self, quantised: Integers) -> Answer:
        """Query the service with one quantised row, shape (n_features,); raises as ``predict``."""
        if self._keyed:
            return self._keyed.ask(quantised)
        start = time.perf_counter()
        query = self.encrypt(quantised)
        encrypted = time.perf_counter()
        inference = self._service.infer(
            self._description,
            query.ciphertext,
            result_limit=self._package.circuit.result_limit,
        )
        answered = time.perf_counter()
        integer_scores = query.decrypt(inference.result)
        decrypted = time.perf_counter()
        return Answer(
            integer_scores=integer_scores,
            encrypt_ms=1000 * (encrypted - start),
            request_ms=1000 * (answered - encrypted),
            server_ms=inference.evaluate_ms,
            decrypt_ms=1000 * (decrypted - answered),
            bytes_up=len(query.ciphertext),
            bytes_down=len(inference.result),
        )

    def encrypt(self, quantised: Integers) -> Query:
        """Encrypt one quantised row, shape (n_features,), under a new key.

        Raises:
            KeyUnusable: queries of this model are under a stored key, which does not leave.
        """
        if self._keyed:
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
    def infer_url(self) -> str:
        """Where a ciphertext is posted."""
        return self._transport.url + self._service.infer_path(self._description.version)

    @property
    def infer_headers(self) -> dict[str, str]:
        """The headers it is posted with."""
        return infer_headers(self._description)

    def reference(self) -> Reference | None:
        """Return the circuit in the clear, or None where the service does not publish it.

        Raises:
            InvalidAnswer: it is damaged, or of another model.
        """
        reference = self._service.reference(self._description.version)
        data = self.card.data
        if reference and reference.coef.shape != (data.n_outputs, data.n_features):
            raise InvalidAnswer("the service's reference is of another model")
        return reference

    def _scores(self, rows: npt.ArrayLike) -> Floats:
        quantised = self.quantise(rows)
        integers = [self.ask(row).integer_scores for row in quantised]
        shape = (len(quantised), self._package.circuit.specs.n_outputs)
        return self.dequantise(np.array(integers, dtype=np.int64).reshape(shape))

    def _keyed_queries(self, key_folder: KeyFolder | None) -> KeyedQueries | None:
        circuit, description = self._package.circuit, self._description
        if not circuit.specs.needs_evaluation_keys:
            return None
        if key_folder is None:
            raise KeyUnusable(
                "this model needs evaluation keys, and so a secret key that is kept: name a folder "
                "for it, key_folder or CLOISTER_KEY_STORE_DIR"
            )
        return KeyedQueries(
            send=self._transport.send,
            infer=lambda ciphertext, key: self._service.infer(
                description,
                ciphertext,
                result_limit=circuit.result_limit,
                evaluation_key=key,
            ),
            circuit=circuit,
            keys=StoredKeys(key_folder, description.client_digest, circuit),
            client_digest=description.client_digest,
        )
