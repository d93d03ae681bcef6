"""What is published, what of it can be served, and what happens when it changes."""

import io
import json
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cloister_inference.app import create_app
from cloister_inference.model import load_model
from cloister_inference.problems import RETRY_SECONDS, UnavailableError, UnknownError
from cloister_inference.repository import Repository
from cloister_shared.digests import digest_bytes
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry, Version


def test_metadata_describes_the_circuit(service: TestClient, artifacts: Path) -> None:
    client = (artifacts / "digits" / "1" / "client.zip").read_bytes()
    expected = {
        "name": "digits",
        "versions": ["1"],
        "platform": "concrete_fhe",
        "inputs": [{"name": "ciphertext", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "result", "datatype": "BYTES", "shape": [-1]}],
        "parameters": {
            "version": "1",
            "client_digest": digest_bytes(client),
            "input_bytes": 1800,
            "output_bytes": service.get("/v2/models/digits").json()["parameters"]["output_bytes"],
            "reference": True,
            "evaluation_key_bytes": 0,
        },
    }
    assert service.get("/v2/models/digits").json() == expected
    assert service.get("/v2/models/digits/versions/1").json() == expected


def test_the_server_says_what_it_is(service: TestClient) -> None:
    answer = service.get("/v2").json()
    assert answer["name"] == "cloister"
    assert answer["extensions"] == ["binary_tensor_data", "cloister_client"]
    assert service.get("/v2/health/live").json() == {"live": True}
    assert service.get("/v2/health/ready").json() == {"ready": True}
    for path in ("digits", "digits/versions/1"):
        answer = service.get(f"/v2/models/{path}/ready").json()
        assert answer == {"name": "digits", "ready": True}


def test_the_index_lists_every_version(service: TestClient) -> None:
    assert service.post("/v2/repository/index").json() == [
        {"name": name, "version": "1", "state": "READY", "reason": ""}
        for name in ("breast_cancer", "digits")
    ]


@pytest.mark.parametrize(
    ("path", "file", "media_type"),
    [
        ("client", "client.zip", "application/zip"),
        ("reference", "reference.npz", "application/octet-stream"),
    ],
)
def test_downloads_are_the_published_files(
    service: TestClient, artifacts: Path, path: str, file: str, media_type: str
) -> None:
    address = f"/v2/models/digits/versions/1/{path}"
    response = service.get(address)
    content = (artifacts / "digits" / "1" / file).read_bytes()
    assert response.content == content
    assert response.headers["content-type"] == media_type
    assert response.headers["etag"] == f'"{digest_bytes(content)}"'
    assert "immutable" in response.headers["cache-control"]
    tag = response.headers["etag"]
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        unchanged = service.get(address, headers={"If-None-Match": known})
        assert unchanged.status_code == 304
        assert unchanged.content == b""
        assert unchanged.headers["etag"] == tag
    assert service.get(address, headers={"If-None-Match": '"x"'}).status_code == 200


def test_a_reference_that_was_not_published_is_not_found(
    own_artifacts: Path, own_service: TestClient, protocol: Any
) -> None:
    manifest = own_artifacts / "digits" / "1" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["files"]["reference.npz"]
    manifest.write_text(json.dumps(content))
    response = own_service.get("/v2/models/digits/versions/1/reference")
    assert protocol.problem(response)[0] == 404
    assert own_service.get("/v2/models/digits").json()["parameters"]["reference"] is False


def test_a_new_version_is_served_without_a_restart(
    own_service: TestClient,
    republish: Any,
    protocol: Any,
    digits: Any,
    digits_payload: bytes,
    own_artifacts: Path,
) -> None:
    first = protocol.raw(own_service, "digits", digits_payload, digits.digest)
    assert first.headers["cloister-model-version"] == "1"
    republish("digits")
    second = protocol.raw(own_service, "digits", digits_payload, digits.digest)
    assert second.headers["cloister-model-version"] == "2"
    metadata = own_service.get("/v2/models/digits").json()
    assert metadata["versions"] == ["1", "2"]
    assert metadata["parameters"]["version"] == "2"
    # The former is still there for those who name it, and may become current again.
    former = protocol.raw(own_service, "digits/versions/1", digits_payload)
    assert former.headers["cloister-model-version"] == "1"
    Registry(own_artifacts).set_current("digits", 1)
    assert own_service.get("/v2/models/digits").json()["parameters"]["version"] == "1"


def test_a_ciphertext_for_a_former_version_is_a_conflict(
    own_service: TestClient,
    own_artifacts: Path,
    republish: Any,
    protocol: Any,
    digits: Any,
    digits_payload: bytes,
) -> None:
    former = (own_artifacts / "digits" / "1" / "client.zip").read_bytes()
    with io.BytesIO(former) as archive:
        with zipfile.ZipFile(archive, "a") as opened:
            opened.writestr("note", "another client")
        republish("digits", files={"client.zip": archive.getvalue()})
    assert own_service.get("/v2/models/digits/ready").status_code == 200
    response = protocol.raw(own_service, "digits", digits_payload, digits.digest)
    assert protocol.problem(response)[0] == 409
    assert "/versions/2/client" in response.json()["detail"]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "file",
    [
        "server.zip",
        "client.zip",
        "card.json",
        "reference.npz",
        "input_template.bin",
        "evaluation_keys.bin",
        "manifest.json",
    ],
)
def test_a_damaged_artifact_is_not_served(
    own_artifacts: Path, own_service: TestClient, protocol: Any, digits_payload: bytes, file: str
) -> None:
    path = own_artifacts / "digits" / "1" / file
    if file == "manifest.json":
        path.write_text("{")
    else:
        flip_a_bit(path)
    for response in (
        own_service.get("/v2/models/digits/ready"),
        own_service.get("/v2/models/digits/versions/1/ready"),
        own_service.get("/v2/models/digits"),
        own_service.get("/v2/models/digits/versions/1/client"),
        protocol.raw(own_service, "digits/versions/1", digits_payload),
    ):
        status, detail = protocol.problem(response)
        assert status == 503
        assert file in detail
        assert response.json()["ready"] is False
        assert int(response.headers["retry-after"]) > 0
    entries = {entry["name"]: entry for entry in own_service.post("/v2/repository/index").json()}
    assert entries["digits"]["state"] == "UNAVAILABLE"
    assert file in entries["digits"]["reason"]
    # One damaged model is no reason to send the others' requests elsewhere.
    assert entries["breast_cancer"]["state"] == "READY"
    assert own_service.get("/v2/health/ready").status_code == 200


def test_a_version_that_cannot_be_loaded_leaves_nothing(
    own_artifacts: Path, own_service: TestClient, republish: Any, tmp_path: Path
) -> None:
    republish("digits", circuit={"output_bytes": 1})
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    registry = Registry(own_artifacts)
    with pytest.raises(CloisterError, match="output"):
        load_model(registry.open("digits", 2), work_dir)
    assert not list(work_dir.iterdir())
    assert load_model(registry.open("digits", 1), work_dir).version == 1
    assert len(list(work_dir.iterdir())) == 1


def test_a_missing_file_is_not_served(
    own_artifacts: Path, own_service: TestClient, protocol: Any
) -> None:
    (own_artifacts / "digits" / "1" / "server.zip").unlink()
    assert protocol.problem(own_service.get("/v2/models/digits/ready"))[0] == 503


@pytest.mark.parametrize("root", ["missing", "empty", "damaged"])
def test_without_a_model_the_service_lives_but_is_not_ready(
    tmp_path: Path, own_artifacts: Path, protocol: Any, root: str
) -> None:
    folder = tmp_path / root
    if root == "empty":
        folder.mkdir()
    if root == "damaged":
        folder = own_artifacts
        for name in ("digits", "breast_cancer"):
            flip_a_bit(folder / name / "1" / "server.zip")
    with TestClient(create_app(Registry(folder), threads=1, max_batch=1)) as service:
        assert service.get("/v2/health/live").status_code == 200
        response = service.get("/v2/health/ready")
        assert protocol.problem(response)[0] == 503
        assert response.json()["ready"] is False
        states = {entry["state"] for entry in service.post("/v2/repository/index").json()}
        assert states == ({"UNAVAILABLE"} if root == "damaged" else set())


def test_a_model_without_a_current_version_says_so(
    own_artifacts: Path, own_service: TestClient, protocol: Any
) -> None:
    (own_artifacts / "digits" / "current").write_text("none")
    status, detail = protocol.problem(own_service.get("/v2/models/digits"))
    assert status == 503
    assert "current" in detail
    assert own_service.get("/v2/models/digits/versions/1").status_code == 200


def configuration(artifacts: Path) -> dict[str, Any]:
    with zipfile.ZipFile(artifacts / "digits" / "1" / "server.zip") as archive:
        settings: dict[str, Any] = json.loads(archive.read("configuration.json"))
    return settings


def pickled(kind: str, value: object) -> dict[str, Any]:
    return {"py/reduce": [{"py/type": f"concrete.{kind}"}, {"py/tuple": [value]}]}


def named(enum: str, member: str) -> dict[str, Any]:
    """Return a member as the releases of CPython 3.11 write it that pickle members by name."""
    pair = [{"py/type": f"concrete.{enum}"}, member]
    return {"py/reduce": [{"py/function": "builtins.getattr"}, {"py/tuple": pair}]}


def test_settings_written_by_any_python_3_11_are_read(
    own_service: TestClient, own_artifacts: Path, republish: Any
) -> None:
    by_value = {
        "parameter_selection_strategy": pickled("S", "multi"),
        "multi_parameter_strategy": pickled("M", "precision"),
        "security_level": pickled("L", 128),
    }
    by_name = {
        "parameter_selection_strategy": named("S", "MULTI"),
        "multi_parameter_strategy": named("M", "PRECISION"),
        "security_level": named("L", "SECURITY_128_BITS"),
    }
    for members in (by_value, by_name):
        settings = configuration(own_artifacts) | members
        republish("digits", members={"configuration.json": json.dumps(settings).encode()})
        assert own_service.get("/v2/models/digits/ready").status_code == 200


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"parameter_selection_strategy": named("S", "V0")}, "parameter_selection_strategy"),
        ({"use_gpu": True}, "use_gpu"),
        ({"composable": True}, "composable"),
        ({"dataflow_parallelize": True}, "dataflow_parallelize"),
        ({"parameter_selection_strategy": pickled("S", "v0")}, "parameter_selection_strategy"),
        ({"keyset_restriction": {"py/object": "x"}}, "keyset_restriction"),
        ({"p_error": None, "global_p_error": None}, "p_error"),
        ({"p_error": "1e-6"}, "p_error"),
        ({"a_setting_of_the_future": False}, "a_setting_of_the_future"),
        # Compiles, and to other parameters than the client encrypts with.
        ({"security_level": pickled("S", 132)}, "parameters other than its client's"),
    ],
)
def test_settings_that_are_not_supported_are_refused(
    own_service: TestClient,
    own_artifacts: Path,
    republish: Any,
    protocol: Any,
    change: dict[str, Any],
    reason: str,
) -> None:
    settings = configuration(own_artifacts) | change
    republish("digits", members={"configuration.json": json.dumps(settings).encode()})
    status, detail = protocol.problem(own_service.get("/v2/models/digits/ready"))
    assert status == 503
    assert reason in detail


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"is_simulated": b"1"}, "simulated"),
        ({"composition_rules.json": b'[[["f", 0], ["f", 0]]]'}, "composition"),
        ({"versions.json": b'{"concrete-python": "2.9.0"}'}, "2.9.0"),
        ({"versions.json": b"{}"}, "concrete-python"),
        ({"versions.json": None}, "versions.json"),
        ({"sharedlib.so": b"\x7fELF"}, "sharedlib.so"),
        ({"circuit.mlir": b"not MLIR"}, "compiled"),
        ({"configuration.json": b"{"}, "compiled"),
    ],
)
def test_an_archive_with_other_content_is_refused(
    own_service: TestClient,
    republish: Any,
    protocol: Any,
    members: dict[str, bytes | None],
    reason: str,
) -> None:
    republish("digits", members=members)
    status, detail = protocol.problem(own_service.get("/v2/models/digits/ready"))
    assert status == 503
    assert reason in detail


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"files": {"server.zip": b"no archive"}}, id="no archive"),
        pytest.param({"files": {"server.zip": b""}}, id="empty archive"),
        pytest.param({"files": {"client.zip": b"no archive"}}, id="other client"),
        pytest.param({"files": {"evaluation_keys.bin": b"none"}}, id="no keys"),
        pytest.param({"files": {"input_template.bin": b"short"}}, id="short template"),
        pytest.param({"files": {"input_template.bin": bytes(1800)}}, id="zero template"),
        pytest.param({"circuit": {"input_bytes": 1801}}, id="input bytes"),
        pytest.param({"circuit": {"output_bytes": 1}}, id="output bytes"),
        pytest.param({"circuit": {"input_data_bytes": 4000}}, id="data bytes"),
        pytest.param({"circuit": {"unknown": 1}}, id="unknown details"),
        pytest.param({"changes": {"client_digest": "0" * 64}}, id="two client digests"),
    ],
)
def test_an_artifact_that_contradicts_itself_is_refused(
    own_service: TestClient, republish: Any, protocol: Any, changes: dict[str, Any]
) -> None:
    republish("digits", **changes)
    assert protocol.problem(own_service.get("/v2/models/digits/ready"))[0] == 503


class TestRepository:
    """The cache alone, with a loader that counts."""

    @pytest.fixture
    def registry(self, tmp_path: Path) -> Registry:
        registry = Registry(tmp_path)
        registry.publish("model", "first", lambda _folder: {})
        return registry

    def test_a_version_loads_once(self, registry: Registry) -> None:
        loads: list[int] = []
        all_asked = threading.Barrier(8)
        a_second_load = threading.Barrier(2)

        def load(version: Version) -> Any:
            loads.append(version.manifest.version)
            # Leaves time for another one to begin, which none must.
            with suppress(threading.BrokenBarrierError):
                a_second_load.wait(timeout=0.5)
            return object()

        repository = Repository(registry, load)

        def ask(_: int) -> object:
            all_asked.wait()
            return repository.get("model")

        with ThreadPoolExecutor(8) as pool:
            models = set(pool.map(ask, range(8)))
        assert loads == [1]
        assert len(models) == 1

    def test_a_failure_is_kept_for_a_while_and_then_tried_again(self, registry: Registry) -> None:
        outcomes: list[Any] = [CloisterError("broken"), OSError("unreadable"), "a model"]
        now = 100.0

        def load(_version: Version) -> Any:
            outcome = outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        repository = Repository(registry, load, clock=lambda: now)
        for reason in ("broken", "unreadable"):
            for _ in range(2):
                with pytest.raises(UnavailableError, match=reason):
                    repository.get("model")
            assert not repository.any_servable()
            assert [state.reason for state in repository.states()] == [
                f"version 1 of model cannot be served: {reason}"
            ]
            now += RETRY_SECONDS
        assert str(repository.get("model")) == "a model"
        now += 10 * RETRY_SECONDS
        assert str(repository.get("model", "1")) == "a model"
        assert not outcomes

    def test_what_was_never_published_is_unknown(self, registry: Registry) -> None:
        repository = Repository(registry, lambda _version: pytest.fail("nothing to load"))
        for name, version in (("other", None), ("model", "2"), ("../x", "1"), ("../x", None)):
            with pytest.raises(UnknownError):
                repository.get(name, version)

    def test_an_unreadable_registry_is_unavailable(
        self, registry: Registry, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_arguments: object) -> Any:
            raise PermissionError("not yours")

        for method in ("names", "versions", "current"):
            monkeypatch.setattr(registry, method, refuse)
        repository = Repository(registry, lambda _version: pytest.fail("never"))
        assert not repository.any_servable()
        for ask in (
            repository.states,
            lambda: repository.versions("model"),
            lambda: repository.get("model"),
            lambda: repository.get("model", "1"),
        ):
            with pytest.raises(UnavailableError, match="cannot be read"):
                ask()
