"""Trainings on inputs that are standardised by sums over all sites' rows, at the real sites."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import Answer, LocalGrid, LostError, Site, deal_sites
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common import bytes_to_ndarray
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cloister_client.data.shard import read_shard
from cloister_client.site import REQUIRE_SECURE_AGGREGATION
from cloister_dealer.settings import Settings as DealerSettings
from cloister_shared import flower
from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.card import ModelCard, read_card
from cloister_shared.datasets import DatasetName, schema
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import ESTIMATORS, estimator, sklearn_class
from cloister_shared.links import class_indices, link, values
from cloister_shared.preprocessing import to_inputs
from cloister_shared.registry import Registry
from cloister_shared.schema import DatasetSchema
from cloister_shared.secure_aggregation import pack_sums
from cloister_shared.standardising import Moments, Standardisation
from cloister_shared.weights import LinearWeights
from cloister_trainer import plan
from cloister_trainer.app import train
from cloister_trainer.events import EventLog
from cloister_trainer.local.quantisation import quantised_scores
from cloister_trainer.settings import Settings

MakeSettings = Callable[..., Settings]
FEDERATED = [row.name for row in ESTIMATORS.values() if row.aggregation and row.family == "linear"]
SUMMED = [row.name for row in ESTIMATORS.values() if row.aggregation == "statistics"]
DATA: dict[str, DatasetName] = {"classification": "breast_cancer", "regression": "diabetes"}
# Where inputs go to three deviations, a step of gradient descent is larger.
SETTINGS: dict[str, dict[str, Any]] = {
    "SGDClassifier": {"alpha": 0.01},
    "LinearSVR": {"C": 10.0, "max_iter": 20_000},
}
WIDE = 20
"""How many times as wide as the known ones are the bounds that somebody declares to be safe."""


@dataclass
class Dealt:
    """Rows at three sites, and the same in one place."""

    data: DatasetSchema
    schema_path: Path
    sites: dict[int, Path]
    held_out: Path

    @property
    def grid(self) -> LocalGrid:
        return LocalGrid({node: Site(folder) for node, folder in self.sites.items()})

    @property
    def fitted(self) -> tuple[Any, Any]:
        """All rows that sites fit."""
        samples = [read_shard(folder, "refuse").train for folder in self.sites.values()]
        return (
            np.concatenate([sample.features for sample in samples]),
            np.concatenate([sample.answers for sample in samples]),
        )

    @property
    def unseen(self) -> tuple[Any, Any]:
        with np.load(self.held_out / "held_out.npz") as arrays:
            return to_inputs(arrays["X"], self.data), self.data.answers(arrays["y"])


def wide(data: DatasetSchema, times: float) -> DatasetSchema:
    """Return the schema with bounds that are so many times as wide, about the same middle."""
    fields = data.model_dump()
    for feature in fields["features"]:
        margin = (times - 1) / 2 * (feature["high"] - feature["low"])
        feature["low"], feature["high"] = feature["low"] - margin, feature["high"] + margin
    return DatasetSchema.model_validate(fields | {"dataset": f"wide_{data.dataset}"})


def deal(folder: Path, name: DatasetName, times: float = 1) -> Dealt:
    sites = deal_sites(folder, DealerSettings(dataset=name, shards=3))
    data = schema(name) if times == 1 else wide(schema(name), times)
    for site in sites.values():
        (site / "schema.json").write_text(data.model_dump_json())
    path = folder / "schema.json"
    path.write_text(data.model_dump_json())
    return Dealt(data, path, sites, folder / "held-out")


@pytest.fixture(scope="module")
def dealt(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dealt]:
    return {task: deal(tmp_path_factory.mktemp(name), name) for task, name in DATA.items()}


@pytest.fixture(scope="module")
def wide_dealt(tmp_path_factory: pytest.TempPathFactory) -> Dealt:
    return deal(tmp_path_factory.mktemp("wide"), "breast_cancer", WIDE)


@pytest.fixture
def events(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events" / "run-1.jsonl")


@pytest.fixture
def trained(
    make_settings: MakeSettings, events: EventLog
) -> Callable[..., tuple[LinearWeights, ModelCard]]:
    """Train, standardised unless it is said otherwise, and return what is published."""

    def run(
        dealt: Dealt, grid: LocalGrid | None = None, **changes: Any
    ) -> tuple[LinearWeights, ModelCard]:
        fields: dict[str, Any] = {"schema_path": dealt.schema_path, "model": "mine"}
        settings = make_settings(**(fields | {"standardise": True} | changes))
        plan.check(settings)
        train(grid or dealt.grid, settings, events)
        version = Registry(settings.models_dir).open_current(settings.name)
        return LinearWeights.read(version.file(WEIGHTS)), read_card(version.file(CARD))

    return run


def sent(grid: LocalGrid) -> list[Standardisation]:
    """What sites were told to standardise by, once each."""
    found: dict[str, Standardisation] = {}
    for message in grid.sent:
        for record in message.content.config_records.values():
            if (text := record.get(flower.STANDARDISATION)) is not None:
                found[str(text)] = Standardisation.parse(str(text))
    return list(found.values())


def pipeline(name: str, parameters: dict[str, Any], rows: Any, answers: Any) -> Any:
    model = make_pipeline(StandardScaler(), sklearn_class(estimator(name))(**parameters))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(rows, answers)


def accuracy(weights: LinearWeights, rows: Any, answers: Any) -> float:
    return float(np.mean(class_indices(weights.scores(rows)) == answers))


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("times", [1, WIDE])
def test_sites_standardise_by_what_all_rows_in_one_place_give(
    dealt: dict[str, Dealt], wide_dealt: Dealt, trained: Any, secure: bool, times: float
) -> None:
    rows_at = dealt["classification"] if times == 1 else wide_dealt
    grid = rows_at.grid
    trained(rows_at, grid, secure_aggregation=secure, rounds=2)
    (found,) = sent(grid)
    scaler = StandardScaler().fit(rows_at.fitted[0])
    # Where the masks are for up to 100,000 rows a site, a sum of these is off by 2e-9.
    np.testing.assert_allclose(found.means, scaler.mean_, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.deviations, scaler.scale_, rtol=1e-5 if secure else 1e-9)


@pytest.mark.parametrize("secure", [False, True])
def test_where_sites_have_equal_rows_one_round_is_scikit_learns_pipeline(
    dealt: dict[str, Dealt], trained: Any, secure: bool
) -> None:
    one = dealt["classification"]
    equal = LocalGrid({node: Site(one.sites[1]) for node in (1, 2, 3)})
    weights, card = trained(one, equal, rounds=1, secure_aggregation=secure)
    assert (card.standardised, len(card.rounds)) == (True, 1)
    sample = read_shard(one.sites[1], "refuse").train
    own = pipeline(card.estimator, card.parameters, sample.features, sample.answers)
    unseen, _ = one.unseen
    # An update's values are masked to 1e-7 at these numbers of rows, and there are 30 inputs, with
    # which an iteration that is stopped early is not the same to the last digits.
    np.testing.assert_allclose(
        weights.scores(unseen)[:, 0],
        own.decision_function(unseen),
        rtol=0,
        atol=1e-2 if secure else 1e-6,
    )


@pytest.mark.parametrize("secure", [False, True])
def test_what_is_published_scores_inputs_as_they_are_like_the_last_model_of_the_sites(
    dealt: dict[str, Dealt], trained: Any, secure: bool
) -> None:
    one = dealt["classification"]
    grid = one.grid
    weights, card = trained(one, grid, rounds=3, secure_aggregation=secure)
    unseen, answers = one.unseen
    assert accuracy(weights, unseen, answers) > 0.95
    assert card.final is not None
    assert card.final.accuracy is not None
    assert card.final.accuracy > 0.9
    if not secure:
        # What was measured at the end is what is published, on the rows as they are.
        last = grid.sent[-1].content
        assert flower.STANDARDISATION not in last.config_records[flower.CONFIG]
        arrays = last.array_records[flower.ARRAYS]
        np.testing.assert_array_equal(arrays[flower.COEF].numpy(), weights.coef)


def test_the_metrics_of_a_round_are_those_of_the_folded_model(
    dealt: dict[str, Dealt], trained: Any
) -> None:
    one = dealt["classification"]
    grid = one.grid
    _, card = trained(one, grid, rounds=2)
    (standardisation,) = sent(grid)
    second = [m for m in grid.sent if m.metadata.message_type == "train"][3]
    arrays = second.content.array_records[flower.ARRAYS]
    folded = standardisation.fold(
        LinearWeights(arrays[flower.COEF].numpy(), arrays[flower.INTERCEPT].numpy())
    )
    kept = [read_shard(folder, "refuse").validation for folder in one.sites.values()]
    right = [class_indices(folded.scores(rows.features)) == rows.answers for rows in kept]
    assert card.rounds[1].accuracy == pytest.approx(np.concatenate(right).mean())


@pytest.mark.parametrize("name", FEDERATED)
def test_every_estimator_learns_from_standardised_inputs(
    dealt: dict[str, Dealt], trained: Any, name: str
) -> None:
    one = dealt[estimator(name).task]
    given = SETTINGS.get(name, {})
    weights, card = trained(one, estimator=name, estimator_parameters=given, rounds=5)
    assert card.standardised
    rows, answers = one.unseen
    if card.data.classes:
        assert accuracy(weights, rows, answers) > 0.93
    else:
        predicted = values(weights.scores(rows), link(name, card.parameters, 0))
        # The mean of the others' targets is off by 66.
        assert np.abs(predicted - answers).mean() < 60


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("name", SUMMED)
def test_standardised_sums_come_to_what_a_pipeline_comes_to(
    dealt: dict[str, Dealt], trained: Any, name: str, intercept: bool, secure: bool
) -> None:
    one = dealt["regression"]
    weights, card = trained(
        one,
        estimator=name,
        estimator_parameters={"fit_intercept": intercept},
        secure_aggregation=secure,
    )
    own = pipeline(name, card.parameters, *one.fitted)
    unseen, _ = one.unseen
    np.testing.assert_allclose(
        weights.scores(unseen)[:, 0],
        own.predict(unseen),
        rtol=0,
        atol=1e-3 if secure else 1e-6,
    )


@pytest.mark.parametrize("strategy", ["FedAdam", "FedYogi"])
@pytest.mark.parametrize("secure", [False, True])
def test_strategies_with_an_optimiser_take_it(
    dealt: dict[str, Dealt], trained: Any, strategy: str, secure: bool
) -> None:
    one = dealt["classification"]
    weights, _ = trained(one, strategy=strategy, secure_aggregation=secure)
    assert accuracy(weights, *one.unseen) > 0.9


def test_with_bounds_that_are_too_wide_it_learns_in_few_rounds(
    wide_dealt: Dealt, dealt: dict[str, Dealt], trained: Any
) -> None:
    found: dict[tuple[int, int, bool], float] = {}
    for times, one in ((1, dealt["classification"]), (WIDE, wide_dealt)):
        rows, answers = one.unseen
        for rounds in (1, 5, 20):
            for standardise in (False, True):
                weights, _ = trained(one, rounds=rounds, standardise=standardise)
                found[times, rounds, standardise] = accuracy(weights, rows, answers)
                integers = class_indices(quantised_scores(weights, 8, rows))
                print(
                    f"bounds {times} times as wide, {rounds} rounds, "
                    f"{'standardised' if standardise else 'as they are'}: "
                    f"{found[times, rounds, standardise]:.3f}, "
                    f"in 8 bits {np.mean(integers == answers):.3f}"
                )
    assert found[WIDE, 1, True] > found[WIDE, 5, False] + 0.02
    # What is standardised does not depend on the bounds.
    assert found[WIDE, 1, True] == pytest.approx(found[1, 1, True], abs=0.01)


class KilledError(BaseException):
    """In the place of SIGKILL: nothing in the trainer catches it."""


@pytest.mark.parametrize(
    ("name", "strategy", "kind", "at"),
    [
        ("LogisticRegression", "FedAvg", "train", 2),
        ("LogisticRegression", "FedAdam", "train", 3),
        ("LinearSVC", "FedAvg", "evaluate", 1),
        ("Ridge", "FedAvg", "evaluate", 1),
    ],
)
def test_a_resumed_training_keeps_what_it_standardises_by(
    dealt: dict[str, Dealt],
    trained: Any,
    tmp_path: Path,
    name: str,
    strategy: str,
    kind: str,
    at: int,
) -> None:
    """It was killed while site 3 was asked for the ``at``-th time in a message of this kind."""
    one = dealt[estimator(name).task]
    changes = {"estimator": name, "rounds": 3, "strategy": strategy}
    whole, _ = trained(one, models_dir=tmp_path / "whole", **changes)

    grid = one.grid
    site, asked = grid.sites[3], []

    def killed(message: Message) -> Message:
        asked.append(message.metadata.message_type)
        if asked.count(kind) == at:
            raise KilledError
        return site(message)

    grid.sites[3] = killed
    with pytest.raises(KilledError):
        trained(one, grid, **changes)
    before = sent(grid)
    assert asked[0] == "query"
    grid.sites[3] = site
    grid.sent.clear()
    weights, card = trained(one, grid, **changes)
    assert "query" not in {message.metadata.message_type for message in grid.sent}
    assert sent(grid) == (before if kind == "train" else [])
    np.testing.assert_array_equal(weights.coef, whole.coef)
    np.testing.assert_array_equal(weights.intercept, whole.intercept)
    assert card.standardised


def test_one_that_has_no_round_yet_sums_inputs_again(dealt: dict[str, Dealt], trained: Any) -> None:
    one = dealt["classification"]
    grid = one.grid
    site = grid.sites[3]

    def killed(message: Message) -> Message:
        if message.metadata.message_type == "train":
            raise KilledError
        return site(message)

    grid.sites[3] = killed
    with pytest.raises(KilledError):
        trained(one, grid)
    grid.sites[3] = site
    grid.sent.clear()
    trained(one, grid)
    assert [message.metadata.message_type for message in grid.sent][:6] == 3 * ["query"] + 3 * [
        "train"
    ]


def test_inputs_are_summed_once_and_only_where_they_are_standardised(
    dealt: dict[str, Dealt], trained: Any
) -> None:
    one = dealt["classification"]
    for standardise in (True, False):
        grid = one.grid
        _, card = trained(one, grid, standardise=standardise)
        kinds = [message.metadata.message_type for message in grid.sent]
        assert kinds.count("query") == (3 if standardise else 0)
        assert card.standardised is standardise
        assert len(sent(grid)) == standardise


def test_the_card_says_that_inputs_were_standardised_and_not_by_what(
    dealt: dict[str, Dealt], trained: Any
) -> None:
    one = dealt["classification"]
    grid = one.grid
    _, card = trained(one, grid, rounds=1)
    (standardisation,) = sent(grid)
    text = card.model_dump_json()
    assert '"standardised":true' in text
    for number in (*standardisation.means, *standardisation.deviations):
        assert str(number)[:8] not in text


def gone(_message: Message) -> Message:
    raise LostError


def tells(values: Any) -> Answer:
    def answer(message: Message) -> Message:
        arrays = ArrayRecord({flower.MOMENTS: Array(np.asarray(values))})
        return Message(RecordDict({flower.ARRAYS: arrays}), reply_to=message)

    return answer


def of_queries(site: Answer, other: Answer) -> Answer:
    return lambda m: other(m) if m.metadata.message_type == "query" else site(m)


NO_MOMENTS: dict[str, Answer] = {
    "of another number of inputs": tells(np.ones(60)),
    "below zero": tells(-np.ones(61)),
    "not finite": tells(np.full(61, np.nan)),
    "text": tells(np.full(61, "a")),
    "something else": lambda message: Message(RecordDict(), reply_to=message),
    "nothing": gone,
}


@pytest.mark.parametrize("what", NO_MOMENTS)
def test_sums_that_cannot_be_count_as_none(
    dealt: dict[str, Dealt], trained: Any, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    one = dealt["classification"]
    grid = one.grid
    grid.sites[2] = of_queries(grid.sites[2], NO_MOMENTS[what])
    _, card = trained(one, grid, rounds=1)
    # It takes part in the round all the same.
    assert card.rounds[0].sites == 3
    (found,) = sent(grid)
    others = [read_shard(one.sites[node], "refuse").train.features for node in (1, 3)]
    scaler = StandardScaler().fit(np.concatenate(others))
    np.testing.assert_allclose(found.means, scaler.mean_, rtol=0, atol=1e-12)
    if what != "nothing":
        assert "site 2: no valid reply" in caplog.text
    grid.sites[3] = of_queries(grid.sites[3], NO_MOMENTS[what])
    with pytest.raises(CloisterError, match=r"the standardisation has 1 valid replies of 3, and 2"):
        trained(one, grid, rounds=2)


def test_the_server_sees_what_a_site_sums_and_nothing_of_its_rows_beside(
    dealt: dict[str, Dealt], trained: Any
) -> None:
    one = dealt["classification"]
    grid = one.grid
    heard: list[Message] = []
    site = grid.sites[2]

    def recorded(message: Message) -> Message:
        heard.append(site(message))
        return heard[-1]

    grid.sites[2] = recorded
    trained(one, grid, rounds=1)
    content = heard[0].content
    assert set(content) == {flower.ARRAYS}
    (array,) = content.array_records[flower.ARRAYS].values()
    rows = read_shard(one.sites[2], "refuse").train.features
    np.testing.assert_array_equal(array.numpy(), Moments.of(rows).values)


def test_masked_no_site_shows_the_sums_of_its_inputs(dealt: dict[str, Dealt], trained: Any) -> None:
    """They are as uniform as any masked update, and sites that require masks take part."""
    one = dealt["classification"]
    policy = {REQUIRE_SECURE_AGGREGATION: True}
    grid = LocalGrid({node: Site(folder, **policy) for node, folder in one.sites.items()})
    heard: dict[int, Any] = {}

    def recorded(node: int, site: Answer) -> Answer:
        def answer(message: Message) -> Message:
            reply = site(message)
            masked = dict[str, Any](reply.content.config_records["secaggplus_configs"])
            if "masked_params" in masked and node not in heard:
                assert dict(reply.content.array_records["fitres.parameters"]) == {}
                heard[node] = bytes_to_ndarray(masked["masked_params"][1])
            return reply

        return answer

    grid.sites = {node: recorded(node, site) for node, site in grid.sites.items()}
    trained(one, grid, rounds=1, secure_aggregation=True)
    for node, folder in one.sites.items():
        own = Moments.of(read_shard(folder, "refuse").train.features).values
        steps = (pack_sums(own, 100_000, 8.0) + 8.0) / 16.0 * (1 << 30)
        assert heard[node].shape == steps.shape
        assert not np.isclose(heard[node], steps, rtol=0, atol=2).any()
        # Of 122 uniform words, half are in the upper half of the modulus, to within 5 deviations.
        assert abs(np.count_nonzero(heard[node] >= 1 << 31) - 61) < 28


def test_a_total_that_cannot_be_is_noticed_behind_masks_too(
    dealt: dict[str, Dealt], trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = Moments(np.array([1.0, *np.full(60, 1000.0)]))
    monkeypatch.setattr(Moments, "of", lambda _inputs: wrong)
    with pytest.raises(CloisterError, match=r"not those of values in \[0, 1\]"):
        trained(dealt["classification"], secure_aggregation=True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"noise_multiplier": 1.0}, "get no noise.*CLOISTER_STANDARDISE=false"),
        ({"noise_multiplier": 1.0, "secure_aggregation": True}, "CLOISTER_NOISE_MULTIPLIER empty"),
        ({"strategy": "FedMedian"}, "one of them alone can move the sums"),
        ({"strategy": "Krum", "clients": 5}, "use one of FedAvg, FedAdam, FedYogi"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anybody_is_asked(
    make_settings: MakeSettings, changes: dict[str, Any], told: str
) -> None:
    plan.check(make_settings(**changes))
    with pytest.raises(CloisterError, match=told):
        plan.check(make_settings(standardise=True, **changes))
