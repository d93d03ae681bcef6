"""Trees of several sites: what is taken together, what is refused, and the whole training."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import LocalGrid, Site, deal_sites
from flwr.app import Message, MessageType, MetricRecord, RecordDict

from cloister_dealer.settings import Settings as DealerSettings
from cloister_shared import flower
from cloister_shared.artifact import CARD, TREES
from cloister_shared.boosting import joined, no_trees
from cloister_shared.card import RoundMetrics, read_card
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import estimator
from cloister_shared.registry import Registry
from cloister_shared.trees import Trees
from cloister_trainer import plan
from cloister_trainer.app import train
from cloister_trainer.checkpoint import Checkpoint, Checkpoints
from cloister_trainer.events import EventLog
from cloister_trainer.plain import Expected, sorted_out
from cloister_trainer.records import to_record
from cloister_trainer.settings import Settings
from cloister_trainer.strategies import Bagging

MakeSettings = Callable[..., Settings]
DATA = schema("breast_cancer")
EXPECTED = Expected(
    DATA, estimator("XGBClassifier"), {"max_depth": 2, "n_estimators": 1}, reports=True
)


def stump(feature: int, left: float, right: float, base: float = 0.0) -> Trees:
    return Trees(
        roots=np.array([0]),
        left=np.array([1, -1, -1]),
        right=np.array([2, -1, -1]),
        feature=np.array([feature, 0, 0]),
        threshold=np.array([0.5, 0.0, 0.0]),
        value=np.array([[0.0], [left], [right]]),
        base=np.array([base]),
    )


def reply(trees: Trees, examples: int = 100, node: int = 1) -> Message:
    asked = Message(RecordDict(), dst_node_id=node, message_type=MessageType.TRAIN)
    metrics = MetricRecord(
        {"num-examples": examples, "validation-examples": 10, "accuracy": 0.5, "loss": 0.5}
    )
    return Message(
        RecordDict({flower.ARRAYS: to_record(trees), flower.METRICS: metrics}), reply_to=asked
    )


def test_together_they_answer_the_mean_by_rows() -> None:
    received = joined([stump(0, -1, 1)], np.array([0.25]))
    one, other = stump(1, 2, 4, base=8), stump(2, -2, 6)
    after = Bagging(3).aggregate(2, received, [reply(one, 300), reply(other, 100)])
    assert after.n_trees == 3
    rows = np.random.default_rng(0).random((20, DATA.n_inputs))
    expected = received.scores(rows) + 0.75 * one.scores(rows) + 0.25 * other.scores(rows)
    np.testing.assert_allclose(after.scores(rows), expected, atol=1e-12)


def test_of_more_sites_than_expected_those_with_most_rows_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    replies = [reply(stump(at, 0, at), examples) for at, examples in enumerate((5, 30, 10, 30))]
    after = Bagging(2).aggregate(1, no_trees(np.zeros(1)), replies)
    assert after.feature[after.roots].tolist() == [1, 3]
    assert after.value[:, 0].tolist() == [0, 0, 0.5, 0, 0, 1.5]
    assert "trees of 2 sites with fewest rows are left out: they are for CLOISTER_CLIENTS=2" in (
        caplog.text
    )


def deep() -> Trees:
    """Three comparisons one after the other."""
    inner = np.array([True, True, True, False, False, False, False])
    return Trees(
        roots=np.array([0]),
        left=np.array([1, 2, 3, -1, -1, -1, -1]),
        right=np.array([6, 5, 4, -1, -1, -1, -1]),
        feature=np.zeros(7, dtype=np.int64),
        threshold=np.where(inner, 0.5, 0.0),
        value=np.ones((7, 1)),
        base=np.zeros(1),
    )


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (deep(), "1 trees of depth 3, and 1 of up to 2"),
        (joined([stump(0, 1, 2)] * 2, np.zeros(1)), "2 trees of depth 1, and 1 of up to 2"),
        (joined([stump(0, 1, 2)] * 9, np.zeros(1)), "more nodes than 1 trees of depth 2"),
        (no_trees(np.zeros(1)), "0 trees"),
        (stump(DATA.n_inputs, 1, 2), "compare inputs"),
        (stump(0, np.nan, 2), "not finite"),
        (replace(stump(0, 1, 2), base=None), "its arrays are"),
    ],
)
def test_trees_that_were_not_asked_for_do_not_count(found: Trees, reason: str) -> None:
    valid, reasons = sorted_out([reply(found), reply(stump(0, 1, 2))], EXPECTED, with_arrays=True)
    assert len(valid) == 1
    assert reason in reasons[0]


def test_a_checkpoint_of_trees_comes_back(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, "breast_cancer", "inputs", 0)
    trees = joined([stump(0, 1, 2), stump(3, -1, 0.5)], np.array([1.5]))
    rounds = (RoundMetrics(round=1, sites=3, failures=0, accuracy=0.5, loss=1.0, seconds=0.1),)
    checkpoints.save(Checkpoint(trees, rounds))
    found = checkpoints.load(DATA)
    assert found is not None
    assert isinstance(found.weights, Trees)
    for name, array in trees.arrays().items():
        np.testing.assert_array_equal(getattr(found.weights, name), array)
    assert found.strategy == {}


BOOSTED = {"dataset": "breast_cancer", "estimator": "XGBClassifier"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": 7}, "7 rounds of 3 sites with 1 trees each, which is n_estimators=21: .*"
         "Lower n_estimators to 20.*lower CLOISTER_ROUNDS, or CLOISTER_CLIENTS"),
        ({"rounds": 2, "local_iterations": 4}, "n_estimators=24"),
        ({"prune": 0.5}, "CLOISTER_PRUNE takes weights"),
        ({"secure_aggregation": True}, "set CLOISTER_SECURE_AGGREGATION=false, or use one of Log"),
        ({"noise_multiplier": 1.0}, "leave CLOISTER_NOISE_MULTIPLIER empty"),
        ({"strategy": "FedMedian"}, "set CLOISTER_STRATEGY=FedAvg"),
        ({"standardise": True}, "CLOISTER_STANDARDISE is nothing to a XGBClassifier"),
        ({"dataset": "digits", "rounds": 1}, r"30 trees \(3 for each of 10 classes\)"),
        ({"estimator_parameters": {"objective": "multi:softprob"}}, "use 'binary:logistic'"),
        (
            {
                "dataset": "diabetes",
                "estimator": "XGBRegressor",
                "estimator_parameters": {"objective": "reg:gamma"},
                "rounds": 1,
                "schema_path": "lowered",
            },
            "targets that are positive",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_grown_or_served_is_refused_before_any_work(
    make_settings: MakeSettings, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    if "schema_path" in changes:
        described = json.loads(schema("diabetes").model_dump_json())
        described["target"]["low"] = 0
        (tmp_path / "schema.json").write_text(json.dumps(described))
        changes = changes | {"schema_path": tmp_path / "schema.json"}
    with pytest.raises(CloisterError, match=message):
        plan.check(make_settings(**(BOOSTED | changes)))


def test_sites_improve_on_each_others_trees_and_a_resumed_training_comes_to_the_same(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    sites = deal_sites(tmp_path, DealerSettings(dataset="breast_cancer", shards=3))

    def grid() -> LocalGrid:
        return LocalGrid({node: Site(folder) for node, folder in sites.items()})

    settings = make_settings(**BOOSTED, rounds=4)
    plan.check(settings)
    train(grid(), settings, EventLog(tmp_path / "events" / "run-1.jsonl"))
    version = Registry(settings.models_dir).open_current(settings.name)
    card, trees = read_card(version.file(CARD)), Trees.read(version.file(TREES))
    assert card.parameters["n_estimators"] == trees.n_rounds == trees.n_trees == 12
    losses = [one.loss for one in card.rounds if one.loss is not None]
    assert len(losses) == 4
    assert losses == sorted(losses, reverse=True)
    assert card.final is not None
    assert card.final.accuracy is not None
    assert card.final.accuracy > 0.9

    other = make_settings(**BOOSTED, rounds=4, models_dir=tmp_path / "other")

    class GoneError(Exception):
        pass

    class Interrupted(LocalGrid):
        """Fails when round 3 is asked for."""

        def push_messages(self, messages: Any) -> Any:
            listed = list(messages)
            for message in listed:
                config = message.content.config_records[flower.CONFIG]
                if config.get(flower.ROUND) == 3:
                    raise GoneError
            return super().push_messages(listed)

    with pytest.raises(GoneError):
        train(Interrupted(grid().sites), other, EventLog(tmp_path / "events" / "run-2.jsonl"))
    train(grid(), other, EventLog(tmp_path / "events" / "run-3.jsonl"))
    again = Trees.read(Registry(other.models_dir).open_current(other.name).file(TREES))
    for name, array in trees.arrays().items():
        np.testing.assert_array_equal(getattr(again, name), array)
