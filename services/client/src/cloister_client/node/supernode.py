"""Keeping this site's SuperNode running for one shard."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from cloister_client.joining.connection import Connection
from cloister_client.site import Site
from cloister_shared.flower import flower_environment

COMMAND = (sys.executable, "-m", "cloister_client.node")
POLL_SECONDS = 0.2
STOP_SECONDS = 10.0
"""A SuperNode says goodbye within about 2 seconds of SIGTERM."""
FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 30.0
STABLE_SECONDS = 60.0
"""One that ran for as long was not refused: the next is started soon again."""

log = logging.getLogger(__name__)


def keep_running(
    connection: Connection,
    site: Site,
    message_seconds: float,
    stop: threading.Event,
    admit: Callable[[threading.Event], None],
) -> None:
    """Run a SuperNode until ``stop`` is set, starting it again whenever it ends.

    It ends when the SuperLink refuses it or has forgotten it, and both can pass.

    Args:
        connection: how it reaches the SuperLink.
        site: what its ClientApp is told of this site.
        message_seconds: longest time for the work on one message.
        stop: ends it and all of its processes at once: the rows are no longer this client's.
        admit: called before each start; returns when the SuperLink takes this node, or when what
            it is given is set.
    """
    command = [
        *COMMAND,
        "--superlink",
        connection.superlink,
        "--node-config",
        json.dumps(site.node_config(), separators=(",", ":")),
        "--message-seconds",
        str(message_seconds),
        "--until-eof",
    ]
    if connection.key_path is not None:
        command += ["--key", str(connection.key_path)]
        if connection.ca_path is not None:
            command += ["--ca", str(connection.ca_path)]
    retry = FIRST_RETRY_SECONDS
    while not stop.is_set():
        admit(stop)
        if stop.is_set():
            return
        began = time.monotonic()
        code = _run(command, stop)
        if not stop.is_set():
            if time.monotonic() - began >= STABLE_SECONDS:
                retry = FIRST_RETRY_SECONDS
            log.warning(
                "the SuperNode ended with code %d; starting it again in %.0f s", code, retry
            )
            stop.wait(retry)
            retry = min(2 * retry, LAST_RETRY_SECONDS)


def _run(command: list[str], stop: threading.Event) -> int:
    """Return how the SuperNode ended, once it and every process of its have."""
    # In a group of its own, which can be killed as one; and it ends when its standard input does,
    # so that it cannot outlive this process.
    process = subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, env=flower_environment(), process_group=0
    )
    try:
        while process.poll() is None and not stop.wait(POLL_SECONDS):
            pass
    finally:
        if not stop.is_set():
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        # There is no time to say goodbye where the rows are lost.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdin is not None  # noqa: S101 - a pipe
        process.stdin.close()
    return process.returncode
