"""Services as child processes that never outlive their parent's context."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from cloister_cli.commands import Command

POLL_SECONDS = 0.2
STOP_SECONDS = 15.0
TAIL_LINES = 20


class ServiceFailedError(Exception):
    """A service ended badly, or did not become healthy; the message has the end of its log."""


class Service:
    """One running service: a module of this environment in a process group of its own."""

    def __init__(self, name: str, command: list[str], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self._stream = log.open("wb")
        self._process = subprocess.Popen(  # noqa: S603
            command,
            env=env,
            stdout=self._stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_healthy(self, url: str, seconds: float, ca_path: Path | None = None) -> None:
        """Return when ``url`` answers with success.

        Args:
            url: that is asked again and again.
            seconds: for which it may take.
            ca_path: PEM file with the CA certificates that the service is verified with.

        Raises:
            ServiceFailedError: the service ended, or ``seconds`` passed.
        """
        # Takes a good part of a second, in which help is shown.
        import httpx  # noqa: PLC0415

        verify = ssl.create_default_context(cafile=ca_path) if ca_path else True
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            with suppress(httpx.HTTPError):
                if httpx.get(url, timeout=2.0, verify=verify).is_success:
                    return
            time.sleep(POLL_SECONDS)
        raise ServiceFailedError(
            self._with_log(f"{self.name} is not healthy after {seconds:.0f} s")
        )

    def wait_done(self, others: list["Service"]) -> None:
        """Return when the service has ended well; show its log meanwhile.

        Args:
            others: services that it needs, and that must not end before it.

        Raises:
            ServiceFailedError: it ended with another code than 0, or one of the others ended.
        """
        follower = _Follower(self.log)
        with follower:
            while self._process.poll() is None:
                for other in others:
                    other.check()
                time.sleep(POLL_SECONDS)
        if self._process.returncode != 0:
            raise ServiceFailedError(f"{self.name} ended with code {self._process.returncode}")

    def check(self) -> None:
        """Raise if the service has ended.

        Raises:
            ServiceFailedError: with the end of its log.
        """
        code = self._process.poll()
        if code is not None:
            raise ServiceFailedError(self._with_log(f"{self.name} ended with code {code}"))

    def terminate(self) -> None:
        """Ask the service to end."""
        self._signal(signal.SIGTERM)

    def close(self) -> None:
        """Wait until the service has ended, and kill what is left of its group."""
        try:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        finally:
            # Also where the wait is interrupted: an impatient Ctrl-C leaves nothing running.
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._stream.close()

    def _signal(self, number: signal.Signals) -> None:
        # macOS gives a group of which nothing but ended processes is left as not permitted.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _with_log(self, message: str) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join([message, *(f"  {line}" for line in lines)])


class _Follower:
    """Copies a growing log file to standard error while its context lasts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        with self._path.open(errors="replace") as stream:
            while not self._done.wait(POLL_SECONDS):
                self._copy(stream)
            self._copy(stream)

    @staticmethod
    def _copy(stream: IO[str]) -> None:
        for line in stream:
            sys.stderr.write(line)
        sys.stderr.flush()


class Processes:
    """All services of one run; leaving the context stops every one, last started first."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._services: list[Service] = []

    def start(self, name: str, module: str, *arguments: str, **settings: object) -> Service:
        """Start a module with these CLOISTER_ settings.

        Args:
            name: of the service and its log.
            module: what ``python -m`` runs.
            arguments: of its command line.
            settings: without the prefix, in lower case; what is None is left to the service.
        """
        return self.run(name, Command(module, arguments, settings))

    def run(self, name: str, command: Command) -> Service:
        """Start a command, its output in a log.

        Args:
            name: of the service and its log.
            command: what is started.
        """
        env = {**self._environment, **command.variables}
        service = Service(name, command.line, env, self._folder / f"{name}.log")
        self._services.append(service)
        return service

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        # What is called back last is registered first, and is called whatever the others raise.
        with ExitStack() as stopping:
            for service in self._services:
                stopping.callback(service.close)
            for service in self._services:
                stopping.callback(service.terminate)


def run_here(command: Command, environment: Mapping[str, str]) -> int:
    """Run a command with this process' own input and output, and return its exit code.

    Whatever ends this process ends the command too.

    Args:
        command: what is run.
        environment: its variables, besides the command's settings.
    """
    with subprocess.Popen(command.line, env={**environment, **command.variables}) as process:  # noqa: S603
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
    # Of one that was killed, what a shell says.
    return code if code >= 0 else 128 - code


def free_ports(count: int) -> list[int]:
    """Return ``count`` different loopback ports that nobody listens at."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for candidate in sockets:
            candidate.bind(("127.0.0.1", 0))
        return [candidate.getsockname()[1] for candidate in sockets]
    finally:
        for candidate in sockets:
            candidate.close()
