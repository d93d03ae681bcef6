"""A SuperNode kept running, with a script in its place."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from cloister_client import supernode
from cloister_client.connection import Connection
from cloister_client.supernode import keep_running
from cloister_shared.errors import CloisterError

WAIT = 60.0
INSECURE = Connection("sl:8000")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class FakeSuperNode:
    """Ends at once in its first starts, and then runs until it is terminated."""

    def __init__(self, folder: Path, ends: int, trap: str = "") -> None:
        self.folder = folder
        self.script = folder / "bin" / "flower-supernode"
        self.script.parent.mkdir()
        self.script.write_text(
            f'#!/bin/sh\n{trap}\necho "$$ $*" >> {folder}/starts\n'
            f"[ $(wc -l < {folder}/starts) -le {ends} ] && exit 3\n"
            f"touch {folder}/ready\nwhile :; do sleep 0.1; done\n"
        )
        self.script.chmod(0o755)

    def starts(self) -> list[list[str]]:
        """Process id and arguments of every start."""
        path = self.folder / "starts"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def wait_ready(self) -> None:
        wait_until((self.folder / "ready").exists)

    def pid(self) -> int:
        return int(self.starts()[-1][0])


@pytest.fixture
def make_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeSuperNode]:
    def make(ends: int = 0, trap: str = "") -> FakeSuperNode:
        node = FakeSuperNode(tmp_path, ends, trap)
        monkeypatch.setenv("PATH", f"{node.script.parent}{os.pathsep}{os.environ['PATH']}")
        return node

    return make


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernode, "FIRST_RETRY_SECONDS", 0.01)


def at_once(_stop: threading.Event) -> None:
    """Let every node in."""


Admit = Callable[[threading.Event], None]


@contextmanager
def kept_running(
    folder: Path, connection: Connection = INSECURE, admit: Admit = at_once
) -> Iterator[threading.Event]:
    """Keep one running; at the end of the context it must have stopped."""
    stop = threading.Event()
    thread = threading.Thread(target=keep_running, args=(connection, folder, 9123, stop, admit))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(WAIT)
        assert not thread.is_alive()


def test_it_is_started_again_when_it_ends_and_terminated_on_stop(
    make_node: Callable[..., FakeSuperNode], tmp_path: Path
) -> None:
    node = make_node(ends=2)
    with kept_running(tmp_path):
        node.wait_ready()
        assert is_running(node.pid())
    assert len(node.starts()) == 3
    assert not is_running(node.pid())


def test_it_is_told_where_superlink_shard_and_port_are(
    make_node: Callable[..., FakeSuperNode], tmp_path: Path
) -> None:
    node = make_node()
    with kept_running(tmp_path):
        node.wait_ready()
    (start,) = node.starts()
    assert start[1:] == [
        "--insecure",
        "--superlink",
        "sl:8000",
        "--port",
        "9123",
        "--node-config",
        f'shard-dir="{tmp_path}"',
    ]


@pytest.mark.parametrize("ca_path", [None, Path("/ca.crt")])
def test_it_is_given_its_key_and_what_it_trusts(
    make_node: Callable[..., FakeSuperNode], tmp_path: Path, ca_path: Path | None
) -> None:
    node = make_node()
    with kept_running(tmp_path, Connection("sl:8000", ca_path, Path("/data/node.key"))):
        node.wait_ready()
    (start,) = node.starts()
    trust = ["--root-certificates", "/ca.crt"] if ca_path else []
    secure = ["--auth-supernode-private-key", "/data/node.key", *trust]
    assert start[1:] == [*secure, "--superlink", "sl:8000", *start[-4:]]
    assert "--insecure" not in start


def test_it_is_let_in_before_each_start(
    make_node: Callable[..., FakeSuperNode], tmp_path: Path
) -> None:
    node = make_node(ends=2)
    starts_when_admitted: list[int] = []

    def admit(_stop: threading.Event) -> None:
        starts_when_admitted.append(len(node.starts()))

    with kept_running(tmp_path, admit=admit):
        node.wait_ready()
    assert starts_when_admitted == [0, 1, 2]


def test_stopped_while_it_waits_to_be_let_in_it_starts_nothing(
    make_node: Callable[..., FakeSuperNode], tmp_path: Path
) -> None:
    node = make_node()

    def never(stop: threading.Event) -> None:
        stop.wait(WAIT)

    with kept_running(tmp_path, admit=never):
        pass
    assert node.starts() == []


def test_one_that_does_not_heed_sigterm_is_killed(
    make_node: Callable[..., FakeSuperNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supernode, "STOP_SECONDS", 0.2)
    node = make_node(trap="trap '' TERM")
    with kept_running(tmp_path):
        node.wait_ready()
    assert not is_running(node.pid())


def test_stopped_before_it_began_it_starts_nothing(
    make_node: Callable[..., FakeSuperNode], tmp_path: Path
) -> None:
    node = make_node()
    stop = threading.Event()
    stop.set()
    keep_running(INSECURE, tmp_path, 9123, stop, at_once)
    assert node.starts() == []


class ExitingEvent(threading.Event):
    """Exits where SIGTERM would: while it is waited for."""

    def __init__(self, ready: Callable[[], None]) -> None:
        super().__init__()
        self.ready = ready

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        self.ready()
        raise SystemExit(143)


def test_it_is_stopped_when_the_process_exits(
    make_node: Callable[..., FakeSuperNode], tmp_path: Path
) -> None:
    node = make_node()
    with pytest.raises(SystemExit):
        keep_running(INSECURE, tmp_path, 9123, ExitingEvent(node.wait_ready), at_once)
    assert not is_running(node.pid())


def test_a_client_that_is_terminated_leaves_no_supernode(
    make_node: Callable[..., FakeSuperNode], write_site: Callable[..., Path]
) -> None:
    node = make_node()
    site = write_site(np.zeros((5, 64)), np.arange(5))
    environment = os.environ | {"CLOISTER_SHARD_DIR": str(site), "CLOISTER_INSECURE": "true"}
    command = [sys.executable, "-m", "cloister_client"]
    with subprocess.Popen(command, env=environment) as client:
        try:
            node.wait_ready()
            client.send_signal(signal.SIGTERM)
            assert client.wait(WAIT) == 143
        finally:
            client.kill()
    assert not is_running(node.pid())


def test_without_flower_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CloisterError, match="flower-supernode is not on PATH"):
        keep_running(INSECURE, tmp_path, 9123, threading.Event(), at_once)
