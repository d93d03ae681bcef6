"""``keyholder serve``: what programs and pages of the same machine are answered."""

import base64
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fake_service import FakeService, problem, rezip
from fastapi.testclient import TestClient

from cloister_inference.app import create_app as create_inference
from cloister_inference.options import KeyOptions, Options
from cloister_keyholder import EncryptedModel, KeyFolder
from cloister_keyholder.service.api import Description, InferenceService
from cloister_keyholder.service.transport import Transport
from cloister_keyholder.serving.app import PREDICTIONS, create_app
from cloister_keyholder.serving.messages import HEAD_BYTES, MAX_ROWS
from cloister_keyholder.serving.models import OpenModels
from cloister_keyholder.serving.recording import Recorder
from cloister_shared.digests import digest_bytes
from cloister_shared.registry import Registry

URL = "http://service.test"
OWN = "http://127.0.0.1:8004"
SECRET = 13.62519
"""A value that nothing else has: it must appear nowhere."""
Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def interface(transport: httpx.BaseTransport, url: str = URL, keys: Path | None = None) -> Any:
    """The interface to models behind a transport, and those models."""
    asking = Transport(url, retry_seconds=0, transport=transport)

    def describe(name: str) -> Description:
        return asking.run(InferenceService(asking, name).describe(None))

    def open_version(name: str, version: int) -> EncryptedModel:
        return EncryptedModel(
            url,
            name,
            version=version,
            transport=Recorder(transport),
            retry_seconds=0,
            key_folder=KeyFolder(keys) if keys else None,
        )

    models = OpenModels(describe, open_version)
    app = create_app(models, url, ["http://127.0.0.1:8080"])
    return TestClient(app, base_url=OWN, raise_server_exceptions=False), models


@pytest.fixture
def api(digits_service: FakeService) -> Iterator[TestClient]:
    client, models = interface(digits_service.transport)
    yield client
    models.close()


def ask(api: TestClient, name: str, rows: list[Any]) -> Any:
    answer = api.post(f"/v1/models/{name}/predict", json={"rows": rows})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_it_says_that_it_runs_and_whom_it_asks(api: TestClient) -> None:
    assert api.get("/health").json() == {"status": "ready", "service": URL}


def test_rows_are_answered_as_the_sdk_answers_them(
    api: TestClient, digits: EncryptedModel, digits_data: Data
) -> None:
    rows = digits_data[0][[0, 400, 900]]
    found = ask(api, "digits", rows.tolist())
    assert (found["model"], found["version"]) == ("digits", 1)
    predictions = found["predictions"]
    assert [one["label"] for one in predictions] == digits.predict(rows).tolist()
    assert [one["value"] for one in predictions] == [None] * 3
    np.testing.assert_array_equal(
        [one["probabilities"] for one in predictions], digits.predict_proba(rows)
    )
    np.testing.assert_array_equal(
        [one["scores"] for one in predictions], digits.decision_function(rows)
    )


def test_it_shows_what_the_service_received(
    api: TestClient, digits_service: FakeService, digits_data: Data
) -> None:
    row = digits_data[0][5].tolist()
    (first,) = ask(api, "digits", [row])["predictions"]
    received = digits_service.requests[-1].content
    assert first["sent"]["sha256"] == digest_bytes(received)
    assert first["sent"]["bytes_up"] == len(received)
    assert base64.b64decode(first["sent"]["head"]) == received[:HEAD_BYTES]
    assert first["milliseconds"]["evaluate"] == 1.5
    assert all(first["milliseconds"][step] >= 0 for step in ("preparing", "network"))
    assert all(first["milliseconds"][step] > 0 for step in ("encrypt", "decrypt"))
    (again,) = ask(api, "digits", [row])["predictions"]
    assert again["scores"] == first["scores"]
    assert again["sent"]["sha256"] != first["sent"]["sha256"]


def test_each_of_several_rows_has_its_own_request(
    api: TestClient, digits_service: FakeService, digits_data: Data
) -> None:
    found = ask(api, "digits", digits_data[0][:3].tolist())["predictions"]
    received = [request.content for request in digits_service.requests if request.method == "POST"]
    assert [one["sent"]["sha256"] for one in found] == [digest_bytes(one) for one in received]


def test_the_clear_answer_is_the_references(
    api: TestClient, digits: EncryptedModel, digits_service: FakeService, digits_data: Data
) -> None:
    reference, rows = digits.reference(), digits_data[0][:1]
    assert reference is not None
    (found,) = ask(api, "digits", rows.tolist())["predictions"]
    assert found["clear"]["equal"] is True
    assert found["clear"]["quantised"]["scores"] == found["scores"]
    unit = digits.scale(rows)
    assert found["clear"]["float_model"]["scores"] == reference.float_scores(unit)[0].tolist()


def test_an_answer_that_is_not_the_references_is_told(
    api: TestClient, digits_service: FakeService, digits_data: Data
) -> None:
    rows = digits_data[0][:2].tolist()
    results: list[bytes] = []

    def swapped(result: bytes) -> bytes:
        # What opens to garbage, but has the form of a result.
        results.append(result)
        half = len(result) // 2
        return result[:half] + bytes(64) + result[half + 64 :]

    digits_service.tamper = swapped
    (found,) = ask(api, "digits", rows[:1])["predictions"]
    assert results
    assert found["clear"]["equal"] is False


def test_without_a_published_reference_there_is_no_clear_answer(
    api: TestClient, digits_service: FakeService, digits_data: Data
) -> None:
    digits_service.publish_reference = False
    (found,) = ask(api, "digits", digits_data[0][:1].tolist())["predictions"]
    assert found["clear"] is None


def test_features_may_be_named(
    breast_cancer_service: FakeService, breast_cancer_data: Data
) -> None:
    api, models = interface(breast_cancer_service.transport)
    names = [
        one["name"]
        for one in api.get("/v1/models/breast_cancer").json()["card"]["data"]["features"]
    ]
    row = breast_cancer_data[0][3].tolist()
    named = dict(reversed(list(zip(names, row, strict=True))))
    one, other = ask(api, "breast_cancer", [row, named])["predictions"]
    assert one["scores"] == other["scores"]
    refused = api.post("/v1/models/breast_cancer/predict", json={"rows": [{**named, "age": 1}]})
    assert refused.status_code == 422
    assert "names a feature that breast_cancer does not have" in refused.json()["detail"]
    models.close()


def test_a_model_is_described(api: TestClient, digits: EncryptedModel) -> None:
    found = api.get("/v1/models/digits").json()
    assert found["version"] == 1
    assert found["client_digest"] == digits.description.client_digest
    assert found["card"] == json.loads(digits.card.model_dump_json())
    assert found["client"] == "native"
    assert (found["needs_evaluation_keys"], found["key_state"]) == (False, None)


def test_another_version_is_opened_once_it_is_current(
    api: TestClient, digits_service: FakeService, digits_data: Data
) -> None:
    rows = digits_data[0][:1].tolist()
    (before,) = ask(api, "digits", rows)["predictions"]
    digits_service.client_zip = rezip(digits_service.client_zip, {"note": b"another"})
    (after,) = ask(api, "digits", rows)["predictions"]
    assert api.get("/v1/models/digits").json()["client_digest"] == digits_service.digest
    assert after["scores"] == before["scores"]


def test_a_model_that_is_used_is_not_opened_again(
    api: TestClient, digits_service: FakeService, digits_data: Data
) -> None:
    for _ in range(3):
        ask(api, "digits", digits_data[0][:1].tolist())
    paths = [request.url.path for request in digits_service.requests]
    assert sum(path.endswith("/client") for path in paths) == 1
    assert sum(path.endswith("/reference") for path in paths) == 1


def status_of(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == answer.status_code
    return answer.status_code, told["detail"]


def test_failures_of_the_service_are_told(api: TestClient, digits_service: FakeService) -> None:
    assert status_of(api.get("/v1/models/other"))[0] == 404
    digits_service.interceptors = [lambda _: problem(401, "show a key")]
    status, detail = status_of(api.get("/v1/models/digits"))
    assert status == 502
    assert "(401): show a key; CLOISTER_API_KEY_PATH names" in detail

    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody listens")

    digits_service.interceptors = [gone]
    status, detail = status_of(api.get("/v1/models/digits"))
    assert status == 503
    assert "is not available" in detail


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"", 422, "malformed at body"),
        (b"{", 422, "JSON"),
        (b"[]", 422, "malformed at body"),
        (b"{}", 422, "body.rows: Field required"),
        (b'{"rows": []}', 422, "body.rows: List should have at least 1"),
        (json.dumps({"rows": [[1]] * (MAX_ROWS + 1)}).encode(), 422, "at most 64"),
        (json.dumps({"rows": [[[SECRET]]]}).encode(), 422, "not of the form"),
        (json.dumps({"rows": [SECRET]}).encode(), 422, "not of the form"),
        (json.dumps({"rows": [[1]], str(SECRET): 1}).encode(), 422, "not permitted"),
        (json.dumps({"rows": [[SECRET] * 64]}).encode(), 200, ""),
        (json.dumps({"rows": [[SECRET] * 63]}).encode(), 422, "63"),
        (json.dumps({"rows": [[SECRET + 100] * 64]}).encode(), 422, "outside its declared bounds"),
        (json.dumps({"rows": [{str(SECRET): 1}]}).encode(), 422, "does not have"),
        (json.dumps({"rows": [[f"a {SECRET}"] * 64]}).encode(), 422, "feature pixel"),
    ],
)
def test_what_does_not_fit_is_refused_and_no_value_is_told_or_logged(
    api: TestClient, caplog: pytest.LogCaptureFixture, body: bytes, status: int, why: str
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = api.post(
        "/v1/models/digits/predict", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    assert why in (answer.json()["detail"] if status == 422 else "")
    for secret in (str(SECRET), str(SECRET + 100)):
        assert secret not in answer.text
        assert secret not in caplog.text


def test_a_defect_tells_no_value(
    api: TestClient, digits_service: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        raise RuntimeError(f"cannot take {SECRET}")

    digits_service.interceptors = [broken]
    status, detail = status_of(api.get("/v1/models/digits"))
    assert status == 500
    assert "RuntimeError at test_keyholder_serve.py" in caplog.text
    assert str(SECRET) not in detail + caplog.text


class Held(httpx.BaseTransport):
    """Passes requests on, and holds those that are sent to a path until it is told to go on."""

    def __init__(self, inner: httpx.BaseTransport, path: str) -> None:
        self.inner = inner
        self.path = path
        self.holding = threading.Semaphore(0)
        self.go_on = threading.Event()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "GET" and self.path in request.url.path:
            self.holding.release()
            assert self.go_on.wait(120)
        response = self.inner.handle_request(request)
        response.read()
        return response


def test_too_many_at_a_time_are_put_off_and_others_are_answered(
    digits_service: FakeService, digits_data: Data
) -> None:
    held = Held(digits_service.transport, "/infer")
    api, models = interface(held)
    row = digits_data[0][0].tolist()
    found: list[int] = []

    def post() -> None:
        answer = api.post("/v1/models/digits/predict", json={"rows": [row]})
        found.append(answer.status_code)

    threads = [threading.Thread(target=post) for _ in range(PREDICTIONS)]
    for thread in threads:
        thread.start()
    assert held.holding.acquire(timeout=120)
    # Until all of them are under way, one more is still let in.
    while True:
        answer = api.post("/v1/models/nobody/predict", json={"rows": [row]})
        if answer.status_code == 503:
            break
        assert answer.status_code == 404
    assert answer.headers["Retry-After"] == "1"
    assert api.get("/health").status_code == 200
    assert api.get("/v1/models/digits").status_code == 200
    held.go_on.set()
    for thread in threads:
        thread.join()
    assert found == [200] * PREDICTIONS
    models.close()


@pytest.fixture(scope="module")
def trees(tree_artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    keys = KeyOptions(dir=tmp_path_factory.mktemp("service") / "keys")
    app = create_inference(
        Registry(tree_artifacts / "artifacts"), Options(threads=2, max_batch=4, keys=keys)
    )
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def test_a_trees_keys_are_made_once_and_meanwhile_others_are_answered(
    trees: TestClient, tmp_path: Path, tree_data: Data, tree_artifacts: Path
) -> None:
    held = Held(trees._transport, "/v2/keys/")
    api, models = interface(held, "http://testserver", tmp_path / "keys")
    described = api.get("/v1/models/tree").json()
    assert (described["needs_evaluation_keys"], described["key_state"]) == (True, "absent")
    assert (described["client"], described["evaluator"]) == ("concrete", "concrete")
    found: list[Any] = []
    rows = tree_data[0][[0, 70, 140]].tolist()
    asking = threading.Thread(target=lambda: found.append(ask(api, "tree", rows)))
    asking.start()
    assert held.holding.acquire(timeout=120)
    assert api.get("/v1/models/tree").json()["key_state"] == "uploading"
    assert api.get("/health").status_code == 200
    held.go_on.set()
    asking.join()
    assert api.get("/v1/models/tree").json()["key_state"] == "ready"
    clear = np.load(tree_artifacts / "clear.npy")[[0, 70, 140]]
    (predictions,) = (one["predictions"] for one in found)
    np.testing.assert_array_equal([one["probabilities"] for one in predictions], clear)
    assert all(one["clear"]["equal"] for one in predictions)
    assert predictions[0]["milliseconds"]["preparing"] > predictions[1]["milliseconds"]["preparing"]
    models.close()


def test_it_says_that_keys_are_being_made(
    trees: TestClient, tmp_path: Path, tree_data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloister_keyholder.keys.stored_key import StoredKeys  # noqa: PLC0415

    api, models = interface(trees._transport, "http://testserver", tmp_path / "keys")
    making, go_on = threading.Event(), threading.Event()
    make: Callable[..., Any] = StoredKeys._make

    def slowly(keys: StoredKeys) -> Any:
        making.set()
        assert go_on.wait(120)
        return make(keys)

    monkeypatch.setattr(StoredKeys, "_make", slowly)
    asking = threading.Thread(target=ask, args=(api, "tree", tree_data[0][:1].tolist()))
    asking.start()
    assert making.wait(120)
    assert api.get("/v1/models/tree").json()["key_state"] == "making"
    go_on.set()
    asking.join()
    assert api.get("/v1/models/tree").json()["key_state"] == "ready"
    models.close()
