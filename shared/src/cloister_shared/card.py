"""The model card: everything about a model that may be public, and no data."""

from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloister_shared.errors import CloisterError
from cloister_shared.preprocessing import OutOfBounds
from cloister_shared.schema import DatasetSchema


class RoundMetrics(BaseModel):
    """What one round of training came to, over the sites that replied in it.

    Accuracy, absolute error and loss are of the global model as the sites received it in this
    round, on the rows that each keeps for validation, averaged by number of rows. They are missing
    where sites do not report any, under differential privacy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int = Field(ge=1)
    sites: int = Field(ge=1)
    failures: int = Field(ge=0)
    examples: int | None = Field(default=None, ge=1)
    """Rows fitted, where sites say how many they have."""
    accuracy: float | None = Field(default=None, ge=0, le=1)
    """Of a classification."""
    absolute_error: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Of a regression: mean absolute error, in the unit of the target."""
    loss: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Mean cross-entropy in nats; mean hinge loss of a model without probabilities; mean squared
    error of a regression."""
    epsilon: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Spent up to and with this round, at the card's delta, under differential privacy."""
    seconds: float = Field(ge=0, allow_inf_nan=False)


class FinalMetrics(BaseModel):
    """The exported model, measured by the sites on their validation rows.

    Where all rows are in one place, that is one site.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sites: int = Field(ge=1)
    accuracy: float | None = Field(default=None, ge=0, le=1)
    absolute_error: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    loss: float = Field(ge=0, allow_inf_nan=False)
    """This and the two above as in ``RoundMetrics``; one of those two is there."""


class DifferentialPrivacy(BaseModel):
    """The guarantee that a model was trained under: client-level central differential privacy.

    What anyone can learn from the model and from every global model before it is bounded whether
    or not one site took part (add or remove one site), against whoever does not see the sites'
    updates themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    noise_multiplier: float = Field(gt=0, allow_inf_nan=False)
    """Standard deviation of the noise in units of ``clipping_norm``, on the sum of the updates."""
    clipping_norm: float = Field(gt=0, allow_inf_nan=False)
    """Largest l2 norm of one site's update."""
    delta: float = Field(gt=0, lt=1)
    epsilon: float = Field(ge=0, allow_inf_nan=False)
    """Spent by all rounds together."""


class Federation(BaseModel):
    """How the updates of sites became one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: str
    """One of ``cloister_shared.strategies``."""
    parameters: dict[str, float | int] = {}
    """Of the strategy."""
    secure_aggregation: bool = False
    """Whether the server saw sums of updates only."""
    differential_privacy: DifferentialPrivacy | None = None


class ModelCard(BaseModel):
    """Name, task, estimator, schema, metrics and versions of one trained model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    estimator: str
    parameters: dict[str, Any]
    data: DatasetSchema
    out_of_bounds: OutOfBounds = "refuse"
    federation: Federation | None = None
    """Missing where the model was trained in one place."""
    rounds: tuple[RoundMetrics, ...]
    final: FinalMetrics | None = None
    """Missing where sites report no metrics, and of a model that was trained elsewhere."""
    bits: int | None = Field(default=None, ge=2, le=8)
    """To which inputs and weights are to be quantised; missing where nobody has chosen."""
    pruned: float = Field(default=0, ge=0, lt=1)
    """Share of the inputs whose weights were taken, those that mattered least."""
    standardised: bool = False
    """Whether it was trained on standardised inputs; its weights are for inputs in [0, 1] all the
    same."""
    libraries: dict[str, str]
    created: datetime


def read_card(path: Path) -> ModelCard:
    """Read a card from a JSON file.

    Raises:
        CloisterError: the file is missing, or is not a card.
    """
    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise CloisterError(f"{path} is missing: a model is published with its card") from None
    except ValidationError as error:
        raise CloisterError(f"{path} is not a model card: {error}") from None
