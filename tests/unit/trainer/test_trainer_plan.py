"""What determines a training, and what is refused before it begins."""

from collections.abc import Callable
from typing import Any

import pytest

from cloister_shared.errors import CloisterError
from cloister_trainer import plan
from cloister_trainer.settings import Settings

MakeSettings = Callable[..., Settings]


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": "breast_cancer"},
        {"shards": 11},
        {"partition": "dirichlet"},
        {"held_out_fraction": 0.3},
        {"seed": 1},
        {"regularisation": 0.5},
        {"local_iterations": 19},
        {"out_of_bounds": "clip"},
        {"rounds": 4},
        {"clients": 4},
        {"min_replies": 1},
        {"strategy": "FedAdam"},
        {"secure_aggregation": True},
        {"noise_multiplier": 0.5},
        {"epsilon_budget": 3.0},
    ],
)
def test_another_training_has_another_digest(
    make_settings: MakeSettings, change: dict[str, Any]
) -> None:
    assert plan.inputs_digest(make_settings(**change)) != plan.inputs_digest(make_settings())


@pytest.mark.parametrize(("partition", "digests"), [("iid", 1), ("dirichlet", 2)])
def test_alpha_matters_where_it_is_used(
    make_settings: MakeSettings, partition: str, digests: int
) -> None:
    alphas = [make_settings(partition=partition, dirichlet_alpha=alpha) for alpha in (0.3, 0.5)]
    assert len({plan.inputs_digest(settings) for settings in alphas}) == digests


@pytest.mark.parametrize(
    "change",
    [
        {"superlink": "elsewhere:1"},
        {"start_deadline": 1},
        {"settle_seconds": 1},
        {"round_timeout": 1},
        {"retrain": True},
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


def test_a_quorum_that_cannot_be_met_is_refused(make_settings: MakeSettings) -> None:
    plan.check(make_settings(min_replies=3, clients=3))
    with pytest.raises(CloisterError, match=r"CLOISTER_MIN_REPLIES=4 .*CLOISTER_CLIENTS=3"):
        plan.check(make_settings(min_replies=4, clients=3))


def test_an_estimator_that_cannot_be_served_is_refused(make_settings: MakeSettings) -> None:
    with pytest.raises(CloisterError, match="use one of: LogisticRegression"):
        plan.check(make_settings(estimator="GaussianProcess"))
