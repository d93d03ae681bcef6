"""Rows to shards."""

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister_dealer.partition import MIN_SHARD_ROWS, partition
from cloister_shared.errors import CloisterError

Kind = Literal["iid", "dirichlet"]
KINDS: tuple[Kind, ...] = ("iid", "dirichlet")


def labels(rows: int = 600, classes: int = 10) -> np.ndarray[Any, Any]:
    return np.arange(rows) % classes


def deal(kind: Kind, *, shards: int = 5, seed: int = 0, alpha: float = 0.5) -> list[list[int]]:
    return [part.tolist() for part in partition(labels(), shards, kind, alpha=alpha, seed=seed)]


@settings(max_examples=25)
@given(
    rows=st.integers(100, 400),
    shards=st.integers(1, 5),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_row_is_in_exactly_one_shard(rows: int, shards: int, kind: Kind, seed: int) -> None:
    parts = partition(labels(rows), shards, kind, alpha=2.0, seed=seed)
    assert len(parts) == shards
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    assert min(len(part) for part in parts) >= MIN_SHARD_ROWS


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_alone_decides(kind: Kind) -> None:
    assert deal(kind) == deal(kind)
    assert deal(kind) != deal(kind, seed=1)


def test_the_seed_decides_how_labels_are_skewed() -> None:
    sizes = {tuple(len(part) for part in deal("dirichlet", seed=seed)) for seed in range(3)}
    assert len(sizes) == 3


def test_iid_shards_are_even_and_shuffled() -> None:
    parts = partition(labels(603), 4, "iid", alpha=1.0, seed=0)
    assert sorted(len(part) for part in parts) == [150, 151, 151, 151]
    assert all(part.tolist() != sorted(part) for part in parts)


def skew(kind: Kind, alpha: float = 0.5) -> float:
    """Mean share of the most frequent label of a shard; .1 if all ten are equally frequent."""
    counts = [np.bincount(labels()[part], minlength=10) for part in deal(kind, alpha=alpha)]
    return float(np.mean([count.max() / count.sum() for count in counts]))


def test_dirichlet_skews_labels_and_more_so_for_a_smaller_alpha() -> None:
    assert skew("iid") < 0.2 < skew("dirichlet", alpha=0.3)
    assert skew("dirichlet", alpha=100.0) < skew("dirichlet", alpha=1.0) < skew("dirichlet", 0.1)


def test_labels_may_be_words() -> None:
    words = np.array(["benign", "malignant"])[labels(100, 2)]
    parts = partition(words, 3, "dirichlet", alpha=5.0, seed=0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_shards_name_the_setting(kind: Kind) -> None:
    with pytest.raises(CloisterError, match=r"99 rows are too few for 10 shards.*CLOISTER_SHARDS"):
        partition(labels(99), 10, kind, alpha=1.0, seed=0)


def test_an_alpha_that_starves_a_shard_names_both_settings() -> None:
    with pytest.raises(CloisterError, match=r"CLOISTER_DIRICHLET_ALPHA .*CLOISTER_SHARDS"):
        partition(labels(100, 2), 10, "dirichlet", alpha=0.001, seed=0)
