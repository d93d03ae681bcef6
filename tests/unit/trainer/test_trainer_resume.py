"""Trainings that are interrupted and gone on with, in this process, with the real ClientApp."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from federation import Answer, LocalGrid, Site
from flwr.app import Message

from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.card import ModelCard, read_card
from cloister_shared.registry import Registry
from cloister_shared.weights import LinearWeights
from cloister_trainer.app import train
from cloister_trainer.events import EventLog
from cloister_trainer.settings import Settings

MakeSettings = Callable[..., Settings]


class KilledError(BaseException):
    """In the place of SIGKILL: nothing in the trainer catches it."""


class Killing:
    """A site at which the trainer is killed while it waits for the reply of a round.

    Attributes:
        asked: messages so far.
    """

    def __init__(self, site: Answer, at: int) -> None:
        self.site = site
        self.at = at
        self.asked = 0

    def __call__(self, message: Message) -> Message:
        self.asked += 1
        if self.asked == self.at:
            raise KilledError
        return self.site(message)


def model(settings: Settings, version: int = 1) -> tuple[LinearWeights, ModelCard]:
    found = Registry(settings.models_dir).open(settings.name, version)
    found.verify()
    return LinearWeights.read(found.file(WEIGHTS)), read_card(found.file(CARD))


def interrupt(grid: LocalGrid, settings: Settings, events: EventLog, at: int) -> None:
    """Train until site 3 has been asked for the ``at``-th time."""
    site = grid.sites[3]
    grid.sites[3] = Killing(site, at)
    with pytest.raises(KilledError):
        train(grid, settings, events)
    grid.sites[3] = site
    grid.sent.clear()


@pytest.fixture
def events(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events" / "run-1.jsonl")


def rounds_sent(grid: LocalGrid) -> list[int]:
    configs = [m.content.config_records["config"] for m in grid.sent]
    return sorted({int(str(config.get("server-round", 0))) for config in configs})


@pytest.mark.parametrize("strategy", ["FedAvg", "FedAdam", "FedYogi", "FedMedian"])
@pytest.mark.parametrize("at", [3, 4, 5])
def test_a_resumed_training_equals_one_that_was_not_interrupted(
    grid: LocalGrid,
    make_settings: MakeSettings,
    events: EventLog,
    tmp_path: Path,
    strategy: str,
    at: int,
) -> None:
    whole = make_settings(rounds=4, strategy=strategy, models_dir=tmp_path / "whole")
    train(grid, whole, events)

    settings = make_settings(rounds=4, strategy=strategy)
    interrupt(grid, settings, events, at)
    log = EventLog(tmp_path / "events" / "run-2.jsonl")
    assert train(grid, settings, log) == 1
    # 0 stands for the final evaluation, which is no round.
    assert rounds_sent(grid) == [0, *range(at, 5)]
    (resumed,) = [event for event in log.read() if event["event"] == "resumed"]
    assert (resumed["after"], resumed["rounds"]) == (at - 1, 4)

    (expected, expected_card), (weights, card) = model(whole), model(settings)
    assert np.array_equal(weights.coef, expected.coef)
    assert np.array_equal(weights.intercept, expected.intercept)
    assert [m.round for m in card.rounds] == [1, 2, 3, 4]
    assert [m.accuracy for m in card.rounds] == [m.accuracy for m in expected_card.rounds]
    assert card.final == expected_card.final


def test_one_that_was_interrupted_in_its_first_round_begins_again(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    settings = make_settings()
    interrupt(grid, settings, events, at=1)
    train(grid, settings, events)
    assert rounds_sent(grid) == [0, 1, 2, 3]


def test_one_that_was_interrupted_in_its_final_evaluation_trains_no_more(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    settings = make_settings()
    interrupt(grid, settings, events, at=4)
    train(grid, settings, events)
    assert rounds_sent(grid) == [0]
    assert len(model(settings)[1].rounds) == 3


def test_what_a_round_came_to_is_kept_before_anything_of_the_next_is_sent(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    settings = make_settings()
    kept: list[int] = []
    site = grid.sites[3]

    def looks(message: Message) -> Message:
        path = settings.checkpoints_dir / "digits.npz"
        kept.append(path.stat().st_mtime_ns if path.exists() else 0)
        return site(message)

    grid.sites[3] = looks
    train(grid, settings, events)
    assert kept[0] == 0
    assert len(set(kept)) == 4, "one after every round"


def test_once_it_is_published_nothing_is_kept(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    settings = make_settings(rounds=1)
    train(grid, settings, events)
    assert list(settings.checkpoints_dir.iterdir()) == []


def test_training_once_more_begins_with_round_1_and_is_gone_on_with_too(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    settings = make_settings()
    train(grid, settings, events)
    retraining = settings.model_copy(update={"retrain": True})
    grid.sent.clear()
    interrupt(grid, retraining, events, at=3)
    assert train(grid, retraining, events) == 2
    assert rounds_sent(grid) == [0, 3]
    assert len(model(settings, 2)[1].rounds) == 3


def test_one_that_was_killed_just_after_publishing_is_not_published_twice(
    grid: LocalGrid,
    make_settings: MakeSettings,
    events: EventLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(_path: Path, missing_ok: bool = False) -> None:
        raise KilledError

    settings = make_settings()
    with monkeypatch.context() as patched:
        patched.setattr("cloister_trainer.checkpoint.Checkpoints.discard", killed)
        with pytest.raises(KilledError):
            train(grid, settings, events)
    assert Registry(settings.models_dir).versions("digits") == [1]
    # Somebody asks for another one: it is trained, and not the first once more.
    grid.sent.clear()
    assert train(grid, settings, events) == 2
    assert rounds_sent(grid) == [0, 1, 2, 3]


def test_one_with_other_settings_begins_anew(
    grid: LocalGrid,
    make_settings: MakeSettings,
    events: EventLog,
    caplog: pytest.LogCaptureFixture,
) -> None:
    interrupt(grid, make_settings(), events, at=3)
    train(grid, make_settings(strategy="FedMedian"), events)
    assert rounds_sent(grid) == [0, 1, 2, 3]
    assert "of a training with other settings, 2 rounds of it" in caplog.text


def test_sites_may_have_changed_meanwhile(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog, dealt_folder: Path
) -> None:
    settings = make_settings()
    interrupt(grid, settings, events, at=3)
    del grid.sites[3]
    grid.sites[9] = Site(dealt_folder / "3")
    train(grid, settings, events)
    assert [m.sites for m in model(settings)[1].rounds] == [3, 3, 3]
