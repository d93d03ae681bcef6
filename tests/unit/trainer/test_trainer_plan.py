"""What determines a training, and what is refused before it begins."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloister_shared.card import DifferentialPrivacy
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.service import load_settings
from cloister_trainer import plan
from cloister_trainer.settings import Settings

MakeSettings = Callable[..., Settings]


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "breast_cancer"},
        {"estimator_parameters": {"C": 0.5}},
        {"local_iterations": 19},
        {"out_of_bounds": "clip"},
        {"standardise": True},
        {"rounds": 4},
        {"clients": 4},
        {"min_replies": 1},
        {"strategy": "FedAdam"},
        {"strategy": "FedMedian"},
        {"secure_aggregation": True},
        {"noise_multiplier": 0.5},
        {"epsilon_budget": 3.0},
    ],
)
def test_another_training_has_another_digest(
    make_settings: MakeSettings, change: dict[str, Any]
) -> None:
    assert plan.inputs_digest(make_settings(**change)) != plan.inputs_digest(make_settings())


def test_another_deal_is_another_training_wherever_it_is_told(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    def digest_of(told: str, name: str = "deal") -> str:
        (tmp_path / name).write_text(told)
        return plan.inputs_digest(make_settings(deal_path=tmp_path / name))

    one, other = "ab" * 32, "cd" * 32
    assert digest_of(one) != digest_of(other)
    assert digest_of(one) == digest_of(f"{one}\n", "elsewhere")
    assert digest_of(one) != plan.inputs_digest(make_settings())


@pytest.mark.parametrize(
    "content",
    [None, b"", b"ab" * 31, b"\xff" * 64],
    ids=["missing", "empty", "too short", "no text"],
)
def test_a_deal_that_is_not_told_stops_the_training(
    make_settings: MakeSettings, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "deal").write_bytes(content)
    with pytest.raises(CloisterError, match="has no digest of a deal: the dealer writes it"):
        plan.inputs_digest(make_settings(deal_path=tmp_path / "deal"))


@pytest.mark.parametrize(
    "change",
    [
        {"superlink": "elsewhere:1"},
        {"start_deadline": 1},
        {"settle_seconds": 1},
        {"round_timeout": 1},
        {"retrain": True},
        {"resume": False},
        {"metrics_port": 9000},
        {"log_format": "json"},
        {"checkpoints_dir": "elsewhere"},
        {"min_replies": 2},
        {"strategy_parameters": {}},
        {"models_dir": "elsewhere"},
        {"work_dir": "elsewhere"},
    ],
)
def test_addresses_deadlines_and_folders_do_not_matter(
    make_settings: MakeSettings, change: dict[str, Any]
) -> None:
    assert plan.inputs_digest(make_settings(**change)) == plan.inputs_digest(make_settings())


@pytest.mark.parametrize(("clients", "quorum"), [(1, 1), (2, 2), (3, 2), (4, 3), (9, 6), (10, 7)])
def test_the_quorum_is_two_thirds_unless_it_is_set(clients: int, quorum: int) -> None:
    assert Settings(clients=clients).quorum == quorum
    assert Settings(clients=clients, min_replies=1).quorum == 1


def test_parameters_matter_as_far_as_they_are_not_the_defaults(make_settings: MakeSettings) -> None:
    digests = [
        plan.inputs_digest(make_settings(strategy="FedAdam", strategy_parameters=parameters))
        for parameters in ({}, {"eta": 0.1}, {"eta": 0.2}, {"eta": 1}, {"eta": 1.0})
    ]
    assert digests[0] == digests[1]
    assert digests[3] == digests[4]
    assert len(set(digests)) == 3


def test_clipping_and_delta_matter_under_differential_privacy(make_settings: MakeSettings) -> None:
    for change in ({"clipping_norm": 2.0}, {"delta": 1e-6}):
        plain, changed = make_settings(), make_settings(**change)
        assert plan.inputs_digest(plain) == plan.inputs_digest(changed)
        noised = {"noise_multiplier": 0.5}
        plain, changed = make_settings(**noised), make_settings(**noised, **change)
        assert plan.inputs_digest(plain) != plan.inputs_digest(changed)


def test_the_card_tells_how_updates_became_one_model(make_settings: MakeSettings) -> None:
    settings = make_settings(noise_multiplier=0.5, delta=1e-6, secure_aggregation=True)
    card = plan.federation(settings, epsilon=3.5)
    assert (card.strategy, card.secure_aggregation) == ("FedAvg", True)
    assert card.differential_privacy == DifferentialPrivacy(
        noise_multiplier=0.5, clipping_norm=1.0, delta=1e-6, epsilon=3.5
    )


def test_a_strategy_makes_the_quorum_as_large_as_it_needs(make_settings: MakeSettings) -> None:
    assert make_settings(strategy="Krum", clients=6).quorum == 5
    assert make_settings(strategy="Krum", clients=12).quorum == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "Average"}, "CLOISTER_STRATEGY=Average is unknown"),
        ({"strategy_parameters": {"eta": 1}}, "eta is no parameter of FedAvg"),
        (
            {"strategy": "FedAdam", "strategy_parameters": {"eta": 0}},
            "eta must be a number above 0",
        ),
        ({"strategy": "FedProx"}, "FedProx needs a proximal term"),
        (
            {"strategy": "FedMedian", "secure_aggregation": True},
            "CLOISTER_SECURE_AGGREGATION=false",
        ),
        ({"strategy": "FedMedian", "noise_multiplier": 1.0}, "CLOISTER_NOISE_MULTIPLIER empty"),
        (
            {"strategy": "Krum"},
            r"Krum \(num_malicious_nodes=1\) needs the updates of 5 sites.*"
            r"CLOISTER_CLIENTS \(now 3\) to 5 or more",
        ),
        (
            {"strategy": "Krum", "clients": 10, "min_replies": 4},
            r"5 sites.*CLOISTER_MIN_REPLIES \(now 4\)",
        ),
        ({"strategy": "FedMedian", "clients": 2}, "FedMedian needs the updates of 3 sites"),
    ],
)
def test_what_does_not_go_together_is_refused(
    make_settings: MakeSettings, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(CloisterError, match=message):
        plan.check(make_settings(**change))


def test_parameters_come_from_the_environment_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOISTER_STRATEGY", "FedAdam")
    monkeypatch.setenv("CLOISTER_STRATEGY_PARAMETERS", '{"eta": 0.05}')
    assert load_settings(Settings).strategy_values["eta"] == 0.05
    for wrong in ("eta=0.05", "[1]"):
        monkeypatch.setenv("CLOISTER_STRATEGY_PARAMETERS", wrong)
        with pytest.raises(CloisterError, match="CLOISTER_STRATEGY_PARAMETERS"):
            load_settings(Settings)
    monkeypatch.setenv("CLOISTER_STRATEGY_PARAMETERS", "")
    monkeypatch.setenv("CLOISTER_NOISE_MULTIPLIER", "")
    assert load_settings(Settings).strategy_values["eta"] == 0.1
    assert load_settings(Settings).noise_multiplier is None


def test_a_quorum_that_cannot_be_met_is_refused(make_settings: MakeSettings) -> None:
    plan.check(make_settings(min_replies=3, clients=3))
    with pytest.raises(CloisterError, match=r"CLOISTER_MIN_REPLIES=4 .*CLOISTER_CLIENTS=3"):
        plan.check(make_settings(min_replies=4, clients=3))


def test_an_estimator_that_cannot_be_served_is_refused(make_settings: MakeSettings) -> None:
    with pytest.raises(CloisterError, match="use one of: LogisticRegression"):
        plan.check(make_settings(estimator="GaussianProcess"))


def own_schema(folder: Path) -> Path:
    path = folder / "schema.json"
    own = schema("breast_cancer").model_copy(update={"dataset": "tumours"})
    path.write_text(own.model_dump_json())
    return path


def test_a_schema_of_ones_own_takes_the_place_of_a_datasets(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    named = make_settings(dataset="breast_cancer")
    own = make_settings(schema_path=own_schema(tmp_path))
    assert (own.data.dataset, own.name) == ("tumours", "tumours")
    plan.check(own)
    assert plan.inputs_digest(own) != plan.inputs_digest(named)
    # What stands for no file where one is mounted.
    assert make_settings(schema_path=Path(os.devnull)).data == schema("digits")


def test_a_model_of_ones_own_data_needs_a_name_of_its_own(
    make_settings: MakeSettings, tmp_path: Path
) -> None:
    with pytest.raises(CloisterError, match="CLOISTER_MODEL=digits is the name of another dataset"):
        plan.check(make_settings(schema_path=own_schema(tmp_path), model="digits"))
    plan.check(make_settings(schema_path=own_schema(tmp_path), model="mine"))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is missing: it must hold the schema"), ("{}", "is not a schema"), ("", "is a folder")],
)
def test_a_schema_that_cannot_be_read_is_told(
    make_settings: MakeSettings, tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "schema.json"
    if content == "":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with pytest.raises(CloisterError, match=message):
        plan.check(make_settings(schema_path=path))
