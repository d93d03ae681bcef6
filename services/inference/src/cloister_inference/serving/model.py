"""A published version, verified, compiled and ready to be evaluated."""

import shutil
import tempfile
import weakref
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from cloister_inference.evaluation.circuit import EncryptedCircuit, compile_circuit
from cloister_inference.evaluation.compact import CompactCircuit, compact_circuit
from cloister_inference.evaluation.evaluator import (
    Choice,
    Evaluator,
    EvaluatorSetting,
    choose_evaluator,
    keyed_evaluator,
)
from cloister_inference.evaluation.key_form import KeyForm
from cloister_inference.evaluation.payload import PayloadForm
from cloister_inference.forms import Form, Forms
from cloister_shared.artifact import (
    CLIENT_ZIP,
    EVALUATION_KEY_FORM,
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
class KeyedCircuit:
    """What is needed to take evaluation keys in, of a circuit that needs them."""

    form: KeyForm
    circuit: EncryptedCircuit
    """Without keys."""
    library_dir: Path
    """Where the compiled library is, which others may open."""
    input_template: bytes
    """An input to evaluate."""


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
    compact: CompactCircuit | None = None
    """Evaluates compact messages, where they are taken."""
    keyed: KeyedCircuit | None = None
    """Where the circuit needs evaluation keys: until ``with_evaluator`` it has none."""

    @property
    def circuit(self) -> Evaluator:
        """What evaluates this version."""
        return self.evaluation.evaluator

    def check(self, payload: bytes, index: int, form: Form) -> None:
        """Raise unless ``payload`` is an input of this version.

        Args:
            payload: from anywhere.
            index: its place in the batch, for the message.
            form: of the input.

        Raises:
            MalformedRequestError: it has another length, or other fixed bytes.
        """
        if form == Form.COMPACT and self.compact:
            self.compact.check(payload, index)
        else:
            self.form.check(payload, index)

    def evaluate(self, payload: bytes, forms: Forms) -> bytes:
        """Evaluate one checked input; return its result.

        Args:
            payload: in the form of ``forms.input``.
            forms: which this version takes.
        """
        if forms.are_concretes or self.compact is None:
            return self.circuit.evaluate(payload)
        return self.compact.evaluate(payload, forms)

    def with_evaluator(self, evaluator: Evaluator) -> "Model":
        """Return the same version, evaluated by another evaluator."""
        return replace(self, evaluation=replace(self.evaluation, evaluator=evaluator))


def load_model(published: Version, work_dir: Path, evaluator: EvaluatorSetting = "auto") -> Model:
    """Verify and compile a published version, and choose its evaluator.

    It is evaluated once where that needs no keys.

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
    keys = details.circuit.evaluation_keys
    circuit = compile_circuit(
        read(SERVER_ZIP).content,
        client.content,
        None if keys else read(EVALUATION_KEYS).content,
        library_dir,
    )
    # An evaluation may outlast the model's place in the repository, and needs the library.
    weakref.finalize(circuit, shutil.rmtree, library_dir, ignore_errors=True)
    form = PayloadForm(template, details.circuit)
    keyed = None
    if keys:
        key_form = KeyForm(keys, read(EVALUATION_KEY_FORM).content)
        keyed = KeyedCircuit(key_form, circuit, library_dir, template)
    else:
        _evaluate_once(circuit, template, details.circuit.output_bytes)
    evaluation = _choose(evaluator, published, details, circuit, form)
    return Model(
        name=published.manifest.name,
        version=published.manifest.version,
        details=details,
        client=client,
        reference=read(REFERENCE) if REFERENCE in files else None,
        form=form,
        evaluation=evaluation,
        compact=compact_circuit(evaluation.evaluator, details.circuit),
        keyed=keyed,
    )


def _choose(
    setting: EvaluatorSetting,
    published: Version,
    details: ArtifactDetails,
    circuit: EncryptedCircuit,
    form: PayloadForm,
) -> Choice:
    if details.circuit.evaluation_keys:
        return keyed_evaluator(setting, circuit)
    linear = _linear(published, details) if LINEAR in published.manifest.files else None
    return choose_evaluator(
        setting, circuit, linear, details.circuit.input_data_offset, form.random
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
