"""The application as a whole: imports, descriptions, defects, body reading."""

import asyncio
import json
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.requests import Request

from cloister_inference.api.answers import install_handlers
from cloister_inference.api.body import read_body
from cloister_inference.app import create_app
from cloister_inference.evaluation.payload import PayloadForm
from cloister_inference.options import Options
from cloister_inference.problems import (
    LengthRequiredError,
    MalformedRequestError,
    ProblemError,
    TooLargeError,
)
from cloister_shared.artifact import ArtifactDetails, Circuit
from cloister_shared.registry import Registry


def test_neither_torch_nor_the_compiler_is_imported() -> None:
    program = """
import os, sys
os.environ.pop("OMP_NUM_THREADS", None)
import cloister_inference.__main__
from pathlib import Path
from cloister_inference.app import create_app
from cloister_inference.options import Options
from cloister_shared.registry import Registry
create_app(Registry(Path("artifacts")), Options(threads=1, max_batch=1))
print(sorted({"torch", "concrete.fhe", "concrete.ml", "sklearn"} & set(sys.modules)))
print("concrete.compiler" in sys.modules, os.environ["OMP_NUM_THREADS"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "True 1"]


def test_the_length_of_a_form_that_ends_with_its_data_is_checked() -> None:
    circuit = Circuit(
        n_features=1,
        n_card_features=1,
        n_outputs=1,
        bits_inputs=8,
        bits_weights=8,
        width=8,
        signed=True,
        lwe_dimension=8,
        input_bytes=4,
        input_data_offset=2,
        input_data_bytes=2,
        output_bytes=1,
    )
    form = PayloadForm(b"ab\0\0", circuit)
    form.check(b"abcd", 0)
    for payload in (b"abc", b"ab", b"", b"abcde", b"aXcd"):
        with pytest.raises(MalformedRequestError, match="element 7"):
            form.check(payload, 7)


def test_every_operation_is_described(service: TestClient) -> None:
    document = service.get("/openapi.json").json()
    assert document["info"]["title"]
    assert set(document["paths"]) == {
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/repository/index",
        "/v2/repository/models/{name}/load",
        "/v2/repository/models/{name}/promote",
        "/v2/repository/models/{name}/unload",
        "/v2/models/{name}/versions",
        *(
            prefix + suffix
            for prefix in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
            for suffix in ("", "/ready", "/infer")
        ),
        "/v2/models/{name}/versions/{version}/client",
        "/v2/models/{name}/versions/{version}/details",
        "/v2/models/{name}/versions/{version}/reference",
        "/v2/keys/{sha256}",
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            assert operation["description"], path
            # FastAPI's own form of errors, which is never sent.
            assert "422" not in operation["responses"], path
            missing = "{" in path or path == "/v2/health/ready"
            assert ("404" in operation["responses"]) == missing, path
            parameters = {parameter["name"] for parameter in operation.get("parameters", [])}
            assert {name for name in ("name", "version") if "{" + name in path} <= parameters
            if path.endswith("/infer"):
                assert {"400", "409", "411", "413", "415", "503"} <= set(operation["responses"])
                assert {"Cloister-Client-Digest", "Inference-Header-Content-Length"} <= parameters
                assert operation["requestBody"]["required"]


def test_what_was_proven_is_told(service: TestClient, artifacts: Path) -> None:
    manifest = Registry(artifacts).open_current("digits").manifest
    answer = service.get(f"/v2/models/digits/versions/{manifest.version}/details")
    assert answer.status_code == 200
    told = ArtifactDetails.model_validate_json(answer.content)
    assert told == ArtifactDetails.model_validate(manifest.details)
    assert service.get("/v2/models/digits/versions/9/details").status_code == 404


def test_a_defect_is_answered_without_its_details(tmp_path: Path, protocol: Any) -> None:
    app = create_app(Registry(tmp_path), Options(threads=1, max_batch=1))

    @app.get("/defect")
    def defect() -> None:
        raise ZeroDivisionError("the secret of the house")

    with TestClient(app, raise_server_exceptions=False) as service:
        status, detail = protocol.problem(service.get("/defect"))
    assert status == 500
    assert "secret" not in detail
    assert "ZeroDivision" not in detail


class TestUnreadBody:
    """An answer to a request whose body is not read, message by message."""

    @staticmethod
    def events(
        monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], pieces: list[bytes]
    ) -> list[str]:
        """Answer 413, and return what happened in order."""
        app, events, left = FastAPI(), [], list(pieces)
        install_handlers(app, app.routes)

        @app.post("/")
        def refuse() -> None:
            raise TooLargeError("too large")

        async def receive() -> MutableMapping[str, Any]:
            events.append("read")
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                assert (b"connection", b"close") in message["headers"]
                events.append("start")
            elif message.get("more_body"):
                assert json.loads(message["body"])["status"] == 413
                events.append("answer")
            else:
                events.append("end")

        async def linger(_seconds: float) -> None:
            events.append("linger")

        monkeypatch.setattr("cloister_inference.api.answers.asyncio.sleep", linger)
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        asyncio.run(app(scope, receive, send))
        return events

    def test_of_moderate_length_is_dropped_after_the_answer(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events = self.events(monkeypatch, {"content-length": "6"}, [b"123", b"456"])
        assert events == ["start", "answer", "read", "read", "end"]

    @pytest.mark.parametrize("length", [str(1 << 30), "9" * 5000, "x"])
    def test_of_great_length_is_left_and_cut_off_after_a_moment(
        self, monkeypatch: pytest.MonkeyPatch, length: str
    ) -> None:
        events = self.events(monkeypatch, {"content-length": length}, [b"123"])
        assert events == ["start", "answer", "linger", "end"]

    def test_of_unstated_length_is_dropped_up_to_a_limit(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events = self.events(monkeypatch, {}, [bytes(1 << 20)] * 100)
        assert events == ["start", "answer", *["read"] * 9, "linger", "end"]


class TestReadBody:
    """Bodies as a server hands them on, piece by piece."""

    @staticmethod
    def read(headers: dict[str, str], pieces: list[bytes | None], limit: int = 10) -> bytes:
        """Read a body; None stands for a connection that ends."""
        left = list(pieces)

        async def receive() -> MutableMapping[str, Any]:
            piece = left.pop(0)
            if piece is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": piece, "more_body": bool(left)}

        scope = {
            "type": "http",
            "method": "POST",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        try:
            return asyncio.run(read_body(Request(scope, receive), limit))
        finally:
            TestReadBody.unread = len(left)

    unread = 0

    def test_is_put_together(self) -> None:
        assert self.read({"content-length": "10"}, [b"01234", b"", b"56789"]) == b"0123456789"
        assert self.read({"content-length": "0"}, [b""]) == b""

    @pytest.mark.parametrize(
        ("headers", "error"),
        [
            ({}, LengthRequiredError),
            ({"content-length": "2", "transfer-encoding": "chunked"}, LengthRequiredError),
            ({"content-length": "11"}, TooLargeError),
            ({"content-length": "1073741824"}, TooLargeError),
            ({"content-length": "9" * 5000}, TooLargeError),
            ({"content-length": "-1"}, MalformedRequestError),
            ({"content-length": "+1"}, MalformedRequestError),
            ({"content-length": ""}, MalformedRequestError),
            ({"content-length": "1_0"}, MalformedRequestError),
        ],
    )
    def test_is_not_begun_under_a_wrong_length(
        self, headers: dict[str, str], error: type[ProblemError]
    ) -> None:
        with pytest.raises(error):
            self.read(headers, [b"1", b"2"])
        assert self.unread == 2

    @pytest.mark.parametrize(
        ("pieces", "error"),
        [
            ([b"1234"], MalformedRequestError),
            ([b"1234", None], MalformedRequestError),
            ([b"1234", b"56", b"78"], TooLargeError),
        ],
    )
    def test_must_be_as_long_as_stated(
        self, pieces: list[bytes | None], error: type[ProblemError]
    ) -> None:
        with pytest.raises(error):
            self.read({"content-length": "5"}, pieces)
