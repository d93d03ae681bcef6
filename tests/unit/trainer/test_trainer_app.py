"""Whole trainings, in this process, with the real ClientApp at every site."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import LocalGrid, Site
from flwr.app import Message, MetricRecord, RecordDict

from cloister_shared import flower
from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.card import Federation, ModelCard, read_card
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.links import class_indices
from cloister_shared.preprocessing import to_inputs
from cloister_shared.registry import Registry
from cloister_shared.weights import LinearWeights
from cloister_trainer.app import train
from cloister_trainer.events import EventLog
from cloister_trainer.plan import inputs_digest
from cloister_trainer.settings import Settings

MakeSettings = Callable[..., Settings]


@pytest.fixture
def events(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events" / "run-1.jsonl")


def published(settings: Settings) -> tuple[LinearWeights, ModelCard]:
    found = Registry(settings.models_dir).open_current(settings.name)
    found.verify()
    assert found.manifest.inputs_digest == inputs_digest(settings)
    return LinearWeights.read(found.file(WEIGHTS)), read_card(found.file(CARD))


def held_out_accuracy(weights: LinearWeights, folder: Path) -> float:
    data = schema("digits")
    with np.load(folder / "held-out" / "held_out.npz") as arrays:
        features, labels = to_inputs(arrays["X"], data), data.class_indices(arrays["y"])
    scores = features @ weights.coef.T + weights.intercept
    return float(np.mean(class_indices(scores) == labels))


def names(events: EventLog) -> list[str]:
    return [event["event"] for event in events.read()]


def test_it_publishes_a_model_that_predicts_rows_no_site_has(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog, dealt_folder: Path
) -> None:
    settings = make_settings()
    assert train(grid, settings, events) == 1
    weights, card = published(settings)
    weights.check(schema("digits"))
    assert held_out_accuracy(weights, dealt_folder) > 0.9

    assert (card.name, card.estimator, card.data) == (
        "digits",
        "LogisticRegression",
        schema("digits"),
    )
    assert card.parameters == {"max_iter": 20, "warm_start": True}
    assert card.out_of_bounds == "refuse"
    assert set(card.libraries) >= {"flwr", "numpy"}
    assert [measured.round for measured in card.rounds] == [1, 2, 3]
    for measured in card.rounds:
        assert (measured.sites, measured.failures) == (3, 0)
        # Nine tenths of the 1437 rows that were dealt.
        assert measured.examples == 1293
    # The first round measures the zeros that the sites received.
    assert card.rounds[0].loss == pytest.approx(np.log(10))
    assert card.rounds[-1].accuracy is not None
    assert card.rounds[-1].accuracy > 0.9
    assert card.federation == Federation(strategy="FedAvg")
    assert card.final is not None
    assert card.final.sites == 3
    assert (card.final.accuracy or 0) > 0.9
    rounds = ["sites", "round"] * 3
    assert names(events) == ["waiting", "started", *rounds, "sites", "final"]


def test_it_tells_what_is_trained_and_what_every_site_measured(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    train(grid, make_settings(), events)
    waiting, *_ = events.read()
    assert {key: waiting[key] for key in ("model", "task", "estimator", "strategy")} == {
        "model": "digits",
        "task": "classification",
        "estimator": "LogisticRegression",
        "strategy": "FedAvg",
    }
    assert waiting["secure_aggregation"] is False
    assert waiting["delta"] is None
    told = [event for event in events.read() if event["event"] == "sites"]
    assert [event["round"] for event in told] == [1, 2, 3, None]
    rounds = [event for event in events.read() if event["event"] in ("round", "final")]
    for event, whole in zip(told, rounds, strict=True):
        assert [one["site"] for one in event["sites"]] == ["1", "2", "3"]
        rows = [one["validation-examples"] for one in event["sites"]]
        measured = [one["accuracy"] for one in event["sites"]]
        assert whole["accuracy"] == pytest.approx(np.average(measured, weights=rows))


@pytest.mark.parametrize(
    "hiding", [{"noise_multiplier": 0.01, "clipping_norm": 10.0}, {"secure_aggregation": True}]
)
def test_it_tells_nothing_of_a_single_site_where_that_is_hidden(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog, hiding: dict[str, Any]
) -> None:
    train(grid, make_settings(rounds=1, **hiding), events)
    assert "round" in names(events)
    assert "sites" not in names(events)
    waiting, *_ = events.read()
    assert waiting["secure_aggregation"] is hiding.get("secure_aggregation", False)
    assert waiting["delta"] == (1e-5 if "noise_multiplier" in hiding else None)


def test_one_message_a_site_a_round_and_one_evaluation(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    train(grid, make_settings(), events)
    sent = [(m.metadata.message_type, m.metadata.dst_node_id) for m in grid.sent]
    assert sent == [("train", node) for _ in range(3) for node in (1, 2, 3)] + [
        ("evaluate", node) for node in (1, 2, 3)
    ]


def test_what_is_published_is_pruned_and_so_is_what_is_measured_at_the_end(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    settings = make_settings(prune=0.5)
    train(grid, settings, events)
    weights, card = published(settings)
    assert card.pruned == 0.5
    assert np.count_nonzero(weights.coef.any(axis=0)) == 32
    arrays = grid.sent[-1].content.array_records[flower.ARRAYS]
    np.testing.assert_array_equal(arrays[flower.COEF].numpy(), weights.coef)


def fails(_message: Message) -> Message:
    raise RuntimeError("the disk is full")


class FailsInTurn:
    """Another site fails in every round."""

    def __init__(self, site: Site, node: int) -> None:
        self.site = site
        self.node = node
        self.asked = 0

    def __call__(self, message: Message) -> Message:
        self.asked += 1
        return fails(message) if self.asked % 3 == self.node % 3 else self.site(message)


def test_one_failure_a_round_is_tolerated_within_the_quorum(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog, dealt_folder: Path
) -> None:
    for node in (1, 2, 3):
        grid.sites[node] = FailsInTurn(Site(dealt_folder / str(node)), node)
    settings = make_settings()
    train(grid, settings, events)
    weights, card = published(settings)
    assert held_out_accuracy(weights, dealt_folder) > 0.9
    assert [(measured.sites, measured.failures) for measured in card.rounds] == [(2, 1)] * 3
    assert card.final is not None
    assert card.final.sites == 2


def test_a_site_that_does_not_reply_in_time_is_a_failure(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    grid.silent = {2}
    settings = make_settings()
    train(grid, settings, events)
    _, card = published(settings)
    assert [(measured.sites, measured.failures) for measured in card.rounds] == [(2, 1)] * 3


def refuses(grid: LocalGrid, settings: Settings, events: EventLog, message: str) -> None:
    with pytest.raises(CloisterError, match=message):
        train(grid, settings, events)
    assert Registry(settings.models_dir).versions(settings.name) == []


def test_where_all_sites_fail_nothing_is_published(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    grid.sites = dict.fromkeys((1, 2, 3), fails)
    refuses(grid, make_settings(), events, r"round 1 has 0 valid replies of 3.*the disk is full")


def test_where_the_final_evaluation_fails_nothing_is_published(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    def only_fits(site: Callable[[Message], Message]) -> Callable[[Message], Message]:
        return lambda m: site(m) if m.metadata.message_type == "train" else fails(m)

    grid.sites = {node: only_fits(site) for node, site in grid.sites.items()}
    refuses(grid, make_settings(), events, "final evaluation has 0 valid replies of 3")
    assert names(events) == ["waiting", "started", *["sites", "round"] * 3]


def sends_back(message: Message) -> Message:
    """Claim to have fitted, and send back what was received."""
    metrics = MetricRecord(
        {
            flower.EXAMPLES: 100,
            flower.VALIDATION_EXAMPLES: 10,
            flower.ACCURACY: 0.1,
            flower.LOSS: 2.3,
        }
    )
    arrays = message.content.array_records[flower.ARRAYS]
    return Message(RecordDict({flower.METRICS: metrics, flower.ARRAYS: arrays}), reply_to=message)


def test_weights_that_did_not_move_are_not_published(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    grid.sites = dict.fromkeys((1, 2, 3), sends_back)
    refuses(grid, make_settings(), events, "did not move")


def test_with_too_few_sites_it_does_not_begin(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    del grid.sites[1], grid.sites[2]
    refuses(grid, make_settings(), events, "only 1 of 3 sites came")
    assert grid.sent == []


def test_sites_with_other_data_are_told_so(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    refuses(grid, make_settings(dataset="mnist"), events, "same dataset")


def test_the_model_may_have_another_name_than_the_dataset(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    settings = make_settings(rounds=1, model="mine")
    train(grid, settings, events)
    registry = Registry(settings.models_dir)
    assert registry.names() == ["mine"]
    assert read_card(registry.open_current("mine").file(CARD)).name == "mine"


def test_a_second_training_is_the_next_version(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    settings = make_settings(rounds=1)
    assert [train(grid, settings, events) for _ in range(2)] == [1, 2]
    first, second = (
        LinearWeights.read(Registry(settings.models_dir).open("digits", n).file(WEIGHTS))
        for n in (1, 2)
    )
    assert np.array_equal(first.coef, second.coef)


def test_every_round_is_told_with_the_time_left(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    train(grid, make_settings(), events)
    rounds = [event for event in events.read() if event["event"] == "round"]
    assert [(event["round"], event["rounds"]) for event in rounds] == [(1, 3), (2, 3), (3, 3)]
    left = [event["seconds_left"] for event in rounds]
    assert left[0] == pytest.approx(2 * rounds[0]["seconds"])
    assert left[1] == pytest.approx(rounds[1]["seconds"])
    assert left[2] == 0


def test_the_strategy_is_on_the_card(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog, dealt_folder: Path
) -> None:
    settings = make_settings(strategy="FedAdam", strategy_parameters={"eta": 0.5})
    train(grid, settings, events)
    weights, card = published(settings)
    assert card.federation is not None
    assert card.federation.strategy == "FedAdam"
    assert card.federation.parameters == {"eta": 0.5, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3}
    assert held_out_accuracy(weights, dealt_folder) > 0.8


def test_an_event_that_is_just_being_written_is_read_later(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run-1.jsonl"
    log = EventLog(path)
    assert log.read() == []
    log.write("started", sites=3)
    whole = path.read_text()
    for length in range(1, len(whole)):
        path.write_text(whole + whole[:length])
        assert [event["sites"] for event in log.read()] == [3]
    assert json.loads(whole)["event"] == "started"


def test_a_writer_that_is_gone_is_noticed(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "run-1.jsonl")
    assert not log.has_writer()
    descriptor = log.hold()
    log.write("started")
    assert EventLog(tmp_path / "run-1.jsonl").has_writer()
    os.close(descriptor)
    assert not log.has_writer()
    assert [event["event"] for event in log.read()] == ["started"]
