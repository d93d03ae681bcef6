"""A published version, verified, compiled and ready to be evaluated."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from cloister_inference.circuit import EncryptedCircuit, compile_circuit
from cloister_inference.key_form import KeyForm
from cloister_inference.payload import PayloadForm
from cloister_shared.artifact import (
    CLIENT_ZIP,
    EVALUATION_KEY_FORM,
    EVALUATION_KEYS,
    INPUT_TEMPLATE,
    REFERENCE,
    SERVER_ZIP,
    ArtifactDetails,
)
from cloister_shared.digests import digest_bytes
from cloister_shared.errors import CloisterError
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
    circuit: EncryptedCircuit
    keyed: KeyedCircuit | None = None
    """Where the circuit needs evaluation keys: it has none yet."""


def load_model(published: Version, work_dir: Path) -> Model:
    """Verify and compile a published version, and evaluate it once where that needs no keys.

    Args:
        published: an artifact.
        work_dir: gets a folder with the compiled library, which must stay while the model is in
            use.

    Raises:
        CloisterError: the artifact is damaged, or was not made for this service.
        OSError: it cannot be read, or the library cannot be written.
    """
    library_dir = Path(tempfile.mkdtemp(dir=work_dir))
    try:
        return _load(published, library_dir)
    except BaseException:
        shutil.rmtree(library_dir)
        raise


def _load(published: Version, library_dir: Path) -> Model:
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
    keyed = (
        KeyedCircuit(KeyForm(keys, read(EVALUATION_KEY_FORM).content), library_dir, template)
        if keys
        else None
    )
    circuit = compile_circuit(
        read(SERVER_ZIP).content,
        client.content,
        None if keyed else read(EVALUATION_KEYS).content,
        library_dir,
    )
    form = PayloadForm(template, details.circuit)
    if keyed is None:
        _evaluate_once(circuit, template, details.circuit.output_bytes)
    return Model(
        name=published.manifest.name,
        version=published.manifest.version,
        details=details,
        client=client,
        reference=read(REFERENCE) if REFERENCE in files else None,
        form=form,
        circuit=circuit,
        keyed=keyed,
    )


def _evaluate_once(circuit: EncryptedCircuit, template: bytes, output_bytes: int) -> None:
    # Zeros are ciphertexts as good as any others, under a key that nobody has.
    try:
        length = len(circuit.evaluate(template))
    except (RuntimeError, ValueError) as error:
        raise CloisterError(f"the circuit cannot be evaluated: {error}") from None
    if length != output_bytes:
        raise CloisterError(
            f"the circuit's outputs have {length} bytes, the manifest says {output_bytes}"
        )
