"""What is to be trained, as far as it determines the result."""

import logging
import re
from pathlib import Path
from typing import Any

from cloister_shared.card import DifferentialPrivacy, Federation
from cloister_shared.digests import digest_json
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import federated_estimator
from cloister_shared.secure_aggregation import quantisation_range
from cloister_shared.strategies import check_combination, strategy
from cloister_trainer.privacy import check_budget
from cloister_trainer.publication import check_name
from cloister_trainer.settings import Settings
from cloister_trainer.suitability import SETTING, check_across_sites, check_size, check_suitable

_TOLD = re.compile(r"[0-9a-f]{64}")

log = logging.getLogger(__name__)


def estimator_parameters(settings: Settings) -> dict[str, Any]:
    """Return the parameters of the scikit-learn estimator that sites fit.

    Raises:
        CloisterError: the estimator is not one that sites train together.
    """
    row = federated_estimator(settings.estimator)
    parameters = dict(row.defaults)
    if row.aggregation == "rounds":
        parameters["warm_start"] = True
    if row.aggregation == "bagging":
        parameters["n_estimators"] = settings.local_iterations or 1
    if row.iterations is not None and settings.local_iterations is not None:
        parameters[row.iterations] = settings.local_iterations
    return parameters | settings.estimator_parameters


def rounds(settings: Settings) -> int:
    """Return how many rounds the estimator takes.

    Raises:
        CloisterError: the estimator is not one that sites train together.
    """
    aggregation = federated_estimator(settings.estimator).aggregation
    return settings.rounds if aggregation in ("rounds", "bagging") else 1


def federation(settings: Settings, epsilon: float | None = None) -> Federation:
    """Return how updates become one model, for the card.

    Args:
        settings: of the training.
        epsilon: spent by all of its rounds; 0 before the first, None without differential privacy.
    """
    privacy = None
    if settings.noise_multiplier is not None:
        privacy = DifferentialPrivacy(
            noise_multiplier=settings.noise_multiplier,
            clipping_norm=settings.clipping_norm,
            delta=settings.delta,
            epsilon=epsilon or 0.0,
        )
    return Federation(
        strategy=settings.strategy,
        parameters=settings.strategy_values,
        secure_aggregation=settings.secure_aggregation,
        differential_privacy=privacy,
    )


def inputs_digest(settings: Settings) -> str:
    """Return the digest of all that determines a training; equal digests need no second one.

    The trainer sees no data. That other rows are dealt it knows from what the dealer tells; of
    what real sites changed it knows nothing, and CLOISTER_RETRAIN asks for a new training.

    Raises:
        CloisterError: what the dealer tells cannot be read.
    """
    return digest_json(
        {
            "data": settings.data.digest,
            "dealt": _dealt(settings.deal_path),
            "estimator": settings.estimator,
            "parameters": estimator_parameters(settings),
            "out_of_bounds": settings.out_of_bounds,
            "prune": settings.prune,
            "standardise": settings.standardise,
            "rounds": rounds(settings),
            "clients": settings.clients,
            "quorum": settings.quorum,
            "federation": federation(settings).model_dump(mode="json"),
            "epsilon_budget": settings.epsilon_budget,
        }
    )


def _dealt(path: Path | None) -> str | None:
    """Return what stands for the deal; None where nobody deals."""
    if path is None:
        return None
    try:
        told = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        told = ""
    if not _TOLD.fullmatch(told):
        raise CloisterError(
            f"CLOISTER_DEAL_PATH: {path} has no digest of a deal: the dealer writes it, with the "
            "same setting, once it has dealt; where sites have rows of their own, leave it empty"
        )
    return told


def check(settings: Settings) -> None:
    """Refuse, before any work, what cannot succeed.

    Raises:
        CloisterError: the estimator cannot be trained across sites and served encrypted, its
            parameters are none, it does not go together with the data, the strategy or the settings
            of privacy, or the quorum cannot be met or is too small for the strategy or secure
            aggregation, or the privacy budget allows no round.
    """
    check_name(settings.name, settings.data)
    row, fitted = strategy(settings.strategy), federated_estimator(settings.estimator)
    check_suitable(fitted, estimator_parameters(settings), settings.data)
    check_across_sites(fitted, estimator_parameters(settings))
    if fitted.aggregation == "bagging":
        _check_grown(settings)
    if rounds(settings) != settings.rounds:
        log.info("%s takes one round, and not CLOISTER_ROUNDS", fitted.name)
    check_combination(
        row,
        fitted,
        secure_aggregation=settings.secure_aggregation,
        differential_privacy=settings.noise_multiplier is not None,
        standardise=settings.standardise,
    )
    needed = row.sites(settings.strategy_values)
    if min(settings.clients, settings.quorum) < needed:
        raise CloisterError(
            f"{_described(settings)} needs the updates of {needed} sites "
            f"in every round; set CLOISTER_CLIENTS (now {settings.clients}) to {needed} or more, "
            f"and CLOISTER_MIN_REPLIES (now {settings.min_replies or 'empty'}) to as many, or "
            "leave it empty"
        )
    if settings.quorum > settings.clients:
        raise CloisterError(
            f"CLOISTER_MIN_REPLIES={settings.quorum} is more than "
            f"CLOISTER_CLIENTS={settings.clients}: no round could succeed"
        )
    if settings.secure_aggregation:
        _check_secure_aggregation(settings)
    _check_privacy(settings)


def _check_grown(settings: Settings) -> None:
    """Refuse trees of all rounds and sites together that are too many to be served."""
    if settings.prune:
        raise CloisterError(
            f"CLOISTER_PRUNE takes weights, which a {settings.estimator} has none of: max_depth "
            "and max_leaves say how large it grows"
        )
    parameters = estimator_parameters(settings)
    each = parameters["n_estimators"]
    grown = each * settings.rounds * settings.clients
    try:
        check_size(
            federated_estimator(settings.estimator),
            parameters | {"n_estimators": grown},
            settings.data,
            SETTING,
        )
    except CloisterError as error:
        raise CloisterError(
            f"{settings.rounds} rounds of {settings.clients} sites with {each} trees each, which "
            f"is n_estimators={grown}: {error}; lower CLOISTER_ROUNDS, or CLOISTER_CLIENTS"
        ) from None


def _check_secure_aggregation(settings: Settings) -> None:
    quantisation_range(settings.clients)
    if 2 * settings.quorum <= settings.clients:
        raise CloisterError(
            f"CLOISTER_MIN_REPLIES={settings.quorum} is not more than half of "
            f"CLOISTER_CLIENTS={settings.clients}: under secure aggregation fewer must not be "
            "able to unmask anything; raise it, or leave it empty"
        )


def _check_privacy(settings: Settings) -> None:
    if settings.noise_multiplier is None:
        if settings.epsilon_budget is not None:
            raise CloisterError(
                "CLOISTER_EPSILON_BUDGET limits nothing without CLOISTER_NOISE_MULTIPLIER: set "
                "both, or none"
            )
        return
    if settings.epsilon_budget is not None:
        allowed = check_budget(
            rounds(settings), settings.noise_multiplier, settings.delta, settings.epsilon_budget
        )
        if allowed < rounds(settings):
            log.warning(
                "CLOISTER_EPSILON_BUDGET=%g allows %d of %d rounds; training ends after them",
                settings.epsilon_budget,
                allowed,
                rounds(settings),
            )


def _described(settings: Settings) -> str:
    values = [f"{name}={value:g}" for name, value in settings.strategy_values.items()]
    return f"{settings.strategy} ({', '.join(values)})" if values else settings.strategy
