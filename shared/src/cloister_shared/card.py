"""The model card: everything about a model that may be public, and no data."""

from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloister_shared.errors import CloisterError
from cloister_shared.scaling import OutOfBounds
from cloister_shared.schema import DatasetSchema


class RoundMetrics(BaseModel):
    """What one round of training measured, over the sites that replied in it.

    Accuracy and loss are of the global model as the sites received it in this round, on the rows
    that each keeps for validation, averaged by number of rows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int = Field(ge=1)
    sites: int = Field(ge=1)
    failures: int = Field(ge=0)
    examples: int = Field(ge=1)
    accuracy: float = Field(ge=0, le=1)
    loss: float = Field(ge=0, allow_inf_nan=False)
    """Mean cross-entropy, in nats."""
    seconds: float = Field(ge=0, allow_inf_nan=False)


class FinalMetrics(BaseModel):
    """The exported model, measured by the sites on their validation rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sites: int = Field(ge=1)
    accuracy: float = Field(ge=0, le=1)
    loss: float = Field(ge=0, allow_inf_nan=False)
    """Mean cross-entropy, in nats."""


class ModelCard(BaseModel):
    """Name, task, estimator, schema, metrics and versions of one trained model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    estimator: str
    parameters: dict[str, Any]
    data: DatasetSchema
    out_of_bounds: OutOfBounds = "refuse"
    rounds: tuple[RoundMetrics, ...]
    final: FinalMetrics
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
