"""What comes back decrypts to what the model computes in the clear."""

import asyncio
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from cloister_inference.forms import Form, Forms
from cloister_inference.observability.metrics import Metrics
from cloister_inference.options import Options
from cloister_inference.serving.data_plane import DataPlane
from cloister_inference.serving.scheduler import Scheduler
from cloister_shared.datasets import schema
from cloister_shared.links import class_indices
from cloister_shared.open_inference import encode_elements
from cloister_shared.preprocessing import to_inputs


def test_digits_equal_the_clear_reference(
    service: TestClient,
    digits: Any,
    protocol: Any,
    digits_data: Any,
    digits_rows: np.ndarray[Any, Any],
) -> None:
    labels = []
    for row in digits_rows[:12]:
        response = protocol.raw(service, "digits", digits.encrypt(row), digits.digest)
        assert response.status_code == 200
        scores = digits.decrypt(response.content)
        assert scores == digits.expected(row)
        labels.append(class_indices(digits.reference.dequantise(np.array([scores])))[0])
    # The model is right on nearly all of its own training rows.
    assert np.mean(np.array(labels) == digits_data[1][:12]) >= 0.9


def test_two_classes_have_one_score(
    service: TestClient, breast_cancer: Any, protocol: Any, breast_cancer_data: Any
) -> None:
    for row in to_inputs(breast_cancer_data[0][:6], schema("breast_cancer")):
        response = protocol.raw(
            service, "breast_cancer", breast_cancer.encrypt(row), breast_cancer.digest
        )
        scores = breast_cancer.decrypt(response.content)
        assert len(scores) == 1
        assert scores == breast_cancer.expected(row)


def test_a_raw_answer_is_the_result_alone(
    service: TestClient, digits: Any, protocol: Any, digits_payload: bytes
) -> None:
    response = protocol.raw(service, "digits", digits_payload, digits.digest)
    assert response.headers["content-type"] == "application/octet-stream"
    assert "inference-header-content-length" not in response.headers
    metadata = service.get("/v2/models/digits").json()["parameters"]
    assert len(response.content) == metadata["output_bytes"]
    assert response.headers["cloister-model-version"] == "1"
    name, _, duration = response.headers["server-timing"].partition(";dur=")
    assert name == "evaluate"
    assert float(duration) > 0


def test_a_batch_keeps_its_order(
    service: TestClient, digits: Any, protocol: Any, digits_rows: np.ndarray[Any, Any]
) -> None:
    rows = digits_rows[20:24]
    elements = [digits.encrypt(row) for row in rows]
    header = protocol.header(elements, parameters={"client_digest": digits.digest})
    response = protocol.framed(service, "digits", header, encode_elements(elements))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/octet-stream"
    answer, results = protocol.unframe(response)
    assert [digits.decrypt(result) for result in results] == [digits.expected(r) for r in rows]
    assert answer["model_name"] == "digits"
    assert answer["model_version"] == "1"
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("result", "BYTES", [4])
    assert "server-timing" in response.headers


@pytest.mark.parametrize("request_id", ["42", "", "ключ \U0001f511", 'quoted "id"'])
def test_the_request_id_comes_back(
    service: TestClient, digits: Any, protocol: Any, digits_payload: bytes, request_id: str
) -> None:
    elements = [digits_payload]
    header = protocol.header(elements, id=request_id, parameters={"client_digest": digits.digest})
    response = protocol.framed(service, "digits", header, encode_elements(elements))
    answer, _ = protocol.unframe(response)
    assert answer["id"] == request_id


def test_without_a_request_id_none_comes_back(
    service: TestClient, protocol: Any, digits_payload: bytes
) -> None:
    elements = [digits_payload]
    response = protocol.framed(
        service, "digits/versions/1", protocol.header(elements), encode_elements(elements)
    )
    assert "id" not in protocol.unframe(response)[0]


def test_other_clients_of_the_protocol_are_understood(
    service: TestClient, protocol: Any, digits_payload: bytes
) -> None:
    """Triton's client states an empty id, parameters of its own, and no content type."""
    elements = [digits_payload]
    header = protocol.header(
        elements, id="", parameters={"priority": 1, "binary_data_output": True}
    )
    del header["outputs"]
    response = protocol.framed(service, "digits/versions/1", header, encode_elements(elements))
    assert response.status_code == 200


def test_an_evaluation_stops_at_the_first_malformed_element() -> None:
    """Nothing of a batch is evaluated when any element is not of the form."""

    class Circuit:
        name = "fake"

    class Model:
        name, version, circuit = "fake", 1, Circuit()
        evaluated: list[bytes] = []  # noqa: RUF012 - one instance, one test

        def check(self, payload: bytes, index: int, _form: Form) -> None:
            if payload == b"bad":
                raise ValueError(index)

        def evaluate(self, payload: bytes, _forms: Forms) -> bytes:
            self.evaluated.append(payload)
            return payload

    metrics = Metrics()
    with Scheduler(1, 4, metrics) as scheduler:
        options = Options(threads=1, max_batch=4)
        plane = DataPlane(None, scheduler, options, metrics)  # type: ignore[arg-type] # not used
        with pytest.raises(ValueError, match="1"):
            asyncio.run(plane.evaluate(Model(), [b"good", b"bad"]))  # type: ignore[arg-type]
        assert not Model.evaluated
        evaluation = asyncio.run(plane.evaluate(Model(), [b"a", b"b"]))  # type: ignore[arg-type]
    assert evaluation.results == [b"a", b"b"]
