"""From trees to a published artifact, whose circuit needs evaluation keys."""

import json
import logging
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from concrete.fhe import Configuration, EvaluationKeys, Value
from concrete.ml.quantization import QuantizedArray
from concrete.ml.sklearn.tree_to_numpy import tree_to_numpy

from cloister_compiler.artifact import LIBRARIES, adopt, describe_circuit, export
from cloister_compiler.key_form import KeyForm, key_form
from cloister_compiler.payload import PayloadForm, input_form
from cloister_compiler.quantisation import Bits
from cloister_compiler.rebuilding import rebuilt
from cloister_compiler.runtime import FHEModelClient, FHEModelServer
from cloister_compiler.selection import AUTO_BITS, DEFAULT_BITS, Precision, check_tolerance
from cloister_compiler.tree_circuit import reference_of
from cloister_compiler.tree_rows import (
    calibration_rows,
    leaf_ranks,
    random_ranks,
    synthetic_rows,
)
from cloister_shared.artifact import (
    CARD,
    CLIENT_ZIP,
    EVALUATION_KEY_FORM,
    INPUT_TEMPLATE,
    REFERENCE,
    TREES,
    Agreement,
    ArtifactDetails,
    Verification,
)
from cloister_shared.boosting import trees_of
from cloister_shared.card import ModelCard, read_card
from cloister_shared.digests import digest_bytes, digest_file, digest_json
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import LARGEST_LEAVES, estimator
from cloister_shared.links import class_indices, link, values
from cloister_shared.probes import REGRESSION_MARGIN
from cloister_shared.registry import Registry, Version
from cloister_shared.tree_reference import TreeReference
from cloister_shared.trees import Ranked, Trees, ranks

Floats = npt.NDArray[np.float64]

FRESH_SETS = 2
"""Sets of evaluation keys that are compared; each takes seconds to make."""

log = logging.getLogger(__name__)


def publish_trees(
    model: Version,
    artifacts: Registry,
    *,
    precision: Precision,
    publish_reference: bool,
    verification_samples: int,
    again: bool = False,
) -> Version:
    """Compile published trees and publish the artifact under the same name.

    Args:
        model: what is compiled; its files are verified first.
        artifacts: where the artifact goes.
        precision: bits of the leaves' values, as weights, and what may be lost by them; inputs
            become ranks among thresholds, which loses nothing.
        publish_reference: put the circuit in the clear beside the artifact.
        verification_samples: random inputs that go through real encryption, at least 1.
        again: whether an artifact of this model and these settings that was deleted is made again.

    Returns:
        The artifact that is now the current one: of this model, or one that was rolled back to.

    Raises:
        CloisterError: the model is damaged, too large to be served or cannot be compiled, its
            circuit predicts otherwise than the tolerance allows, or encrypted execution is not
            equal to clear execution; nothing is published.
    """
    model.verify()
    card, trees = read_card(model.file(CARD)), Trees.read(model.file(TREES))
    return _publish(
        artifacts,
        card,
        trees,
        precision=precision,
        publish_reference=publish_reference,
        verification_samples=verification_samples,
        model_version=model.manifest.version,
        model_digest=digest_json(model.manifest.files),
        again=again,
    )


def publish_tree(
    artifacts: Registry,
    card: ModelCard,
    fitted: Any,
    *,
    bits: int,
    publish_reference: bool,
    verification_samples: int,
    again: bool = False,
) -> Version:
    """Compile trees that no registry holds, and publish them under the card's name.

    Args:
        artifacts: where the artifact goes.
        card: of the model; its estimator must be the fitted one's class.
        fitted: an estimator of scikit-learn or XGBoost, fitted on rows in [0, 1] with labels 0, 1,
            ..., the positions in the card's classes, each of which must have occurred.
        bits: to which the leaves' values are quantised, 2 to 8.
        publish_reference: put the circuit in the clear beside the artifact.
        verification_samples: random inputs that go through real encryption, at least 1.
        again: whether an artifact of this tree and these settings that was deleted is made again.

    Returns:
        The artifact that is now the current one: of this tree, or one that was rolled back to.

    Raises:
        CloisterError: the tree is not one of this card, cannot be compiled, or encrypted execution
            is not equal to clear execution; nothing is published.
    """
    _check_fitted(card, fitted)
    trees = trees_of(fitted)
    arrays = trees.arrays().values()
    content = digest_bytes(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))
    return _publish(
        artifacts,
        card,
        trees,
        # Whoever hands a model over by itself has compared it by itself.
        precision=Precision(bits, bits, tolerance=1.0),
        publish_reference=publish_reference,
        verification_samples=verification_samples,
        model_version=None,
        model_digest=digest_json({"card": card.model_dump(mode="json"), "tree": content}),
        again=again,
    )


def _check_fitted(card: ModelCard, fitted: Any) -> None:
    if card.estimator != type(fitted).__name__:
        raise CloisterError(f"the card is of a {card.estimator}, not of a {type(fitted).__name__}")
    if fitted.n_features_in_ != card.data.n_inputs:
        raise CloisterError(
            f"the tree takes {fitted.n_features_in_} features, its card says {card.data.n_inputs}"
        )
    if card.data.classes and not np.array_equal(fitted.classes_, np.arange(len(card.data.classes))):
        raise CloisterError(
            f"the tree must be fitted with the labels 0 to {len(card.data.classes) - 1}, each of "
            "which occurs: the positions in the card's classes"
        )


def _publish(  # noqa: PLR0913 - what its callers are told
    artifacts: Registry,
    card: ModelCard,
    trees: Trees,
    *,
    precision: Precision,
    publish_reference: bool,
    verification_samples: int,
    model_version: int | None,
    model_digest: str,
    again: bool,
) -> Version:
    trees.check(card.data)
    _check_size(card, trees)
    choices = _choices(card, precision)
    libraries = {library: version(library) for library in LIBRARIES}
    inputs_digest = digest_json(
        {
            "model": model_digest,
            "precision": asdict(precision),
            "choices": choices,
            "publish_reference": publish_reference,
            "verification_samples": verification_samples,
            "libraries": libraries,
        }
    )
    in_use = adopt(artifacts, card.name, inputs_digest, again=again)
    if in_use:
        return in_use

    def write(folder: Path) -> dict[str, Any]:
        ranked = trees.ranked()
        bits, agreement = _choose(card, trees, ranked, choices, precision)
        model = compile_trees(card, ranked, bits)
        reference = reference_of(model, trees, verification_samples)
        export(model, card, ranked.features.tolist(), folder, ranked.edges, trees.base)
        form, keys = _forms(folder, len(ranked.features))
        verification = _verify(folder, reference, verification_samples)
        (folder / INPUT_TEMPLATE).write_bytes(form.template)
        (folder / EVALUATION_KEY_FORM).write_bytes(keys.fixed)
        if publish_reference:
            reference.write(folder / REFERENCE)
        circuit = describe_circuit(folder, Bits(ranked.bits, bits), card, form)
        return ArtifactDetails(
            model_version=model_version,
            model_digest=model_digest,
            client_digest=digest_file(folder / CLIENT_ZIP),
            circuit=circuit.model_copy(update={"evaluation_keys": keys.form}),
            verification=verification,
            agreement=agreement,
            libraries=libraries,
        ).model_dump(mode="json")

    artifact = artifacts.publish(card.name, inputs_digest, write)
    log.info("published version %d of %s", artifact.manifest.version, card.name)
    return artifact


def _check_size(card: ModelCard, trees: Trees) -> None:
    """Refuse what takes too long to serve, whatever its card says."""
    largest = estimator(card.estimator).largest
    for parameter, counted, found, most in (
        ("max_depth", "comparisons one after another", trees.depth, largest.get("max_depth", 0)),
        ("n_estimators", "trees", trees.n_rounds, largest.get("n_estimators", 1)),
        ("max_leaf_nodes", "leaves", trees.n_leaves, LARGEST_LEAVES),
    ):
        if found > most:
            raise CloisterError(
                f"{card.name} takes too long under encryption: it has {found} {counted}, and "
                f"{most} can be served; train it with a smaller {parameter}"
            )


def _choices(card: ModelCard, precision: Precision) -> list[int]:
    """Return the bits of the leaves' values to choose from, the fewest first.

    Those of inputs are what the thresholds need, whatever is set.
    """
    bits = precision.weights or card.bits or DEFAULT_BITS
    return list(AUTO_BITS) if bits == "auto" else [bits]


def _choose(
    card: ModelCard, trees: Trees, ranked: Ranked, choices: list[int], precision: Precision
) -> tuple[int, Agreement]:
    """Return the fewest bits within the tolerance, and how far they agree with the float model."""
    rows = synthetic_rows(trees, card.data.n_inputs)
    exact = trees.scores(rows)
    inputs = ranks(rows[:, ranked.features], ranked.edges).astype(np.float64)
    for bits in choices:
        found = in_the_clear(quantise_trees(card, ranked, bits), trees)(inputs)
        agreement = _agreement(card, found, exact)
        log.info("%d bits: %.2f %% of synthetic rows differ", bits, 100 * agreement.share)
        if agreement.share <= precision.tolerance:
            break
    check_tolerance(agreement, precision, Bits(ranked.bits, bits))
    return bits, agreement


def _agreement(card: ModelCard, found: Floats, exact: Floats) -> Agreement:
    if card.data.target is None:
        others = class_indices(found) != class_indices(exact)
    else:
        meaning = link(card.estimator, card.parameters, len(card.data.classes))
        missed = np.abs(values(found, meaning) - values(exact, meaning))
        others = missed > REGRESSION_MARGIN * card.data.target.width
    differing = int(others.sum())
    return Agreement(probes=len(found), differing=differing, share=differing / len(found))


def in_the_clear(model: Any, trees: Trees) -> Callable[[Floats], Floats]:
    """Return what a quantised model answers to ranks in the clear: scores, as of ``trees``."""

    def answer(rows: Floats) -> Floats:
        each = model.dequantize_output(model._inference(rows.astype(np.int64)))  # noqa: SLF001
        scores: Floats = each.sum(axis=-1)
        return scores if trees.base is None else scores + trees.base

    return answer


def quantise_trees(card: ModelCard, ranked: Ranked, bits: int) -> Any:
    """Return a model of concrete.ml.sklearn that takes ranks and answers in the clear.

    Args:
        card: names the estimator and its parameters.
        ranked: trees that are checked.
        bits: to which the leaves' values are quantised.

    Raises:
        CloisterError: Concrete ML does not take it.
    """
    module, name = estimator(card.estimator).concrete_class.rsplit(".", 1)
    fitted = rebuilt(card, ranked.trees, len(ranked.features))
    # What boosted trees were grown with is nothing to their circuit, and newer than Concrete ML.
    parameters = {} if ranked.trees.base is not None else card.parameters
    try:
        model = getattr(import_module(module), name)(n_bits=ranked.bits, **parameters)
        # As its own ``fit`` does for a tree over integers. The public ways would put ranks on a
        # grid again, and give leaves no more bits than inputs.
        inputs = QuantizedArray(n_bits=ranked.bits, values=np.array([0.0, 2**ranked.bits - 1]))
        model.input_quantizers = [inputs.quantizer] * len(ranked.features)
        model.sklearn_model = fitted
        model._set_post_processing_params()  # noqa: SLF001
        model._tree_inference, model.output_quantizers, model.onnx_model_ = tree_to_numpy(  # noqa: SLF001
            fitted, calibration_rows(ranked), framework="sklearn", output_n_bits=bits
        )
        model._is_fitted = True  # noqa: SLF001
        if ranked.trees.n_outputs > 1 and ranked.trees.base is not None:
            model._tree_inference = _by_output(model._tree_inference, ranked.trees)  # noqa: SLF001
    except Exception as error:
        raise _not_compiled(card, bits, error) from error
    return model


def _by_output(answer: Callable[[Any], tuple[Any]], trees: Trees) -> Callable[[Any], tuple[Any]]:
    """Return a circuit that tells trees by their outputs: of shape (n, n_outputs, n_rounds).

    Args:
        answer: of shape (n, 1, n_trees).
        trees: boosted.
    """

    def sorted_(inputs: Any) -> tuple[Any]:
        (each,) = answer(inputs)
        shape = (each.shape[0], trees.n_rounds, trees.n_outputs)
        return (np.transpose(np.reshape(each, shape), (0, 2, 1)),)

    return sorted_


def compile_trees(card: ModelCard, ranked: Ranked, bits: int) -> Any:
    """Quantise and compile; arguments and errors as of ``quantise_trees``."""
    model = quantise_trees(card, ranked, bits)
    try:
        # Otherwise Concrete writes what it knows of a model that fails to where it stands.
        model.compile(
            calibration_rows(ranked), Configuration(dump_artifacts_on_unexpected_failures=False)
        )
    except Exception as error:
        raise _not_compiled(card, bits, error) from error
    return model


def _not_compiled(card: ModelCard, bits: int, error: Exception) -> CloisterError:
    return CloisterError(
        f"Concrete ML cannot compile this {card.estimator} at {bits} bits: {error}"
    )


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


def _verify(folder: Path, reference: TreeReference, n_random: int) -> Verification:
    """Run ranks through real encryption and compare each result with the reference, bit by bit."""
    ranked = reference.ranked
    leaves, bounds = leaf_ranks(ranked), calibration_rows(ranked)[:2]
    random = random_ranks(ranked, n_random)
    rows = np.vstack([leaves, bounds, random])
    client, server = FHEModelClient(str(folder)), FHEModelServer(str(folder))
    client.generate_private_and_evaluation_keys()
    # Read once: what Concrete computes from a set of keys takes longer than an evaluation.
    evaluation_keys = EvaluationKeys.deserialize(client.get_serialized_evaluation_keys())
    expected = reference.integer_scores(rows.astype(np.int64))
    wrong = 0
    for index, row in enumerate(rows):
        payload = Value.deserialize(client.quantize_encrypt_serialize(row[None, :]))
        try:
            result = server.server.run(payload, evaluation_keys=evaluation_keys).serialize()
            found = np.ravel(client.deserialize_decrypt(result))
        except (RuntimeError, ValueError) as error:
            raise CloisterError(f"encrypted execution of input {index} failed: {error}") from error
        wrong += not np.array_equal(found, expected[index])
        log.info("ran %d of %d inputs under real encryption", index + 1, len(rows))
    if wrong:
        raise CloisterError(
            f"{wrong} of {len(rows)} encrypted results differ from the clear ones: not published"
        )
    return Verification(extreme=len(leaves), boundary=len(bounds), random=len(random))
