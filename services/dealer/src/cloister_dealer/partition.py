"""Rows to shards, with the partitioners of flwr-datasets."""

from typing import Any, Literal

import datasets
import numpy as np
import numpy.typing as npt
from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner

from cloister_shared.errors import CloisterError

MIN_SHARD_ROWS = 10
"""Of the rows of its shard a site keeps one tenth for validation."""


def partition(
    labels: npt.NDArray[Any],
    n_shards: int,
    kind: Literal["iid", "dirichlet"],
    *,
    alpha: float,
    seed: int,
) -> list[npt.NDArray[np.int64]]:
    """Return the row numbers of each shard; every row is in exactly one.

    Args:
        labels: shape (n,).
        n_shards: number of shards.
        kind: ``iid`` spreads rows evenly after a shuffle; ``dirichlet`` draws each label's share
            of every shard from Dirichlet(alpha) (https://arxiv.org/abs/1909.06335).
        alpha: concentration, used by ``dirichlet``.
        seed: equal arguments and seed give equal shards.

    Raises:
        CloisterError: there are too few rows for this many shards.
    """
    if len(labels) < n_shards * MIN_SHARD_ROWS:
        raise CloisterError(
            f"{len(labels)} rows are too few for {n_shards} shards of {MIN_SHARD_ROWS} rows or "
            "more: lower CLOISTER_SHARDS"
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    table = datasets.Dataset.from_dict({"row": order, "label": [str(labels[i]) for i in order]})
    partitioner = (
        IidPartitioner(n_shards)
        if kind == "iid"
        else DirichletPartitioner(
            n_shards,
            partition_by="label",
            alpha=alpha,
            min_partition_size=MIN_SHARD_ROWS,
            seed=seed,
        )
    )
    partitioner.dataset = table
    try:
        return [
            np.array(partitioner.load_partition(shard)["row"], dtype=np.int64)
            for shard in range(n_shards)
        ]
    except ValueError as error:
        raise CloisterError(
            f"no Dirichlet({alpha}) partition into {n_shards} shards leaves every shard "
            f"{MIN_SHARD_ROWS} rows ({error}): raise CLOISTER_DIRICHLET_ALPHA or lower "
            "CLOISTER_SHARDS"
        ) from None
