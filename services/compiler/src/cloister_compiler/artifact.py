"""From a published model to a published artifact."""

import json
import logging
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from concrete.ml.deployment import FHEModelDev

from cloister_compiler import calibration
from cloister_compiler.circuit import CompiledModel, compile_model
from cloister_compiler.payload import PayloadForm, payload_form
from cloister_compiler.verification import check_execution, check_range
from cloister_shared.artifact import (
    CARD,
    CLIENT_ZIP,
    EVALUATION_KEYS,
    INPUT_TEMPLATE,
    REFERENCE,
    SERVER_ZIP,
    WEIGHTS,
    ArtifactDetails,
    Circuit,
    Verification,
)
from cloister_shared.card import ModelCard, read_card
from cloister_shared.digests import digest_file, digest_json
from cloister_shared.registry import Registry, Version
from cloister_shared.weights import LinearWeights

LIBRARIES = ("cloister-compiler", "concrete-ml", "concrete-python", "scikit-learn", "numpy")
"""What determines an artifact besides the model and the settings: another version of one of these,
and the model is compiled anew."""

Floats = npt.NDArray[np.float64]
Calibrate = Callable[[Floats], Floats]
"""Makes rows in [0, 1], shape (n, n_features), from ``coef_`` of shape (n_outputs, n_features)."""

log = logging.getLogger(__name__)


def publish_artifact(
    models: Registry,
    artifacts: Registry,
    name: str,
    *,
    bits: int,
    publish_reference: bool,
    verification_samples: int,
    calibrate: Calibrate = calibration.calibration_rows,
) -> Version:
    """Compile the current version of a model and publish the artifact, unless it is there already.

    Args:
        models: where the model is.
        artifacts: where the artifact goes.
        name: of the model, and of the artifact.
        bits: to which inputs and weights are quantised, 2 to 8.
        publish_reference: put the circuit in the clear beside the artifact.
        verification_samples: random inputs that go through real encryption, at least 1.
        calibrate: rows that set the range of the inputs and the width of the scores. Whatever they
            are, only a circuit that holds every score and proves right is published.

    Returns:
        The artifact, which is now the current one.

    Raises:
        CloisterError: there is no model, it cannot be compiled, or encrypted execution is not
            equal to clear execution; nothing is published.
    """
    model = models.open_current(name)
    model.verify()
    card, weights = read_card(model.file(CARD)), LinearWeights.read(model.file(WEIGHTS))
    weights.check(card.data)
    model_digest = digest_json(model.manifest.files)
    libraries = {library: version(library) for library in LIBRARIES}
    inputs_digest = digest_json(
        {
            "model": model_digest,
            "bits": bits,
            "publish_reference": publish_reference,
            "verification_samples": verification_samples,
            "libraries": libraries,
        }
    )
    published = artifacts.published_from(name, inputs_digest)
    if published:
        published.verify()
        artifacts.set_current(name, published.manifest.version)
        log.info("version %d of %s is compiled already", published.manifest.version, name)
        return published

    def write(folder: Path) -> dict[str, Any]:
        compiled = compile_model(card, weights, bits, calibrate(weights.coef))
        export(compiled.model, card, folder)
        form = payload_form(folder, card.data.n_features)
        circuit = describe_circuit(folder, bits, form)
        check_range(compiled.reference, circuit)
        verification = _verify(folder, compiled, verification_samples)
        (folder / INPUT_TEMPLATE).write_bytes(form.template)
        (folder / EVALUATION_KEYS).write_bytes(form.evaluation_keys)
        if publish_reference:
            compiled.reference.write(folder / REFERENCE)
        return ArtifactDetails(
            model_version=model.manifest.version,
            model_digest=model_digest,
            client_digest=digest_file(folder / CLIENT_ZIP),
            circuit=circuit,
            verification=verification,
            libraries=libraries,
        ).model_dump(mode="json")

    log.info("compiling version %d of %s", model.manifest.version, name)
    artifact = artifacts.publish(name, inputs_digest, write)
    log.info("published version %d of %s", artifact.manifest.version, name)
    return artifact


def export(model: Any, card: ModelCard, folder: Path) -> None:
    """Write client.zip, with the card in it, server.zip and the card.

    Args:
        model: a compiled concrete.ml.sklearn model.
        card: of the model.
        folder: where the files go.
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


def describe_circuit(folder: Path, bits: int, form: PayloadForm) -> Circuit:
    """Describe the circuit whose client.zip is in ``folder``."""
    with zipfile.ZipFile(folder / CLIENT_ZIP) as archive:
        specs = json.loads(archive.read("client.specs.json"))
    (circuit,) = specs["circuits"]
    encrypted_input, output = (
        circuit[side][0]["typeInfo"]["lweCiphertext"] for side in ("inputs", "outputs")
    )
    return Circuit(
        n_features=int(np.prod(encrypted_input["abstractShape"]["dimensions"])),
        n_outputs=int(np.prod(output["abstractShape"]["dimensions"])),
        bits_inputs=bits,
        bits_weights=bits,
        width=output["encoding"]["integer"]["width"],
        signed=output["encoding"]["integer"]["isSigned"],
        lwe_dimension=encrypted_input["encryption"]["lweDimension"],
        input_bytes=len(form.template),
        input_data_offset=form.data_offset,
        input_data_bytes=form.data_bytes,
        output_bytes=form.output_bytes,
    )


def _verify(folder: Path, compiled: CompiledModel, n_random: int) -> Verification:
    coef = compiled.reference.coef
    extreme = calibration.extreme_rows(coef)
    boundary = calibration.boundary_rows(coef.shape[1])
    random = calibration.random_rows(n_random, coef.shape[1])
    check_execution(folder, compiled.reference, np.vstack([extreme, boundary, random]))
    return Verification(extreme=len(extreme), boundary=len(boundary), random=len(random))
