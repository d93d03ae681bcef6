"""The rounds of a training: collect, aggregate, check, keep, tell."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from flwr.app import Message

from cloister_shared.card import RoundMetrics
from cloister_shared.errors import CloisterError
from cloister_shared.models import Model, linear
from cloister_shared.schema import DatasetSchema
from cloister_shared.standardising import Standardisation
from cloister_shared.trees import Trees
from cloister_shared.weights import LinearWeights
from cloister_trainer.collection import Collection
from cloister_trainer.records import mean_weights, synthetic_reply

log = logging.getLogger(__name__)


class Privacy(Protocol):
    """What makes a training differentially private."""

    def allows_round(self) -> bool:
        """Return whether the budget has room for another round."""

    def clip(self, received: LinearWeights, replies: list[Message]) -> list[Message]:
        """Return the replies with every update bounded.

        Args:
            received: the weights that sites fitted from.
            replies: with the weights they came to.
        """

    def noise(self, before: LinearWeights, after: LinearWeights, sites: int) -> LinearWeights:
        """Return the weights that may be shown.

        Args:
            before: the weights that sites fitted from.
            after: the mean of the weights they came to, every site counting the same.
            sites: how many there are in the mean.
        """

    def spend(self) -> float:
        """Count one round and return epsilon of all rounds so far."""

    def state(self) -> dict[str, Any]:
        """Return what has been spent, as JSON; never anything of the noise."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what ``state`` returned."""


class Aggregating(Protocol):
    """What makes one model of the replies of a round."""

    def aggregate(self, server_round: int, received: Model, replies: Sequence[Message]) -> Model:
        """Return the next global model; what it holds is to be checked.

        Args:
            server_round: from 1.
            received: the model that sites were sent.
            replies: valid ones.
        """

    def state(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return what is kept from round to round, by name; often nothing."""

    def restore(self, state: Mapping[str, npt.NDArray[np.float64]]) -> None:
        """Go on from what ``state`` returned."""


@dataclass
class Course:
    """How far a training is."""

    weights: Model
    """The global model."""
    rounds: list[RoundMetrics] = field(default_factory=list)
    """Of every round so far."""
    standardisation: Standardisation | None = None
    """Of the inputs that the weights are for; None: they are for inputs in [0, 1]."""

    def model(self, prune: float) -> Model:
        """Return the model for inputs in [0, 1], of a linear one a share of them without weight.

        Standardised inputs are pruned as such: what an input matters shows in weights for a like
        range, and one without a weight counts with its mean.
        """
        if isinstance(self.weights, Trees):
            return self.weights
        weights = self.weights.pruned(prune)
        return weights if self.standardisation is None else self.standardisation.fold(weights)


@dataclass(frozen=True)
class Training:
    """What the rounds are made of."""

    data: DatasetSchema
    rounds: int
    """In all."""
    collection: Collection
    aggregation: Aggregating
    privacy: Privacy | None = None
    """None: updates are neither clipped nor noised."""


def run_rounds(training: Training, course: Course, after_round: Callable[[Course], None]) -> None:
    """Run the rounds that ``course`` still lacks, and keep it up to date.

    Args:
        training: what to do.
        course: where to begin.
        after_round: called with the course after every round, before anything of the next one is
            sent.

    Raises:
        CloisterError: a round lacks its quorum, what it came to is no model, or the privacy budget
            allows not even one round.
    """
    while len(course.rounds) < training.rounds:
        if training.privacy is not None and not training.privacy.allows_round():
            if not course.rounds:
                raise CloisterError(
                    "CLOISTER_EPSILON_BUDGET allows no round at all: raise it, or "
                    "CLOISTER_NOISE_MULTIPLIER"
                )
            log.warning(
                "the privacy budget is spent: ending after %d of %d rounds",
                len(course.rounds),
                training.rounds,
            )
            return
        course.weights, measured = _run_round(training, len(course.rounds) + 1, course.weights)
        course.rounds.append(measured)
        after_round(course)


def _run_round(training: Training, server_round: int, weights: Model) -> tuple[Model, RoundMetrics]:
    began = time.monotonic()
    collected = training.collection.train(server_round, weights)
    replies, epsilon = collected.replies, None
    if training.privacy is not None:
        # The noise is made for a mean in which every update counts the same, and what a strategy
        # makes of the noised mean costs no privacy.
        before = linear(weights)
        mean = mean_weights(training.privacy.clip(before, replies))
        replies = [synthetic_reply(training.privacy.noise(before, mean, collected.sites))]
        epsilon = training.privacy.spend()
    after = training.aggregation.aggregate(server_round, weights, replies)
    try:
        after.check(training.data)
    except CloisterError as error:
        raise CloisterError(f"round {server_round} came to no model: {error}") from None
    measured = RoundMetrics(
        round=server_round,
        sites=collected.sites,
        # A site that has not replied in time is among those asked.
        failures=collected.asked - collected.sites,
        examples=collected.examples,
        epsilon=epsilon,
        seconds=time.monotonic() - began,
        **(collected.metrics or {}),
    )
    return after, measured
