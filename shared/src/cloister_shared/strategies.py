"""The strategies by which updates of sites become one model: what each needs, one row each."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloister_shared.errors import CloisterError
from cloister_shared.estimators import ESTIMATORS, Estimator, check_standardised

Values = Mapping[str, float | int]
"""Parameters of a strategy by name."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a strategy: its default, and the values that make sense."""

    default: float | int
    """An integer where every value must be one."""
    low: float
    high: float = math.inf
    open_low: bool = False
    """Whether the value must be above ``low``, not merely at it."""
    open_high: bool = True

    @property
    def range(self) -> str:
        """Say which values are taken, to follow "must be"."""
        kind = "an integer" if isinstance(self.default, int) else "a number"
        low = f"{'above' if self.open_low else 'at least'} {self.low:g}"
        if math.isinf(self.high):
            return f"{kind} {low}"
        return f"{kind} {low} and {'below' if self.open_high else 'at most'} {self.high:g}"

    def takes(self, value: Any) -> bool:
        """Return whether a value, of any type, is one of these."""
        kinds = int if isinstance(self.default, int) else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
            return False
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)


def _one_site(_parameters: Values) -> int:
    return 1


@dataclass(frozen=True)
class Strategy:
    """One strategy, and what goes together with it."""

    name: str
    """As in the setting and on the card."""
    flower_class: str
    """Import path of Flower's class."""
    parameters: dict[str, Parameter] = field(default_factory=dict)
    """Its parameters by Flower's names."""
    sees_each_update: bool = False
    """Whether it compares the updates of single sites, which secure aggregation hides. It is also
    no mean of them, whose sensitivity the noise of differential privacy is made for."""
    has_optimiser: bool = False
    """Whether the server makes steps of its own towards the mean of the updates."""
    needs_proximal_term: bool = False
    """Whether a site's objective must have the term that draws it towards the global model."""
    sites: Callable[[Values], int] = _one_site
    """The fewest sites in a round with which it does what it is for, given its parameters."""

    def values(self, given: Mapping[str, Any]) -> dict[str, float | int]:
        """Return every parameter's value: the given one, else the default.

        Raises:
            CloisterError: a name is unknown, or a value is not of the parameter's type and range;
                the message lists names, ranges and defaults.
        """
        wrong = [
            f"{name} is no parameter of {self.name}"
            if name not in self.parameters
            else f"{name} must be {self.parameters[name].range}"
            for name, value in given.items()
            if name not in self.parameters or not self.parameters[name].takes(value)
        ]
        if wrong:
            known = ", ".join(
                f"{name} ({parameter.range}, {parameter.default:g} by default)"
                for name, parameter in self.parameters.items()
            )
            raise CloisterError(
                f"CLOISTER_STRATEGY_PARAMETERS: {'; '.join(wrong)}; {self.name} has "
                f"{known or 'no parameters'}"
            )
        return {
            name: type(parameter.default)(given.get(name, parameter.default))
            for name, parameter in self.parameters.items()
        }


_OPTIMISER = {
    "eta": Parameter(0.1, 0, open_low=True),
    "beta_1": Parameter(0.9, 0, 1),
    "beta_2": Parameter(0.99, 0, 1),
    "tau": Parameter(1e-3, 0, open_low=True),
}
"""Reddi et al. 2020, arXiv:2003.00295: rate of the server's optimiser, decay of its first and
second moment, and how adaptive it is. The site's rate eta_l is none of Flower's aggregation."""


def _trimming(parameters: Values) -> int:
    # Flower cuts int(beta * n) sites at either end: with fewer than this, none.
    beta = parameters["beta"]
    return next(n for n in range(3, 10**6) if int(beta * n) >= 1) if beta > 0 else 1


def _krum(parameters: Values) -> int:
    # Blanchard et al. 2017, arXiv:1703.02757, proposition 1: n > 2f + 2.
    return 2 * int(parameters["num_malicious_nodes"]) + 3


def _multi_krum(parameters: Values) -> int:
    # Of those selected none may be one of the f that are not trusted.
    chosen = int(parameters["num_nodes_to_select"]) + int(parameters["num_malicious_nodes"])
    return max(_krum(parameters), chosen)


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy("FedAvg", "flwr.serverapp.strategy.FedAvg"),
        Strategy("FedAdam", "flwr.serverapp.strategy.FedAdam", _OPTIMISER, has_optimiser=True),
        Strategy("FedYogi", "flwr.serverapp.strategy.FedYogi", _OPTIMISER, has_optimiser=True),
        Strategy(
            "FedMedian",
            "flwr.serverapp.strategy.FedMedian",
            sees_each_update=True,
            # The median of two is their mean.
            sites=lambda _parameters: 3,
        ),
        Strategy(
            "FedTrimmedAvg",
            "flwr.serverapp.strategy.FedTrimmedAvg",
            {"beta": Parameter(0.2, 0, 0.5)},
            sees_each_update=True,
            sites=_trimming,
        ),
        Strategy(
            "Krum",
            "flwr.serverapp.strategy.Krum",
            {"num_malicious_nodes": Parameter(1, 0)},
            sees_each_update=True,
            sites=_krum,
        ),
        Strategy(
            "MultiKrum",
            "flwr.serverapp.strategy.MultiKrum",
            {"num_malicious_nodes": Parameter(1, 0), "num_nodes_to_select": Parameter(3, 1)},
            sees_each_update=True,
            sites=_multi_krum,
        ),
        Strategy(
            "FedProx",
            "flwr.serverapp.strategy.FedProx",
            {"proximal_mu": Parameter(0.1, 0)},
            needs_proximal_term=True,
        ),
    )
}


def strategy(name: str) -> Strategy:
    """Return the row for ``name``.

    Raises:
        CloisterError: no such strategy; the message lists those there are.
    """
    try:
        return STRATEGIES[name]
    except KeyError:
        raise CloisterError(
            f"CLOISTER_STRATEGY={name} is unknown; use one of: {', '.join(STRATEGIES)}"
        ) from None


def check_combination(
    chosen: Strategy,
    estimator: Estimator,
    *,
    secure_aggregation: bool,
    differential_privacy: bool,
    standardise: bool = False,
) -> None:
    """Refuse what does not go together.

    Args:
        chosen: the strategy.
        estimator: what sites fit.
        secure_aggregation: whether the server sees sums of updates only.
        differential_privacy: whether updates are clipped and noise is added to their mean.
        standardise: whether inputs are standardised by sums over all sites' rows.

    Raises:
        CloisterError: the combination cannot work; the message says why and what does.
    """
    means = ", ".join(
        row.name
        for row in STRATEGIES.values()
        if not row.sees_each_update and not row.needs_proximal_term
    )
    if estimator.aggregation == "bagging":
        _check_bagging(
            chosen,
            estimator,
            hides=secure_aggregation,
            differential_privacy=differential_privacy,
        )
    _check_single_round(chosen, estimator, differential_privacy=differential_privacy)
    if standardise:
        _check_standardise(chosen, estimator, means, differential_privacy=differential_privacy)
    if chosen.sees_each_update and secure_aggregation:
        raise CloisterError(
            f"{chosen.name} compares the updates of single sites, and secure aggregation shows "
            f"only their sum: use one of {means}, or CLOISTER_SECURE_AGGREGATION=false"
        )
    if chosen.sees_each_update and differential_privacy:
        raise CloisterError(
            f"{chosen.name} is no mean of the updates, which the noise of differential privacy is "
            f"made for: use one of {means}, or leave CLOISTER_NOISE_MULTIPLIER empty"
        )
    if chosen.needs_proximal_term and not estimator.has_proximal_term:
        raise CloisterError(
            f"{chosen.name} needs a proximal term in the sites' objective, and scikit-learn's "
            f"{estimator.name} has none: use one of {means}; fewer CLOISTER_LOCAL_ITERATIONS keep "
            "sites near the global model too"
        )


def _check_bagging(
    chosen: Strategy, estimator: Estimator, *, hides: bool, differential_privacy: bool
) -> None:
    linear = ", ".join(
        row.name
        for row in ESTIMATORS.values()
        if row.aggregation == "rounds" and row.task == estimator.task
    )
    if chosen.name != "FedAvg":
        raise CloisterError(
            f"the trees of a {estimator.name} are taken together, of which nothing is averaged: "
            f"set CLOISTER_STRATEGY=FedAvg, or use one of {linear}"
        )
    if hides:
        raise CloisterError(
            f"every site's trees of a {estimator.name} are in the model one by one, and secure "
            "aggregation shows sums alone: set CLOISTER_SECURE_AGGREGATION=false, or use one of "
            f"{linear}"
        )
    if differential_privacy:
        raise CloisterError(
            f"what the trees of a {estimator.name} tell of a site's rows is not bounded by "
            f"clipping: leave CLOISTER_NOISE_MULTIPLIER empty, or use one of {linear}"
        )


def _check_single_round(
    chosen: Strategy, estimator: Estimator, *, differential_privacy: bool
) -> None:
    iterated = ", ".join(
        row.name
        for row in ESTIMATORS.values()
        if row.aggregation == "rounds" and row.task == estimator.task
    )
    if estimator.aggregation == "statistics":
        if chosen.name != "FedAvg":
            raise CloisterError(
                f"{estimator.name} is fitted from the sums of all sites' rows, of which nothing is "
                f"averaged: set CLOISTER_STRATEGY=FedAvg, or use one of {iterated}"
            )
        if differential_privacy:
            raise CloisterError(
                f"{estimator.name} is fitted from sums of rows, whose size one site's rows do not "
                "bound as clipping bounds an update: leave CLOISTER_NOISE_MULTIPLIER empty, or use "
                f"one of {iterated}"
            )
    if estimator.aggregation == "mean" and chosen.has_optimiser:
        raise CloisterError(
            f"{estimator.name} cannot begin from given weights, so there is one round, and "
            f"{chosen.name} would make one step of it: set CLOISTER_STRATEGY=FedAvg, or use one of "
            f"{iterated}"
        )


def _check_standardise(
    chosen: Strategy, estimator: Estimator, means: str, *, differential_privacy: bool
) -> None:
    check_standardised(estimator)
    if differential_privacy:
        raise CloisterError(
            "CLOISTER_STANDARDISE has every site send sums of its inputs, which get no noise, so "
            "that epsilon would not bound what they tell: set CLOISTER_STANDARDISE=false and "
            "declare bounds that are no wider than need be, or leave CLOISTER_NOISE_MULTIPLIER "
            "empty"
        )
    if chosen.sees_each_update:
        raise CloisterError(
            f"{chosen.name} is for sites of which some may be wrong, and one of them alone can "
            f"move the sums that CLOISTER_STANDARDISE adds up for all: use one of {means}, or "
            "CLOISTER_STANDARDISE=false"
        )
