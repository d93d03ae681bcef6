"""What is to be trained, as far as it determines the result."""

from typing import Any

from cloister_shared.datasets import schema
from cloister_shared.digests import digest_json
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import federated_estimator
from cloister_trainer.settings import Settings


def estimator_parameters(settings: Settings) -> dict[str, Any]:
    """Return the parameters of the scikit-learn estimator that sites fit."""
    return {
        "penalty": "l2",
        "C": settings.regularisation,
        "max_iter": settings.local_iterations,
        "warm_start": True,
    }


def inputs_digest(settings: Settings) -> str:
    """Return the digest of all that determines a training; equal digests need no second one.

    The trainer sees no data. That other data is dealt it knows from the dealer's settings; of
    what real sites changed it knows nothing, and CLOISTER_RETRAIN asks for a new training.
    """
    dealt = settings.model_dump(
        mode="json", include={"shards", "partition", "held_out_fraction", "seed"}
    )
    if settings.partition == "dirichlet":
        dealt["dirichlet_alpha"] = settings.dirichlet_alpha
    return digest_json(
        {
            "data": schema(settings.dataset).digest,
            "dealt": dealt,
            "estimator": settings.estimator,
            "parameters": estimator_parameters(settings),
            "out_of_bounds": settings.out_of_bounds,
            "rounds": settings.rounds,
            "clients": settings.clients,
        }
    )


def check(settings: Settings) -> None:
    """Refuse, before any work, what cannot succeed.

    Raises:
        CloisterError: the estimator cannot be trained across sites and served encrypted, or the
            quorum cannot be met.
    """
    federated_estimator(settings.estimator)
    if settings.quorum > settings.clients:
        raise CloisterError(
            f"CLOISTER_MIN_REPLIES={settings.quorum} is more than "
            f"CLOISTER_CLIENTS={settings.clients}: no round could succeed"
        )
