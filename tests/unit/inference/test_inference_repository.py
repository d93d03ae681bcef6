"""What is published, what of it can be served, and what happens when it changes."""

import gc
import io
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cloister_inference.app import create_app
from cloister_inference.evaluation.native import kernels
from cloister_inference.options import Options
from cloister_inference.serving.model import Model, load_model
from cloister_shared.digests import digest_bytes
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry

Start = Callable[[], TestClient]


def test_metadata_describes_the_circuit(service: TestClient, artifacts: Path) -> None:
    client = (artifacts / "digits" / "1" / "client.zip").read_bytes()
    compact = service.get("/v2/models/digits").json()["parameters"]["compact"]
    assert compact["input_bytes"] == 16 + math.ceil(59 * compact["body_bits"] / 8)
    expected = {
        "name": "digits",
        "versions": ["1"],
        "platform": "concrete_fhe",
        "inputs": [{"name": "ciphertext", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "result", "datatype": "BYTES", "shape": [-1]}],
        "parameters": {
            "version": "1",
            "client_digest": digest_bytes(client),
            "input_bytes": 1680,
            "output_bytes": service.get("/v2/models/digits").json()["parameters"]["output_bytes"],
            "compact": compact,
            "reference": True,
            "evaluator": "native",
            "evaluator_reason": f"{kernels()[0]}: equal to Concrete's run on 4 inputs",
            "evaluation_key_bytes": 0,
        },
    }
    assert service.get("/v2/models/digits").json() == expected
    assert service.get("/v2/models/digits/versions/1").json() == expected


def test_the_server_says_what_it_is(service: TestClient) -> None:
    answer = service.get("/v2").json()
    assert answer["name"] == "cloister"
    assert answer["extensions"] == [
        "binary_tensor_data",
        "model_repository",
        "model_repository(unload_dependents)",
        "cloister_client",
    ]
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
    own_artifacts: Path, start_own: Start, protocol: Any
) -> None:
    manifest = own_artifacts / "digits" / "1" / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["files"]["reference.npz"]
    manifest.write_text(json.dumps(content))
    own_service = start_own()
    response = own_service.get("/v2/models/digits/versions/1/reference")
    assert protocol.problem(response)[0] == 404
    assert own_service.get("/v2/models/digits").json()["parameters"]["reference"] is False


def test_a_ciphertext_for_a_former_version_is_a_conflict(
    start_own: Start,
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
    own_service = start_own()
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
    own_artifacts: Path, start_own: Start, protocol: Any, digits_payload: bytes, file: str
) -> None:
    path = own_artifacts / "digits" / "1" / file
    if file == "manifest.json":
        path.write_text("{")
    else:
        flip_a_bit(path)
    own_service = start_own()
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
    own_artifacts: Path, republish: Any, tmp_path: Path
) -> None:
    republish("digits", circuit={"output_bytes": 1})
    work_dir = tmp_path / "work"
    work_dir.mkdir()
    registry = Registry(own_artifacts)
    with pytest.raises(CloisterError, match="output"):
        load_model(registry.open("digits", 2), work_dir)
    assert not list(work_dir.iterdir())


def test_the_library_of_a_model_goes_when_nothing_uses_it_any_more(
    artifacts: Path, tmp_path: Path, digits_payload: bytes
) -> None:
    published = Registry(artifacts).open("digits", 1)
    model: Model | None = load_model(published, tmp_path, "concrete")
    assert model is not None
    evaluating = model.circuit.evaluate
    model = None
    assert len(list(tmp_path.iterdir())) == 1
    assert evaluating(digits_payload)
    del evaluating
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_not_served(own_artifacts: Path, start_own: Start, protocol: Any) -> None:
    (own_artifacts / "digits" / "1" / "server.zip").unlink()
    assert protocol.problem(start_own().get("/v2/models/digits/ready"))[0] == 503


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
    with TestClient(create_app(Registry(folder), Options(threads=1, max_batch=1))) as service:
        assert service.get("/v2/health/live").status_code == 200
        response = service.get("/v2/health/ready")
        assert protocol.problem(response)[0] == 503
        assert response.json()["ready"] is False
        states = {entry["state"] for entry in service.post("/v2/repository/index").json()}
        assert states == ({"UNAVAILABLE"} if root == "damaged" else set())


def test_a_model_without_a_current_version_says_so(
    own_artifacts: Path, start_own: Start, protocol: Any
) -> None:
    (own_artifacts / "digits" / "current").write_text("none")
    own_service = start_own()
    status, detail = protocol.problem(own_service.get("/v2/models/digits"))
    assert status == 503
    assert "current" in detail
    assert own_service.get("/v2/models/digits/versions/1").status_code == 200


def test_clients_may_be_kept_from_loading_and_unloading(artifacts: Path, protocol: Any) -> None:
    app = create_app(Registry(artifacts), Options(threads=1, max_batch=1, model_control=False))
    with TestClient(app) as service:
        for action in ("load", "unload"):
            response = service.post(f"/v2/repository/models/digits/{action}")
            assert protocol.problem(response)[0] == 403
        assert service.get("/v2/models/digits/ready").status_code == 200
        assert service.post("/v2/repository/index").status_code == 200


@pytest.mark.parametrize(
    ("action", "body", "status"),
    [
        ("load", b"", 200),
        ("load", b"{}", 200),
        ("load", b'{"parameters": {}}', 200),
        ("load", b'{"parameters": {"version": "1"}}', 200),
        ("load", b'{"parameters": {"version": 1}}', 200),
        ("load", b'{"parameters": {"version": "2"}}', 404),
        ("load", b'{"parameters": {"version": true}}', 400),
        ("load", b'{"parameters": {"config": "{}"}}', 400),
        ("load", b"null", 400),
        ("load", b"\xff", 400),
        ("load", bytes(20_000), 413),
        ("unload", b"", 200),
        ("unload", b'{"parameters": {"unload_dependents": true}}', 200),
        ("unload", b'{"parameters": {"unload_dependents": 1}}', 400),
    ],
)
def test_bodies_of_load_and_unload(
    own_service: TestClient, action: str, body: bytes, status: int
) -> None:
    response = own_service.post(f"/v2/repository/models/digits/{action}", content=body)
    assert response.status_code == status
    ready = own_service.get("/v2/models/digits/ready").status_code
    assert ready == (404 if (action, status) == ("unload", 200) else 200)


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
        assert own_service.post("/v2/repository/models/digits/load").status_code == 200


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
    status, detail = protocol.problem(own_service.get("/v2/models/digits/versions/2/ready"))
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
    status, detail = protocol.problem(own_service.get("/v2/models/digits/versions/2/ready"))
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
        pytest.param({"files": {"input_template.bin": bytes(1680)}}, id="zero template"),
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
    assert protocol.problem(own_service.get("/v2/models/digits/versions/2/ready"))[0] == 503
