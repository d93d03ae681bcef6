"""The published files, opened with Concrete ML's own client and server."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from concrete.ml.deployment import FHEModelClient, FHEModelServer

from cloister_shared.artifact import (
    CARD,
    CIRCUIT,
    CLIENT_ZIP,
    EVALUATION_KEYS,
    INPUT_TEMPLATE,
    LINEAR,
    REFERENCE,
    SERVER_ZIP,
    ArtifactDetails,
)
from cloister_shared.card import ModelCard, read_card
from cloister_shared.digests import digest_file
from cloister_shared.links import class_indices, probabilities
from cloister_shared.preprocessing import to_inputs
from cloister_shared.probes import PROBES
from cloister_shared.reference import Reference
from cloister_shared.registry import Registry, Version

NAMES = ("digits", "breast_cancer")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def artifact(name: str, request: pytest.FixtureRequest) -> Version:
    root: Path = request.getfixturevalue(f"{name}_artifacts")
    return Registry(root / "artifacts").open_current(name)


@pytest.fixture
def reference(artifact: Version) -> Reference:
    return Reference.read(artifact.file(REFERENCE))


@pytest.fixture
def client(artifact: Version) -> FHEModelClient:
    """The stock client with a fresh key."""
    opened = FHEModelClient(str(artifact.path))
    opened.generate_private_and_evaluation_keys()
    return opened


def test_it_holds_what_the_services_read_and_nothing_else(
    name: str, artifact: Version, reference: Reference
) -> None:
    artifact.verify()
    assert sorted(artifact.manifest.files) == sorted(
        [CLIENT_ZIP, SERVER_ZIP, CARD, REFERENCE, LINEAR, INPUT_TEMPLATE, EVALUATION_KEYS]
    )
    assert {path.name for path in artifact.path.iterdir()} == {
        *artifact.manifest.files,
        "manifest.json",
    }
    with zipfile.ZipFile(artifact.file(CLIENT_ZIP)) as archive:
        assert archive.testzip() is None
        assert ModelCard.model_validate_json(archive.read(CARD)) == read_card(artifact.file(CARD))
        listed = json.loads(archive.read(CIRCUIT)) if CIRCUIT in archive.namelist() else None
    # Where a circuit takes every feature, there is nothing to list.
    assert listed == ({"features": reference.features.tolist()} if name == "digits" else None)


def test_its_details_say_what_it_is_made_of(
    name: str, artifact: Version, reference: Reference
) -> None:
    details = ArtifactDetails.model_validate(artifact.manifest.details)
    circuit = details.circuit
    assert details.client_digest == digest_file(artifact.path / CLIENT_ZIP)
    assert details.model_version == 1
    assert details.verification.extreme == 2 * circuit.n_outputs
    assert (circuit.n_outputs, circuit.n_card_features) == reference.coef.shape
    assert (circuit.n_features, circuit.n_outputs) == reference.weights.shape
    assert (circuit.bits_inputs, circuit.bits_weights) == (8, 8)
    # Pixels at the edge of digits have no weight; every column of breast_cancer has one.
    assert (circuit.n_features < circuit.n_card_features) == (name == "digits")
    agreement = details.agreement
    assert agreement
    assert agreement.probes == PROBES
    assert agreement.share == agreement.differing / agreement.probes <= 0.02
    words = circuit.n_features * circuit.lwe_dimension
    assert details.floor_ms == pytest.approx(
        1000 * (8 * words / 24.7e9 + words * circuit.n_outputs / 20.6e9)
    )
    assert int(reference.input_high) - int(reference.input_low) + 1 == 2**circuit.bits_inputs
    assert circuit.signed == (reference.integer_bounds()[0].min() < 0)
    assert {"concrete-ml", "concrete-python", "cloister-compiler"} <= details.libraries.keys()


def test_stock_client_and_server_give_the_clear_result_on_random_rows(
    artifact: Version, reference: Reference, client: FHEModelClient
) -> None:
    server = FHEModelServer(str(artifact.path))
    keys = client.get_serialized_evaluation_keys()
    rows = np.random.default_rng(7).random((6, reference.coef.shape[1]))
    expected = reference.integer_scores(reference.quantise(rows))
    for row, scores in zip(rows[:, reference.features], expected, strict=True):
        result = server.run(client.quantize_encrypt_serialize(row[None, :]), keys)
        np.testing.assert_array_equal(client.deserialize_decrypt(result), scores[None, :])
        np.testing.assert_allclose(
            client.deserialize_decrypt_dequantize(result),
            probabilities(
                reference.dequantise(scores[None, :]), "logistic" if len(scores) == 1 else "softmax"
            ),
            rtol=1e-9,
        )


def test_the_quantiser_is_that_of_concrete_ml(reference: Reference, client: FHEModelClient) -> None:
    n_features = len(reference.features)
    step = float(reference.input_scale)
    rows = np.vstack(
        [
            np.random.default_rng(3).random((50, n_features)),
            # Half way between two levels, where rounding decides; and outside [0, 1].
            np.tile((np.arange(256)[:, None] + 0.5) * step, (1, n_features)),
            np.tile([[-1.0], [-1e-9], [1 + 1e-9], [2.0]], (1, n_features)),
        ]
    )
    np.testing.assert_array_equal(
        reference.quantiser.quantise(rows), client.model.quantize_input(rows)
    )


def test_quantisation_costs_little_accuracy(
    name: str, artifact: Version, reference: Reference, request: pytest.FixtureRequest
) -> None:
    features, labels = request.getfixturevalue(f"{name}_data")
    schema = read_card(artifact.file(CARD)).data
    unit, expected = to_inputs(features, schema), schema.class_indices(labels)
    quantised = reference.integer_scores(reference.quantise(unit))
    clear = np.mean(class_indices(reference.dequantise(quantised)) == expected)
    exact = np.mean(class_indices(reference.float_scores(unit)) == expected)
    assert exact > 0.9
    assert abs(clear - exact) < 0.01


def test_a_fresh_ciphertext_equals_the_template_outside_its_data(
    artifact: Version, client: FHEModelClient
) -> None:
    circuit = ArtifactDetails.model_validate(artifact.manifest.details).circuit
    template = np.frombuffer(artifact.file(INPUT_TEMPLATE).read_bytes(), dtype=np.uint8)
    rows = np.random.default_rng(5).random((3, circuit.n_features))
    payloads = [client.quantize_encrypt_serialize(row[None, :]) for row in rows]
    stacked = np.stack([np.frombuffer(payload, dtype=np.uint8) for payload in payloads])
    assert stacked.shape[1] == len(template) == circuit.input_bytes
    data = slice(circuit.input_data_offset, circuit.input_data_offset + circuit.input_data_bytes)
    outside = np.ones(len(template), dtype=bool)
    outside[data] = False
    np.testing.assert_array_equal(stacked[:, outside], np.tile(template[outside], (3, 1)))
    assert not template[data].any()
    # 16 random bytes and a body for each feature: nearly every byte differs between ciphertexts.
    assert (stacked[0, data] != stacked[1, data]).mean() > 0.9


def test_evaluation_keys_and_result_length_are_those_published(
    artifact: Version, client: FHEModelClient
) -> None:
    circuit = ArtifactDetails.model_validate(artifact.manifest.details).circuit
    keys = client.get_serialized_evaluation_keys()
    assert keys == artifact.file(EVALUATION_KEYS).read_bytes()
    payload = client.quantize_encrypt_serialize(np.zeros((1, circuit.n_features)))
    assert len(FHEModelServer(str(artifact.path)).run(payload, keys)) == circuit.output_bytes


def test_its_circuit_is_in_its_client_specs(artifact: Version) -> None:
    circuit = ArtifactDetails.model_validate(artifact.manifest.details).circuit
    with zipfile.ZipFile(artifact.file(CLIENT_ZIP)) as archive:
        specs: dict[str, Any] = json.loads(archive.read("client.specs.json"))
    (secret_key,) = specs["keyset"]["lweSecretKeys"]
    assert secret_key["params"]["lweDimension"] == circuit.lwe_dimension
    output = specs["circuits"][0]["outputs"][0]["typeInfo"]["lweCiphertext"]
    assert output["encoding"]["integer"]["width"] == circuit.width
    assert specs["keyset"]["lweBootstrapKeys"] == []
