"""Clipping, noise and the accounting of differential privacy."""

import hashlib
import inspect
import json
import math
import os
from importlib import import_module
from itertools import count
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister_shared.errors import CloisterError
from cloister_shared.weights import LinearWeights
from cloister_trainer.privacy import (
    GaussianPrivacy,
    affordable_rounds,
    check_budget,
    epsilon_after,
    standard_normal,
    sufficient_noise,
)
from cloister_trainer.records import synthetic_reply, weights_of


class Fixed:
    """Bytes that are the same in every run of the tests, and never twice in one."""

    def __init__(self) -> None:
        self.calls = count()

    def __call__(self, size: int) -> bytes:
        return hashlib.shake_256(f"{next(self.calls)}".encode()).digest(size)


def weights(*coef: float, intercept: float = 0.0) -> LinearWeights:
    return LinearWeights(np.array([coef]), np.array([intercept]))


def norm(update: LinearWeights) -> float:
    return float(np.sqrt((update.coef**2).sum() + (update.intercept**2).sum()))


def moved(after: LinearWeights, before: LinearWeights) -> LinearWeights:
    return LinearWeights(after.coef - before.coef, after.intercept - before.intercept)


def test_values_are_standard_normal() -> None:
    values = standard_normal(200_000, Fixed())
    expected = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in np.sort(values)])
    # Kolmogorov and Smirnov: exceeded once in a thousand, and these values are fixed.
    assert np.abs(expected - np.arange(len(values)) / len(values)).max() < 1.95 / math.sqrt(200_000)
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_extreme_bytes_give_finite_values(byte: bytes) -> None:
    values = standard_normal(3, lambda size: byte * size)
    assert np.isfinite(values).all()
    assert np.abs(values).max() < 8.6


@pytest.mark.parametrize("sites", [1, 3, 10])
def test_the_noise_is_made_for_the_sites_that_are_in_the_mean(sites: int) -> None:
    before = LinearWeights(np.zeros((10, 5_000)), np.zeros(10))
    after = GaussianPrivacy(1.5, 2.0, 1e-5, entropy=Fixed()).noise(before, before, sites)
    values = np.concatenate([after.coef.ravel(), after.intercept])
    expected = 1.5 * 2.0 / sites
    # Of 50010 values the mean deviates by 0.0045 and the deviation by 0.0032 of it.
    assert abs(values.mean()) < 4 * 0.0045 * expected
    assert values.std() == pytest.approx(expected, rel=4 * 0.0032)


def test_noise_is_added_to_the_mean_in_full_shape() -> None:
    before = LinearWeights(np.ones((3, 4)), np.ones(3))
    mean = LinearWeights(before.coef + 0.01, before.intercept - 0.01)
    after = GaussianPrivacy(1e-9, 1.0, 1e-5).noise(before, mean, 3)
    np.testing.assert_allclose(after.coef, mean.coef, atol=1e-7)
    np.testing.assert_allclose(after.intercept, mean.intercept, atol=1e-7)
    assert (after.coef != mean.coef).all()
    assert (after.intercept != mean.intercept).all()


def test_noise_is_new_every_time_and_from_the_operating_system() -> None:
    """Kept or made from a seed, it could be taken off again."""
    before = weights(0.0, 0.0)
    first, second = (GaussianPrivacy(1.0, 1.0, 1e-5).noise(before, before, 1) for _ in range(2))
    assert not np.array_equal(first.coef, second.coef)
    drawn = []

    def entropy(size: int) -> bytes:
        drawn.append(size)
        return bytes(size)

    GaussianPrivacy(1.0, 1.0, 1e-5, entropy=entropy).noise(before, before, 1)
    assert drawn == [16 * 3]
    assert inspect.signature(GaussianPrivacy).parameters["entropy"].default is os.urandom


@given(
    update=st.lists(st.floats(-1e150, 1e150), min_size=3, max_size=3),
    received=st.lists(st.floats(-100, 100), min_size=3, max_size=3),
)
def test_no_update_is_longer_than_the_norm(update: list[float], received: list[float]) -> None:
    before = weights(*received[:2], intercept=received[2])
    sent = LinearWeights(before.coef + update[:2], before.intercept + update[2])
    (reply,) = GaussianPrivacy(1.0, 0.5, 1e-5).clip(before, [synthetic_reply(sent)])
    clipped = moved(weights_of(reply), before)
    # The last bits of the sum with what was received are rounded.
    assert norm(clipped) <= 0.5 + 1e-12
    if norm(moved(sent, before)) <= 0.5:
        assert np.array_equal(weights_of(reply).coef, sent.coef)


def test_a_clipped_update_keeps_its_direction_and_the_others_their_value() -> None:
    before = weights(1.0, 1.0)
    replies = [
        synthetic_reply(sent)
        for sent in (weights(4.0, 1.0, intercept=4.0), weights(1.1, 1.0), weights(1.0, 1.0))
    ]
    far, near, same = GaussianPrivacy(1.0, 2.5, 1e-5).clip(before, replies)
    assert weights_of(far).coef == pytest.approx(np.array([[2.5, 1.0]]))
    assert weights_of(far).intercept == pytest.approx([2.0])
    assert np.array_equal(weights_of(near).coef, [[1.1, 1.0]])
    assert np.array_equal(weights_of(same).coef, before.coef)


def test_a_mean_that_no_clipped_updates_have_is_clipped() -> None:
    """Under secure aggregation only a site itself could clip its update."""
    before = weights(0.0, 0.0)
    after = GaussianPrivacy(1e-12, 1.0, 1e-5).noise(before, weights(30.0, 40.0), 3)
    assert after.coef == pytest.approx(np.array([[0.6, 0.8]]))


@pytest.mark.parametrize("noise_multiplier", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-3])
def test_epsilon_is_that_of_dp_accounting(noise_multiplier: float, delta: float) -> None:
    guard = GaussianPrivacy(noise_multiplier, 1.0, delta)
    # It has no types.
    dp_event, rdp = import_module("dp_accounting.dp_event"), import_module("dp_accounting.rdp")
    direct = rdp.RdpAccountant()
    for rounds in (1, 2, 3):
        direct.compose(dp_event.GaussianDpEvent(noise_multiplier))
        expected = direct.get_epsilon(delta)
        assert guard.spend() == expected
        assert epsilon_after(rounds, noise_multiplier, delta) == pytest.approx(expected, rel=1e-12)


def test_epsilon_as_measured_before() -> None:
    """Five rounds at delta 1e-5, by an independent emulation."""
    assert epsilon_after(5, 0.1, 1e-5) == pytest.approx(355, rel=0.01)
    assert epsilon_after(5, 0.3, 1e-5) == pytest.approx(62, rel=0.01)
    assert epsilon_after(5, 1.0, 1e-5) == pytest.approx(12.3, rel=0.01)


def test_a_round_that_would_exceed_the_budget_is_not_allowed() -> None:
    budget = epsilon_after(3, 1.0, 1e-5)
    guard = GaussianPrivacy(1.0, 1.0, 1e-5, budget)
    for _ in range(3):
        assert guard.allows_round()
        assert guard.spend() <= budget
    assert not guard.allows_round()
    assert affordable_rounds(100, 1.0, 1e-5, budget) == 3
    assert affordable_rounds(100, 1.0, 1e-5, budget * (1 - 1e-9)) == 2
    assert affordable_rounds(2, 1.0, 1e-5, budget) == 2


def test_without_a_budget_every_round_is_allowed() -> None:
    guard = GaussianPrivacy(0.01, 1.0, 1e-5)
    guard.spend()
    assert guard.allows_round()


def test_what_was_spent_is_kept_and_nothing_of_the_noise() -> None:
    first = GaussianPrivacy(1.0, 1.0, 1e-5, 100.0)
    first.noise(weights(0.0), weights(0.0), 2)
    first.spend()
    first.spend()
    kept = json.loads(json.dumps(first.state()))
    second = GaussianPrivacy(1.0, 1.0, 1e-5, 100.0)
    second.restore(kept)
    assert second.spend() == epsilon_after(3, 1.0, 1e-5)
    assert (
        kept["compositions"]
        == [
            {
                "event": {"noise_multiplier": 1.0, "sample_size": 1, "population_size": 1},
                "count": 1,
            }
        ]
        * 2
    )


@pytest.mark.parametrize("state", [{}, {"schema_version": 9}, None])
def test_a_state_that_is_none_is_refused(state: Any) -> None:
    with pytest.raises(CloisterError, match="privacy budget is lost"):
        GaussianPrivacy(1.0, 1.0, 1e-5).restore(state)


def test_a_state_of_another_delta_is_refused() -> None:
    with pytest.raises(CloisterError, match="privacy budget is lost"):
        GaussianPrivacy(1.0, 1.0, 1e-6).restore(GaussianPrivacy(1.0, 1.0, 1e-5).state())


@pytest.mark.parametrize(("rounds", "budget"), [(1, 1.0), (5, 1.0), (5, 12.4), (20, 0.1)])
def test_the_noise_that_is_named_suffices_and_hardly_less_does(rounds: int, budget: float) -> None:
    noise = sufficient_noise(rounds, 1e-5, budget)
    assert affordable_rounds(rounds, noise, 1e-5, budget) == rounds
    assert affordable_rounds(rounds, 0.98 * noise, 1e-5, budget) < rounds
    assert noise == pytest.approx(float(f"{noise:.3g}"))


def test_a_budget_for_no_round_is_refused_with_the_noise_that_would_fit() -> None:
    expected = r"does not allow one round: it spends 20\.4 .*; with 4\.05 one .*, with 9\.05 all 5"
    with pytest.raises(CloisterError, match=expected):
        check_budget(5, 0.3, 1e-5, 1.0)
    assert check_budget(1, 4.05, 1e-5, 1.0) == 1
    assert check_budget(5, 9.05, 1e-5, 1.0) == 5
    assert check_budget(5, 4.05, 1e-5, 1.0) == 1


def test_a_budget_that_no_noise_meets_is_refused() -> None:
    with pytest.raises(CloisterError, match="too small for any noise"):
        check_budget(5, 1.0, 1e-300, 1e-9)
