"""Settings of the trainer."""

import math
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from cloister_shared.datasets import DatasetName, chosen_schema
from cloister_shared.preprocessing import OutOfBounds
from cloister_shared.schema import DatasetSchema
from cloister_shared.secure_aggregation import MIN_QUANTISATION
from cloister_shared.service import ServiceSettings
from cloister_shared.strategies import strategy

DEFAULT_CLIPPING_RANGE = 8.0
"""Flower's. Of MNIST, digits and breast_cancer no value moved by more than 3 in a round of the
default settings."""


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
    checkpoints_dir: Path = Path("checkpoints")
    """Where an unfinished training is kept from round to round, to be gone on with."""
    work_dir: Path = Path("work")
    """Scratch folder for Flower's configuration and bundle."""

    model: str | None = None
    """Name under which the aggregate is published; the dataset's by default."""
    dataset: DatasetName = "digits"
    """Schema of the sites' data, of those known by name."""
    schema_path: Path | None = None
    """JSON file with another schema of the sites' data, in the place of one known by name."""
    estimator: str = "LogisticRegression"
    """scikit-learn class that sites fit."""
    estimator_parameters: dict[str, Any] = Field(default_factory=dict)
    """Of the estimator's constructor, as a JSON object of scikit-learn's names, {"C": 0.1} for
    example; the others have scikit-learn's defaults, or those of ``cloister_shared.estimators``."""
    standardise: bool = False
    """Whether sites fit their inputs less the mean over all sites' rows, in units of the standard
    deviation; the weights that are published are for the declared bounds all the same."""
    prune: float = Field(default=0, ge=0, lt=1)
    """Share of the inputs, those that matter least, whose weights are taken at the end: they are
    neither encrypted nor evaluated."""
    local_iterations: int | None = Field(default=None, ge=1)
    """Iterations a site makes in each round, its estimator's max_iter; by default 20, or 5 of
    stochastic gradient descent."""
    out_of_bounds: OutOfBounds = "refuse"
    """What sites and key holders do with a value outside its declared bounds."""
    rounds: int = Field(default=5, ge=1)
    """Rounds: in each, sites fit from the global model on and their updates become the next. Of
    estimators that are trained by sums, or that cannot begin from given weights, there is one."""

    strategy: str = "FedAvg"
    """How updates become one model; one of ``cloister_shared.strategies``."""
    strategy_parameters: dict[str, Any] = Field(default_factory=dict)
    """Of the strategy, as a JSON object of Flower's names, {"eta": 0.05} for example; the others
    have their defaults."""
    secure_aggregation: bool = False
    """Whether the server sees sums of updates only, and no single site's."""
    secagg_clipping_range: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Largest magnitude of one value of an update under secure aggregation, where a site with a
    larger one refuses; by default clipping_norm under differential privacy, else 8. The larger,
    the less exact."""
    max_examples: int = Field(default=100_000, ge=1, le=MIN_QUANTISATION)
    """Most rows of one site under secure aggregation, where a site with more refuses. The larger,
    the less exact."""
    noise_multiplier: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Standard deviation of the noise on the sum of the updates, as a multiple of clipping_norm;
    without one there is no differential privacy."""
    clipping_norm: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Largest l2 norm of one site's update, under differential privacy."""
    delta: float = Field(default=1e-5, gt=0, lt=1)
    """Probability with which differential privacy may fail to hold at epsilon."""
    epsilon_budget: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Epsilon that a training may spend: no round begins that would exceed it."""

    clients: int = Field(default=3, ge=1)
    """Sites expected."""
    min_replies: int | None = Field(default=None, ge=1)
    """Valid replies without which a round fails; by default two thirds of the sites expected, or
    as many as the strategy needs."""
    start_deadline: float = Field(default=300, gt=0)
    """Seconds to wait for the sites expected, at the start and when too few are left."""
    settle_seconds: float = Field(default=5, ge=0)
    """Once the sites expected are there: seconds without a further one before round 1."""
    round_timeout: float = Field(default=600, gt=0)
    """Seconds after which a round goes on without the replies that are still missing."""
    retrain: bool = False
    """Train even where a model of the same settings is published."""
    resume: bool = True
    """Go on with a training of the same settings that was interrupted, after its last round."""

    deal_path: Path | None = None
    """File with the dealer's digest of what it dealt: with another one there is another training.
    Without one, at sites with rows of their own, nothing tells that these have changed."""

    host: str = "127.0.0.1"
    """Address at which metrics are served."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """TCP port for Prometheus while it trains; 0: none."""

    @property
    def name(self) -> str:
        """Name under which the aggregate is published.

        Raises:
            CloisterError: there is no schema at ``schema_path``.
        """
        return self.model or self.data.dataset

    @cached_property
    def data(self) -> DatasetSchema:
        """Schema of the sites' data.

        Raises:
            CloisterError: there is none at ``schema_path``.
        """
        return chosen_schema(self.dataset, self.schema_path)

    @property
    def strategy_values(self) -> dict[str, float | int]:
        """Every parameter of the strategy.

        Raises:
            CloisterError: the strategy or one of its parameters is unknown or wrong.
        """
        return strategy(self.strategy).values(self.strategy_parameters)

    @property
    def clipping_range(self) -> float:
        """Largest magnitude of one value of an update under secure aggregation."""
        if self.secagg_clipping_range is not None:
            return self.secagg_clipping_range
        # No value of a clipped update is beyond its norm.
        return self.clipping_norm if self.noise_multiplier is not None else DEFAULT_CLIPPING_RANGE

    @property
    def quorum(self) -> int:
        """Valid replies that a round needs.

        Raises:
            CloisterError: the strategy or one of its parameters is unknown or wrong.
        """
        if self.min_replies is not None:
            return self.min_replies
        needed = strategy(self.strategy).sites(self.strategy_values)
        return max(math.ceil(2 * self.clients / 3), needed)
