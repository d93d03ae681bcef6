"""Keeping a Flower SuperNode running for one shard."""

import logging
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from cloister_client.app import SHARD_DIR
from cloister_client.connection import Connection
from cloister_shared.errors import CloisterError
from cloister_shared.flower import flower_environment

POLL_SECONDS = 0.2
STOP_SECONDS = 15.0
"""A SuperNode unregisters within about 2 seconds of SIGTERM."""
FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 30.0

log = logging.getLogger(__name__)


def keep_running(
    connection: Connection,
    shard_dir: Path,
    runtime_port: int,
    stop: threading.Event,
    admit: Callable[[threading.Event], None],
) -> None:
    """Run a SuperNode until ``stop`` is set, starting it again whenever it ends.

    It ends when the SuperLink refuses it or has forgotten it, and both can pass.

    Args:
        connection: to the SuperLink.
        shard_dir: the folder its ClientApp reads.
        runtime_port: loopback port for its own processes.
        stop: ends it.
        admit: called before each start; returns when the SuperLink takes this node, or when what
            it is given is set.

    Raises:
        CloisterError: Flower is not installed.
    """
    command = [
        "flower-supernode",
        *_security(connection),
        "--superlink",
        connection.superlink,
        "--port",
        str(runtime_port),
        "--node-config",
        f'{SHARD_DIR}="{shard_dir.resolve()}"',
    ]
    retry = FIRST_RETRY_SECONDS
    while not stop.is_set():
        admit(stop)
        if stop.is_set():
            return
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


def _security(connection: Connection) -> list[str]:
    if connection.key_path is None:
        return ["--insecure"]
    options = ["--auth-supernode-private-key", str(connection.key_path)]
    if connection.ca_path is not None:
        options += ["--root-certificates", str(connection.ca_path)]
    return options


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
