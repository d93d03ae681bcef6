"""The inference service's HTTP contract, over Concrete ML's own server."""

import io
import json
import re
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx

from cloister_inference.evaluation.native import expand, pack
from cloister_shared.artifact import (
    CLIENT_ZIP,
    EVALUATION_KEYS,
    INPUT_TEMPLATE,
    REFERENCE,
    ArtifactDetails,
)
from cloister_shared.compact import Compact
from cloister_shared.digests import digest_bytes
from cloister_shared.open_inference import (
    COMPACT_TYPE,
    HEADER_LENGTH,
    OCTETS,
    decode_elements,
    encode_elements,
)
from cloister_shared.registry import Manifest


def stock_server(folder: Path) -> Any:
    """Concrete ML's own server of an artifact."""
    # Importing Concrete ML takes seconds: only the tests that evaluate pay for it.
    from concrete.ml.deployment import FHEModelServer  # noqa: PLC0415

    return FHEModelServer(str(folder))


def problem(status: int, detail: str, **headers: str) -> httpx.Response:
    return httpx.Response(
        status,
        json={"type": "about:blank", "title": "", "status": status, "detail": detail},
        headers={"Content-Type": "application/problem+json", **headers},
    )


def rezip(archive: bytes, changes: dict[str, bytes | None]) -> bytes:
    """Replace, add or (None) drop members of a zip archive."""
    with zipfile.ZipFile(io.BytesIO(archive)) as original:
        members: dict[str, bytes | None] = {
            name: original.read(name) for name in original.namelist()
        }
    members.update(changes)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as result:
        for name, content in members.items():
            if content is not None:
                result.writestr(name, content)
    return stream.getvalue()


class FakeService:
    """One version of one model; ``interceptors`` answer the next requests in its place."""

    def __init__(self, folder: Path, server: Any) -> None:
        manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
        self.folder = folder
        self.name = manifest.name
        self.details = ArtifactDetails.model_validate(manifest.details)
        self.client_zip = (folder / CLIENT_ZIP).read_bytes()
        self.current = "1"
        self.publish_reference = True
        self.max_batch = 64
        self.interceptors: list[Callable[[httpx.Request], httpx.Response]] = []
        self.tamper: Callable[[bytes], bytes] = lambda result: result
        self.requests: list[httpx.Request] = []
        self.compact = False
        """Whether compact messages are offered."""
        # Concrete's server gives wrong answers to several threads.
        self._lock = threading.Lock()
        self._server = server
        self._keys = (folder / EVALUATION_KEYS).read_bytes()

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self)

    @property
    def digest(self) -> str:
        return digest_bytes(self.client_zip)

    def metadata(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "versions": ["1"],
            "platform": "concrete_fhe",
            "inputs": [{"name": "ciphertext", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "result", "datatype": "BYTES", "shape": [-1]}],
            "parameters": {
                "version": self.current,
                "client_digest": self.digest,
                "input_bytes": self.details.circuit.input_bytes,
                "output_bytes": self.details.circuit.output_bytes,
                "compact": self._compact.model_dump() | {"input_bytes": 1}
                if self.compact
                else None,
                "reference": self.publish_reference,
                "evaluation_key_bytes": 0,
            },
        }

    @property
    def _compact(self) -> Compact:
        compact = self.details.circuit.compact
        assert compact is not None
        return compact

    def run_compact(self, ciphertext: bytes) -> bytes:
        """The stock server's run, between messages that are converted."""
        circuit, template = self.details.circuit, (self.folder / INPUT_TEMPLATE).read_bytes()
        start, end = circuit.input_data_offset, circuit.input_data_offset + circuit.input_data_bytes
        seeded = expand(ciphertext, circuit.n_features, self._compact.body_bits)
        result = self.run(template[:start] + seeded + template[end:])
        words = 8 * circuit.n_outputs * (circuit.lwe_dimension + 1)
        return pack(
            result[start : start + words],
            circuit.n_outputs,
            circuit.lwe_dimension,
            self._compact.word_bits,
        )

    def run(self, ciphertext: bytes) -> bytes:
        result: bytes = self._server.run(ciphertext, self._keys)
        return result

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.requests.append(request)
            if self.interceptors:
                return self.interceptors.pop(0)(request)
            return self._answer(request)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        found = re.fullmatch(r"/v2/models/([^/]+)(?:/versions/(\d+))?(?:/(\w+))?", request.url.path)
        if not found or found[1] != self.name or found[2] not in (None, "1"):
            return problem(404, f"there is no {request.url.path}")
        match request.method, found[3]:
            case "GET", None:
                response = httpx.Response(200, json=self.metadata())
            case "GET", "ready":
                response = httpx.Response(200, json={"name": self.name, "ready": True})
            case "GET", "client":
                response = httpx.Response(
                    200, content=self.client_zip, headers={"ETag": f'"{self.digest}"'}
                )
            case "GET", "details":
                response = httpx.Response(200, json=self.details.model_dump(mode="json"))
            case "GET", "reference" if self.publish_reference:
                response = httpx.Response(200, content=(self.folder / REFERENCE).read_bytes())
            case "POST", "infer":
                response = self._infer(request)
            case _:
                response = problem(404, "not here")
        return response

    def _infer(self, request: httpx.Request) -> httpx.Response:
        is_compact = request.headers["Content-Type"] == COMPACT_TYPE
        if not is_compact and request.headers["Content-Type"] != OCTETS:
            return problem(415, "only raw ciphertexts")
        if is_compact and not (self.compact and request.headers["Accept"] == COMPACT_TYPE):
            return problem(415, "no compact messages")
        if request.headers["Cloister-Client-Digest"] != self.digest:
            return problem(409, "encrypted for another client.zip")
        if HEADER_LENGTH in request.headers:
            return self._infer_batch(request)
        return httpx.Response(
            200,
            content=self.tamper((self.run_compact if is_compact else self.run)(request.read())),
            headers={"Server-Timing": "queue;dur=0.1, evaluate;dur=1.5"},
        )

    def _infer_batch(self, request: httpx.Request) -> httpx.Response:
        ciphertexts = elements_of(request)
        if len(ciphertexts) > self.max_batch:
            return problem(413, f"at most {self.max_batch}")
        forms = forms_of(request)
        assert len(forms) == 1
        run = self.run_compact if forms == {"compact"} else self.run
        results = [self.tamper(run(ciphertext)) for ciphertext in ciphertexts]
        timing = {"Server-Timing": f"evaluate;dur={1.5 * len(results)}"}
        return framed(results, **timing)


def forms_of(request: httpx.Request) -> set[str]:
    """Return the forms of a batch's inputs and of its results."""
    header = json.loads(request.read()[: int(request.headers[HEADER_LENGTH])])
    tensors = (*header["inputs"], *header["outputs"])
    return {tensor["parameters"].get("form", "concrete") for tensor in tensors}


def elements_of(request: httpx.Request) -> list[bytes]:
    """Take a batch apart as the protocol has it, all of it."""
    length = int(request.headers[HEADER_LENGTH])
    body = request.read()
    header = json.loads(body[:length])
    (tensor,) = header["inputs"]
    (count,) = tensor["shape"]
    assert set(header) <= {"inputs", "outputs"}
    assert (tensor["name"], tensor["datatype"]) == ("ciphertext", "BYTES")
    assert tensor["parameters"]["binary_data_size"] == len(body) - length
    assert set(tensor["parameters"]) <= {"binary_data_size", "form"}
    return decode_elements(body[length:], count)


def framed(results: list[bytes], **headers: str) -> httpx.Response:
    """Put the answer to a batch together."""
    data = encode_elements(results)
    output = {
        "name": "result",
        "datatype": "BYTES",
        "shape": [len(results)],
        "parameters": {"binary_data_size": len(data)},
    }
    header = json.dumps({"model_name": "m", "model_version": "1", "outputs": [output]}).encode()
    return httpx.Response(
        200, content=header + data, headers={HEADER_LENGTH: str(len(header)), **headers}
    )


def specs_of(archive: bytes) -> dict[str, Any]:
    """Return client.specs.json of a client.zip."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        specs: dict[str, Any] = json.loads(opened.read("client.specs.json"))
        return specs


@contextmanager
def serve(service: FakeService) -> Iterator[str]:
    """Serve it over real HTTP and give its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            response = service(
                httpx.Request(self.command, self.path_url, headers=dict(self.headers), content=body)
            )
            self.send_response(response.status_code)
            for name, value in response.headers.items():
                self.send_header(name, value)
            with suppress(ConnectionError):
                self.end_headers()
                self.wfile.write(response.content)

        do_POST = do_GET  # noqa: N815 - the name http.server looks for

        @property
        def path_url(self) -> str:
            return f"http://{self.headers['Host']}{self.path}"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as overridden
            pass

    # Python ignores it, but compiling a circuit has LLVM end the process on it instead: here, when
    # a client goes away during an answer.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
