"""What is told of an artifact, beside its model's card."""

from cloister_shared.artifact import ArtifactDetails
from cloister_shared.registry import Registry, Version
from cloister_shared.registry_commands import print_json, summary
from cloister_shared.showing import Lines


def show_in_use(artifacts: Registry, name: str) -> None:
    """Print the version in use as JSON, as ``show_all`` does.

    Raises:
        CloisterError: there is none, or it is damaged.
    """
    print_json(summary(artifacts, name, artifacts.open_current(name).manifest.version))


def circuit_lines(version: Version) -> Lines:
    """Return what was compiled, how it was checked, and what it costs."""
    details = ArtifactDetails.model_validate(version.manifest.details)
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
