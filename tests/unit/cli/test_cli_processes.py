"""Services as child processes, none of which outlives its context."""

import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cloister_cli import processes as processes_module
from cloister_cli.commands import Command
from cloister_cli.processes import Processes, ServiceFailedError, free_ports, run_here
from cloister_provision.__main__ import provision
from cloister_provision.settings import Settings

WAIT = 60.0

FAMILY = """
import os, pathlib, signal, subprocess, sys, time
folder = pathlib.Path(os.environ["CLOISTER_FOLDER"])
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
deaf += "print(flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
child.stdout.readline()
(folder / "written").write_text(f"{os.getpid()} {child.pid}")
(folder / "written").rename(folder / "pids")
signal.pause()
"""
"""A service whose own child ignores SIGTERM."""

SAYS = """
import os, sys
for number in range(30):
    print("line", number, os.environ.get("CLOISTER_WORD"), *sys.argv[1:])
sys.exit(int(os.environ["CLOISTER_CODE"]))
"""

INTERRUPTS = """
import os, pathlib, signal
def interrupt(*_):
    os.kill(os.getppid(), signal.SIGUSR1)
signal.signal(signal.SIGTERM, interrupt)
folder = pathlib.Path(os.environ["CLOISTER_FOLDER"])
(folder / "written").write_text(str(os.getpid()))
(folder / "written").rename(folder / "ready")
while True:
    signal.pause()
"""
"""A service that ignores SIGTERM, and at which its user gets impatient."""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    """Whether it is gone, or only its exit code is left to be collected."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    for name, code in {"family": FAMILY, "says": SAYS, "interrupts": INTERRUPTS}.items():
        (tmp_path / f"{name}.py").write_text(code)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path}


@pytest.fixture
def processes(tmp_path: Path, environment: dict[str, str]) -> Processes:
    return Processes(tmp_path, environment)


class Family:
    """A service and its own child."""

    def __init__(self, processes: Processes, folder: Path, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.service = processes.start(name, "family", folder=self.folder)

    def pids(self) -> list[int]:
        wait_until((self.folder / "pids").exists)
        return [int(pid) for pid in (self.folder / "pids").read_text().split()]


class Wrong(BaseException):
    """As SystemExit is."""


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, Wrong])
def test_leaving_the_context_stops_children_and_grandchildren(
    processes: Processes, tmp_path: Path, error: type[BaseException] | None
) -> None:
    pids: list[int] = []

    def run() -> None:
        with processes:
            families = [Family(processes, tmp_path, name) for name in ("one", "two")]
            pids.extend(pid for family in families for pid in family.pids())
            assert not any(has_ended(pid) for pid in pids)
            if error:
                raise error

    if error:
        with pytest.raises(error):
            run()
    else:
        run()
    assert len(pids) == 4
    wait_until(lambda: all(has_ended(pid) for pid in pids))


def test_grandchildren_of_a_service_that_has_ended_are_stopped_too(
    processes: Processes, tmp_path: Path
) -> None:
    with processes:
        parent, child = Family(processes, tmp_path, "one").pids()
        os.kill(parent, signal.SIGKILL)
        wait_until(lambda: has_ended(parent))
        assert not has_ended(child)
    wait_until(lambda: has_ended(child))


@pytest.fixture
def user_signal() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("user_signal")
def test_an_interrupt_while_stopping_leaves_nothing_running(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes_module, "STOP_SECONDS", 1.0)
    pids: list[int] = []

    def run() -> None:
        with processes:
            # The last started is the first that is waited for.
            pids.extend(Family(processes, tmp_path, "first").pids())
            processes.start("interrupts", "interrupts", folder=tmp_path)
            wait_until((tmp_path / "ready").exists)
            pids.append(int((tmp_path / "ready").read_text()))

    with pytest.raises(KeyboardInterrupt):
        run()
    wait_until(lambda: all(has_ended(pid) for pid in pids))


def test_a_service_that_does_not_heed_sigterm_is_killed(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes_module, "STOP_SECONDS", 0.2)
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with processes:
            deaf = processes.start("deaf", "interrupts", folder=tmp_path)
            wait_until((tmp_path / "ready").exists)
    finally:
        signal.signal(signal.SIGUSR1, before)
    with pytest.raises(ServiceFailedError, match="ended with code -9"):
        deaf.check()


def test_settings_and_arguments_reach_the_service(
    processes: Processes, capfd: pytest.CaptureFixture[str]
) -> None:
    with processes:
        processes.start("says", "says", "--one", "two", word="hello", code=0).wait_done([])
    shown = capfd.readouterr().err.splitlines()
    assert shown == [f"line {number} hello --one two" for number in range(30)]


def test_one_that_ends_badly_fails(processes: Processes) -> None:
    with processes, pytest.raises(ServiceFailedError, match="says ended with code 3"):
        processes.start("says", "says", code=3).wait_done([])


@pytest.mark.parametrize(("body", "code"), [("exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_one_that_runs_here_gives_its_output_and_its_code(
    tmp_path: Path,
    environment: dict[str, str],
    capfd: pytest.CaptureFixture[str],
    body: str,
    code: int,
) -> None:
    text = f"import os, sys\nprint(sys.argv[1], os.environ['CLOISTER_WORD'], flush=True)\n{body}"
    (tmp_path / "here.py").write_text(text)
    assert run_here(Command("here", ("one",), {"word": "two", "no": None}), environment) == code
    assert capfd.readouterr().out == "one two\n"


def ends_of_log(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()[1:]]


LAST = [f"line {number} None" for number in range(10, 30)]


def test_one_that_ends_before_it_is_healthy_fails_with_the_end_of_its_log(
    processes: Processes,
) -> None:
    (port,) = free_ports(1)
    with processes, pytest.raises(ServiceFailedError, match="says ended with code 0") as failed:
        processes.start("says", "says", code=0).wait_healthy(f"http://127.0.0.1:{port}", WAIT)
    assert ends_of_log(str(failed.value)) == LAST


def test_one_that_ends_while_another_needs_it_fails_with_the_end_of_its_log(
    processes: Processes, tmp_path: Path
) -> None:
    with processes:
        family = Family(processes, tmp_path, "one")
        needed = processes.start("says", "says", code=0)
        with pytest.raises(ServiceFailedError, match="says ended with code 0") as failed:
            family.service.wait_done([needed])
    assert ends_of_log(str(failed.value)) == LAST


class Answers(BaseHTTPRequestHandler):
    """503 at first, then 200."""

    asked = 0

    def do_GET(self) -> None:
        Answers.asked += 1
        self.send_response(503 if Answers.asked < 3 else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_healthy_is_whoever_answers_with_success(processes: Processes, tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with processes:
                service = Family(processes, tmp_path, "one").service
                service.wait_healthy(f"http://127.0.0.1:{server.server_port}/", WAIT)
        finally:
            server.shutdown()
            thread.join()
    assert Answers.asked == 3


def test_healthy_over_tls_is_who_can_be_verified(processes: Processes, tmp_path: Path) -> None:
    provision(Settings(federation_dir=tmp_path / "federation"))
    tls = tmp_path / "federation" / "dealer-tls"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "tls.crt", tls / "tls.key")
    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with processes:
                service = Family(processes, tmp_path, "one").service
                url = f"https://127.0.0.1:{server.server_port}/"
                service.wait_healthy(url, WAIT, tmp_path / "federation" / "trust" / "ca.crt")
                with pytest.raises(ServiceFailedError, match="one is not healthy"):
                    service.wait_healthy(url, 0.3)
        finally:
            server.shutdown()
            thread.join()


def test_one_that_does_not_become_healthy_fails(processes: Processes, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with processes:
        service = Family(processes, tmp_path, "one").service
        with pytest.raises(ServiceFailedError, match="one is not healthy after 0 s"):
            service.wait_healthy(f"http://127.0.0.1:{port}", 0.3)


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(50)
    assert len(set(ports)) == 50
    for port in ports:
        with socket.socket() as candidate:
            candidate.bind(("127.0.0.1", port))
