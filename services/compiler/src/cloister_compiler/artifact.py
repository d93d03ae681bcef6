"""From a published model to a published artifact."""

import json
import logging
import math
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from concrete.ml.deployment import FHEModelDev

from cloister_compiler.circuit import CompiledModel, compile_model
from cloister_compiler.payload import PayloadForm, payload_form
from cloister_compiler.quantisation import Bits, drop_features
from cloister_compiler.selection import Precision, check_tolerance, quantise_cheapest
from cloister_compiler.verification import check_execution, check_range
from cloister_shared import calibration
from cloister_shared.artifact import (
    CARD,
    CIRCUIT,
    CLIENT_ZIP,
    EVALUATION_KEYS,
    INPUT_TEMPLATE,
    LINEAR,
    REFERENCE,
    SERVER_ZIP,
    WEIGHTS,
    ArtifactDetails,
    Circuit,
    Verification,
)
from cloister_shared.card import ModelCard, read_card
from cloister_shared.compact import choose_compact
from cloister_shared.cost import ERROR_PROBABILITY, floor_ms
from cloister_shared.digests import digest_file, digest_json
from cloister_shared.linear import LinearCircuit
from cloister_shared.probes import measure_agreement, synthetic_rows
from cloister_shared.reference import Reference
from cloister_shared.registry import Registry, Version
from cloister_shared.weights import LinearWeights

LIBRARIES = ("cloister-compiler", "concrete-ml", "concrete-python", "scikit-learn", "numpy")
"""What determines an artifact besides the model and the settings: another version of one of these,
and the model is compiled anew."""

Floats = npt.NDArray[np.float64]
Calibrate = Callable[[Floats], Floats]
"""Makes rows in [0, 1], shape (n, n_features), from ``coef_`` of shape (n_outputs, n_features)."""

DELETED = (
    "compiled from this model and these settings, and deleted: CLOISTER_RETRAIN=true compiles it "
    "again"
)

log = logging.getLogger(__name__)


def publish_artifact(
    model: Version,
    artifacts: Registry,
    *,
    precision: Precision,
    publish_reference: bool,
    verification_samples: int,
    again: bool = False,
    calibrate: Calibrate = calibration.calibration_rows,
) -> Version:
    """Compile a published model and publish the artifact, unless it is there already.

    An artifact that was deleted is not made again unless that is asked for.

    Args:
        model: what is compiled; its files are verified first. The artifact has its name.
        artifacts: where the artifact goes.
        precision: bits of inputs and weights, and what may be lost by them.
        publish_reference: put the circuit in the clear beside the artifact.
        verification_samples: random inputs that go through real encryption, at least 1.
        again: whether an artifact of this model and these settings that was deleted is made again.
        calibrate: rows that set the range of the inputs and the width of the scores. Whatever they
            are, only a circuit that holds every score and proves right is published.

    Returns:
        The artifact that is now the current one: of this model, or one that was rolled back to
        or stays where this model's was deleted.

    Raises:
        CloisterError: the model is damaged or cannot be compiled, its artifact and all others of
            the name were deleted, its circuit predicts otherwise than the tolerance allows, or
            encrypted execution is not equal to clear execution; nothing is published.
    """
    model.verify()
    name = model.manifest.name
    card, weights = read_card(model.file(CARD)), LinearWeights.read(model.file(WEIGHTS))
    weights.check(card.data)
    precision = precision.of_model(card)
    model_digest = digest_json(model.manifest.files)
    libraries = {library: version(library) for library in LIBRARIES}
    inputs_digest = digest_json(
        {
            "model": model_digest,
            "precision": asdict(precision),
            "publish_reference": publish_reference,
            "verification_samples": verification_samples,
            "error_probability": ERROR_PROBABILITY,
            "libraries": libraries,
        }
    )
    in_use = adopt(artifacts, name, inputs_digest, again=again)
    if in_use:
        return in_use

    def write(folder: Path) -> dict[str, Any]:
        rows = calibrate(weights.coef)
        full = quantise_cheapest(card, weights, precision, rows)
        compiled = compile_model(card, drop_features(card, weights, full, rows), rows)
        agreement = measure_agreement(compiled.reference, synthetic_rows(weights.coef), card)
        check_tolerance(agreement, precision, full.bits)
        export(compiled.model, card, compiled.reference.features.tolist(), folder)
        form = payload_form(folder, len(compiled.reference.features))
        circuit = describe_circuit(folder, full.bits, card, form)
        check_range(compiled.reference, circuit)
        linear = _linear(compiled.reference, circuit)
        circuit = circuit.model_copy(update={"compact": choose_compact(linear, _noise_std(folder))})
        verification = _verify(folder, compiled, verification_samples)
        (folder / INPUT_TEMPLATE).write_bytes(form.template)
        (folder / EVALUATION_KEYS).write_bytes(form.evaluation_keys)
        linear.write(folder / LINEAR)
        if publish_reference:
            compiled.reference.write(folder / REFERENCE)
        return ArtifactDetails(
            model_version=model.manifest.version,
            model_digest=model_digest,
            client_digest=digest_file(folder / CLIENT_ZIP),
            circuit=circuit,
            verification=verification,
            agreement=agreement,
            floor_ms=floor_ms(circuit.n_features, circuit.n_outputs, circuit.lwe_dimension),
            libraries=libraries,
        ).model_dump(mode="json")

    log.info("compiling version %d of %s", model.manifest.version, name)
    artifact = artifacts.publish(name, inputs_digest, write)
    log.info("published version %d of %s", artifact.manifest.version, name)
    return artifact


def adopt(
    artifacts: Registry, name: str, inputs_digest: str, *, again: bool = False
) -> Version | None:
    """Put what is published from these inputs into use, unless it was rolled back from or deleted.

    Args:
        artifacts: where it is.
        name: of the artifact.
        inputs_digest: of what it was made from.
        again: whether one that was deleted is to be made again.

    Returns:
        The artifact in use; None where one is to be made from these inputs.

    Raises:
        CloisterError: the artifact to be used is damaged, or it was deleted and there is no other.
    """
    deleted = artifacts.deleted_from(name, inputs_digest)
    if deleted is not None:
        return None if again else artifacts.open_in_place_of(name, deleted, DELETED)
    published = artifacts.published_from(name, inputs_digest)
    if published is None:
        return None
    number = published.manifest.version
    log.info("version %d of %s is compiled already", number, name)
    in_use = artifacts.adopt(name, number)
    if in_use.manifest.version != number:
        log.info("version %d stays in use (rolled back from %d)", in_use.manifest.version, number)
    return in_use


def export(
    model: Any,
    card: ModelCard,
    features: Sequence[int],
    folder: Path,
    edges: Sequence[Floats] | None = None,
    base: Floats | None = None,
) -> None:
    """Write client.zip, with the card and the features in it, server.zip and the card.

    Args:
        model: a compiled concrete.ml.sklearn model.
        card: of the model.
        features: ascending indices of the card's features that the circuit takes.
        folder: where the files go.
        edges: of each of these features, where the circuit takes ranks among edges.
        base: of each output, what its scores are added to, where there is something.
    """
    # FHEModelDev insists on an empty folder of its own.
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        FHEModelDev(aside, model).save()
        for name in (CLIENT_ZIP, SERVER_ZIP):
            shutil.move(Path(aside) / name, folder / name)
    text = card.model_dump_json(indent=2)
    (folder / CARD).write_text(text)
    with zipfile.ZipFile(folder / CLIENT_ZIP, "a") as archive:
        archive.writestr(CARD, text)
        description: dict[str, Any] = {"features": list(features)}
        if edges is not None:
            description["edges"] = [one.tolist() for one in edges]
        if base is not None:
            description["base"] = base.tolist()
        if edges is not None or len(features) < card.data.n_inputs:
            archive.writestr(CIRCUIT, json.dumps(description))


def describe_circuit(folder: Path, bits: Bits, card: ModelCard, form: PayloadForm) -> Circuit:
    """Describe the circuit whose client.zip is in ``folder``."""
    encrypted_input, output = _gates(folder)
    return Circuit(
        n_features=int(np.prod(encrypted_input["abstractShape"]["dimensions"])),
        n_card_features=card.data.n_inputs,
        n_outputs=int(np.prod(output["abstractShape"]["dimensions"])),
        bits_inputs=bits.inputs,
        bits_weights=bits.weights,
        width=output["encoding"]["integer"]["width"],
        signed=output["encoding"]["integer"]["isSigned"],
        lwe_dimension=encrypted_input["encryption"]["lweDimension"],
        input_bytes=len(form.template),
        input_data_offset=form.data_offset,
        input_data_bytes=form.data_bytes,
        output_bytes=form.output_bytes,
    )


def _noise_std(folder: Path) -> float:
    """Return the standard deviation of inputs' noise, relative to 2^64."""
    encrypted_input, _ = _gates(folder)
    return math.sqrt(encrypted_input["encryption"]["variance"])


def _gates(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what client.zip says of the encrypted input and output."""
    with zipfile.ZipFile(folder / CLIENT_ZIP) as archive:
        specs = json.loads(archive.read("client.specs.json"))
    (circuit,) = specs["circuits"]
    encrypted_input, output = (
        circuit[side][0]["typeInfo"]["lweCiphertext"] for side in ("inputs", "outputs")
    )
    return encrypted_input, output


def _linear(reference: Reference, circuit: Circuit) -> LinearCircuit:
    return LinearCircuit(
        weights=reference.weights,
        bias=reference.bias,
        lwe_dimension=circuit.lwe_dimension,
        width=circuit.width,
    )


def _verify(folder: Path, compiled: CompiledModel, n_random: int) -> Verification:
    coef = compiled.reference.coef
    extreme = calibration.extreme_rows(coef)
    boundary = calibration.boundary_rows(coef.shape[1])
    random = calibration.random_rows(n_random, coef.shape[1])
    check_execution(folder, compiled.reference, np.vstack([extreme, boundary, random]))
    return Verification(extreme=len(extreme), boundary=len(boundary), random=len(random))
