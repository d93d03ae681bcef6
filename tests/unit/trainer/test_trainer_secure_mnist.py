"""Secure aggregation against plain averaging on MNIST, ten sites, side by side."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from federation import Clock, LocalGrid, Site, deal_sites
from flwr.app import ConfigRecord

from cloister_dealer.settings import Settings as DealerSettings
from cloister_shared import flower
from cloister_shared.datasets import schema
from cloister_shared.links import class_indices
from cloister_shared.preprocessing import to_inputs
from cloister_shared.strategies import strategy
from cloister_shared.weights import LinearWeights
from cloister_trainer.exchange import Exchange
from cloister_trainer.plain import PlainCollection
from cloister_trainer.records import weights_of
from cloister_trainer.secure_aggregation import Masking, SecureCollection, error_bound
from cloister_trainer.strategies import Aggregation

pytestmark = pytest.mark.skipif(
    "MNIST_PATH" not in os.environ,
    reason="MNIST_PATH does not name an .npz file with MNIST as x_train and y_train",
)

SITES = 10
ROUNDS = 2
DATA = schema("mnist")


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> LocalGrid:
    settings = DealerSettings(
        dataset="mnist", shards=SITES, mnist_path=Path(os.environ["MNIST_PATH"])
    )
    dealt = deal_sites(tmp_path_factory.mktemp("mnist"), settings)
    return LocalGrid({node: Site(folder) for node, folder in dealt.items()})


def accuracy(weights: LinearWeights) -> float:
    with np.load(os.environ["MNIST_PATH"]) as arrays:
        features, labels = arrays["x_test"].reshape(-1, 784), arrays["y_test"]
    scores = to_inputs(features, DATA) @ weights.coef.T + weights.intercept
    return float(np.mean(class_indices(scores) == labels))


def test_two_rounds_come_to_the_same_model(grid: LocalGrid) -> None:
    config = ConfigRecord(
        {
            flower.SCHEMA_DIGEST: DATA.digest,
            flower.ESTIMATOR: "LogisticRegression",
            flower.PARAMETERS: json.dumps(
                {"penalty": "l2", "C": 1.0, "max_iter": 20, "warm_start": True}
            ),
            flower.OUT_OF_BOUNDS: "refuse",
            flower.REPORT: True,
        }
    )
    clock = Clock()
    exchange = Exchange(grid, clock=clock, sleep=clock.sleep)
    plain = PlainCollection(exchange, DATA, config, list, quorum=7, timeout=60)
    secure = SecureCollection(
        exchange,
        DATA,
        config,
        list,
        quorum=7,
        timeout=60,
        masking=Masking(clipping_range=8.0, max_examples=100_000),
    )
    average = Aggregation(strategy("FedAvg"), {})
    by_plain = by_secure = LinearWeights.zeros(DATA)
    for number in range(1, ROUNDS + 1):
        collected = plain.train(number, by_plain)
        summed = secure.train(number, by_secure)
        before = distance(by_plain, by_secure)
        by_plain = average.aggregate(number, by_plain, collected.replies)
        by_secure = weights_of(summed.replies[0])
        if number == 1:
            assert collected.examples is not None
            bound = error_bound(SITES, 8.0, 100_000, collected.examples)
            assert before == 0
            assert distance(by_plain, by_secure) < bound < 2e-6
        assert collected.metrics is not None
        assert summed.metrics is not None
        assert summed.metrics["accuracy"] == pytest.approx(collected.metrics["accuracy"], abs=1e-3)
    assert accuracy(by_plain) > 0.91
    assert accuracy(by_secure) == pytest.approx(accuracy(by_plain), abs=5e-4)


def distance(first: LinearWeights, second: LinearWeights) -> float:
    return float(
        max(
            np.abs(first.coef - second.coef).max(),
            np.abs(first.intercept - second.intercept).max(),
        )
    )
