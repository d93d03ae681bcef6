"""A federation in one process: dealt, fitted and aggregated by the product's own code.

What is left out is what carries the messages. Sites hold the dealer's shards and split and fit
them as the client does; Flower's strategy classes aggregate their replies.
"""

import logging
import os
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from flwr.supercore.task_identity import TaskIdentity

from cloister_client.data.shard import Sample, Shard, read_shard
from cloister_client.training.fitting import fit
from cloister_dealer.deal import deal
from cloister_dealer.settings import Settings as DealerSettings
from cloister_shared.datasets import DatasetName, schema
from cloister_shared.estimators import estimator
from cloister_shared.links import class_indices
from cloister_shared.preprocessing import to_inputs
from cloister_shared.samples import FEATURES, HELD_OUT, LABELS, SCHEMA, SHARD
from cloister_shared.strategies import strategy
from cloister_shared.weights import LinearWeights
from cloister_trainer.plan import estimator_parameters
from cloister_trainer.records import synthetic_reply
from cloister_trainer.settings import Settings as TrainerSettings
from cloister_trainer.strategies import Aggregation

Floats = npt.NDArray[np.float64]

# Flower tells of every aggregation.
logging.getLogger("flwr").setLevel(logging.ERROR)
# What it sets in the processes that it starts; without it there are no messages.
TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1


@dataclass(frozen=True)
class Recipe:
    """What a user can set, with the trainer's names and defaults."""

    rounds: int = 5
    local_iterations: int = 20
    regularisation: float = 1.0
    strategy: str = "FedAvg"
    strategy_parameters: dict[str, float | int] = field(default_factory=dict)
    """Others than Flower's defaults."""
    clipping_norm: float | None = None
    """Largest l2 norm of a site's update; then all sites have the same weight."""
    noise_multiplier: float = 0.0
    """Standard deviation of the noise on the sum of the updates, in clipping norms."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the estimator, as the trainer sends them."""
        return estimator_parameters(
            TrainerSettings(
                estimator_parameters={"C": self.regularisation},
                local_iterations=self.local_iterations,
            )
        )


@dataclass(frozen=True)
class Update:
    """What a site sends: weights, and the rows it says it has."""

    weights: LinearWeights
    examples: int


Poison = Callable[[int, LinearWeights, Update], Update]
"""Changes the update of a site: its number, the received weights, what it would have sent."""


class Federation:
    """Sites with the shards of one deal, and the rows held out from them.

    Args:
        dataset: which.
        sites: how many; each has a shard.
        partition: as the dealer's.
        seed: of the deal.
        alpha: of the Dirichlet partition.
        root: where the deal is kept.
    """

    def __init__(
        self,
        dataset: DatasetName,
        sites: int,
        *,
        partition: Literal["iid", "dirichlet"] = "iid",
        seed: int = 0,
        alpha: float = 0.3,
        root: Path = Path("build/study/deals"),
    ) -> None:
        self.data = schema(dataset)
        folder = root / f"{dataset}-{sites}-{partition}-{alpha}-{seed}"
        self.shards = _shards(
            DealerSettings(
                dataset=dataset,
                shards=sites,
                clients=sites,
                partition=partition,
                seed=seed,
                dirichlet_alpha=alpha,
                held_out_fraction=0.2,
                mnist_path=Path(os.environ["MNIST_PATH"]) if "MNIST_PATH" in os.environ else None,
                shards_dir=folder / "shards",
                held_out_dir=folder / "held-out",
            )
        )
        with np.load(folder / "held-out" / HELD_OUT) as arrays:
            self.held_out = Sample(
                to_inputs(arrays[FEATURES], self.data), self.data.class_indices(arrays[LABELS])
            )
        self._first: dict[str, list[LinearWeights]] = {}

    def with_flipped_labels(self, site: int) -> "Federation":
        """Return the same sites, one of which has class n - 1 - c for every class c of n."""
        other = copy(self)
        other._first = {}
        shard = self.shards[site]
        flipped = len(self.data.classes) - 1 - shard.train.answers
        changed = replace(shard, train=replace(shard.train, answers=flipped))
        other.shards = [changed if i == site else same for i, same in enumerate(self.shards)]
        return other

    def accuracy(self, weights: LinearWeights) -> float:
        """Share of the held-out rows that a model has right."""
        scores = self.held_out.features @ weights.coef.T + weights.intercept
        return float(np.mean(class_indices(scores) == self.held_out.answers))

    def rounds(
        self, recipe: Recipe, *, seed: int = 0, poison: Poison | None = None
    ) -> Iterator[LinearWeights]:
        """Yield the global model after every round.

        Args:
            recipe: the settings.
            seed: of the noise.
            poison: what becomes of the sites' updates on their way.
        """
        noise = np.random.default_rng(seed)
        aggregation = Aggregation(strategy(recipe.strategy), recipe.strategy_parameters)
        weights = LinearWeights.zeros(self.data)
        for server_round in range(1, recipe.rounds + 1):
            updates = [
                Update(fitted, len(shard.train.answers))
                for fitted, shard in zip(self._fit_all(recipe, weights), self.shards, strict=True)
            ]
            if poison:
                updates = [poison(i, weights, update) for i, update in enumerate(updates)]
            if recipe.clipping_norm is not None:
                updates = [_noised_mean(recipe, weights, updates, noise)]
            replies = [synthetic_reply(update.weights, update.examples) for update in updates]
            weights = aggregation.aggregate(server_round, weights, replies)
            yield weights

    def _fit_all(self, recipe: Recipe, received: LinearWeights) -> list[LinearWeights]:
        # Every training starts from zeros: runs that differ in the noise alone share round 1.
        first, key = not received.coef.any(), str(recipe.parameters)
        if first and key in self._first:
            return self._first[key]
        row, parameters = estimator("LogisticRegression"), recipe.parameters
        fitted = [fit(row, parameters, received, one.train, one.data) for one in self.shards]
        if first:
            self._first[key] = fitted
        return fitted


def flat(weights: LinearWeights) -> Floats:
    """Return coefficients and intercepts as one vector."""
    return np.concatenate([weights.coef.ravel(), weights.intercept])


def _shards(settings: DealerSettings) -> list[Shard]:
    dealt = deal(settings)
    shards = []
    for index in range(len(dealt.shards)):
        path = dealt.shard_path(settings.shards_dir, index)
        site = path.parent / path.stem
        site.mkdir(exist_ok=True)
        if not (site / SHARD).exists():
            (site / SHARD).hardlink_to(path)
        (site / SCHEMA).write_text(dealt.data.model_dump_json())
        shards.append(read_shard(site, "refuse"))
    return shards


def _noised_mean(
    recipe: Recipe, received: LinearWeights, updates: list[Update], noise: np.random.Generator
) -> Update:
    """Clip what each site changed, average with equal weights, add noise: one update for all."""
    clip, start = recipe.clipping_norm, flat(received)
    assert clip is not None
    total = np.zeros_like(start)
    for update in updates:
        total += flat((update.weights - received).clipped(clip))
    total += noise.normal(0.0, recipe.noise_multiplier * clip, total.shape)
    new, size = start + total / len(updates), received.coef.size
    return Update(LinearWeights(new[:size].reshape(received.coef.shape), new[size:]), 1)
