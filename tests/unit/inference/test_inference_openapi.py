"""The OpenAPI document: what it must hold, and that the service does what it says."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from pydantic import TypeAdapter
from schemathesis import Case
from schemathesis.core.parameters import ParameterLocation
from test_inference_process import Process

from cloister_inference import protocol
from cloister_inference.api.answers import Problem
from cloister_inference.api.endpoints.keys import KeyState
from cloister_inference.app import create_app
from cloister_inference.options import Options
from cloister_shared.artifact import CLIENT_ZIP
from cloister_shared.digests import digest_bytes, digest_file
from cloister_shared.open_inference import (
    CLIENT_DIGEST,
    COMPACT_TYPE,
    EVALUATION_KEY,
    HEADER_LENGTH,
    OCTETS,
    encode_elements,
)
from cloister_shared.registry import Registry


@pytest.fixture(scope="session")
def document(service: TestClient) -> dict[str, Any]:
    described: dict[str, Any] = service.get("/openapi.json").json()
    return described


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def test_every_operation_has_an_id_and_a_tag_that_is_described(document: dict[str, Any]) -> None:
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    assert len(document["info"]["description"]) > 500
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    for label, operation in operations(document):
        (tag,) = operation["tags"]
        assert tags[tag], label


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    for label, operation in operations(document):
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        for status, response in operation["responses"].items():
            assert (
                "content" in response
                or status in ("204", "304")
                or label.startswith("put /v2/keys/")
                or "/load" in label
                or "/promote" in label
                or "/unload" in label
            )
            bodies.append(response)
        for body in bodies:
            for media_type, content in body.get("content", {}).items():
                assert content.get("example") or content.get("examples"), (label, media_type)
        for parameter in operation.get("parameters", ()):
            assert parameter["schema"]["examples"], label
            assert parameter["description"], label


def test_every_example_is_what_it_stands_for(document: dict[str, Any]) -> None:
    seen = 0
    answers: dict[str, Any] = {
        "server_metadata": protocol.ServerMetadata,
        "live": protocol.Live,
        "ready": protocol.Ready,
        "model_metadata": protocol.ModelMetadata,
        "version_metadata": protocol.ModelMetadata,
        "model_ready": protocol.ModelReady,
        "version_ready": protocol.ModelReady,
        "repository_index": list[protocol.IndexEntry],
        "describe_key": KeyState,
    }
    requests: dict[str, Any] = {
        "repository_index": protocol.IndexRequest,
        "repository_load": protocol.LoadRequest,
        "repository_unload": protocol.UnloadRequest,
    }
    for _, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                example = response["content"]["application/problem+json"]["example"]
                problem = Problem.model_validate(example)
                assert problem.status == int(status)
                assert problem.error == problem.detail
                seen += 1
        if operation["operationId"] in answers:
            example = operation["responses"]["200"]["content"]["application/json"]["example"]
            TypeAdapter(answers.pop(operation["operationId"])).validate_python(example)
        if operation["operationId"] in requests:
            shown = operation["requestBody"]["content"]["application/json"]["examples"]
            for example in shown.values():
                requests[operation["operationId"]].model_validate(example["value"])
            del requests[operation["operationId"]]
    assert seen > 50
    assert (answers, requests) == ({}, {})


def test_the_parts_of_binary_bodies_are_described(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for part in ("InferenceHeader", "InferenceAnswer"):
        assert part in document["info"]["description"]
        assert schemas[part]["properties"]
    references = set(json.dumps(document).split('"$ref": "#/components/schemas/')[1:])
    for reference in references:
        assert reference.split('"')[0] in schemas


def test_nothing_is_loaded_from_elsewhere(service: TestClient) -> None:
    for page in ("/docs", "/redoc"):
        assert service.get(page).status_code == 404


# --- What is described is what happens ------------------------------------------------------------

schemathesis.serializer.alias(COMPACT_TYPE, OCTETS)
described = schemathesis.openapi.from_dict(
    create_app(Registry(Path("none")), Options(threads=1, max_batch=1)).openapi()
)


@pytest.fixture(scope="module")
def process(
    artifacts: Path, tree_artifacts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    root = tmp_path_factory.mktemp("process")
    for source in (artifacts, tree_artifacts / "artifacts"):
        shutil.copytree(source, root / "artifacts", dirs_exist_ok=True)
    started = Process(root / "artifacts", root, CLOISTER_KEYS_DIR=str(root / "keys"))
    yield started
    started.end()


@dataclass
class EvaluationKeys:
    """Of the model ``tree``."""

    content: bytes
    client_digest: str

    @property
    def digest(self) -> str:
        return digest_bytes(self.content)

    def upload(self, url: str) -> None:
        httpx.put(
            f"{url}/v2/keys/{self.digest}",
            content=self.content,
            headers={CLIENT_DIGEST: self.client_digest, "Content-Type": OCTETS},
            timeout=60,
        ).raise_for_status()


@dataclass
class Ciphertexts:
    """By model, with the digest that each was encrypted for; and the keys that one model needs."""

    by_model: dict[str, tuple[bytes, str]]
    keys: EvaluationKeys

    def fit(self, case: Case[Any]) -> None:
        """Make the parts of a request valid that should be, where no schema can say what is.

        Names what is published now and then, and lets a ciphertext, its digest and the length of
        a JSON header go together.
        """
        path, headers = case.path_parameters, case.headers
        if "name" in path and valid(case, ParameterLocation.PATH):
            if len(path["name"]) % 2:
                path["name"] = "tree" if len(path["name"]) % 4 == 1 else "digits"
            if "version" in path and len(path["version"]) % 2:
                path["version"] = "1"
        if "sha256" in path:
            self._fit_keys(case)
        if not case.operation.label.endswith("/infer"):
            return
        payload, digest = self.by_model.get(str(path.get("name")), self.by_model["digits"])
        if valid(case, ParameterLocation.BODY):
            case.body = payload
        if valid(case, ParameterLocation.HEADER):
            if CLIENT_DIGEST in headers or "version" not in path:
                headers[CLIENT_DIGEST] = digest
            headers.pop(EVALUATION_KEY, None)
            if path.get("name") == "tree":
                headers[EVALUATION_KEY] = self.keys.digest
            if HEADER_LENGTH in headers and valid(case, ParameterLocation.BODY):
                header, data = framed([payload] * (1 + int(headers[HEADER_LENGTH]) % 4))
                headers[HEADER_LENGTH] = str(len(header))
                case.body = header + data

    def _fit_keys(self, case: Case[Any]) -> None:
        path, headers = case.path_parameters, case.headers
        uploading = case.operation.method.upper() == "PUT"
        if valid(case, ParameterLocation.PATH) and (uploading or path["sha256"][0] in "02468ace"):
            path["sha256"] = self.keys.digest
        if uploading and valid(case, ParameterLocation.HEADER):
            headers[CLIENT_DIGEST] = self.keys.client_digest
        if uploading and valid(case, ParameterLocation.BODY):
            case.body = self.keys.content


def valid(case: Case[Any], location: ParameterLocation) -> bool:
    """Whether a part of a request is to be valid, or may be added to a request that is."""
    assert case.meta is not None
    part = case.meta.components.get(location)
    mode = case.meta.generation.mode if part is None else part.mode
    return bool(mode.is_positive)


def framed(elements: list[bytes]) -> tuple[bytes, bytes]:
    """A JSON header and the data that follows it."""
    data = encode_elements(elements)
    header = {
        "inputs": [
            {
                "name": "ciphertext",
                "shape": [len(elements)],
                "datatype": "BYTES",
                "parameters": {"binary_data_size": len(data)},
            }
        ]
    }
    return json.dumps(header).encode(), data


@pytest.fixture(scope="module")
def ciphertexts(
    digits: Any,
    breast_cancer: Any,
    digits_rows: np.ndarray[Any, Any],
    digits_payload: bytes,
    tree_artifacts: Path,
) -> Ciphertexts:
    from concrete.ml.deployment import FHEModelClient  # noqa: PLC0415 - takes seconds

    folder = tree_artifacts / "artifacts" / "tree" / "1"
    tree = FHEModelClient(str(folder))
    tree.generate_private_and_evaluation_keys()
    keys = EvaluationKeys(tree.get_serialized_evaluation_keys(), digest_file(folder / CLIENT_ZIP))
    row = np.array([[0.0]])
    return Ciphertexts(
        {
            "digits": (digits_payload, digits.digest),
            "breast_cancer": (breast_cancer.encrypt(digits_rows[0][:30]), breast_cancer.digest),
            "tree": (tree.quantize_encrypt_serialize(row), keys.client_digest),
        },
        keys,
    )


@pytest.fixture
def url(process: Process, ciphertexts: Ciphertexts) -> str:
    """Of the service, whose models and keys an earlier test may have unloaded and removed."""
    for name in ciphertexts.by_model:
        httpx.post(f"{process.url}/v2/repository/models/{name}/load").raise_for_status()
    ciphertexts.keys.upload(process.url)
    return process.url


@pytest.fixture(scope="module")
def answered() -> Iterator[Counter[tuple[str, int]]]:
    """How often an operation was answered with a status: of each, valid requests are among them."""
    counts: Counter[tuple[str, int]] = Counter()
    yield counts
    well = {label for label, status in counts if status in (200, 204)}
    assert well == {label for label, _ in counts}
    assert all(counts[label, 200] >= 10 for label in well if label.endswith("/infer"))


@described.parametrize()
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_the_service_does_what_is_described(
    case: Case[Any], url: str, ciphertexts: Ciphertexts, answered: Counter[tuple[str, int]]
) -> None:
    ciphertexts.fit(case)
    response = case.call_and_validate(base_url=url)
    answered[case.operation.label, response.status_code] += 1
