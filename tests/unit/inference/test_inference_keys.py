"""Evaluation keys over HTTP: taken in verified, used by their owners, removed."""

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send

from cloister_inference.access.control import AccessControl
from cloister_inference.access.credentials import ApiKeyStore
from cloister_inference.app import create_app
from cloister_inference.evaluation.key_form import KeyForm
from cloister_inference.options import KeyOptions, Options
from cloister_shared.artifact import (
    CLIENT_ZIP,
    EVALUATION_KEY_FORM,
    ArtifactDetails,
    EvaluationKeyForm,
)
from cloister_shared.digests import digest_bytes, digest_file
from cloister_shared.errors import CloisterError
from cloister_shared.open_inference import encode_elements
from cloister_shared.registry import Registry

UNKNOWN = "0" * 64
OWNERS = ("holder", "another", "third", "garbage", "one", "two")


class ShowsApiKey:
    """Stands for clients: shows the API key of whom a request names, the first one's else."""

    def __init__(self, app: ASGIApp, tokens: dict[str, str]) -> None:
        self.app = app
        self.tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            owner = dict(scope["headers"]).get(b"x-owner", OWNERS[0].encode()).decode()
            shown = (b"authorization", f"Bearer {self.tokens[owner]}".encode())
            scope = {**scope, "headers": [*scope["headers"], shown]}
        await self.app(scope, receive, send)


@dataclass
class TreeHolder:
    """Stock Concrete ML as a key holder, on ranks among the tree's thresholds."""

    stock: Any
    client_digest: str
    keys: bytes

    @property
    def digest(self) -> str:
        return digest_bytes(self.keys)

    def encrypt(self, row: np.ndarray[Any, Any]) -> bytes:
        payload: bytes = self.stock.quantize_encrypt_serialize(row[None, :])
        return payload

    def decrypt(self, result: bytes) -> np.ndarray[Any, Any]:
        return np.asarray(self.stock.deserialize_decrypt_dequantize(result))


def tree_holder(folder: Path) -> TreeHolder:
    from concrete.ml.deployment import FHEModelClient  # noqa: PLC0415 - takes seconds

    stock = FHEModelClient(str(folder))
    stock.generate_private_and_evaluation_keys()
    return TreeHolder(
        stock, digest_file(folder / CLIENT_ZIP), stock.get_serialized_evaluation_keys()
    )


@pytest.fixture(scope="module")
def artifacts(
    tmp_path_factory: pytest.TempPathFactory, tree_artifacts: Path, breast_cancer_artifacts: Path
) -> Path:
    """``tree``, ``other`` with the same circuit and another client.zip, ``loose`` with a form that
    leaves almost every byte of a key open, and a model that needs no keys."""
    root = tmp_path_factory.mktemp("keyed") / "artifacts"
    for source in (tree_artifacts, breast_cancer_artifacts):
        shutil.copytree(source / "artifacts", root, dirs_exist_ok=True)
    registry = Registry(root)
    first = registry.open("tree", 1)

    def write_other(folder: Path) -> dict[str, Any]:
        for file in first.manifest.files:
            shutil.copy(first.path / file, folder)
        with zipfile.ZipFile(folder / CLIENT_ZIP, "a") as archive:
            archive.comment = folder.name.encode()
        digest = digest_file(folder / CLIENT_ZIP)
        return first.manifest.details | {"client_digest": digest}

    def write_loose(folder: Path) -> dict[str, Any]:
        details = write_other(folder)
        fixed = (folder / EVALUATION_KEY_FORM).read_bytes()
        (folder / EVALUATION_KEY_FORM).write_bytes(fixed[:16])
        length = details["circuit"]["evaluation_keys"]["length"]
        keys = {"length": length, "variable": [{"offset": 16, "length": length - 16}]}
        return details | {"circuit": details["circuit"] | {"evaluation_keys": keys}}

    registry.publish("other", "the same circuit", write_other)
    registry.publish("loose", "a form that is too wide", write_loose)
    return root


Serve = Callable[..., TestClient]


@pytest.fixture(scope="module")
def serve_keys(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    api_keys = tmp_path_factory.mktemp("access") / "api-keys.json"
    tokens = {name: ApiKeyStore(api_keys).create(name, None) for name in OWNERS}

    def serve_(folder: Path, **limits: Any) -> TestClient:
        options = Options(threads=2, max_batch=4, keys=KeyOptions(dir=folder, **limits))
        app = create_app(Registry(artifacts), options, access=AccessControl(api_keys))
        app.add_middleware(ShowsApiKey, tokens=tokens)
        return TestClient(app, raise_server_exceptions=False)

    return serve_


@pytest.fixture(scope="module")
def keys_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "volume"


@pytest.fixture(scope="module")
def service(serve_keys: Serve, keys_dir: Path) -> Iterator[TestClient]:
    with serve_keys(keys_dir) as client:
        yield client


@pytest.fixture(scope="module")
def holder(artifacts: Path) -> TreeHolder:
    return tree_holder(artifacts / "tree" / "1")


def upload(
    service: Any, holder: TreeHolder, keys: bytes | None = None, owner: str = "", **changes: str
) -> httpx.Response:
    content = holder.keys if keys is None else keys
    digest = changes.pop("digest", digest_bytes(content))
    headers = {
        "Content-Type": "application/octet-stream",
        "Cloister-Client-Digest": holder.client_digest,
        "X-Owner": owner,
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    response: httpx.Response = service.put(
        f"/v2/keys/{digest}", content=content, headers={k: v for k, v in headers.items() if v}
    )
    return response


@pytest.fixture(scope="module")
def uploaded(service: TestClient, holder: TreeHolder) -> str:
    response = upload(service, holder)
    assert response.status_code == 201, response.text
    assert response.headers["Location"] == f"/v2/keys/{holder.digest}"
    return holder.digest


@pytest.fixture(scope="module")
def rows() -> np.ndarray[Any, Any]:
    """Ranks of the one input that the tree compares, with two thresholds: a row for each leaf."""
    return np.array([[0.0], [1.0], [2.0]])


@pytest.fixture(scope="module")
def expected(artifacts: Path, holder: TreeHolder, rows: np.ndarray[Any, Any]) -> Any:
    """Probabilities by Concrete ML's own server."""
    from concrete.ml.deployment import FHEModelServer  # noqa: PLC0415 - takes seconds

    server = FHEModelServer(str(artifacts / "tree" / "1"))
    return [holder.decrypt(server.run(holder.encrypt(row), holder.keys)) for row in rows]


def infer(
    service: Any, holder: TreeHolder, protocol: Any, payload: bytes, key: str | None, **more: str
) -> httpx.Response:
    stated = ({"Cloister-Evaluation-Key": key} if key else {}) | more
    response: httpx.Response = protocol.raw(
        service, "tree", payload, holder.client_digest, **stated
    )
    return response


class TestInference:
    def test_raw_equals_concretes_server(
        self,
        service: TestClient,
        holder: TreeHolder,
        protocol: Any,
        uploaded: str,
        rows: Any,
        expected: Any,
    ) -> None:
        for row, probabilities in zip(rows, expected, strict=True):
            response = infer(service, holder, protocol, holder.encrypt(row), uploaded)
            assert response.status_code == 200, response.text
            assert np.array_equal(holder.decrypt(response.content), probabilities)

    def test_a_framed_batch_names_the_keys_in_its_parameters(
        self,
        service: TestClient,
        holder: TreeHolder,
        protocol: Any,
        uploaded: str,
        rows: Any,
        expected: Any,
    ) -> None:
        elements = [holder.encrypt(row) for row in rows]
        parameters = {"client_digest": holder.client_digest, "evaluation_key": uploaded}
        header = protocol.header(elements, parameters=parameters)
        response = protocol.framed(service, "tree", header, encode_elements(elements))
        assert response.status_code == 200, response.text
        results = protocol.unframe(response)[1]
        assert [holder.decrypt(one).tolist() for one in results] == [
            one.tolist() for one in expected
        ]

    def test_the_metadata_says_that_keys_are_needed(
        self, service: TestClient, holder: TreeHolder
    ) -> None:
        parameters = service.get("/v2/models/tree").json()["parameters"]
        assert parameters["evaluation_key_bytes"] == len(holder.keys)
        assert parameters["reference"]
        linear = service.get("/v2/models/breast_cancer").json()["parameters"]
        assert linear["evaluation_key_bytes"] == 0

    def test_without_keys_the_answer_says_what_to_do(
        self, service: TestClient, holder: TreeHolder, protocol: Any, rows: Any
    ) -> None:
        payload = holder.encrypt(rows[0])
        status, detail = protocol.problem(infer(service, holder, protocol, payload, None))
        assert status == 400
        assert "PUT" in detail
        assert "Cloister-Evaluation-Key" in detail

    @pytest.mark.parametrize(
        "case",
        [
            (UNKNOWN, "holder", 404),
            (None, "another", 404),
            ("not a digest", "holder", 400),
            ("../" * 21 + "x", "holder", 400),
        ],
    )
    def test_other_keys_than_ones_own_are_refused(
        self,
        service: TestClient,
        holder: TreeHolder,
        protocol: Any,
        uploaded: str,
        rows: Any,
        case: tuple[str | None, str, int],
    ) -> None:
        key, owner, status = case
        payload = holder.encrypt(rows[0])
        stated = {"X-Owner": owner}
        response = infer(service, holder, protocol, payload, key or uploaded, **stated)
        assert protocol.problem(response)[0] == status

    def test_keys_of_another_client_are_a_conflict(
        self, service: TestClient, holder: TreeHolder, protocol: Any, uploaded: str, rows: Any
    ) -> None:
        response = protocol.raw(
            service,
            "other/versions/1",
            holder.encrypt(rows[0]),
            **{"Cloister-Evaluation-Key": uploaded},
        )
        assert protocol.problem(response)[0] == 409

    def test_header_and_parameter_must_agree(
        self, service: TestClient, holder: TreeHolder, protocol: Any, uploaded: str, rows: Any
    ) -> None:
        elements = [holder.encrypt(rows[0])]
        header = protocol.header(elements, parameters={"evaluation_key": UNKNOWN})
        response = protocol.framed(
            service,
            "tree/versions/1",
            header,
            encode_elements(elements),
            **{"Cloister-Evaluation-Key": uploaded},
        )
        assert protocol.problem(response)[0] == 400
        assert "differ" in response.json()["detail"]

    def test_a_model_that_needs_none_refuses_them(
        self, service: TestClient, protocol: Any, uploaded: str
    ) -> None:
        size = service.get("/v2/models/breast_cancer").json()["parameters"]["input_bytes"]
        response = protocol.raw(
            service,
            "breast_cancer/versions/1",
            bytes(size),
            **{"Cloister-Evaluation-Key": uploaded},
        )
        assert protocol.problem(response)[0] == 400
        assert "needs no evaluation keys" in response.json()["detail"]


class TestState:
    def test_is_the_owners_alone(
        self, service: TestClient, holder: TreeHolder, protocol: Any, uploaded: str
    ) -> None:
        state = service.get(f"/v2/keys/{uploaded}").json()
        assert state["sha256"] == uploaded
        assert state["bytes"] == len(holder.keys)
        assert state["client_digest"] == holder.client_digest
        assert state["created"]
        assert state["used"]
        assert service.head(f"/v2/keys/{uploaded}").status_code == 200
        another = {"X-Owner": "another"}
        assert protocol.problem(service.get(f"/v2/keys/{uploaded}", headers=another))[0] == 404
        assert protocol.problem(service.delete(f"/v2/keys/{uploaded}", headers=another))[0] == 404
        assert service.head(f"/v2/keys/{uploaded}", headers=another).status_code == 404
        assert service.get(f"/v2/keys/{uploaded}").status_code == 200

    @pytest.mark.parametrize("address", ["x", "A" * 64, "0" * 63, "0" * 65, "..%2f..%2fetc"])
    def test_an_address_is_a_digest(
        self, service: TestClient, holder: TreeHolder, protocol: Any, address: str
    ) -> None:
        for response in (
            service.get(f"/v2/keys/{address}"),
            service.delete(f"/v2/keys/{address}"),
            upload(service, holder, b"x", digest=address),
        ):
            assert protocol.problem(response)[0] in (400, 404)


class TestUpload:
    def test_again_is_ok_and_not_counted_twice(
        self, serve_keys: Serve, holder: TreeHolder, protocol: Any, tmp_path: Path
    ) -> None:
        with serve_keys(tmp_path, quota_bytes=len(holder.keys)) as service:
            assert upload(service, holder).status_code == 201
            assert upload(service, holder).status_code == 200
            wrong = bytearray(holder.keys)
            wrong[-1] ^= 1
            response = upload(service, holder, bytes(wrong), digest=holder.digest)
            assert protocol.problem(response)[0] == 400
            # Another owner has a quota of its own; the content is there once.
            assert upload(service, holder, owner="another").status_code == 201
            assert len(list((tmp_path / "content").iterdir())) == 1
            status, detail = protocol.problem(upload(service, holder, bytes(wrong)))
            assert status == 507
            assert "DELETE" in detail
            assert not list(tmp_path.rglob("*.upload"))

    def test_the_same_for_another_client_is_a_conflict(
        self, service: TestClient, holder: TreeHolder, protocol: Any, uploaded: str
    ) -> None:
        assert uploaded == holder.digest
        digest = service.get("/v2/models/other").json()["parameters"]["client_digest"]
        response = upload(service, holder, Cloister_Client_Digest=digest)
        assert protocol.problem(response)[0] == 409
        # Another owner may have them for it.
        response = upload(service, holder, owner="third", Cloister_Client_Digest=digest)
        assert response.status_code == 201

    @pytest.mark.parametrize(
        ("changes", "status"),
        [
            pytest.param({"Cloister_Client_Digest": ""}, 400, id="no client"),
            pytest.param({"Cloister_Client_Digest": UNKNOWN}, 404, id="unknown client"),
            pytest.param({"Content_Type": "text/plain"}, 415, id="type"),
            pytest.param({"Content_Encoding": "gzip"}, 415, id="encoding"),
            pytest.param({"digest": UNKNOWN}, 400, id="digest"),
        ],
    )
    def test_is_refused(
        self,
        service: TestClient,
        holder: TreeHolder,
        protocol: Any,
        keys_dir: Path,
        changes: dict[str, str],
        status: int,
    ) -> None:
        response = upload(service, holder, None, "", **changes)
        assert protocol.problem(response)[0] == status
        assert not list(keys_dir.rglob("*.upload"))

    def test_for_a_model_that_needs_none_is_refused(
        self, service: TestClient, holder: TreeHolder, protocol: Any
    ) -> None:
        digest = service.get("/v2/models/breast_cancer").json()["parameters"]["client_digest"]
        response = upload(service, holder, Cloister_Client_Digest=digest)
        assert protocol.problem(response)[0] == 400
        assert "needs no evaluation keys" in response.json()["detail"]

    def test_must_state_its_length(
        self, service: TestClient, holder: TreeHolder, protocol: Any
    ) -> None:
        response = service.put(
            f"/v2/keys/{UNKNOWN}",
            content=iter([b"x"]),
            headers={"Cloister-Client-Digest": holder.client_digest},
        )
        assert protocol.problem(response)[0] == 411

    def test_is_limited(
        self, serve_keys: Serve, holder: TreeHolder, protocol: Any, tmp_path: Path
    ) -> None:
        with serve_keys(tmp_path, key_bytes=len(holder.keys) - 1) as service:
            assert protocol.problem(upload(service, holder))[0] == 413
        assert not list(tmp_path.rglob("*.upload"))

    def test_a_full_disk_is_said_and_leaves_nothing(
        self,
        serve_keys: Serve,
        holder: TreeHolder,
        protocol: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def full(_descriptor: int, _offset: int, _length: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full)
        with serve_keys(tmp_path) as service:
            status, detail = protocol.problem(upload(service, holder))
            assert (status, "disk" in detail) == (507, True)
            assert not list(tmp_path.rglob("*.upload"))
            monkeypatch.undo()
            assert upload(service, holder).status_code == 201

    def test_any_key_of_the_form_is_taken_whatever_it_computes(
        self, service: TestClient, holder: TreeHolder, protocol: Any, artifacts: Path, rows: Any
    ) -> None:
        keys = bytearray(holder.keys)
        for part in form_of(artifacts).variable:
            keys[part.offset : part.offset + part.length] = os.urandom(part.length)
        response = upload(service, holder, bytes(keys), owner="garbage")
        assert response.status_code == 201
        key = digest_bytes(bytes(keys))
        payload = holder.encrypt(rows[0])
        response = infer(service, holder, protocol, payload, key, **{"X-Owner": "garbage"})
        assert response.status_code == 200

    def test_keys_that_concrete_cannot_read_end_another_process(
        self, service: TestClient, holder: TreeHolder, protocol: Any
    ) -> None:
        digest = service.get("/v2/models/loose").json()["parameters"]["client_digest"]
        for offset in (16, 40):
            keys = bytearray(holder.keys)
            keys[offset : offset + 8] = b"\xff" * 8
            response = upload(service, holder, bytes(keys), Cloister_Client_Digest=digest)
            assert protocol.problem(response)[0] == 400
        assert service.get("/v2/health/live").status_code == 200


def form_of(artifacts: Path) -> EvaluationKeyForm:
    details = Registry(artifacts).open("tree", 1).manifest.details
    form = ArtifactDetails.model_validate(details).circuit.evaluation_keys
    assert form
    return form


class TestRemoval:
    def test_by_one_owner_leaves_the_others(
        self,
        serve_keys: Serve,
        holder: TreeHolder,
        protocol: Any,
        tmp_path: Path,
        rows: Any,
    ) -> None:
        with serve_keys(tmp_path) as service:
            for owner in ("one", "two"):
                assert upload(service, holder, owner=owner).status_code == 201
            address, payload = f"/v2/keys/{holder.digest}", holder.encrypt(rows[0])
            assert service.delete(address, headers={"X-Owner": "one"}).status_code == 204
            one = infer(service, holder, protocol, payload, holder.digest, **{"X-Owner": "one"})
            assert protocol.problem(one)[0] == 404
            two = infer(service, holder, protocol, payload, holder.digest, **{"X-Owner": "two"})
            assert two.status_code == 200
            assert service.delete(address, headers={"X-Owner": "two"}).status_code == 204
            assert service.delete(address, headers={"X-Owner": "two"}).status_code == 404
            assert not list((tmp_path / "content").iterdir())

    def test_replicas_share_what_is_on_the_volume(
        self, serve_keys: Serve, holder: TreeHolder, protocol: Any, tmp_path: Path, rows: Any
    ) -> None:
        payload = holder.encrypt(rows[0])
        with serve_keys(tmp_path) as first, serve_keys(tmp_path) as second:
            assert upload(first, holder).status_code == 201
            assert infer(second, holder, protocol, payload, holder.digest).status_code == 200
            assert first.delete(f"/v2/keys/{holder.digest}").status_code == 204
            gone = infer(second, holder, protocol, payload, holder.digest)
            assert protocol.problem(gone)[0] == 404

    def test_keys_that_the_disk_damaged_are_asked_for_anew(
        self, serve_keys: Serve, holder: TreeHolder, protocol: Any, tmp_path: Path, rows: Any
    ) -> None:
        payload = holder.encrypt(rows[0])
        for offset in (8, 1000):
            with serve_keys(tmp_path) as service:
                assert upload(service, holder).status_code == 201
                with (tmp_path / "content" / holder.digest).open("r+b") as stream:
                    stream.seek(offset)
                    stream.write(b"\xff\xff\xff\x7f")
                response = infer(service, holder, protocol, payload, holder.digest)
                assert protocol.problem(response)[0] == 404
                assert not list((tmp_path / "content").iterdir())


class TestForm:
    """Hostile keys never get past the form: these are fast, so there are many of them."""

    @pytest.fixture(scope="class")
    def form(self, artifacts: Path) -> KeyForm:
        fixed = (artifacts / "tree" / "1" / EVALUATION_KEY_FORM).read_bytes()
        return KeyForm(form_of(artifacts), fixed)

    def test_every_fixed_byte_is_held(
        self, form: KeyForm, holder: TreeHolder, artifacts: Path
    ) -> None:
        keys = bytearray(holder.keys)
        assert form.matches(io.BytesIO(keys))
        variable = [range(p.offset, p.offset + p.length) for p in form_of(artifacts).variable]
        stream = io.BytesIO(keys)
        starts = [0, *(part.stop for part in variable)]
        stops = [*(part.start for part in variable), len(keys)]
        fixed = [i for start, stop in zip(starts, stops, strict=True) for i in range(start, stop)]
        assert len(fixed) == len(keys) - sum(map(len, variable))
        for index in fixed:
            stream.getbuffer()[index] ^= 1 << index % 8
            assert not form.matches(stream), index
            stream.getbuffer()[index] ^= 1 << index % 8
        assert form.matches(stream)

    @given(data=st.data())
    @settings(max_examples=300)
    def test_mutations_of_the_head_and_other_lengths_are_refused(
        self, form: KeyForm, holder: TreeHolder, data: st.DataObject
    ) -> None:
        offset = data.draw(st.integers(0, 300))
        patch = data.draw(st.binary(min_size=1, max_size=12))
        stream = io.BytesIO(holder.keys)
        stream.seek(offset)
        stream.write(patch)
        unchanged = holder.keys[offset : offset + len(patch)] == patch
        assert form.matches(stream) == unchanged
        cut = data.draw(st.integers(0, 4096))
        assert not form.matches(io.BytesIO(holder.keys[:cut]))
        stream.seek(0, 2)
        stream.write(b"x" * (cut + 1))
        assert not form.matches(stream)

    def test_mutations_over_http_are_refused_and_the_service_goes_on(
        self, service: TestClient, holder: TreeHolder, protocol: Any, uploaded: str, rows: Any
    ) -> None:
        random = np.random.default_rng(0)
        for _ in range(40):
            keys = bytearray(holder.keys)
            keys[int(random.integers(300))] ^= 1 << int(random.integers(8))
            assert protocol.problem(upload(service, holder, bytes(keys)))[0] == 400
        for cut in random.integers(0, len(holder.keys), 40):
            response = upload(service, holder, holder.keys[: int(cut)])
            assert protocol.problem(response)[0] == 400
        payload = holder.encrypt(rows[0])
        assert infer(service, holder, protocol, payload, uploaded).status_code == 200

    @pytest.mark.parametrize(
        ("length", "variable", "fixed"),
        [
            (48, [(16, 16)], b"\x00\x00\x00\x00\x05\x00\x00\x00" + bytes(23)),
            (48, [(16, 16)], b"\x00\x00\x00\x00\x05\x00\x00\x00" + bytes(25)),
            (48, [(16, 40)], b"\x00\x00\x00\x00\x05\x00\x00\x00" + bytes(8)),
            (48, [(16, 16), (24, 8)], b"\x00\x00\x00\x00\x05\x00\x00\x00" + bytes(16)),
            (48, [(16, 16)], b"\x00\x00\x00\x00\x06\x00\x00\x00" + bytes(24)),
            (48, [(4, 44)], b"\x00\x00\x00\x00"),
            (48, [(8, 40)], b"\xff\xff\xff\xff\x05\x00\x00\x00"),
        ],
    )
    def test_a_form_that_does_not_hold_together_is_refused(
        self, length: int, variable: list[tuple[int, int]], fixed: bytes
    ) -> None:
        parts = [{"offset": offset, "length": size} for offset, size in variable]
        form = EvaluationKeyForm.model_validate({"length": length, "variable": parts})
        with pytest.raises(CloisterError, match=r"form|ranges"):
            KeyForm(form, fixed)


def test_settings_and_openapi_name_the_endpoints(service: TestClient) -> None:
    paths = json.loads(service.get("/openapi.json").text)["paths"]
    assert set(paths["/v2/keys/{sha256}"]) == {"put", "get", "delete"}
    assert "507" in paths["/v2/keys/{sha256}"]["put"]["responses"]
    parameters = paths["/v2/models/{name}/infer"]["post"]["parameters"]
    assert "Cloister-Evaluation-Key" in {parameter["name"] for parameter in parameters}


def test_the_digest_of_the_fixture_is_sha256(holder: TreeHolder) -> None:
    assert holder.digest == hashlib.sha256(holder.keys).hexdigest()
