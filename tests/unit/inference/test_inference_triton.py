"""Triton's own client, unchanged, against the service as a process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from test_inference_process import Process
from tritonclient.utils import InferenceServerException


@pytest.fixture(scope="module")
def process(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    started = Process(artifacts, tmp_path_factory.mktemp("process"))
    yield started
    started.end()


@pytest.fixture
def own_process(own_artifacts: Path, tmp_path: Path) -> Iterator[Process]:
    """One whose artifacts a test may change, and which looks at them often."""
    folder = tmp_path / "process"
    folder.mkdir()
    started = Process(own_artifacts, folder, CLOISTER_POLL_SECONDS="0.1")
    yield started
    started.end()


@contextmanager
def connected(process: Process) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{process.port}") as client:
        yield client


@pytest.fixture
def client(process: Process) -> Iterator[Any]:
    with connected(process) as client:
        yield client


@pytest.fixture
def own_client(own_process: Process) -> Iterator[Any]:
    with connected(own_process) as client:
        yield client


def tensor(ciphertexts: list[bytes]) -> Any:
    given = triton.InferInput("ciphertext", [len(ciphertexts)], "BYTES")
    return given.set_data_from_numpy(np.array(ciphertexts, dtype=np.object_), binary_data=True)


RESULT = [triton.InferRequestedOutput("result", binary_data=True)]


def test_it_asks_what_the_server_is_and_has(client: Any, digits: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "cloister"
    for version in ("", "1"):
        assert client.is_model_ready("digits", version)
        metadata = client.get_model_metadata("digits", version)
        assert metadata["versions"] == ["1"]
        assert metadata["inputs"] == [{"name": "ciphertext", "datatype": "BYTES", "shape": [-1]}]
        assert metadata["outputs"] == [{"name": "result", "datatype": "BYTES", "shape": [-1]}]
        assert metadata["parameters"]["client_digest"] == digits.digest
    assert not client.is_model_ready("digits", "2")
    assert not client.is_model_ready("unknown")
    assert client.get_model_repository_index() == [
        {"name": name, "version": "1", "state": "READY", "reason": ""}
        for name in ("breast_cancer", "digits")
    ]


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param({"outputs": RESULT}, id="binary output"),
        pytest.param({"outputs": [triton.InferRequestedOutput("result")]}, id="default output"),
        pytest.param({}, id="all outputs"),
        pytest.param({"model_version": "1"}, id="a version"),
        pytest.param({"request_id": "seventh"}, id="an id"),
        pytest.param({"priority": 2, "timeout": 30_000_000}, id="priority and timeout"),
        pytest.param(
            {"sequence_id": 4, "sequence_start": True, "sequence_end": True}, id="a sequence"
        ),
        pytest.param({"response_compression_algorithm": "gzip"}, id="compression it may have"),
    ],
)
def test_it_infers_and_reads_the_results(
    client: Any, digits: Any, digits_rows: np.ndarray[Any, Any], asked: dict[str, Any]
) -> None:
    rows = digits_rows[:3]
    answer = client.infer(
        "digits",
        [tensor([digits.encrypt(row) for row in rows])],
        parameters={"client_digest": digits.digest},
        **asked,
    )
    results = answer.as_numpy("result")
    assert results.shape == (3,)
    assert [digits.decrypt(result) for result in results] == [digits.expected(row) for row in rows]
    described = answer.get_response()
    assert described["model_name"] == "digits"
    assert described["model_version"] == "1"
    assert described.get("id") == asked.get("request_id")


def plain_input() -> Any:
    given = triton.InferInput("ciphertext", [1], "BYTES")
    return given.set_data_from_numpy(np.array(["text"], dtype=np.object_), binary_data=False)


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        pytest.param(lambda _: {"inputs": [plain_input()]}, "415", "plain JSON", id="JSON input"),
        pytest.param(
            lambda _: {"outputs": [triton.InferRequestedOutput("result", binary_data=False)]},
            "400",
            "binary_data",
            id="JSON output",
        ),
        pytest.param(
            lambda _: {"outputs": [triton.InferRequestedOutput("result", class_count=3)]},
            "400",
            "classification",
            id="classes",
        ),
        pytest.param(
            lambda _: {"request_compression_algorithm": "gzip"},
            "415",
            "Content-Encoding",
            id="compressed",
        ),
        pytest.param(
            lambda _: {"parameters": {"client_digest": "0" * 64}},
            "409",
            "another client.zip",
            id="another client",
        ),
        pytest.param(lambda _: {"parameters": {}}, "400", "Cloister-Client-Digest", id="no client"),
        pytest.param(lambda _: {"model_version": "7"}, "404", "no version 7", id="no version"),
        pytest.param(lambda _: {"model_name": "other"}, "404", "no model other", id="no model"),
        pytest.param(
            lambda payload: {"inputs": [tensor([payload[:-1]])]},
            "400",
            "element 0 has 1799 bytes",
            id="too short",
        ),
    ],
)
def test_it_is_told_what_cannot_be_done(
    client: Any,
    digits: Any,
    digits_payload: bytes,
    change: Callable[[bytes], dict[str, Any]],
    status: str,
    reason: str,
) -> None:
    asked = {
        "model_name": "digits",
        "inputs": [tensor([digits_payload])],
        "parameters": {"client_digest": digits.digest},
    }
    with pytest.raises(InferenceServerException) as refused:
        client.infer(**(asked | change(digits_payload)))
    assert refused.value.status() == status
    assert reason in refused.value.message()


def test_it_loads_and_unloads(
    own_client: Any, digits: Any, digits_payload: bytes, republish: Callable[..., None]
) -> None:
    client = own_client
    asked = {"inputs": [tensor([digits_payload])], "parameters": {"client_digest": digits.digest}}
    client.unload_model("digits", unload_dependents=True)
    assert not client.is_model_ready("digits")
    assert client.is_model_ready("breast_cancer")
    states = {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}
    assert states == {"breast_cancer": "READY", "digits": "UNAVAILABLE"}
    with pytest.raises(InferenceServerException, match=r"repository/models/digits/load") as refused:
        client.infer("digits", **asked)
    assert refused.value.status() == "404"
    republish("digits")
    # Other than by the looks at the registry, of which some pass here.
    for _ in range(5):
        client.load_model("breast_cancer")
        assert not client.is_model_ready("digits")
    client.load_model("digits")
    assert client.infer("digits", **asked).get_response()["model_version"] == "2"
    for unknown in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="there is no model unknown"):
            unknown("unknown")
    with pytest.raises(InferenceServerException, match=r"parameters\.config"):
        client.load_model("digits", config="{}")


def test_a_new_version_serves_without_a_restart_and_a_broken_one_does_not(
    own_process: Process,
    own_artifacts: Path,
    republish: Callable[..., None],
    digits: Any,
    digits_payload: bytes,
    protocol: Any,
) -> None:
    def serving() -> str:
        response = protocol.raw(service, "digits", digits_payload, digits.digest)
        assert response.status_code == 200
        return str(response.headers["cloister-model-version"])

    process = own_process
    with httpx.Client(base_url=process.url, timeout=60) as service:
        assert serving() == "1"
        republish("digits")
        process.wait_for_line("version 2 of digits serves after 1")
        assert serving() == "2"
        republish("digits", files={"server.zip": b"no archive"})
        process.wait_for_line("version 3 of digits is refused")
        assert serving() == "2"
        former = protocol.raw(service, "digits/versions/1", digits_payload)
        assert former.headers["cloister-model-version"] == "1"
        index = service.post("/v2/repository/index").json()
        reasons = {entry["version"]: entry["reason"] for entry in index[1:]}
        assert (reasons["1"], reasons["2"]) == ("", "")
        assert "cannot be compiled" in reasons["3"]
        ready = service.post("/v2/repository/index", json={"ready": True}).json()
        assert [entry["version"] for entry in ready] == ["1", "1", "2"]
        refused = protocol.raw(service, "digits/versions/3", digits_payload)
        assert protocol.problem(refused)[0] == 503
        metadata = service.get("/v2/models/digits").json()
        assert metadata["versions"] == ["1", "2", "3"]
        assert metadata["parameters"]["version"] == "2"
        # The volume goes away.
        away = own_artifacts.rename(own_artifacts.with_name("away"))
        process.wait_for_line("it no longer holds")
        assert serving() == "2"
        assert service.get("/v2/health/ready").status_code == 200
        away.rename(own_artifacts)
        process.wait_for_line("as it should be again")
        republish("digits")
        process.wait_for_line("version 4 of digits serves after 2")
        assert serving() == "4"
