"""Stock Concrete ML on either side of the wire: its client with our service, its server with our
key holder's ciphertexts."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from test_inference_process import Process

from cloister_keyholder import EncryptedModel
from cloister_shared.datasets import DatasetName, schema
from cloister_shared.links import class_indices
from cloister_shared.preprocessing import to_inputs
from cloister_shared.reference import Reference

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
NAMES: tuple[DatasetName, ...] = ("digits", "breast_cancer")
N_ROWS = 4


@pytest.fixture(scope="module")
def process(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    started = Process(artifacts, tmp_path_factory.mktemp("process"))
    yield started
    started.end()


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> DatasetName:
    chosen: DatasetName = request.param
    return chosen


@pytest.fixture
def data(name: DatasetName, digits_data: Data, breast_cancer_data: Data) -> Data:
    features, labels = {"digits": digits_data, "breast_cancer": breast_cancer_data}[name]
    return features[:N_ROWS], labels[:N_ROWS]


@pytest.fixture
def stock_client(process: Process, name: DatasetName, tmp_path: Path) -> Any:
    """Concrete ML's client, from what the service offers for download."""
    from concrete.ml.deployment import FHEModelClient  # noqa: PLC0415 - takes seconds

    archive = httpx.get(f"{process.url}/v2/models/{name}/versions/1/client").raise_for_status()
    (tmp_path / "client.zip").write_bytes(archive.content)
    return FHEModelClient(str(tmp_path), key_dir=str(tmp_path / "keys"))


def test_a_stock_client_is_served(
    process: Process, artifacts: Path, name: DatasetName, data: Data, stock_client: Any
) -> None:
    reference = Reference.read(artifacts / name / "1" / "reference.npz")
    description, (features, labels) = schema(name), data
    found = []
    # It takes rows of the circuit's features, as circuit.json lists them.
    for row in to_inputs(features, description)[:, reference.features]:
        answer = httpx.post(
            f"{process.url}/v2/models/{name}/versions/1/infer",
            content=stock_client.quantize_encrypt_serialize(row[None, :]),
            headers={"Content-Type": "application/octet-stream"},
            timeout=60,
        ).raise_for_status()
        integers = np.asarray(stock_client.deserialize_decrypt(answer.content))
        expected = reference.integer_scores(reference.quantiser.quantise(row[None, :]))
        np.testing.assert_array_equal(integers, expected)
        # Concrete ML's own way to the end: scores of either class, or of all.
        scores = np.asarray(stock_client.deserialize_decrypt_dequantize(answer.content))
        found.append(np.ravel(scores))
    predicted = class_indices(np.array(found))
    # All are rows that the model was fitted to.
    np.testing.assert_array_equal(predicted, description.class_indices(labels))


def test_a_stock_server_evaluates_our_ciphertexts(
    process: Process,
    artifacts: Path,
    name: DatasetName,
    data: Data,
    stock_client: Any,
    tmp_path: Path,
) -> None:
    from concrete.ml.deployment import FHEModelServer  # noqa: PLC0415 - takes seconds

    served = artifacts / name / "1"
    folder = tmp_path / "server"
    folder.mkdir()
    shutil.copy(served / "server.zip", folder)
    server = FHEModelServer(str(folder))
    stock_client.generate_private_and_evaluation_keys()
    evaluation_keys = stock_client.get_serialized_evaluation_keys()
    # What the service evaluates with is what a stock client sends.
    assert (served / "evaluation_keys.bin").read_bytes() == evaluation_keys
    with EncryptedModel(process.url, name) as model:
        reference = model.reference()
        assert reference is not None
        for quantised in model.quantise(data[0]):
            query = model.encrypt(quantised)
            result = server.run(query.ciphertext, evaluation_keys)
            expected = reference.integer_scores(quantised[None, :])[0]
            np.testing.assert_array_equal(query.decrypt(result), expected)
