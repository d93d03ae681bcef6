"""The table of strategies: what each takes, how many sites it needs, and what goes together."""

import math
from typing import Any

import pytest

from cloister_shared.errors import CloisterError
from cloister_shared.estimators import ESTIMATORS, Estimator, check_standardised
from cloister_shared.strategies import STRATEGIES, check_combination, strategy

LOGISTIC = ESTIMATORS["LogisticRegression"]
MEANS = {"FedAvg", "FedAdam", "FedYogi"}


def test_an_unknown_strategy_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        CloisterError, match=r"CLOISTER_STRATEGY=Average is unknown.*FedAvg, .*Krum"
    ):
        strategy("Average")


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_default_is_a_value_that_is_taken(name: str) -> None:
    row = strategy(name)
    defaults = {key: parameter.default for key, parameter in row.parameters.items()}
    assert row.values({}) == row.values(defaults) == defaults


def test_given_values_replace_the_defaults() -> None:
    values = strategy("FedAdam").values({"eta": 1, "beta_1": 0})
    assert values == {"eta": 1.0, "beta_1": 0.0, "beta_2": 0.99, "tau": 1e-3}
    # The same settings, the same digest of the inputs.
    assert isinstance(values["eta"], float)
    assert isinstance(
        strategy("Krum").values({"num_malicious_nodes": 2})["num_malicious_nodes"], int
    )


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("FedAdam", {"eta": 0}),
        ("FedAdam", {"eta": -0.1}),
        ("FedAdam", {"beta_1": 1}),
        ("FedYogi", {"beta_2": -0.1}),
        ("FedYogi", {"tau": 0}),
        ("FedAdam", {"eta": "0.1"}),
        ("FedAdam", {"eta": True}),
        ("FedAdam", {"eta": None}),
        ("FedAdam", {"eta": [0.1]}),
        ("FedAdam", {"eta": math.nan}),
        ("FedAdam", {"eta": math.inf}),
        ("FedTrimmedAvg", {"beta": 0.5}),
        ("Krum", {"num_malicious_nodes": -1}),
        ("Krum", {"num_malicious_nodes": 1.0}),
        ("MultiKrum", {"num_nodes_to_select": 0}),
    ],
)
def test_a_value_of_another_type_or_range_is_refused_with_those_there_are(
    name: str, given: dict[str, Any]
) -> None:
    (parameter,) = given
    with pytest.raises(CloisterError, match=f"{parameter} must be .* by default") as refused:
        strategy(name).values(given)
    assert "CLOISTER_STRATEGY_PARAMETERS" in str(refused.value)


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        CloisterError, match=r"eta_l is no parameter of FedAdam; FedAdam has eta \(a"
    ):
        strategy("FedAdam").values({"eta_l": 0.1})
    with pytest.raises(CloisterError, match="eta is no parameter of FedAvg; FedAvg has no param"):
        strategy("FedAvg").values({"eta": 0.1})


@pytest.mark.parametrize(
    ("name", "given", "sites"),
    [
        ("FedAvg", {}, 1),
        ("FedAdam", {}, 1),
        ("FedMedian", {}, 3),
        ("FedTrimmedAvg", {}, 5),
        ("FedTrimmedAvg", {"beta": 0.1}, 10),
        ("FedTrimmedAvg", {"beta": 0.4}, 3),
        ("FedTrimmedAvg", {"beta": 0}, 1),
        ("Krum", {}, 5),
        ("Krum", {"num_malicious_nodes": 0}, 3),
        ("Krum", {"num_malicious_nodes": 3}, 9),
        ("MultiKrum", {}, 5),
        ("MultiKrum", {"num_nodes_to_select": 6}, 7),
    ],
)
def test_the_fewest_sites_of_a_round(name: str, given: dict[str, Any], sites: int) -> None:
    row = strategy(name)
    assert row.sites(row.values(given)) == sites


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("secure", [True, False])
@pytest.mark.parametrize("private", [True, False])
def test_what_goes_together(name: str, secure: bool, private: bool) -> None:
    def check() -> None:
        check_combination(
            strategy(name), LOGISTIC, secure_aggregation=secure, differential_privacy=private
        )

    if name in MEANS or (name != "FedProx" and not secure and not private):
        check()
    else:
        # What does is named.
        with pytest.raises(CloisterError, match="use one of FedAvg, FedAdam, FedYogi"):
            check()


def test_fedprox_goes_with_an_objective_that_has_the_proximal_term() -> None:
    proximal = Estimator("P", "classification", "p", "p", has_proximal_term=True)
    check_combination(
        strategy("FedProx"), proximal, secure_aggregation=False, differential_privacy=False
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_inputs_are_standardised_where_no_site_is_taken_to_be_wrong(name: str) -> None:
    def check() -> None:
        check_combination(
            strategy(name),
            LOGISTIC,
            secure_aggregation=name in MEANS,
            differential_privacy=False,
            standardise=True,
        )

    if name in MEANS:
        check()
    elif name != "FedProx":
        with pytest.raises(
            CloisterError, match=r"use one of FedAvg, .*, or CLOISTER_STANDARDISE=false"
        ):
            check()


def test_sums_of_inputs_have_no_noise_and_so_no_differential_privacy() -> None:
    with pytest.raises(
        CloisterError, match=r"CLOISTER_STANDARDISE=false.*leave CLOISTER_NOISE_MULTIPLIER empty"
    ):
        check_combination(
            strategy("FedAvg"),
            LOGISTIC,
            secure_aggregation=True,
            differential_privacy=True,
            standardise=True,
        )


@pytest.mark.parametrize("row", [row for row in ESTIMATORS.values() if row.family == "tree"])
def test_a_tree_is_not_standardised(row: Estimator) -> None:
    with pytest.raises(CloisterError, match=f"nothing to a {row.name}.*set it to false"):
        check_standardised(row)
