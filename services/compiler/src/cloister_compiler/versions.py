"""Everything about one artifact, for people and programs."""

import json
import sys

from cloister_shared.artifact import CARD, ArtifactDetails
from cloister_shared.card import ModelCard, RoundMetrics, read_card
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry
from cloister_shared.registry_commands import print_json, summary
from cloister_shared.tables import print_features, print_table


def show_one(artifacts: Registry, name: str, number: int | None, *, as_json: bool) -> None:
    """Print all that is known of one version, once its files are verified.

    Args:
        artifacts: where it is.
        name: of the artifact.
        number: of the version; None for the one in use.
        as_json: print the summary, the card and the manifest as JSON.

    Raises:
        CloisterError: there is no such version, or it is damaged.
    """
    number = artifacts.current(name) if number is None else number
    if number is None:
        raise CloisterError(f"no version of {name!r} is in use; `list` names what there is")
    version = artifacts.open(name, number)
    version.verify()
    card = read_card(version.file(CARD))
    if as_json:
        manifest = version.manifest.model_dump(mode="json")
        about = summary(artifacts, name, number)
        print_json({**about, "card": card.model_dump(mode="json"), "manifest": manifest})
        return
    details = ArtifactDetails.model_validate(version.manifest.details)
    in_use = ", in use" if artifacts.current(name) == number else ""
    sys.stdout.write(f"{name}, version {number}{in_use}\n\n")
    print_table([*_about(card), *_training(card), *_circuit(details)])
    if card.rounds:
        sys.stdout.write("\n")
        print_table([_ROUND_COLUMNS, *map(_round, card.rounds)])
    # Those of an image are its pixels.
    if card.data.image_shape is None:
        sys.stdout.write("\n")
        print_features(card.data)


def show_in_use(artifacts: Registry, name: str) -> None:
    """Print the version in use as JSON, as ``show_all`` does.

    Raises:
        CloisterError: there is none, or it is damaged.
    """
    print_json(summary(artifacts, name, artifacts.open_current(name).manifest.version))


def _about(card: ModelCard) -> list[tuple[str, str]]:
    data = card.data
    predicts = f"classes {', '.join(map(str, data.classes))}"
    if data.target is not None:
        predicts = f"a target from {data.target.low:g} to {data.target.high:g}"
    return [
        ("estimator", card.estimator),
        ("parameters", json.dumps(card.parameters)),
        ("data", f"{data.dataset}, a {data.task}: {data.n_features} features"),
        ("predicts", predicts),
        ("out of bounds", card.out_of_bounds),
    ]


def _training(card: ModelCard) -> list[tuple[str, str]]:
    federation = card.federation
    measured = []
    if card.final is not None:
        told = _measured(card.final.accuracy, card.final.absolute_error)
        measured.append(("validation", told))
    if federation is None:
        return [("trained", "in one place"), *measured]
    rows = [("trained", f"across sites, {federation.strategy}, {len(card.rounds)} rounds")]
    rows.append(("secure aggregation", "yes" if federation.secure_aggregation else "no"))
    spent = federation.differential_privacy
    privacy = f"epsilon {spent.epsilon:.3g} at delta {spent.delta:g}" if spent else "no"
    rows.append(("differential privacy", privacy))
    return [*rows, *measured]


def _circuit(details: ArtifactDetails) -> list[tuple[str, str]]:
    circuit, verified = details.circuit, details.verification
    keys = circuit.evaluation_keys
    rows = [
        ("model version", str(details.model_version or "-")),
        (
            "inputs",
            f"{circuit.n_features} of {circuit.n_card_features}, {circuit.bits_inputs} bits",
        ),
        ("weights", f"{circuit.bits_weights} bits"),
        ("LWE dimension", str(circuit.lwe_dimension)),
        ("bytes up, down", f"{circuit.input_bytes:,}, {circuit.output_bytes:,}"),
        ("evaluation keys", f"{keys.length:,} bytes" if keys else "none"),
        (
            "real encrypted runs",
            f"{verified.extreme} extreme, {verified.boundary} boundary, {verified.random} random, "
            "each equal to the clear result",
        ),
    ]
    if details.floor_ms is not None:
        rows.append(("evaluation, at least", f"{details.floor_ms:.3g} ms"))
    if details.agreement is not None:
        found = details.agreement
        rows.append(("quantised otherwise", f"{found.differing} of {found.probes} synthetic rows"))
    rows.append(("client digest", details.client_digest))
    libraries = (f"{name} {number}" for name, number in details.libraries.items())
    return [*rows, ("libraries", ", ".join(libraries))]


_ROUND_COLUMNS = (
    "ROUND",
    "SITES",
    "FAILED",
    "ROWS",
    "RECEIVED MODEL",
    "LOSS",
    "EPSILON",
    "SECONDS",
)


def _round(measured: RoundMetrics) -> tuple[str, ...]:
    def told(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    return (
        str(measured.round),
        str(measured.sites),
        str(measured.failures),
        str(measured.examples or "-"),
        _measured(measured.accuracy, measured.absolute_error),
        told(measured.loss),
        told(measured.epsilon),
        f"{measured.seconds:.1f}",
    )


def _measured(accuracy: float | None, absolute_error: float | None) -> str:
    if absolute_error is not None:
        return f"mean absolute error {absolute_error:.4g}"
    return "-" if accuracy is None else f"accuracy {accuracy:.4f}"
