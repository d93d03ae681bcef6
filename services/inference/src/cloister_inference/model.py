"""A published version, verified, compiled and ready to be evaluated."""

import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from cloister_inference.circuit import compile_circuit
from cloister_inference.evaluator import (
    Choice,
    Evaluator,
    EvaluatorSetting,
    choose_evaluator,
)
from cloister_inference.payload import PayloadForm
from cloister_shared.artifact import (
    CLIENT_ZIP,
    EVALUATION_KEYS,
    INPUT_TEMPLATE,
    LINEAR,
    REFERENCE,
    SERVER_ZIP,
    ArtifactDetails,
)
from cloister_shared.digests import digest_bytes
from cloister_shared.errors import CloisterError
from cloister_shared.linear import LinearCircuit
from cloister_shared.registry import Version


@dataclass(frozen=True)
class Download:
    """A file for key holders, in memory: what was verified is what is sent."""

    content: bytes
    digest: str
    """SHA-256 as hex."""


@dataclass(frozen=True)
class Model:
    """One version of one model."""

    name: str
    version: int
    details: ArtifactDetails
    client: Download
    reference: Download | None
    form: PayloadForm
    evaluation: Choice

    @property
    def circuit(self) -> Evaluator:
        """What evaluates this version."""
        return self.evaluation.evaluator


def load_model(published: Version, work_dir: Path, evaluator: EvaluatorSetting = "auto") -> Model:
    """Verify and compile a published version, and choose its evaluator.

    Args:
        published: an artifact.
        evaluator: which one is asked for.
        work_dir: gets a folder with the compiled library, which goes when nothing uses Concrete's
            run of the circuit any more.

    Raises:
        CloisterError: the artifact is damaged, or was not made for this service.
        OSError: it cannot be read, or the library cannot be written.
    """
    library_dir = Path(tempfile.mkdtemp(dir=work_dir))
    try:
        return _load(published, library_dir, evaluator)
    except BaseException:
        shutil.rmtree(library_dir, ignore_errors=True)
        raise


def _load(published: Version, library_dir: Path, evaluator: EvaluatorSetting) -> Model:
    published.verify()
    try:
        details = ArtifactDetails.model_validate(published.manifest.details)
    except ValidationError as error:
        raise CloisterError(f"the manifest is not an artifact's: {error}") from None
    files = published.manifest.files

    def read(name: str) -> Download:
        content = published.file(name).read_bytes()
        if digest_bytes(content) != files[name]:
            raise CloisterError(f"{name} changed while it was read")
        return Download(content, files[name])

    client, template = read(CLIENT_ZIP), read(INPUT_TEMPLATE).content
    if client.digest != details.client_digest:
        raise CloisterError("the manifest names two digests for client.zip")
    circuit = compile_circuit(
        read(SERVER_ZIP).content, client.content, read(EVALUATION_KEYS).content, library_dir
    )
    # An evaluation may outlast the model's place in the repository, and needs the library.
    weakref.finalize(circuit, shutil.rmtree, library_dir, ignore_errors=True)
    form = PayloadForm(template, details.circuit)
    _evaluate_once(circuit, template, details.circuit.output_bytes)
    linear = _linear(published, details) if LINEAR in files else None
    return Model(
        name=published.manifest.name,
        version=published.manifest.version,
        details=details,
        client=client,
        reference=read(REFERENCE) if REFERENCE in files else None,
        form=form,
        evaluation=choose_evaluator(
            evaluator, circuit, linear, details.circuit.input_data_offset, form.random
        ),
    )


def _linear(published: Version, details: ArtifactDetails) -> LinearCircuit:
    linear, circuit = LinearCircuit.read(published.file(LINEAR)), details.circuit
    stated = (circuit.n_features, circuit.n_outputs), circuit.lwe_dimension, circuit.width
    if (linear.weights.shape, linear.lwe_dimension, linear.width) != stated:
        raise CloisterError(f"{LINEAR} is of another circuit than the manifest's")
    return linear


def _evaluate_once(circuit: Evaluator, template: bytes, output_bytes: int) -> None:
    # Zeros are ciphertexts as good as any others, under a key that nobody has.
    try:
        length = len(circuit.evaluate(template))
    except (RuntimeError, ValueError) as error:
        raise CloisterError(f"the circuit cannot be evaluated: {error}") from None
    if length != output_bytes:
        raise CloisterError(
            f"the circuit's outputs have {length} bytes, the manifest says {output_bytes}"
        )
