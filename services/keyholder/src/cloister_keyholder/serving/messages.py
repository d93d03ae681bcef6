"""What the interface takes and gives, as JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from cloister_keyholder.keys.keyed import KeyState
from cloister_shared.card import ModelCard

MAX_ROWS = 64
"""In one request."""
HEAD_BYTES = 4096
"""The most bytes of a ciphertext that are shown."""

Cell = StrictStr | StrictBool | StrictInt | StrictFloat | None
Label = int | str


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PredictRequest(_Message):
    """Rows of raw values."""

    rows: Annotated[list[dict[str, Cell] | list[Cell]], Field(min_length=1, max_length=MAX_ROWS)]
    """Each the values of all features in the card's order, or by the features' names; features that
    are not named are missing."""


class Health(_Message):
    """That it runs."""

    status: str = "ready"
    service: str
    """Address of the inference service."""


class Model(_Message):
    """What is known of a model."""

    name: str
    version: int
    client_digest: str
    """SHA-256 of its client.zip."""
    card: ModelCard
    evaluator: str | None
    """What evaluates at the service: ``native`` or ``concrete``; null where it does not say."""
    client: str
    """What encrypts here: ``native`` or ``concrete``."""
    needs_evaluation_keys: bool
    key_state: KeyState | None
    """Of the stored key: ``absent`` until the first query, ``making``, ``uploading`` or ``ready``;
    null where queries have a key each."""


class Outcome(_Message):
    """What scores mean."""

    label: Label | None
    """Predicted class; null of a regression."""
    value: float | None
    """Predicted value; null of a classification, and where it is more than a number holds."""
    probabilities: list[float] | None
    """Of each class; null where the estimator has none."""
    scores: list[float | None]
    """One for two classes of a linear model and for a regression, else one for each class."""


class Sent(_Message):
    """What the service received of one row, and what it gave back."""

    bytes_up: int
    bytes_down: int
    sha256: str
    """Of the ciphertext."""
    head: str
    """Its first bytes, at most ``HEAD_BYTES``, in base64."""


class Milliseconds(_Message):
    """Where the time of one row went."""

    preparing: float
    """Making and uploading keys where that was needed, and waiting for a turn."""
    encrypt: float
    network: float
    """The request without its evaluation."""
    evaluate: float | None
    """Encrypted evaluation, as the service says; null where it does not, and ``network`` is then
    the whole request."""
    decrypt: float


class Clear(_Message):
    """What the same row gives in the clear, by the published reference."""

    quantised: Outcome
    """Of the circuit's integers."""
    float_model: Outcome
    """Of the model as it was trained."""
    equal: bool
    """Whether the encrypted result has the same integers as the circuit in the clear."""


class Prediction(Outcome):
    """The answer to one row."""

    sent: Sent
    milliseconds: Milliseconds
    clear: Clear | None
    """Null where no reference is published."""


class Predictions(_Message):
    """The answers to a request's rows, in their order."""

    model: str
    version: int
    predictions: list[Prediction]


def finite(values: Sequence[float]) -> list[float | None]:
    """Return numbers as JSON has them: null for what is not finite."""
    return [value if math.isfinite(value) else None for value in values]


def in_order(row: Mapping[str, Cell] | Sequence[Cell], names: Sequence[str]) -> list[Cell]:
    """Return a row's cells in the order of the features.

    Raises:
        KeyError: it names a feature that is not among ``names``; the error holds its name.
    """
    if not isinstance(row, Mapping):
        return list(row)
    known = set(names)
    for name in row:
        if name not in known:
            raise KeyError(name)
    return [row.get(name) for name in names]
