"""A service over both compiled models, and key holders made from what it offers for download."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from cloister_inference.app import create_app
from cloister_inference.limits import Limits
from cloister_shared.artifact import CLIENT_ZIP
from cloister_shared.digests import digest_bytes, digest_file
from cloister_shared.open_inference import HEADER_LENGTH, decode_elements, encode_elements
from cloister_shared.reference import Reference
from cloister_shared.registry import Registry

MAX_BATCH = 4


@dataclass
class KeyHolder:
    """Stock Concrete ML as a key holder, on rows in [0, 1] of all features."""

    stock: Any
    digest: str
    reference: Reference

    def encrypt(self, row: np.ndarray[Any, Any]) -> bytes:
        payload: bytes = self.stock.quantize_encrypt_serialize(row[None, self.reference.features])
        return payload

    def decrypt(self, result: bytes) -> list[int]:
        return [int(score) for score in np.asarray(self.stock.deserialize_decrypt(result)).ravel()]

    def expected(self, row: np.ndarray[Any, Any]) -> list[int]:
        """Integer scores in the clear."""
        quantised = self.reference.quantise(row[None, :])
        return [int(score) for score in self.reference.integer_scores(quantised).ravel()]


MakeKeyHolder = Callable[[str, bytes], KeyHolder]


@pytest.fixture(scope="session")
def make_key_holder(
    tmp_path_factory: pytest.TempPathFactory, artifacts: Path
) -> Callable[[str, bytes], KeyHolder]:
    from concrete.ml.deployment import FHEModelClient  # noqa: PLC0415 - takes seconds

    def make(name: str, client_zip: bytes) -> KeyHolder:
        folder = tmp_path_factory.mktemp(name)
        (folder / CLIENT_ZIP).write_bytes(client_zip)
        stock = FHEModelClient(str(folder))
        stock.generate_private_and_evaluation_keys()
        reference = Reference.read(artifacts / name / "1" / "reference.npz")
        return KeyHolder(stock, digest_bytes(client_zip), reference)

    return make


@pytest.fixture(scope="session")
def artifacts(
    tmp_path_factory: pytest.TempPathFactory, digits_artifacts: Path, breast_cancer_artifacts: Path
) -> Path:
    """A registry that holds version 1 of both models; not to be changed."""
    root = tmp_path_factory.mktemp("both") / "artifacts"
    for source in (digits_artifacts, breast_cancer_artifacts):
        shutil.copytree(source / "artifacts", root, dirs_exist_ok=True)
    return root


@pytest.fixture
def own_artifacts(artifacts: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(artifacts, tmp_path / "artifacts"))


def serve(root: Path) -> TestClient:
    app = create_app(Registry(root), Limits(threads=2, max_batch=MAX_BATCH))
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture(scope="session")
def service(artifacts: Path) -> Iterator[TestClient]:
    with serve(artifacts) as client:
        yield client


@pytest.fixture
def start_own(own_artifacts: Path) -> Iterator[Callable[[], TestClient]]:
    """Start services over ``own_artifacts`` as they are by then."""
    with ExitStack() as started:
        yield lambda: started.enter_context(serve(own_artifacts))


@pytest.fixture
def own_service(start_own: Callable[[], TestClient]) -> TestClient:
    return start_own()


@pytest.fixture(scope="session")
def digits(service: TestClient, make_key_holder: MakeKeyHolder) -> KeyHolder:
    return make_key_holder("digits", service.get("/v2/models/digits/versions/1/client").content)


@pytest.fixture(scope="session")
def breast_cancer(service: TestClient, make_key_holder: MakeKeyHolder) -> KeyHolder:
    address = "/v2/models/breast_cancer/versions/1/client"
    return make_key_holder("breast_cancer", service.get(address).content)


@pytest.fixture(scope="session")
def digits_rows(
    digits_data: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
) -> np.ndarray[Any, Any]:
    return np.asarray(digits_data[0] / 16)


@pytest.fixture(scope="session")
def digits_payload(digits: KeyHolder, digits_rows: np.ndarray[Any, Any]) -> bytes:
    """An encryption of the first digit."""
    return digits.encrypt(digits_rows[0])


class Protocol:
    """The client's side of the wire, so that tests can send what no client would."""

    @staticmethod
    def raw(
        service: Any, model: str, payload: bytes, digest: str | None = None, **headers: str
    ) -> httpx.Response:
        stated = {"Content-Type": "application/octet-stream"} | headers
        if digest:
            stated["Cloister-Client-Digest"] = digest
        response: httpx.Response = service.post(
            f"/v2/models/{model}/infer", content=payload, headers=stated
        )
        return response

    @staticmethod
    def header(elements: list[bytes], **changes: Any) -> dict[str, Any]:
        size = len(encode_elements(elements))
        return {
            "inputs": [
                {
                    "name": "ciphertext",
                    "shape": [len(elements)],
                    "datatype": "BYTES",
                    "parameters": {"binary_data_size": size},
                }
            ],
            "outputs": [{"name": "result", "parameters": {"binary_data": True}}],
        } | changes

    @staticmethod
    def framed(
        service: Any, model: str, header: object, data: bytes, **headers: str
    ) -> httpx.Response:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        response: httpx.Response = service.post(
            f"/v2/models/{model}/infer",
            content=text + data,
            headers={HEADER_LENGTH: str(len(text))} | headers,
        )
        return response

    @staticmethod
    def unframe(response: httpx.Response) -> tuple[dict[str, Any], list[bytes]]:
        length = int(response.headers[HEADER_LENGTH])
        header = json.loads(response.content[:length])
        (output,) = header["outputs"]
        data = response.content[length:]
        assert output["parameters"]["binary_data_size"] == len(data)
        return header, decode_elements(data, output["shape"][0])

    @staticmethod
    def problem(response: httpx.Response) -> tuple[int, str]:
        """The status and detail of a problem that is well formed."""
        assert response.headers["content-type"] == "application/problem+json"
        problem = response.json()
        assert problem["status"] == response.status_code
        assert problem["type"] == "about:blank"
        assert problem["title"]
        assert problem["error"] == problem["detail"] != ""
        return response.status_code, problem["detail"]


@pytest.fixture(scope="session")
def protocol() -> Protocol:
    return Protocol()


Republish = Callable[..., None]


@pytest.fixture
def republish(own_artifacts: Path) -> Republish:
    """Publish version 1 of a model again, with other content, under digests that fit."""
    registry = Registry(own_artifacts)

    def publish(
        name: str,
        *,
        members: dict[str, bytes | None] | None = None,
        files: dict[str, bytes] | None = None,
        circuit: dict[str, int] | None = None,
        changes: dict[str, object] | None = None,
    ) -> None:
        first = registry.open(name, 1)

        def write(folder: Path) -> dict[str, Any]:
            for file in first.manifest.files:
                shutil.copy(first.path / file, folder)
            if members:
                server = (folder / "server.zip").read_bytes()
                (folder / "server.zip").write_bytes(with_members(server, members))
            for file, content in (files or {}).items():
                (folder / file).write_bytes(content)
            details = dict(first.manifest.details)
            details["circuit"] = details["circuit"] | (circuit or {})
            details["client_digest"] = digest_file(folder / CLIENT_ZIP)
            details |= changes or {}
            return details

        registry.publish(name, "published again", write)

    return publish


def with_members(archive: bytes, members: dict[str, bytes | None]) -> bytes:
    """Replace, add or (None) leave out members of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        content: dict[str, bytes | None] = {n: source.read(n) for n in source.namelist()}
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w") as target:
        for name, data in (content | members).items():
            if data is not None:
                target.writestr(name, data)
    return result.getvalue()
