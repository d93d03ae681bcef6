"""The round loop, with a collection and privacy that note what is asked of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict

from cloister_shared import flower
from cloister_shared.card import FinalMetrics
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.models import Model, linear
from cloister_shared.standardising import Moments, Standardisation
from cloister_shared.strategies import strategy
from cloister_shared.weights import LinearWeights
from cloister_trainer.collection import Collected
from cloister_trainer.records import to_record, weights_of
from cloister_trainer.rounds import Course, Training, run_rounds
from cloister_trainer.strategies import Aggregation

DATA = schema("digits")


def filled(value: float) -> LinearWeights:
    return LinearWeights(np.full((10, 64), value), np.full(10, value))


def reply(value: float, examples: int) -> Message:
    asked = Message(RecordDict(), dst_node_id=1, message_type="train")
    metrics = MetricRecord({flower.EXAMPLES: examples})
    content = RecordDict({flower.ARRAYS: to_record(filled(value)), flower.METRICS: metrics})
    return Message(content, reply_to=asked)


class Updates:
    """Sites that come to given values, each with its number of rows."""

    def __init__(self, *sites: tuple[float, int]) -> None:
        self.sites = sites
        self.sent: list[tuple[int, float]] = []
        self.collected = Collected(
            len(sites) + 1, len(sites), [], 40, {"accuracy": 0.5, "loss": 1.5}
        )

    def train(self, server_round: int, model: Model) -> Collected:
        self.sent.append((server_round, float(linear(model).intercept[0])))
        return replace(self.collected, replies=[reply(*site) for site in self.sites])

    def moments(self) -> Moments:
        raise AssertionError("the rounds sum no inputs")

    def evaluate(self, model: Model) -> FinalMetrics | None:
        raise AssertionError(f"the rounds do not measure {model}")


class NotedPrivacy:
    """Clips to 1, adds 100 in place of noise, and spends 0.5 a round."""

    def __init__(self, rounds: int = 99) -> None:
        self.left = rounds
        self.spent = 0.0
        self.calls: list[Any] = []

    def allows_round(self) -> bool:
        return self.left > 0

    def clip(self, received: LinearWeights, replies: list[Message]) -> list[Message]:
        self.calls.append(("clip", float(received.intercept[0]), len(replies)))
        return [reply(min(1.0, float(weights_of(one).intercept[0])), 1) for one in replies]

    def noise(self, before: LinearWeights, after: LinearWeights, sites: int) -> LinearWeights:
        self.calls.append(("noise", float(before.intercept[0]), float(after.intercept[0]), sites))
        return LinearWeights(after.coef + 100, after.intercept + 100)

    def spend(self) -> float:
        self.left -= 1
        self.spent += 0.5
        return self.spent

    def state(self) -> dict[str, Any]:
        return {"spent": self.spent}

    def restore(self, state: dict[str, Any]) -> None:
        self.spent = state["spent"]


def training(collection: Updates, rounds: int = 3, **changes: Any) -> Training:
    row = strategy("FedAvg")
    return replace(Training(DATA, rounds, collection, Aggregation(row, row.values({}))), **changes)


def run(what: Training, course: Course | None = None) -> tuple[Course, list[int]]:
    after: list[int] = []
    course = course or Course(LinearWeights.zeros(DATA))
    run_rounds(what, course, lambda reached: after.append(len(reached.rounds)))
    return course, after


def test_every_round_goes_on_from_what_the_last_came_to() -> None:
    updates = Updates((2.0, 10), (6.0, 30))
    course, after = run(training(updates))
    assert updates.sent == [(1, 0.0), (2, 5.0), (3, 5.0)]
    assert np.array_equal(linear(course.weights).coef, filled(5.0).coef)
    assert after == [1, 2, 3]
    assert [measured.round for measured in course.rounds] == [1, 2, 3]
    first = course.rounds[0]
    assert (first.sites, first.failures, first.examples) == (2, 1, 40)
    assert (first.accuracy, first.loss, first.epsilon) == (0.5, 1.5, None)


def test_a_course_that_has_begun_is_gone_on_with() -> None:
    updates = Updates((2.0, 10))
    course, _ = run(training(updates, rounds=2))
    course, after = run(training(updates, rounds=4), course)
    assert updates.sent == [(1, 0.0), (2, 2.0), (3, 2.0), (4, 2.0)]
    assert after == [3, 4]


def test_one_that_is_done_asks_nobody() -> None:
    updates = Updates((2.0, 10))
    course, _ = run(training(updates))
    assert run(training(updates), course)[1] == []
    assert len(updates.sent) == 3


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_a_round_that_comes_to_no_model_fails_and_is_not_kept(value: float) -> None:
    course = Course(LinearWeights.zeros(DATA))
    with pytest.raises(CloisterError, match="round 1 came to no model: coef holds values"):
        run(training(Updates((value, 10))), course)
    assert course.rounds == []
    assert not linear(course.weights).coef.any()


def test_the_mean_of_clipped_updates_gets_the_noise_and_every_site_counts_the_same() -> None:
    privacy, updates = NotedPrivacy(), Updates((0.5, 10), (6.0, 30))
    course, _ = run(training(updates, rounds=2, privacy=privacy))
    assert privacy.calls == [
        ("clip", 0.0, 2),
        ("noise", 0.0, 0.75, 2),
        ("clip", 100.75, 2),
        ("noise", 100.75, 0.75, 2),
    ]
    assert float(linear(course.weights).intercept[0]) == 100.75
    assert [measured.epsilon for measured in course.rounds] == [0.5, 1.0]


def test_the_servers_optimiser_sees_the_noised_mean_alone() -> None:
    row = strategy("FedAdam")
    private = training(
        Updates((0.5, 10), (6.0, 30)),
        rounds=1,
        privacy=NotedPrivacy(),
        aggregation=Aggregation(row, row.values({})),
    )
    alone = Aggregation(row, row.values({})).aggregate(
        1, LinearWeights.zeros(DATA), [reply(100.75, 1)]
    )
    assert np.array_equal(linear(run(private)[0].weights).coef, alone.coef)


def test_a_spent_budget_ends_the_training_with_what_it_came_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    updates = Updates((0.5, 10))
    course, after = run(training(updates, rounds=5, privacy=NotedPrivacy(rounds=2)))
    assert after == [1, 2]
    assert len(course.rounds) == len(updates.sent) == 2
    assert "ending after 2 of 5 rounds" in caplog.text


def test_a_budget_that_allows_no_round_fails_it() -> None:
    updates = Updates((0.5, 10))
    with pytest.raises(CloisterError, match="CLOISTER_EPSILON_BUDGET allows no round"):
        run(training(updates, privacy=NotedPrivacy(rounds=0)))
    assert updates.sent == []


def test_a_model_is_pruned_by_weights_for_standardised_inputs_which_count_with_their_mean() -> None:
    means, deviations = np.full(64, 0.5), np.full(64, 0.01)
    means[3], deviations[3] = 0.25, 0.5
    standardisation = Standardisation(means=tuple(means), deviations=tuple(deviations))
    coef = np.ones((10, 64))
    coef[:, 3] = 2.0
    course = Course(LinearWeights(coef, np.zeros(10)), standardisation=standardisation)
    model = linear(course.model(63 / 64))
    # For inputs as they are its weight is the smallest of all.
    assert np.flatnonzero(model.coef.any(axis=0)).tolist() == [3]
    inputs = np.full((1, 64), 0.5)
    inputs[0, 3] = 0.75
    np.testing.assert_allclose(model.scores(inputs), np.full((1, 10), 2.0))
    assert np.array_equal(linear(Course(course.weights).model(0)).coef, coef)
