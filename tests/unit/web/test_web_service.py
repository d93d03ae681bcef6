"""A service that is busy, broken or hostile, to the browser's client."""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from javascript import JavaScript, JavaScriptError

from cloister_keyholder.package.content import open_package
from cloister_shared.artifact import CLIENT_ZIP, REFERENCE

MODEL = "/v2/models/digits"
ROW = [8.0] * 64


@dataclass
class Fake:
    """What a service answers, by method and path, the last answer again and again."""

    answers: dict[tuple[str, str], list[tuple[int, dict[str, str], bytes]]]
    result_bytes: int
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, Any, bytes]:
        self.requests.append((method, path, headers))
        known = self.answers[method, path]
        return known.pop(0) if len(known) > 1 else known[0]


@pytest.fixture
def fake(digits_artifacts: Path) -> Iterator[Fake]:
    client = (digits_artifacts / "artifacts" / "digits" / "1" / CLIENT_ZIP).read_bytes()
    # Concrete's envelope around ciphertexts has 264 bytes.
    result_bytes = open_package(client).circuit.specs.result_data_bytes + 264
    digest = hashlib.sha256(client).hexdigest()
    described = json.dumps({"parameters": {"version": "1", "client_digest": digest}}).encode()
    fake = Fake(
        {
            ("GET", MODEL): [(200, {}, described)],
            ("GET", f"{MODEL}/versions/1/client"): [(200, {}, client)],
            ("POST", f"{MODEL}/versions/1/infer"): [(200, {}, bytes(result_bytes))],
        },
        result_bytes,
    )

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = fake.answer(self.command, self.path, dict(self.headers))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do  # noqa: N815 - http.server's

        def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - http.server's
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        fake.url = f"http://127.0.0.1:{server.server_port}"
        yield fake
        server.shutdown()


def refused(javascript: JavaScript, fake: Fake, error: str, why: str, **options: Any) -> None:
    with pytest.raises(JavaScriptError, match=why) as raised:
        javascript("predict", url=fake.url, model="digits", rows=[ROW], options=options)
    assert raised.value.name == error


def test_another_client_zip_than_was_announced_is_refused(
    javascript: JavaScript, fake: Fake
) -> None:
    path = ("GET", f"{MODEL}/versions/1/client")
    (status, headers, body) = fake.answers[path][0]
    fake.answers[path] = [(status, headers, body[:-1] + b"\1")]
    refused(javascript, fake, "InvalidAnswer", "it was changed on the way")


@pytest.mark.parametrize(
    "described",
    [
        b"no JSON",
        b"{}",
        b'{"parameters": {"version": "1/../2", "client_digest": "%s"}}' % (b"0" * 64),
        b'{"parameters": {"version": "1", "client_digest": "abc"}}',
    ],
)
def test_a_malformed_description_is_refused(
    javascript: JavaScript, fake: Fake, described: bytes
) -> None:
    fake.answers["GET", MODEL] = [(200, {}, described)]
    refused(javascript, fake, "InvalidAnswer", "does not describe a model")


def test_another_version_than_was_asked_for_is_refused(javascript: JavaScript, fake: Fake) -> None:
    fake.answers["GET", f"{MODEL}/versions/2"] = fake.answers["GET", MODEL]
    refused(javascript, fake, "InvalidAnswer", "asked for version 2", version="2")


def test_an_answer_that_is_too_large_is_not_read(javascript: JavaScript, fake: Fake) -> None:
    fake.answers["GET", MODEL] = [(200, {}, bytes((1 << 20) + 1))]
    refused(javascript, fake, "InvalidAnswer", "more than 1048576 bytes")


@pytest.mark.parametrize(
    ("longer", "why"),
    [(0, "of another circuit"), (-1, "cannot be one"), (1, "more")],
)
def test_what_is_no_result_is_refused_and_the_service_hears_nothing_of_it(
    javascript: JavaScript, fake: Fake, longer: int, why: str
) -> None:
    result = bytes(fake.result_bytes + longer)
    fake.answers["POST", f"{MODEL}/versions/1/infer"] = [(200, {}, result)]
    refused(javascript, fake, "InvalidAnswer" if why == "more" else "InvalidResult", why)
    assert [method for method, *_ in fake.requests] == ["GET", "GET", "POST"]


def test_a_busy_service_is_asked_again_when_it_says(javascript: JavaScript, fake: Fake) -> None:
    (answer,) = fake.answers["GET", MODEL]
    fake.answers["GET", MODEL] = [(503, {"Retry-After": "1"}, b"{}"), answer]
    refused(javascript, fake, "InvalidResult", "of another circuit")
    assert [path for _, path, _ in fake.requests][:2] == [MODEL, MODEL]


def test_one_that_stays_busy_is_given_up(javascript: JavaScript, fake: Fake) -> None:
    problem = json.dumps({"detail": "the queue\u202e is full"}).encode()
    fake.answers["GET", MODEL] = [(429, {"Retry-After": "30"}, problem)]
    refused(javascript, fake, "ServiceUnavailable", r"busy: the queue\? is full", retrySeconds=1)
    assert len(fake.requests) == 1


def test_a_refusal_is_not_repeated(javascript: JavaScript, fake: Fake) -> None:
    fake.answers["GET", MODEL] = [(401, {}, b'{"detail": "show a key"}')]
    refused(javascript, fake, "RequestRefused", r"\(401\): show a key")
    assert len(fake.requests) == 1


def test_the_api_key_and_the_digest_are_shown_and_nothing_else_is(
    javascript: JavaScript, fake: Fake
) -> None:
    refused(javascript, fake, "InvalidResult", "", apiKey="a-key")
    assert {headers["authorization"] for *_, headers in fake.requests} == {"Bearer a-key"}
    *_, headers = fake.requests[-1]
    assert len(headers["cloister-client-digest"]) == 64
    assert headers["content-type"] == "application/octet-stream"
    assert "cookie" not in headers


def clear(javascript: JavaScript, fake: Fake, reference: bytes) -> Any:
    fake.answers["GET", f"{MODEL}/versions/1/reference"] = [(200, {}, reference)]
    (found,) = javascript("clear", url=fake.url, model="digits", rows=[ROW])
    return found


def changed(digits_artifacts: Path, **arrays: Any) -> bytes:
    """The reference, with arrays in other places, or without those that are None."""
    with np.load(digits_artifacts / "artifacts" / "digits" / "1" / REFERENCE) as archive:
        kept = {name: archive[name] for name in archive.files} | arrays
    stream = io.BytesIO()
    np.savez(stream, **{name: array for name, array in kept.items() if array is not None})
    return stream.getvalue()


def test_a_matrix_may_lie_by_rows_or_by_columns(
    javascript: JavaScript, fake: Fake, digits_artifacts: Path
) -> None:
    with np.load(io.BytesIO(changed(digits_artifacts))) as archive:
        coef, weights = archive["coef"], archive["weights"]
    by_rows, by_columns = (
        clear(javascript, fake, changed(digits_artifacts, coef=order(coef), weights=order(weights)))
        for order in (np.ascontiguousarray, np.asfortranarray)
    )
    assert by_rows == by_columns


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"weights": None}, "lacks weights"),
        ({"coef": np.zeros((3, 64))}, "of another model"),
        ({"features": np.arange(64)[::-1].copy()}, "of another model"),
        ({"weights": np.zeros((64, 10))}, "weights is not of the type"),
        ({"bias": np.array([{}] * 10)}, "bias is not of the type"),
        ({"input_scale": np.array(0.0)}, "quantises nothing"),
        ({"input_scale": np.zeros(2)}, "no single number"),
    ],
)
def test_a_reference_that_is_not_the_models_is_refused(
    javascript: JavaScript, fake: Fake, digits_artifacts: Path, arrays: Any, why: str
) -> None:
    with pytest.raises(JavaScriptError, match=why) as raised:
        clear(javascript, fake, changed(digits_artifacts, **arrays))
    assert raised.value.name == "InvalidAnswer"


@pytest.mark.parametrize("cut", [0, 100, -1])
def test_a_reference_that_ends_early_is_refused(
    javascript: JavaScript, fake: Fake, digits_artifacts: Path, cut: int
) -> None:
    with pytest.raises(JavaScriptError, match=r"reference\.npz is damaged"):
        clear(javascript, fake, changed(digits_artifacts)[:cut])


def test_where_no_reference_is_published_there_is_no_clear_answer(
    javascript: JavaScript, fake: Fake
) -> None:
    fake.answers["GET", f"{MODEL}/versions/1/reference"] = [(404, {}, b'{"detail": "none"}')]
    assert javascript("clear", url=fake.url, model="digits", rows=[ROW]) == [None]
