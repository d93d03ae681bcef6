"""The strategies by which updates of sites become one model: what each needs, one row each."""

from dataclasses import dataclass, field

from cloister_shared.errors import CloisterError
from cloister_shared.estimators import Estimator


@dataclass(frozen=True)
class Strategy:
    """One strategy, and what goes together with it."""

    name: str
    """As in the setting and on the card."""
    flower_class: str
    """Import path of Flower's class."""
    parameters: dict[str, float | int] = field(default_factory=dict)
    """Its parameters by Flower's names, with their defaults."""
    sees_each_update: bool = False
    """Whether it compares the updates of single sites, which secure aggregation hides. It is also
    no mean of them, whose sensitivity the noise of differential privacy is made for."""
    needs_proximal_term: bool = False
    """Whether a site's objective must have the term that draws it towards the global model."""


STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy("FedAvg", "flwr.serverapp.strategy.FedAvg"),
        Strategy(
            "FedAdam",
            "flwr.serverapp.strategy.FedAdam",
            {"eta": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3},
        ),
        Strategy(
            "FedYogi",
            "flwr.serverapp.strategy.FedYogi",
            {"eta": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3},
        ),
        Strategy("FedMedian", "flwr.serverapp.strategy.FedMedian", sees_each_update=True),
        Strategy(
            "FedTrimmedAvg",
            "flwr.serverapp.strategy.FedTrimmedAvg",
            {"beta": 0.2},
            sees_each_update=True,
        ),
        Strategy(
            "Krum",
            "flwr.serverapp.strategy.Krum",
            {"num_malicious_nodes": 1},
            sees_each_update=True,
        ),
        Strategy(
            "FedProx",
            "flwr.serverapp.strategy.FedProx",
            {"proximal_mu": 0.1},
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
) -> None:
    """Refuse what does not go together.

    Args:
        chosen: the strategy.
        estimator: what sites fit.
        secure_aggregation: whether the server sees sums of updates only.
        differential_privacy: whether updates are clipped and noise is added to their mean.

    Raises:
        CloisterError: the combination cannot work; the message says why and what does.
    """
    means = ", ".join(
        row.name
        for row in STRATEGIES.values()
        if not row.sees_each_update and not row.needs_proximal_term
    )
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
