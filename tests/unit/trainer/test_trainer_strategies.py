"""Flower's strategies as they are built here: against their signatures and their formulas."""

import inspect
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict

from cloister_shared import flower
from cloister_shared.errors import CloisterError
from cloister_shared.strategies import STRATEGIES, strategy
from cloister_shared.weights import LinearWeights
from cloister_trainer.records import synthetic_reply, to_record
from cloister_trainer.strategies import Aggregation

NOT_OURS = {"eta_l"}
"""Rate of the sites' own optimiser, which Flower's aggregation never uses."""


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_table_has_flowers_parameters(name: str) -> None:
    module, class_name = strategy(name).flower_class.rsplit(".", 1)
    taken = inspect.signature(getattr(import_module(module), class_name)).parameters
    common = inspect.signature(
        import_module("flwr.serverapp.strategy").FedAvg  # what no strategy is without
    ).parameters
    assert set(strategy(name).parameters) == set(taken) - set(common) - NOT_OURS
    for key, parameter in strategy(name).parameters.items():
        assert isinstance(parameter.default, type(taken[key].default)), key


def weights(seed: int, scale: float = 1.0) -> LinearWeights:
    generator = np.random.default_rng(seed)
    return LinearWeights(scale * generator.normal(size=(10, 64)), scale * generator.normal(size=10))


def reply(what: LinearWeights, examples: int = 100, node: int = 1) -> Message:
    asked = Message(RecordDict(), dst_node_id=node, message_type="train")
    metrics = MetricRecord({flower.EXAMPLES: examples})
    content = RecordDict({flower.ARRAYS: to_record(what), flower.METRICS: metrics})
    return Message(content, reply_to=asked)


def aggregation(name: str, **given: Any) -> Aggregation:
    row = strategy(name)
    return Aggregation(row, row.values(given))


def coefs(replies: Sequence[LinearWeights]) -> Any:
    return np.array([one.coef for one in replies])


SITES = [weights(seed) for seed in range(7)]


def aggregated(name: str, sites: Sequence[LinearWeights] = SITES, **given: Any) -> LinearWeights:
    replies = [reply(one, node=node) for node, one in enumerate(sites, 1)]
    return aggregation(name, **given).aggregate(1, weights(99), replies)


def test_fedavg_weights_by_rows() -> None:
    one, two, three = SITES[:3]
    mean = aggregation("FedAvg").aggregate(
        1, weights(99), [reply(one, 100), reply(two, 300), reply(three, 600)]
    )
    np.testing.assert_allclose(mean.coef, 0.1 * one.coef + 0.3 * two.coef + 0.6 * three.coef)
    np.testing.assert_allclose(
        mean.intercept, 0.1 * one.intercept + 0.3 * two.intercept + 0.6 * three.intercept
    )


def test_fedmedian_is_the_median_of_every_value() -> None:
    np.testing.assert_allclose(aggregated("FedMedian").coef, np.median(coefs(SITES), axis=0))


@pytest.mark.parametrize(("beta", "cut"), [(0.0, 0), (0.1, 0), (0.2, 1), (0.3, 2), (0.45, 3)])
def test_trimming_cuts_beta_times_n_at_either_end_rounded_down(beta: float, cut: int) -> None:
    kept = np.sort(coefs(SITES), axis=0)[cut : len(SITES) - cut]
    found = aggregated("FedTrimmedAvg", beta=beta).coef
    np.testing.assert_allclose(found, kept.mean(axis=0))


def shifted(*shifts: float) -> list[LinearWeights]:
    return [LinearWeights(weights(1).coef + shift, weights(1).intercept) for shift in shifts]


def test_krum_takes_the_update_of_the_site_that_is_nearest_to_others() -> None:
    sites = shifted(0.0, 0.01, 100.0, 0.02, 0.03, -100.0, 0.04)
    assert np.array_equal(aggregated("Krum", sites).coef, sites[3].coef)


def test_multikrum_averages_those_that_are_near_each_other() -> None:
    sites = shifted(100.0, 0.0, 0.01, 0.02, 0.03, 0.04)
    chosen = aggregated("MultiKrum", sites, num_nodes_to_select=5)
    np.testing.assert_allclose(chosen.coef, weights(1).coef + 0.02)


@pytest.mark.parametrize("name", ["FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum"])
@pytest.mark.parametrize("huge", [1e9, 1e200, 1e307])
def test_weights_beyond_what_can_be_squared_do_not_pass(name: str, huge: float) -> None:
    sites = [*shifted(0.0, 0.01, 0.02, 0.03, 0.04, 0.05), weights(3, scale=huge)]
    assert np.abs(aggregated(name, sites).coef - weights(1).coef).max() < 0.1


def adam(
    name: str, rounds: Sequence[LinearWeights], received: LinearWeights, values: dict[str, float]
) -> Any:
    """The weights after some rounds, by the formulas of arXiv:2003.00295, algorithm 2."""
    x = received.coef
    m, v = np.zeros_like(x), np.zeros_like(x)
    eta, b1, b2, tau = (values[key] for key in ("eta", "beta_1", "beta_2", "tau"))
    for number, mean in enumerate(rounds, 1):
        delta = mean.coef - x
        m = b1 * m + (1 - b1) * delta
        if name == "FedYogi":
            v = v - (1 - b2) * delta**2 * np.sign(v - delta**2)
            rate = eta
        else:
            v = b2 * v + (1 - b2) * delta**2
            rate = eta * np.sqrt(1 - b2 ** (number + 1)) / (1 - b1 ** (number + 1))
        x = x + rate * m / (np.sqrt(v) + tau)
    return x


@pytest.mark.parametrize("name", ["FedAdam", "FedYogi"])
@pytest.mark.parametrize("given", [{}, {"eta": 0.5, "beta_1": 0.0, "beta_2": 0.5, "tau": 0.1}])
@pytest.mark.parametrize("resumed_after", [None, 1, 2])
def test_the_servers_optimiser_goes_on_from_the_last_model_with_its_moments(
    name: str, given: dict[str, float], resumed_after: int | None
) -> None:
    made, model = aggregation(name, **given), weights(99)
    for number, mean in enumerate(SITES[:4], 1):
        model = made.aggregate(number, model, [synthetic_reply(mean)])
        if number == resumed_after:
            state = {key: array.copy() for key, array in made.state().items()}
            assert set(state) == {"m_t.coef", "m_t.intercept", "v_t.coef", "v_t.intercept"}
            made = aggregation(name, **given)
            made.restore(state)
    expected = adam(name, SITES[:4], weights(99), strategy(name).values(given))
    np.testing.assert_allclose(model.coef, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["FedAvg", "FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum"])
def test_the_others_keep_nothing(name: str) -> None:
    made = aggregation(name)
    made.aggregate(1, weights(99), [reply(one) for one in SITES])
    assert made.state() == {}
    made.restore({})


@pytest.mark.parametrize("name", ["FedAvg", "FedAdam", "FedYogi"])
def test_a_single_reply_that_carries_a_mean_is_that_mean(name: str) -> None:
    mean = weights(5)
    whole = aggregation(name).aggregate(1, weights(99), [reply(one) for one in SITES])
    fused = LinearWeights(
        coefs(SITES).mean(axis=0), np.mean([one.intercept for one in SITES], axis=0)
    )
    alone = aggregation(name).aggregate(1, weights(99), [synthetic_reply(fused)])
    np.testing.assert_allclose(alone.coef, whole.coef, atol=1e-12)
    if name == "FedAvg":
        only = aggregation(name).aggregate(1, weights(99), [synthetic_reply(mean)])
        assert np.array_equal(only.coef, mean.coef)


def test_without_replies_there_is_no_model() -> None:
    with pytest.raises(CloisterError, match="round 2 has no replies"):
        aggregation("FedAvg").aggregate(2, weights(99), [])
