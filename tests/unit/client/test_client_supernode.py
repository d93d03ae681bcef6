"""A SuperNode kept running, with a script in its place."""

import json
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

from cloister_client.joining.connection import Connection
from cloister_client.node import supernode
from cloister_client.node.supernode import keep_running
from cloister_client.site import Site

WAIT = 60.0
CONNECTION = Connection("sl:8000")


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
        self.script = folder / "supernode"
        self.script.write_text(
            f'#!/bin/sh\n{trap}\necho "$$ $*" >> {folder}/starts\n'
            f"[ $(wc -l < {folder}/starts) -le {ends} ] && exit 3\n"
            f"sleep 600 & echo $! > {folder}/child\n"
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

    def child(self) -> int:
        return int((self.folder / "child").read_text())


MakeNode = Callable[..., FakeSuperNode]


@pytest.fixture
def make_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeNode:
    def make(ends: int = 0, trap: str = "") -> FakeSuperNode:
        node = FakeSuperNode(tmp_path, ends, trap)
        monkeypatch.setattr(supernode, "COMMAND", (str(node.script),))
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
    folder: Path, connection: Connection = CONNECTION, admit: Admit = at_once
) -> Iterator[threading.Event]:
    """Keep one running; at the end of the context it must have stopped."""
    stop = threading.Event()
    thread = threading.Thread(
        target=keep_running, args=(connection, Site(folder), 60.0, stop, admit)
    )
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(WAIT)
        assert not thread.is_alive()


def test_it_is_started_again_when_it_ends_and_stops_with_all_its_processes(
    make_node: MakeNode, tmp_path: Path
) -> None:
    node = make_node(ends=2)
    with kept_running(tmp_path):
        node.wait_ready()
        assert is_running(node.pid())
    assert len(node.starts()) == 3
    assert not is_running(node.pid())
    wait_until(lambda: not is_running(node.child()))


def test_it_is_told_where_superlink_and_shard_are(make_node: MakeNode, tmp_path: Path) -> None:
    node = make_node()
    with kept_running(tmp_path):
        node.wait_ready()
    (start,) = node.starts()
    assert start[1:4] == ["--superlink", "sl:8000", "--node-config"]
    assert Site.of(json.loads(start[4])) == Site(tmp_path)
    assert start[5:] == ["--message-seconds", "60.0", "--until-eof"]


def test_with_a_key_it_is_told_of_key_and_ca(make_node: MakeNode, tmp_path: Path) -> None:
    node = make_node()
    connection = Connection("sl:8000", tmp_path / "ca.crt", tmp_path / "node.key")
    with kept_running(tmp_path, connection):
        node.wait_ready()
    (start,) = node.starts()
    assert start[-4:] == ["--key", f"{tmp_path}/node.key", "--ca", f"{tmp_path}/ca.crt"]


def pauses(
    node: FakeSuperNode, folder: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> list[float]:
    """Return the first pauses before another start."""
    found: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            if timeout != supernode.POLL_SECONDS:
                found.append(timeout)
                if len(found) == count:
                    self.set()
            return super().wait(0.001)

    keep_running(CONNECTION, Site(folder), 60.0, Stop(), at_once)
    return found


def test_it_waits_longer_after_every_refusal_up_to_a_limit(
    make_node: MakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supernode, "LAST_RETRY_SECONDS", 0.05)
    node = make_node(ends=100)
    assert pauses(node, tmp_path, monkeypatch, 5) == [0.01, 0.02, 0.04, 0.05, 0.05]


def test_after_one_that_ran_well_it_waits_shortly_again(
    make_node: MakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supernode, "STABLE_SECONDS", 0.0)
    node = make_node(ends=100)
    assert pauses(node, tmp_path, monkeypatch, 3) == [0.01, 0.01, 0.01]


def test_it_is_let_in_before_each_start(make_node: MakeNode, tmp_path: Path) -> None:
    node = make_node(ends=2)
    starts_when_admitted: list[int] = []

    def admit(_stop: threading.Event) -> None:
        starts_when_admitted.append(len(node.starts()))

    with kept_running(tmp_path, admit=admit):
        node.wait_ready()
    assert starts_when_admitted == [0, 1, 2]


def test_stopped_while_it_waits_to_be_let_in_it_starts_nothing(
    make_node: MakeNode, tmp_path: Path
) -> None:
    node = make_node()

    def never(stop: threading.Event) -> None:
        stop.wait(WAIT)

    with kept_running(tmp_path, admit=never):
        pass
    assert node.starts() == []


def test_one_that_does_not_heed_sigterm_is_killed(
    make_node: MakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supernode, "STOP_SECONDS", 0.2)
    node = make_node(trap="trap '' TERM")
    with pytest.raises(SystemExit):
        keep_running(CONNECTION, Site(tmp_path), 60.0, ExitingEvent(node.wait_ready), at_once)
    assert not is_running(node.pid())


def test_stopped_before_it_began_it_starts_nothing(make_node: MakeNode, tmp_path: Path) -> None:
    node = make_node()
    stop = threading.Event()
    stop.set()
    keep_running(CONNECTION, Site(tmp_path), 60.0, stop, at_once)
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


def test_it_is_stopped_when_the_process_exits(make_node: MakeNode, tmp_path: Path) -> None:
    node = make_node()
    with pytest.raises(SystemExit):
        keep_running(CONNECTION, Site(tmp_path), 60.0, ExitingEvent(node.wait_ready), at_once)
    assert not is_running(node.pid())


def nodes_of(site: Path) -> list[int]:
    """Process ids of the nodes of a site, the real ones."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f'"{site}"'.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_client_that_is_ended_leaves_no_process(
    write_site: Callable[..., Path], how: signal.Signals
) -> None:
    site = write_site(np.zeros((5, 64)), np.arange(5))
    command = [sys.executable, "-m", "cloister_client"]
    settings = {
        "CLOISTER_SHARD_DIR": str(site),
        "CLOISTER_SUPERLINK": "127.0.0.1:1",
        "CLOISTER_INSECURE": "true",
    }
    with subprocess.Popen(command, env=os.environ | settings) as client:
        try:
            # The node and its warm process.
            wait_until(lambda: len(nodes_of(site)) == 2)
            client.send_signal(how)
            assert client.wait(WAIT) in {143, -signal.SIGKILL}
        finally:
            client.kill()
    wait_until(lambda: nodes_of(site) == [])
