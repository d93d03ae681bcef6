"""What a report says of a circuit: its size, and what was proven before it was published."""

from cloister_keyholder.reporting.parts import Fact, Note
from cloister_keyholder.reporting.sources import Published
from cloister_keyholder.reporting.text import count, moment, number
from cloister_shared.artifact import ArtifactDetails
from cloister_shared.card import ModelCard
from cloister_shared.estimators import estimator

NOT_TOLD = Note(
    "plain",
    "Bits, verification and agreement are not told by the service. Whoever has the artifacts can "
    "report them: cloister report in their home, or keyholder report --artifacts FOLDER.",
)


def compilation_facts(published: Published) -> list[Fact]:
    """Return what was compiled, and how it was checked."""
    inputs = (
        f"{count(published.circuit_features)} of {count(published.card.data.n_inputs)}, "
        "those that it depends on"
    )
    if published.circuit_features == published.card.data.n_inputs:
        inputs = count(published.circuit_features)
    facts = [
        ("Inputs that are encrypted", inputs),
        ("LWE dimension", count(published.lwe_dimension)),
    ]
    if published.details is None:
        return facts
    compiled = [("Compiled", moment(published.compiled))] if published.compiled else []
    return [
        *compiled,
        *facts,
        *_checked(published.details, published.card),
    ]


def _checked(details: ArtifactDetails, card: ModelCard) -> list[Fact]:
    is_tree = estimator(card.estimator).family == "tree"
    circuit, verified, agreement = details.circuit, details.verification, details.agreement
    keys = circuit.evaluation_keys
    runs = verified.extreme + verified.boundary + verified.random
    compared = "not compared with the float model"
    if agreement:
        compared = (
            f"{count(agreement.probes - agreement.differing)} of {count(agreement.probes)} "
            f"synthetic rows are predicted as by the float model ({100 * agreement.share:.3g} % "
            "are not)"
        )
    facts = [
        (
            "Bits",
            f"{circuit.bits_inputs} of inputs, {circuit.bits_weights} of "
            f"{'the values of leaves' if is_tree else 'weights'}",
        ),
        (
            "Calibration",
            "from the declared bounds, without data; checked before publication: no input "
            f"overflows the {circuit.width} bits of a score"
            f"{', sign included' if circuit.signed else ''}",
        ),
        (
            "Verification",
            f"{count(runs)} runs under real encryption ({count(verified.extreme)} of extreme "
            f"inputs, {count(verified.boundary)} at boundaries, {count(verified.random)} random), "
            "each equal bit by bit to the same integers in the clear",
        ),
        ("Agreement", compared),
        (
            "Bytes a query",
            f"{count(circuit.input_bytes)} up, {count(circuit.output_bytes)} down in Concrete's "
            "form",
        ),
        ("Evaluation keys", f"{count(keys.length)} bytes, once" if keys else "none needed"),
    ]
    if details.floor_ms is not None:
        facts.append(
            (
                "Evaluation takes at least",
                f"{number(details.floor_ms, '.3g')} ms on a core (estimate)",
            )
        )
    if details.model_version is not None:
        facts.append(("Compiled from", f"version {count(details.model_version)} of the model"))
    return facts
