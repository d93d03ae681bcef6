"""Evaluation keys and a service that is killed, as processes over real connections."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_inference_process import Process

from cloister_shared.artifact import CLIENT_ZIP
from cloister_shared.digests import digest_bytes, digest_file

CHUNK = 1 << 20


@pytest.fixture(scope="module")
def folder(tree_artifacts: Path) -> Path:
    return tree_artifacts / "artifacts" / "tree" / "1"


@pytest.fixture(scope="module")
def holder(folder: Path) -> Any:
    from concrete.ml.deployment import FHEModelClient  # noqa: PLC0415 - takes seconds

    stock = FHEModelClient(str(folder))
    stock.generate_private_and_evaluation_keys()
    return stock


def pieces(content: bytes) -> Iterator[bytes]:
    return (content[start : start + CHUNK] for start in range(0, len(content), CHUNK))


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_service_killed_during_an_upload_leaves_nothing_half(
    tree_artifacts: Path, folder: Path, holder: Any, tmp_path: Path
) -> None:
    keys_dir = tmp_path / "keys"
    keys = holder.get_serialized_evaluation_keys()
    client_digest, key_digest = digest_file(folder / CLIENT_ZIP), digest_bytes(keys)
    headers = {
        "Cloister-Client-Digest": client_digest,
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(keys)),
    }
    started: list[Process] = []

    def start() -> Process:
        temporary = tmp_path / f"tmp{len(started)}"
        temporary.mkdir()
        artifacts = tree_artifacts / "artifacts"
        started.append(Process(artifacts, temporary, CLOISTER_KEYS_DIR=str(keys_dir)))
        return started[-1]

    def infer(process: Process) -> float:
        import numpy as np  # noqa: PLC0415

        row = np.array([[2.0]])
        response = httpx.post(
            f"{process.url}/v2/models/tree/infer",
            content=holder.quantize_encrypt_serialize(row),
            headers={
                "Content-Type": "application/octet-stream",
                "Cloister-Client-Digest": client_digest,
                "Cloister-Evaluation-Key": key_digest,
            },
            timeout=60,
        )
        assert response.status_code == 200, response.text
        found: float = holder.deserialize_decrypt_dequantize(response.content).argmax()
        return found

    try:
        process = start()
        url = f"{process.url}/v2/keys/{key_digest}"
        response = httpx.put(url, content=pieces(keys), headers=headers, timeout=120)
        assert response.status_code == 201, response.text
        before = infer(process)

        with socket.create_connection(("127.0.0.1", process.port), timeout=30) as connection:
            lines = [f"PUT /v2/keys/{'0' * 64} HTTP/1.1", "Host: inference"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + keys[: len(keys) // 2])
            wait_until(lambda: list(keys_dir.rglob("*.upload")))
            process.popen.send_signal(signal.SIGKILL)
            process.popen.wait(timeout=30)
        assert len(list(keys_dir.rglob("*.upload"))) == 1

        process = start()
        wait_until(lambda: not list(keys_dir.rglob("*.upload")))
        assert [path.name for path in (keys_dir / "content").iterdir()] == [key_digest]
        assert infer(process) == before

        # Nothing of a body that cannot be evaluation keys is waited for.
        large = tmp_path / "large"
        with large.open("wb") as stream:
            stream.truncate(1 << 30)
        done = subprocess.run(
            [
                *("curl", "-sS", "-T", str(large), "-o", os.devnull, "-w", "%{http_code}"),
                *("-H", f"Cloister-Client-Digest: {client_digest}"),
                *("-H", "Content-Type: application/octet-stream"),
                f"{process.url}/v2/keys/{key_digest}",
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stdout == "413"
    finally:
        for process in started:
            process.end()
