"""Settings of the trainer."""

import math
from pathlib import Path
from typing import Literal

from pydantic import Field

from cloister_shared.datasets import DatasetName
from cloister_shared.scaling import OutOfBounds
from cloister_shared.service import ServiceSettings


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    superlink: str = "127.0.0.1:8000"
    """Host and port of the SuperLink."""
    superexec_secret: Path = Path("control/superexec.secret")
    """The secret between SuperLink and SuperExec."""
    ca_path: Path | None = None
    """PEM file with the CA certificates that the SuperLink is verified with."""
    insecure: bool = False
    """Reach the SuperLink without TLS: for tests on one machine alone."""
    models_dir: Path = Path("models")
    """Registry of models, written."""
    events_dir: Path = Path("events")
    """Where the course of every training is written, a JSON line an event."""
    work_dir: Path = Path("work")
    """Scratch folder for Flower's configuration and bundle."""

    model: str | None = None
    """Name under which the aggregate is published; the dataset's by default."""
    dataset: DatasetName = "digits"
    """Schema of the sites' data."""
    estimator: str = "LogisticRegression"
    """scikit-learn class that sites fit."""
    regularisation: float = Field(default=1.0, gt=0)
    """scikit-learn's C: the inverse of the strength of the l2 penalty."""
    local_iterations: int = Field(default=20, ge=1)
    """Solver iterations a site makes in each round."""
    out_of_bounds: OutOfBounds = "refuse"
    """What sites and key holders do with a value outside its declared bounds."""
    rounds: int = Field(default=5, ge=1)
    """Rounds of federated averaging."""

    clients: int = Field(default=3, ge=1)
    """Sites expected."""
    min_replies: int | None = Field(default=None, ge=1)
    """Valid replies without which a round fails; two thirds of the sites expected by default."""
    start_deadline: float = Field(default=300, gt=0)
    """Seconds to wait for the sites expected, at the start and when too few are left."""
    settle_seconds: float = Field(default=5, ge=0)
    """Once the sites expected are there: seconds without a further one before round 1."""
    round_timeout: float = Field(default=600, gt=0)
    """Seconds after which a round goes on without the replies that are still missing."""
    retrain: bool = False
    """Train even where a model of the same settings is published."""

    shards: int = Field(default=10, ge=1)
    """As the dealer's; with the four below, other shards are trained anew."""
    partition: Literal["iid", "dirichlet"] = "iid"
    """As the dealer's."""
    dirichlet_alpha: float = Field(default=0.3, gt=0)
    """As the dealer's."""
    held_out_fraction: float = Field(default=0.2, gt=0, lt=1)
    """As the dealer's."""
    seed: int = Field(default=0, ge=0)
    """As the dealer's."""

    @property
    def name(self) -> str:
        """Name under which the aggregate is published."""
        return self.model or self.dataset

    @property
    def quorum(self) -> int:
        """Valid replies that a round needs."""
        return self.min_replies or math.ceil(2 * self.clients / 3)
