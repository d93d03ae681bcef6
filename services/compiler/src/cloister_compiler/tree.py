"""From a fitted decision tree to a published artifact, whose circuit needs evaluation keys.

Trees are not federated: whoever fitted one hands it over with its card.
"""

import json
import logging
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from concrete.fhe import Configuration, EvaluationKeys, Value
from concrete.ml.sklearn import DecisionTreeClassifier as ConcreteTree
from sklearn.tree import DecisionTreeClassifier

from cloister_compiler.artifact import LIBRARIES, adopt, describe_circuit, export
from cloister_compiler.key_form import KeyForm, key_form
from cloister_compiler.payload import PayloadForm, input_form
from cloister_compiler.quantisation import Bits
from cloister_compiler.runtime import FHEModelClient, FHEModelServer
from cloister_shared import calibration
from cloister_shared.artifact import (
    CLIENT_ZIP,
    EVALUATION_KEY_FORM,
    INPUT_TEMPLATE,
    ArtifactDetails,
    Verification,
)
from cloister_shared.card import ModelCard
from cloister_shared.digests import digest_bytes, digest_file, digest_json
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry, Version

Floats = npt.NDArray[np.float64]

FRESH_SETS = 2
"""Sets of evaluation keys that are compared; each takes seconds to make."""

log = logging.getLogger(__name__)


def publish_tree(
    artifacts: Registry,
    card: ModelCard,
    fitted: DecisionTreeClassifier,
    *,
    bits: int,
    verification_samples: int,
    again: bool = False,
) -> Version:
    """Compile a fitted decision tree, prove it, and publish the artifact under the card's name.

    Args:
        artifacts: where the artifact goes.
        card: of the tree; its estimator must be DecisionTreeClassifier.
        fitted: on rows in [0, 1] with labels 0, 1, ..., the positions in the card's classes, each
            of which must have occurred.
        bits: to which inputs, thresholds and probabilities are quantised, 2 to 8.
        verification_samples: random inputs that go through real encryption, at least 1.
        again: whether an artifact of this tree and these settings that was deleted is made again.

    Returns:
        The artifact that is now the current one: of this tree, or one that was rolled back to.

    Raises:
        CloisterError: the tree is not one of this card, cannot be compiled, or encrypted execution
            is not equal to clear execution; nothing is published.
    """
    _check(card, fitted)
    model_digest = digest_json({"card": card.model_dump(mode="json"), "tree": _tree_digest(fitted)})
    libraries = {library: version(library) for library in LIBRARIES}
    inputs_digest = digest_json(
        {
            "model": model_digest,
            "bits": bits,
            "verification_samples": verification_samples,
            "libraries": libraries,
        }
    )
    in_use = adopt(artifacts, card.name, inputs_digest, again=again)
    if in_use:
        return in_use
    model = compile_tree(fitted, bits)

    def write(folder: Path) -> dict[str, Any]:
        export(model, card, range(card.data.n_inputs), folder)
        form, keys = _forms(folder, card.data.n_inputs)
        verification = _verify(folder, model, fitted, verification_samples)
        (folder / INPUT_TEMPLATE).write_bytes(form.template)
        (folder / EVALUATION_KEY_FORM).write_bytes(keys.fixed)
        circuit = describe_circuit(folder, Bits(bits, bits), card, form)
        return ArtifactDetails(
            model_version=None,
            model_digest=model_digest,
            client_digest=digest_file(folder / CLIENT_ZIP),
            circuit=circuit.model_copy(update={"evaluation_keys": keys.form}),
            verification=verification,
            libraries=libraries,
        ).model_dump(mode="json")

    artifact = artifacts.publish(card.name, inputs_digest, write)
    log.info("published version %d of %s", artifact.manifest.version, card.name)
    return artifact


def _check(card: ModelCard, fitted: DecisionTreeClassifier) -> None:
    if card.estimator != type(fitted).__name__:
        raise CloisterError(f"the card is of a {card.estimator}, not of a {type(fitted).__name__}")
    if fitted.n_features_in_ != card.data.n_inputs:
        raise CloisterError(
            f"the tree takes {fitted.n_features_in_} inputs, its card says {card.data.n_inputs}"
        )
    if not np.array_equal(fitted.classes_, np.arange(len(card.data.classes))):
        raise CloisterError(
            f"the tree must be fitted with the labels 0 to {len(card.data.classes) - 1}, each of "
            "which occurs: the positions in the card's classes"
        )


def _tree_digest(fitted: DecisionTreeClassifier) -> str:
    tree = fitted.tree_
    arrays = (tree.children_left, tree.children_right, tree.feature, tree.threshold, tree.value)
    return digest_bytes(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))


def compile_tree(fitted: DecisionTreeClassifier, bits: int) -> Any:
    """Quantise and compile a decision tree that was fitted on rows in [0, 1].

    Args:
        fitted: the tree.
        bits: to which inputs, thresholds and probabilities are quantised, 2 to 8.

    Returns:
        A compiled concrete.ml.sklearn.DecisionTreeClassifier.

    Raises:
        CloisterError: Concrete ML does not compile it.
    """
    # A feature's quantiser takes its range from these rows: with both bounds of every feature, all
    # are the same, and nothing of anyone's data is in them. A tree's comparisons cannot overflow.
    rows = np.vstack(
        [
            calibration.boundary_rows(fitted.n_features_in_),
            calibration.random_rows(32, fitted.n_features_in_),
        ]
    )
    try:
        model = ConcreteTree.from_sklearn_model(fitted, rows, n_bits=bits)
        # Otherwise Concrete writes what it knows of a model that fails to where it stands.
        model.compile(rows, Configuration(dump_artifacts_on_unexpected_failures=False))
    except Exception as error:
        raise CloisterError(
            f"Concrete ML cannot compile this decision tree at {bits} bits: {error}"
        ) from error
    return model


def _forms(folder: Path, n_features: int) -> tuple[PayloadForm, KeyForm]:
    zeros = np.zeros((1, n_features), dtype=np.int64)
    payloads, sets = [], []
    for _ in range(FRESH_SETS):
        client = FHEModelClient(str(folder))
        client.generate_private_and_evaluation_keys()
        payloads += [client.client.encrypt(zeros).serialize() for _ in range(2)]
        sets.append(client.get_serialized_evaluation_keys())
    template, offset, data_bytes = input_form(payloads, n_features)
    with zipfile.ZipFile(folder / CLIENT_ZIP) as archive:
        keyset = json.loads(archive.read("client.specs.json"))["keyset"]
    output = FHEModelServer(str(folder)).run(payloads[-1], sets[-1])
    return PayloadForm(template, offset, data_bytes, len(output), b""), key_form(sets, keyset)


def _leaf_rows(fitted: DecisionTreeClassifier, n_rows: int = 4096) -> Floats:
    """Return a row for every leaf that random rows reach."""
    rows = calibration.random_rows(n_rows, fitted.n_features_in_, seed=1)
    _, first = np.unique(fitted.apply(rows), return_index=True)
    return rows[first]


def _verify(
    folder: Path, model: Any, fitted: DecisionTreeClassifier, n_random: int
) -> Verification:
    """Run rows through real encryption and compare each with the clear quantised tree."""
    leaves = _leaf_rows(fitted)
    boundary = calibration.boundary_rows(fitted.n_features_in_)
    random = calibration.random_rows(n_random, fitted.n_features_in_)
    rows = np.vstack([leaves, boundary, random])
    client, server = FHEModelClient(str(folder)), FHEModelServer(str(folder))
    client.generate_private_and_evaluation_keys()
    # Read once: what Concrete computes from a set of keys takes longer than an evaluation.
    evaluation_keys = EvaluationKeys.deserialize(client.get_serialized_evaluation_keys())
    expected = model.predict_proba(rows, fhe="disable")
    wrong = 0
    for index, row in enumerate(rows):
        payload = Value.deserialize(client.quantize_encrypt_serialize(row[None, :]))
        try:
            result = server.server.run(payload, evaluation_keys=evaluation_keys).serialize()
            found = client.deserialize_decrypt_dequantize(result)
        except (RuntimeError, ValueError) as error:
            raise CloisterError(f"encrypted execution of input {index} failed: {error}") from error
        wrong += not np.array_equal(np.asarray(found).ravel(), expected[index])
        log.info("ran %d of %d inputs under real encryption", index + 1, len(rows))
    if wrong:
        raise CloisterError(
            f"{wrong} of {len(rows)} encrypted results differ from the clear ones: not published"
        )
    return Verification(extreme=len(leaves), boundary=len(boundary), random=len(random))
