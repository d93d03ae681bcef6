"""Keeping a Flower SuperNode running for one shard."""

import logging
import subprocess
import threading
from pathlib import Path

from cloister_client.app import SHARD_DIR
from cloister_shared.errors import CloisterError
from cloister_shared.flower import flower_environment

POLL_SECONDS = 0.2
STOP_SECONDS = 15.0
"""A SuperNode unregisters within about 2 seconds of SIGTERM."""
FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 30.0

log = logging.getLogger(__name__)


def keep_running(superlink: str, shard_dir: Path, runtime_port: int, stop: threading.Event) -> None:
    """Run a SuperNode until ``stop`` is set, starting it again whenever it ends.

    It ends when the SuperLink refuses it or has forgotten it, and both can pass.

    Args:
        superlink: host and port.
        shard_dir: the folder its ClientApp reads.
        runtime_port: loopback port for its own processes.
        stop: ends it.

    Raises:
        CloisterError: Flower is not installed.
    """
    command = [
        "flower-supernode",
        "--insecure",
        "--superlink",
        superlink,
        "--port",
        str(runtime_port),
        "--node-config",
        f'{SHARD_DIR}="{shard_dir.resolve()}"',
    ]
    retry = FIRST_RETRY_SECONDS
    while not stop.is_set():
        with _start(command) as process:
            try:
                while process.poll() is None and not stop.wait(POLL_SECONDS):
                    pass
            finally:
                if stop.is_set():
                    # The rows are no longer this client's: there is no time to say goodbye.
                    process.kill()
                _end(process)
        if not stop.is_set():
            log.warning(
                "the SuperNode ended with code %d; starting it again in %.0f s",
                process.returncode,
                retry,
            )
            stop.wait(retry)
            retry = min(2 * retry, LAST_RETRY_SECONDS)


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, env=flower_environment())  # noqa: S603
    except FileNotFoundError:
        raise CloisterError(f"{command[0]} is not on PATH: is flwr installed?") from None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
