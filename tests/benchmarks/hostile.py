"""Sends an inference service everything but what it asks for, and sees that it stands.

    python tests/benchmarks/hostile.py --url http://127.0.0.1:8000 --model digits --pid 1234

Mutated ciphertexts, lengths that lie, bodies that stall or end early and bytes that are no HTTP
come over several connections at once, with a valid request every so often. Prints a report as JSON
and exits 1 if anything was answered with a server error other than 503, was not answered in time,
was answered as it must not be, if a valid request got a wrong result, or if memory grew.
"""

import argparse
import asyncio
import json
import random
import socket
import struct
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from cloister_keyholder import EncryptedModel
from cloister_shared.open_inference import (
    CLIENT_DIGEST,
    HEADER_LENGTH,
    INPUT_NAME,
    decode_elements,
    encode_elements,
)

OCTETS = "application/octet-stream"
VALID_EVERY = 20
WARM_UP = 0.2
"""Share of the requests before which memory is not measured: pools and caches fill."""
CLOSED = "closed"
"""The connection ended without an answer."""
REFUSED = range(400, 500)


@dataclass
class Request:
    """What goes over one connection, and what may come back."""

    data: bytes
    answers: Collection[int | str] = REFUSED
    """Besides 429 and 503."""
    piece: int = 0
    """Bytes to send at a time; 0: all at once."""
    pause: float = 0.0
    """Seconds between pieces."""
    leaves: bool = False
    """Closes the connection after sending, without waiting for an answer."""


class Attacker:
    """Makes hostile requests from a valid one."""

    def __init__(self, host: str, model: str, payload: bytes, digest: str, seed: int) -> None:
        self._host = host
        self._model = model
        self._payload = payload
        self._digest = digest
        self._random = random.Random(seed)  # noqa: S311 - what is random here guards nothing
        # The seeds and bodies of the ciphertexts lie in the middle; the framing around them.
        self._framing = range(64)
        self.attacks: list[Callable[[], Request]] = [
            value
            for name in sorted(dir(self))
            if not name.startswith("_") and callable(value := getattr(self, name))
        ]

    # --- ciphertexts -------------------------------------------------------------------------

    def bit_flipped_in_the_ciphertext(self) -> Request:
        flipped = self._flipped(range(64, len(self._payload) * 3 // 4))
        return self._raw(flipped, answers=(200,))

    def bit_flipped_in_the_framing(self) -> Request:
        return self._raw(self._flipped(self._framing))

    def segment_sizes_overwritten(self) -> Request:
        start = self._random.randrange(0, 16, 4)
        size = struct.pack("<I", self._random.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 20]))
        changed = self._payload[:start] + size + self._payload[start + 4 :]
        return self._raw(changed if changed != self._payload else changed[:-1])

    def truncated(self) -> Request:
        return self._raw(self._payload[: self._random.randrange(len(self._payload))])

    def extended(self) -> Request:
        extra = self._random.choice([1, 8, 4096, 1 << 20])
        return self._raw(self._payload + self._random.randbytes(extra))

    def random_of_the_right_length(self) -> Request:
        return self._raw(self._random.randbytes(len(self._payload)))

    def random_of_any_length(self) -> Request:
        return self._raw(self._random.randbytes(self._random.randrange(4096)))

    def doubled(self) -> Request:
        return self._raw(self._payload * 2)

    # --- what a ciphertext was made for ----------------------------------------------------------

    def other_digest(self) -> Request:
        return self._raw(self._payload, digest=self._random.randbytes(32).hex(), answers=(409,))

    def malformed_digest(self) -> Request:
        wrong = self._random.choice(["x", self._digest.upper() + "0", "0" * 4000, "\x7f", '"'])
        return self._raw(self._payload, digest=wrong)

    def no_digest(self) -> Request:
        return self._raw(self._payload, digest=None, answers=(400,))

    # --- frames ----------------------------------------------------------------------------------

    def wrong_binary_data_size(self) -> Request:
        wrong = self._random.choice([0, 1, -1, len(self._payload), 1 << 31, 1 << 63, 1 << 200])
        return self._framed(lambda header: _set(header, "parameters", {"binary_data_size": wrong}))

    def wrong_shape(self) -> Request:
        wrong = self._random.choice([[0], [2], [-1], [1 << 40], [1, 1], [], "1", None, [1.5]])
        return self._framed(lambda header: _set(header, "shape", wrong))

    def wrong_element_length(self) -> Request:
        length = struct.pack("<I", self._random.choice([0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 1 << 24]))
        return self._framed(data=length + self._payload)

    def many_empty_elements(self) -> Request:
        count = self._random.choice([65, 1000, 4000])
        header = self._header(1)
        _set(header, "shape", [count])
        _set(header, "parameters", {"binary_data_size": 4 * count})
        return self._framed(text=json.dumps(header).encode(), data=bytes(4 * count), answers=(413,))

    def wrong_header_length(self) -> Request:
        wrong = self._random.choice(["0", "-1", "x", "", "1.5", "1", "99999999", "9" * 4000, "+7"])
        return self._framed(length=wrong)

    def junk_in_the_header(self) -> Request:
        header = bytearray(json.dumps(self._header(1)).encode())
        for _ in range(self._random.randrange(1, 4)):
            header[self._random.randrange(len(header))] = self._random.randrange(256)
        # It may still say the same, in an insignificant place or an id of any text.
        return self._framed(text=bytes(header), answers=(200, *REFUSED))

    def deep_header(self) -> Request:
        return self._framed(text=self._random.choice([b"[", b'{"a":']) * 2500)

    def unknown_fields(self) -> Request:
        extra = {"shared_memory_region": "x", "shared_memory_byte_size": 1 << 40}
        return self._framed(lambda header: _set(header, "parameters", extra))

    # --- HTTP ------------------------------------------------------------------------------------

    def huge_declared_length(self) -> Request:
        length = self._random.choice([1 << 30, 1 << 40, (1 << 63) - 1, 10**30, 10**400])
        head = self._head(length)
        return Request(head + self._payload, answers=(*REFUSED, CLOSED))

    def wrong_declared_length(self) -> Request:
        length = self._random.choice(["-1", "x", "1e3", "0x10", "1, 2", "\u0661", "1_000"])
        return Request(self._head(length) + self._payload, answers=(*REFUSED, CLOSED))

    def two_lengths(self) -> Request:
        head = self._head(len(self._payload), f"Content-Length: {self._random.randrange(9)}")
        return Request(head + self._payload, answers=(*REFUSED, CLOSED))

    def longer_than_declared(self) -> Request:
        less = self._random.randrange(len(self._payload))
        # The rest is the next request on the connection, and no HTTP.
        return Request(self._head(less) + self._payload)

    def chunked(self) -> Request:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(self._payload), self._payload)
        return Request(self._head(None, "Transfer-Encoding: chunked") + body)

    def endless_chunk(self) -> Request:
        head = self._head(None, "Transfer-Encoding: chunked")
        return Request(head + b"ffffffffffffffff\r\n" + self._payload, answers=(*REFUSED, CLOSED))

    def compressed(self) -> Request:
        return self._raw(self._payload, "Content-Encoding: gzip", answers=(415,))

    def other_media_type(self) -> Request:
        kind = self._random.choice(["application/json", "text/html", "multipart/form-data", "/"])
        return self._raw(self._payload, f"Content-Type: {kind}", answers=(415,))

    def long_header(self) -> Request:
        return self._raw(self._payload, f"X-Long: {'x' * (1 << 17)}", answers=(*REFUSED, CLOSED))

    def many_headers(self) -> Request:
        headers = [f"X-{number}: {number}" for number in range(2000)]
        return self._raw(self._payload, *headers, answers=(200, *REFUSED, CLOSED))

    def no_http(self) -> Request:
        junk = self._random.randbytes(self._random.randrange(1, 4096)) + b"\r\n\r\n"
        return Request(junk, answers=(*REFUSED, CLOSED))

    def other_method(self) -> Request:
        method = self._random.choice(["PUT", "DELETE", "TRACE", "PATCH", "X", "get"])
        return self._raw(self._payload, method=method, answers=(*REFUSED, CLOSED))

    def other_address(self) -> Request:
        path = self._random.choice(
            [
                "/v2/models/../../etc/passwd/infer",
                "/v2/models/%2e%2e%2f/infer",
                "/v2/models/%00/infer",
                f"/v2/models/{self._model}/versions/{'9' * 2000}/infer",
                f"/v2/models/{self._model}/versions/-1/infer",
                f"/v2/models/{'x' * 4000}/infer",
                "/v2/models/%ff%fe/infer",
                "//",
                "*",
            ]
        )
        return self._raw(self._payload, path=path, answers=(*REFUSED, CLOSED))

    def junk_for_the_repository(self) -> Request:
        path = self._random.choice(["index", "models/unknown/load", "models/%00/unload"])
        body = self._random.choice(
            [b"[]", b"null", b"{", b'{"ready": 1}', b"\xff", b"[" * 16_000, b'{"a": 1}']
        )
        return self._raw(body, path=f"/v2/repository/{path}")

    # --- connections -----------------------------------------------------------------------------

    def left_before_the_body(self) -> Request:
        return Request(self._head(len(self._payload)), leaves=True)

    def left_within_the_body(self) -> Request:
        part = self._payload[: self._random.randrange(len(self._payload))]
        return Request(self._head(len(self._payload)) + part, leaves=True)

    def left_within_the_head(self) -> Request:
        head = self._head(len(self._payload))
        return Request(head[: self._random.randrange(1, len(head))], leaves=True)

    def left_before_the_answer(self) -> Request:
        return Request(self._head(len(self._payload)) + self._payload, leaves=True)

    def slow_body(self) -> Request:
        data = self._head(len(self._payload)) + self._payload
        return Request(data, answers=(200,), piece=len(data) // 12 + 1, pause=0.05)

    def slow_body_that_ends_early(self) -> Request:
        data = self._head(len(self._payload)) + self._payload[:-1]
        return Request(data, piece=len(data) // 12 + 1, pause=0.05, leaves=True)

    # --- the parts of a request ------------------------------------------------------------------

    def _flipped(self, where: range) -> bytes:
        flipped = bytearray(self._payload)
        flipped[self._random.choice(where)] ^= 1 << self._random.randrange(8)
        return bytes(flipped)

    def _head(
        self,
        length: int | str | None,
        *headers: str,
        method: str = "POST",
        path: str | None = None,
        digest: str | None = "",
    ) -> bytes:
        lines = [
            f"{method} {path or f'/v2/models/{self._model}/infer'} HTTP/1.1",
            f"Host: {self._host}",
            "Connection: close",
        ]
        if not any(header.startswith("Content-Type") for header in headers):
            lines.append(f"Content-Type: {OCTETS}")
        if length is not None:
            lines.append(f"Content-Length: {length}")
        if digest is not None:
            lines.append(f"{CLIENT_DIGEST}: {digest or self._digest}")
        return "\r\n".join([*lines, *headers, "", ""]).encode()

    def _raw(
        self,
        body: bytes,
        *headers: str,
        answers: Collection[int | str] = REFUSED,
        method: str = "POST",
        path: str | None = None,
        digest: str | None = "",
    ) -> Request:
        head = self._head(len(body), *headers, method=method, path=path, digest=digest)
        return Request(head + body, answers)

    def _header(self, count: int) -> dict[str, Any]:
        size = count * (4 + len(self._payload))
        tensor = {"name": INPUT_NAME, "shape": [count], "datatype": "BYTES"}
        return {"inputs": [tensor | {"parameters": {"binary_data_size": size}}]}

    def _framed(
        self,
        change: Callable[[dict[str, Any]], None] | None = None,
        *,
        text: bytes | None = None,
        data: bytes | None = None,
        length: str | None = None,
        answers: Collection[int | str] = REFUSED,
    ) -> Request:
        header = self._header(1)
        if change is not None:
            change(header)
        text = json.dumps(header).encode() if text is None else text
        data = encode_elements([self._payload]) if data is None else data
        stated = f"{HEADER_LENGTH}: {len(text) if length is None else length}"
        return self._raw(text + data, stated, answers=answers)


def _set(header: dict[str, Any], name: str, value: object) -> None:
    header["inputs"][0][name] = value


@dataclass
class Report:
    """What came of it."""

    by_status: Counter[str] = field(default_factory=Counter)
    by_attack: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    timeouts: int = 0
    valid: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """The first few answers that must not be."""
    n_wrong: int = 0
    rss_bytes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def note_wrong(self, what: str) -> None:
        self.n_wrong += 1
        if len(self.wrong) < 20:
            self.wrong.append(what)

    def note_answer(self, attack: str, request: Request, answer: int | str) -> None:
        self.by_status[str(answer)] += 1
        self.by_attack[attack][str(answer)] += 1
        if not request.leaves and answer not in request.answers and answer not in (429, 503):
            self.note_wrong(f"{attack}: {answer}")

    def memory_grew(self, limit: int) -> bool:
        return bool(self.rss_bytes) and (self.rss_bytes["after"] - self.rss_bytes["before"] > limit)


class Soak:
    """Requests over several connections at once until enough were sent."""

    def __init__(self, options: argparse.Namespace, model: EncryptedModel) -> None:
        self._options = options
        self._model = model
        address = urlsplit(options.url)
        self._host, self._port = address.hostname or "127.0.0.1", address.port or 80
        self._rows = np.random.default_rng(options.seed)
        reference = model.reference()
        if reference is None:
            raise SystemExit("the service does not publish a reference to compare results with")
        self._reference = reference
        self._attacker = Attacker(
            f"{self._host}:{self._port}",
            options.model,
            model.encrypt(model.quantise(self._row())[0]).ciphertext,
            model.description.client_digest,
            options.seed,
        )
        self._sent = 0
        self.report = Report()

    async def run(self) -> Report:
        """Send everything and return what came of it."""
        start = time.monotonic()
        workers = (self._work() for _ in range(self._options.connections))
        await asyncio.gather(*workers)
        self.report.seconds = time.monotonic() - start
        if self._options.pid:
            # What was left behind on connections is given up a moment later.
            await asyncio.sleep(1)
            self.report.rss_bytes["after"] = rss_bytes(self._options.pid)
        return self.report

    async def _work(self) -> None:
        attacks, total = self._attacker.attacks, self._options.requests
        while self._sent < total:
            number, self._sent = self._sent, self._sent + 1
            if self._options.pid and number == int(WARM_UP * total):
                self.report.rss_bytes["before"] = rss_bytes(self._options.pid)
            try:
                async with asyncio.timeout(self._options.timeout):
                    if number % VALID_EVERY == 0:
                        await self._valid(1 + number // VALID_EVERY % 2)
                    else:
                        await self._attack(attacks[number % len(attacks)])
            except TimeoutError:
                self.report.timeouts += 1
                self.report.note_wrong(f"request {number}: no answer in {self._options.timeout} s")

    async def _attack(self, make: Callable[[], Request]) -> None:
        request = make()
        answer, _, _ = await self._exchange(request)
        self.report.note_answer(make.__name__, request, answer)

    async def _valid(self, count: int) -> None:
        """Send a batch that must be answered rightly."""
        quantised = [self._model.quantise(self._row())[0] for _ in range(count)]
        queries = [await asyncio.to_thread(self._model.encrypt, row) for row in quantised]
        data = encode_elements([query.ciphertext for query in queries])
        tensor = {"name": INPUT_NAME, "shape": [count], "datatype": "BYTES"}
        header = {"inputs": [tensor | {"parameters": {"binary_data_size": len(data)}}]}
        text = json.dumps(header).encode()
        stated = f"{HEADER_LENGTH}: {len(text)}"
        request = self._attacker._raw(text + data, stated, answers=(200,))
        answer, headers, body = await self._exchange(request)
        if answer != 200:
            self.report.valid[str(answer)] += 1
            if answer not in (429, 503):
                self.report.note_wrong(f"valid request: {answer} {body[:200]!r}")
            return
        results = decode_elements(body[int(headers[HEADER_LENGTH.lower()]) :], count)
        scores = [query.decrypt(result) for query, result in zip(queries, results, strict=True)]
        right = np.array_equal(scores, self._reference.integer_scores(np.array(quantised)))
        self.report.valid["right" if right else "wrong"] += 1
        if not right:
            self.report.note_wrong("valid request: wrong result")

    async def _exchange(self, request: Request) -> tuple[int | str, dict[str, str], bytes]:
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        except OSError as error:
            return f"no connection ({error})", {}, b""
        # A reset at the end, as of clients that are killed; and no sockets wait here for the last
        # packets of thousands of connections.
        connected = writer.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            return await self._talk(request, reader, writer)
        finally:
            writer.transport.abort()

    @staticmethod
    async def _talk(
        request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> tuple[int | str, dict[str, str], bytes]:
        size = request.piece or len(request.data)
        try:
            for start in range(0, len(request.data), size):
                writer.write(request.data[start : start + size])
                await writer.drain()
                await asyncio.sleep(request.pause)
        except OSError:
            # The answer may have come already, as to a body that is too large.
            pass
        if request.leaves:
            return "left", {}, b""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines[1:])
            }
            length = headers.get("content-length")
            body = (
                await reader.read(-1) if length is None else await reader.readexactly(int(length))
            )
            return int(lines[0].split(" ", 2)[1]), headers, body
        except (OSError, EOFError, ValueError, IndexError):
            return CLOSED, {}, b""

    def _row(self) -> Any:
        bounds = self._model.card.data.bounds
        return self._rows.uniform(bounds.lows, bounds.highs)[None, :]


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"process {pid} is gone")


def main() -> int:
    """Return 0 if the service stood."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds for one exchange")
    parser.add_argument("--pid", type=int, help="of the service, whose memory is then measured")
    parser.add_argument(
        "--growth", type=int, default=32 << 20, help="bytes by which its memory may grow"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with EncryptedModel(options.url, options.model, retry_seconds=options.timeout) as model:
        report = asyncio.run(Soak(options, model).run())
    server_errors = sum(
        count
        for status, count in report.by_status.items()
        if status.startswith("5") and status != "503"
    )
    grew = report.memory_grew(options.growth)
    stood = not (report.n_wrong or report.timeouts or server_errors or grew)
    stood &= report.valid["right"] > 0
    shown = {
        "stood": stood,
        "requests": options.requests,
        "connections": options.connections,
        "seconds": round(report.seconds, 1),
        "timeouts": report.timeouts,
        "server_errors": server_errors,
        "valid": dict(report.valid),
        "by_status": dict(sorted(report.by_status.items())),
        "by_attack": {name: dict(counts) for name, counts in sorted(report.by_attack.items())},
        "n_wrong": report.n_wrong,
        "wrong": report.wrong,
        "rss_bytes": report.rss_bytes,
    }
    print(json.dumps(shown, indent=2))
    return 0 if stood else 1


if __name__ == "__main__":
    sys.exit(main())
