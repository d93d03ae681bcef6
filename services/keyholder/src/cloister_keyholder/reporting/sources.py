"""What a report tells of: a published version and its evaluation."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from cloister_keyholder.errors import ReportError
from cloister_keyholder.evaluating.evaluation import EvaluationReport
from cloister_keyholder.model import EncryptedModel
from cloister_shared.artifact import CARD, ArtifactDetails
from cloister_shared.card import ModelCard, read_card
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry


@dataclass(frozen=True)
class Published:
    """One version of a model, as its registry or its service tells of it."""

    name: str
    version: int
    card: ModelCard
    client_digest: str
    """SHA-256 of its client.zip."""
    circuit_features: int
    """Inputs that the circuit takes."""
    lwe_dimension: int
    compiled: datetime | None
    """None where the registry of artifacts is not read, which alone tells it."""
    details: ArtifactDetails | None
    """None where a service does not tell them."""


def from_registry(artifacts: Path, name: str, version: int | None) -> Published:
    """Read a version, or the one in use, from a registry of artifacts; its files are verified.

    Raises:
        CloisterError: there is no such version, or it is damaged.
    """
    registry = Registry(artifacts)
    found = registry.open_current(name) if version is None else registry.open(name, version)
    found.verify()
    try:
        details = ArtifactDetails.model_validate(found.manifest.details)
    except ValidationError:
        raise CloisterError(
            f"version {found.manifest.version} of {name} in {artifacts} is not a compiled one: "
            "name the folder of the artifacts"
        ) from None
    return Published(
        name=name,
        version=found.manifest.version,
        card=read_card(found.file(CARD)),
        client_digest=details.client_digest,
        circuit_features=details.circuit.n_features,
        lwe_dimension=details.circuit.lwe_dimension,
        compiled=found.manifest.created,
        details=details,
    )


def from_service(model: EncryptedModel) -> Published:
    """Take what the service tells of the version that a model is open on."""
    return Published(
        name=model.name,
        version=model.description.version,
        card=model.card,
        client_digest=model.description.client_digest,
        circuit_features=model.specs.n_features,
        lwe_dimension=model.specs.lwe_dimension,
        compiled=None,
        details=model.details(),
    )


def read_evaluation(path: Path) -> EvaluationReport | None:
    """Read what ``evaluate`` wrote; None where there is nothing.

    Raises:
        ReportError: it is damaged, or something else.
    """
    try:
        return EvaluationReport.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        raise ReportError(
            f"{path} cannot be read as the report of an evaluation: evaluate again, or delete it"
        ) from None


def check_is_of(evaluation: EvaluationReport, published: Published) -> str | None:
    """Return why an evaluation is not of a version; None where it is.

    Raises:
        ReportError: it is of it, and names classes that the card does not have.
    """
    of = f"version {evaluation.version} of {evaluation.model}"
    if (evaluation.model, evaluation.version) != (published.name, published.version):
        return f"the last evaluation is of {of}"
    if evaluation.client_digest != published.client_digest:
        return f"the last evaluation is of another {of}, with another client.zip"
    confusion, classes = evaluation.confusion, len(published.card.data.classes)
    pairs = (*confusion.labels, *(confusion.clear_quantised or ())) if confusion else ()
    if any(max(one.expected, one.predicted) >= classes for one in pairs):
        raise ReportError(f"the evaluation names classes that {of} does not have: evaluate again")
    return None
