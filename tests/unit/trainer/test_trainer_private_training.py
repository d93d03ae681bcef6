"""Whole trainings with secure aggregation and differential privacy, at the real sites."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import Answer, LocalGrid, Site, deal_sites
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.common.serde import message_to_proto

from cloister_client.site import REQUIRE_SECURE_AGGREGATION
from cloister_dealer.settings import Settings as DealerSettings
from cloister_shared import flower
from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.card import ModelCard, read_card
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry
from cloister_shared.weights import LinearWeights
from cloister_trainer import plan
from cloister_trainer.app import train
from cloister_trainer.events import EventLog
from cloister_trainer.privacy import epsilon_after
from cloister_trainer.secure_aggregation import error_bound
from cloister_trainer.settings import DEFAULT_CLIPPING_RANGE, Settings

MakeSettings = Callable[..., Settings]
ROWS = 1293
"""Nine tenths of the 1437 rows that were dealt to three sites."""
PRIVATE: dict[str, Any] = {"noise_multiplier": 0.5, "clipping_norm": 5.0}


@pytest.fixture
def events(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events" / "run-1.jsonl")


@pytest.fixture
def heard(grid: LocalGrid) -> list[Message]:
    """All that the sites of ``grid`` reply."""
    replies: list[Message] = []

    def recorded(site: Answer) -> Answer:
        def answer(message: Message) -> Message:
            replies.append(site(message))
            return replies[-1]

        return answer

    grid.sites = {node: recorded(site) for node, site in grid.sites.items()}
    return replies


def published(settings: Settings) -> tuple[LinearWeights, ModelCard]:
    found = Registry(settings.models_dir).open_current(settings.name)
    return LinearWeights.read(found.file(WEIGHTS)), read_card(found.file(CARD))


def distance(first: LinearWeights, second: LinearWeights) -> float:
    return float(
        max(
            np.abs(first.coef - second.coef).max(),
            np.abs(first.intercept - second.intercept).max(),
        )
    )


def test_securely_summed_it_is_the_same_model(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    train(grid, make_settings(rounds=1, model="plain"), events)
    plain, plain_card = published(make_settings(rounds=1, model="plain"))
    settings = make_settings(rounds=1, secure_aggregation=True)
    train(grid, settings, events)
    secure, card = published(settings)
    bound = error_bound(3, DEFAULT_CLIPPING_RANGE, settings.max_examples, ROWS)
    assert 0 < distance(plain, secure) < bound < 1e-4
    assert card.federation is not None
    assert card.federation.secure_aggregation
    assert plain_card.federation is not None
    assert not plain_card.federation.secure_aggregation
    assert card.rounds[0].examples is None
    assert card.rounds[0].accuracy == pytest.approx(plain_card.rounds[0].accuracy, abs=1e-3)
    assert card.rounds[0].loss == pytest.approx(plain_card.rounds[0].loss, abs=1e-3)
    assert card.final is not None
    assert plain_card.final is not None
    assert card.final.accuracy == pytest.approx(plain_card.final.accuracy, abs=0.01)


def test_sites_that_require_secure_aggregation_take_part_in_it_and_in_nothing_else(
    dealt_folder: Path, make_settings: MakeSettings, events: EventLog
) -> None:
    policy = {REQUIRE_SECURE_AGGREGATION: True}
    strict = LocalGrid({n: Site(dealt_folder / str(n), **policy) for n in (1, 2, 3)})
    with pytest.raises(CloisterError, match="CLOISTER_SECURE_AGGREGATION=true at the trainer"):
        train(strict, make_settings(), events)
    settings = make_settings(secure_aggregation=True)
    train(strict, settings, events)
    _, card = published(settings)
    assert card.final is not None
    assert (card.final.accuracy or 0) > 0.9


@pytest.mark.parametrize("strategy", ["FedAvg", "FedAdam", "FedYogi"])
@pytest.mark.parametrize("private", [{}, PRIVATE], ids=["plain", "private"])
def test_every_strategy_that_needs_no_more_than_the_mean_takes_it(
    grid: LocalGrid,
    make_settings: MakeSettings,
    events: EventLog,
    strategy: str,
    private: dict[str, Any],
) -> None:
    settings = make_settings(rounds=2, strategy=strategy, secure_aggregation=True, **private)
    train(grid, settings, events)
    weights, card = published(settings)
    assert card.federation is not None
    assert card.federation.strategy == strategy
    assert np.abs(weights.coef).max() > 0.01


def test_the_card_of_a_private_training_states_what_it_cost_and_nothing_of_sites(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    settings = make_settings(**PRIVATE)
    train(grid, settings, events)
    _, card = published(settings)
    assert card.federation is not None
    stated = card.federation.differential_privacy
    assert stated is not None
    assert (stated.noise_multiplier, stated.clipping_norm, stated.delta) == (0.5, 5.0, 1e-5)
    assert stated.epsilon == epsilon_after(3, 0.5, 1e-5)
    assert [r.epsilon for r in card.rounds] == [epsilon_after(n, 0.5, 1e-5) for n in (1, 2, 3)]
    for measured in card.rounds:
        assert (measured.accuracy, measured.loss, measured.examples) == (None, None, None)
        assert (measured.sites, measured.failures) == (3, 0)
    assert card.final is None
    told = [event for event in events.read() if event["event"] == "round"]
    assert [event["epsilon"] for event in told] == [r.epsilon for r in card.rounds]
    assert {event["accuracy"] for event in told} == {None}
    assert "final" not in {event["event"] for event in events.read()}


@pytest.mark.parametrize("secure", [False, True])
def test_under_differential_privacy_sites_send_no_metrics(
    grid: LocalGrid,
    heard: list[Message],
    make_settings: MakeSettings,
    events: EventLog,
    secure: bool,
) -> None:
    train(grid, make_settings(secure_aggregation=secure, **PRIVATE), events)
    assert len(heard) == 3 * 3 * (4 if secure else 1)
    # Flower's own record beside the masked vector has another name.
    name = "num_examples" if secure else flower.EXAMPLES
    for reply in heard:
        assert reply.metadata.message_type == "train"
        for record in reply.content.metric_records.values():
            # Nor how many rows it has.
            assert dict(record) == {name: 1}


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("private", [False, True])
def test_why_a_site_failed_is_told_but_not_under_differential_privacy(
    grid: LocalGrid,
    make_settings: MakeSettings,
    events: EventLog,
    dealt_folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    secure: bool,
    private: bool,
) -> None:
    """The text names a row and a feature: it comes from the data."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "schema.json").write_text((dealt_folder / "1" / "schema.json").read_text())
    np.savez(broken / "shard.npz", X=np.full((10, 64), 99.0), y=np.arange(10))
    grid.sites[2] = Site(broken)
    changes = PRIVATE if private else {}
    train(grid, make_settings(rounds=1, secure_aggregation=secure, **changes), events)
    told = [r.getMessage() for r in caplog.records if r.name.startswith("cloister_trainer")]
    assert any("site 2: no valid reply" in line for line in told)
    assert any("row 0" in line and "pixel_0_0" in line for line in told) is not private


@pytest.mark.parametrize("secure", [False, True])
def test_an_observer_sees_replies_of_one_length(
    grid: LocalGrid,
    heard: list[Message],
    dealt_folder: Path,
    make_settings: MakeSettings,
    events: EventLog,
    tmp_path: Path,
    secure: bool,
) -> None:
    """Of a site with twenty rows as of one with hundreds."""
    small = tmp_path / "small"
    small.mkdir()
    (small / "schema.json").write_text((dealt_folder / "2" / "schema.json").read_text())
    with np.load(dealt_folder / "2" / "shard.npz") as arrays:
        np.savez(small / "shard.npz", X=arrays["X"][:20], y=arrays["y"][:20])
    few = Site(small)

    def site_2(message: Message) -> Message:
        heard.append(few(message))
        return heard[-1]

    grid.sites[2] = site_2
    train(grid, make_settings(rounds=1, secure_aggregation=secure), events)
    lengths: dict[int, list[int]] = {1: [], 2: [], 3: []}
    for reply in heard:
        length = message_to_proto(reply).ByteSize()
        lengths[reply.metadata.src_node_id].append(length)
    assert len(lengths[2]) == (8 if secure else 2)
    for of_each in zip(*lengths.values(), strict=True):
        # Whole numbers and dates are as long as they are large.
        assert max(of_each) - min(of_each) < 16


def sends_much(site: Answer) -> Answer:
    """Claim an update of a billion in every value."""

    def answer(message: Message) -> Message:
        arrays = message.content.array_records[flower.ARRAYS]
        far = {name: Array(array.numpy() + 1e9) for name, array in arrays.items()}
        content = RecordDict(
            {
                flower.ARRAYS: ArrayRecord(far),
                flower.METRICS: MetricRecord({flower.EXAMPLES: 1}),
            }
        )
        return Message(content, reply_to=message)

    return answer


def test_a_site_that_does_not_clip_is_clipped(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    grid.sites[2] = sends_much(grid.sites[2])
    settings = make_settings(rounds=1, noise_multiplier=1e-6, clipping_norm=3.0)
    train(grid, settings, events)
    weights, _ = published(settings)
    moved = np.sqrt((weights.coef**2).sum() + (weights.intercept**2).sum())
    # The mean of three updates of norm 3 at most.
    assert 0 < moved <= 3.0 + 1e-3


@pytest.mark.parametrize("secure", [False, True])
def test_noise_grows_where_sites_are_missing(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog, secure: bool
) -> None:
    """Flower's own divides by the number of sites that was expected."""
    grid.silent = {2}
    settings = make_settings(
        rounds=1, noise_multiplier=1e5, clipping_norm=1e-6, secure_aggregation=secure
    )
    train(grid, settings, events)
    weights, card = published(settings)
    assert card.rounds[0].sites == 2
    # 640 values of deviation 0.1 / 2, and not 0.1 / 3: six standard deviations apart.
    assert weights.coef.std() == pytest.approx(0.05, rel=0.17)


def test_training_ends_when_the_budget_is_spent(
    grid: LocalGrid,
    make_settings: MakeSettings,
    events: EventLog,
    caplog: pytest.LogCaptureFixture,
) -> None:
    budget = epsilon_after(2, 0.5, 1e-5) + 0.01
    settings = make_settings(epsilon_budget=budget, **PRIVATE)
    plan.check(settings)
    assert "allows 2 of 3 rounds" in caplog.text
    train(grid, settings, events)
    assert "ending after 2 of 3 rounds" in caplog.text
    _, card = published(settings)
    assert len(card.rounds) == 2
    assert card.federation is not None
    assert card.federation.differential_privacy is not None
    assert card.federation.differential_privacy.epsilon <= budget


def test_what_was_spent_before_an_interruption_is_counted(
    grid: LocalGrid, make_settings: MakeSettings, events: EventLog
) -> None:
    settings = make_settings(**PRIVATE)
    sites, asked = grid.sites, []

    def failing(site: Answer) -> Answer:
        def answer(message: Message) -> Message:
            asked.append(message)
            if len(asked) > 2 * 3:
                raise RuntimeError("the network is down")
            return site(message)

        return answer

    grid.sites = {node: failing(site) for node, site in sites.items()}
    with pytest.raises(CloisterError, match="round 3 has 0 valid replies"):
        train(grid, settings, events)
    grid.sites = sites
    train(grid, settings, events)
    _, card = published(settings)
    assert [r.epsilon for r in card.rounds] == [epsilon_after(n, 0.5, 1e-5) for n in (1, 2, 3)]


def test_two_classes_train_securely_and_privately(
    make_settings: MakeSettings, events: EventLog, tmp_path: Path
) -> None:
    dealt = deal_sites(tmp_path, DealerSettings(shards=3, dataset="breast_cancer"))
    grid = LocalGrid({node: Site(folder) for node, folder in dealt.items()})
    for private in ({}, PRIVATE):
        settings = make_settings(dataset="breast_cancer", secure_aggregation=True, **private)
        train(grid, settings, events)
        weights, _ = published(settings)
        assert weights.coef.shape == (1, 30)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"clients": 2, "secure_aggregation": True}, "3 to 1023 sites, and these are 2"),
        ({"clients": 1024, "secure_aggregation": True}, "3 to 1023 sites, and these are 1024"),
        (
            {"clients": 4, "min_replies": 2, "secure_aggregation": True},
            "CLOISTER_MIN_REPLIES=2 is not more than half",
        ),
        ({"epsilon_budget": 1.0}, "CLOISTER_EPSILON_BUDGET limits nothing"),
        ({"epsilon_budget": 0.1, "noise_multiplier": 1.0}, "does not allow one round"),
        ({"strategy": "FedMedian", "secure_aggregation": True}, "shows only their sum"),
        ({"strategy": "Krum", "noise_multiplier": 1.0, "clients": 5}, "no mean of the updates"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    make_settings: MakeSettings, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CloisterError, match=reason):
        plan.check(make_settings(**changes))


def test_the_range_is_the_clipping_norm_where_there_is_one(make_settings: MakeSettings) -> None:
    assert make_settings().clipping_range == DEFAULT_CLIPPING_RANGE
    assert make_settings(**PRIVATE).clipping_range == 5.0
    assert make_settings(secagg_clipping_range=0.5, **PRIVATE).clipping_range == 0.5
