"""What the registry tells of versions, without loading one."""

from datetime import datetime

from pydantic import BaseModel, ValidationError

from cloister_shared.artifact import CARD, ArtifactDetails
from cloister_shared.card import ModelCard, read_card
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry


class Training(BaseModel):
    """What a version was trained as."""

    estimator: str
    dataset: str
    task: str
    accuracy: float | None
    """Of the final model, as sites measured it; 0 to 1."""
    absolute_error: float | None
    """Likewise of a regression, in the target's unit."""
    loss: float | None
    sites: int | None
    """That measured it; None where none reported anything."""
    rounds: int
    strategy: str | None
    """None where it was trained in one place."""
    secure_aggregation: bool
    epsilon: float | None
    """None without differential privacy."""
    delta: float | None


class Cost(BaseModel):
    """What one encrypted prediction takes."""

    input_bytes: int
    """Of a query in Concrete's form."""
    output_bytes: int
    """Of its result."""
    compact_input_bytes: int | None
    """Of a query in the compact form; None where there is none."""
    compact_output_bytes: int | None
    evaluation_key_bytes: int
    """To upload once; 0 where none are needed."""
    floor_ms: float | None
    """Milliseconds of evaluation at least, on one core with AVX-512; None where not known."""
    features: int
    """That are encrypted."""
    outputs: int
    bits_inputs: int
    bits_weights: int
    lwe_dimension: int


class Proof(BaseModel):
    """What was seen before the version was published."""

    verified: int
    """Inputs that went through real encrypted execution, each equal to the clear result."""
    probes: int | None
    """Synthetic rows on which quantised and float model were compared."""
    differing: int | None
    """Rows of them that the two predict differently."""


class Published(BaseModel):
    """One published version."""

    created: datetime | None
    model_version: int | None
    """Of the trained model that it was compiled from."""
    training: Training | None
    cost: Cost | None
    proof: Proof | None


UNKNOWN = Published(created=None, model_version=None, training=None, cost=None, proof=None)
"""What is told of a version whose files are damaged."""


def describe(registry: Registry, name: str, version: int) -> Published:
    """Return what is known of a version; its files are read and not verified.

    Args:
        registry: of artifacts.
        name: of the model.
        version: a published one.
    """
    try:
        opened = registry.open(name, version)
        details = ArtifactDetails.model_validate(opened.manifest.details)
        card = read_card(opened.file(CARD))
    except (CloisterError, OSError, ValidationError):
        return UNKNOWN
    return Published(
        created=opened.manifest.created,
        model_version=details.model_version,
        training=_training(card),
        cost=_cost(details),
        proof=Proof(
            verified=sum(details.verification.model_dump().values()),
            probes=details.agreement.probes if details.agreement else None,
            differing=details.agreement.differing if details.agreement else None,
        ),
    )


def _training(card: ModelCard) -> Training:
    final, federation = card.final, card.federation
    privacy = federation.differential_privacy if federation else None
    return Training(
        estimator=card.estimator,
        dataset=card.data.dataset,
        task=card.data.task,
        accuracy=final.accuracy if final else None,
        absolute_error=final.absolute_error if final else None,
        loss=final.loss if final else None,
        sites=final.sites if final else None,
        rounds=len(card.rounds),
        strategy=federation.strategy if federation else None,
        secure_aggregation=bool(federation and federation.secure_aggregation),
        epsilon=privacy.epsilon if privacy else None,
        delta=privacy.delta if privacy else None,
    )


def _cost(details: ArtifactDetails) -> Cost:
    circuit, compact = details.circuit, details.circuit.compact
    keys = circuit.evaluation_keys
    return Cost(
        input_bytes=circuit.input_bytes,
        output_bytes=circuit.output_bytes,
        compact_input_bytes=compact.input_bytes(circuit.n_features) if compact else None,
        compact_output_bytes=compact.result_bytes(circuit.n_outputs, circuit.lwe_dimension)
        if compact
        else None,
        evaluation_key_bytes=keys.length if keys else 0,
        floor_ms=details.floor_ms,
        features=circuit.n_features,
        outputs=circuit.n_outputs,
        bits_inputs=circuit.bits_inputs,
        bits_weights=circuit.bits_weights,
        lwe_dimension=circuit.lwe_dimension,
    )
