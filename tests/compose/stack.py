"""The Compose project of the container tests, under a name and a port of its own."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
PROJECT = "cloister-test"
API_PORT = 18000
CONSOLE_PORT = 18080
FEDERATION_PORT = 18443
COMMAND_SECONDS = 1500
POLL_SECONDS = 0.5


def reachable(folder: Path) -> Path:
    """Return a folder of pytest's, which containers' user may enter from now on."""
    for each in (folder, *list(folder.parents)[:2]):
        each.chmod(0o755)
    return folder


class Stack:
    """The containers of a project of the tests'.

    Args:
        project: its name.
        file: its Compose file, from the root of the repository.
    """

    url = f"http://127.0.0.1:{API_PORT}"

    def __init__(self, project: str = PROJECT, file: str = "compose.yaml") -> None:
        self._project = project
        self._settings: dict[str, str] = {}
        # Not the settings that a user may have in .env.
        self._compose = ["docker", "compose", "--project-name", project, "--file", file]
        self._compose += ["--env-file", "/dev/null"]

    def settings(self, **settings: object) -> None:
        """Replace the settings for all further commands; names without prefix, in lower case."""
        self._settings = {f"CLOISTER_{name.upper()}": str(v) for name, v in settings.items()}

    def compose(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """Run ``docker compose`` and return its standard output; a failure fails the test."""
        done = subprocess.run(
            [*self._compose, *arguments],
            cwd=ROOT,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode != 0:
            logs = "" if arguments[0] != "up" else self.compose("logs", "--tail", "30")
            pytest.fail(f"docker compose {' '.join(arguments)}: {done.stderr[-4000:]}\n{logs}")
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``docker compose`` with these arguments and do not wait for it."""
        return subprocess.Popen(
            [*self._compose, *arguments],
            cwd=ROOT,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def config(self) -> dict[str, Any]:
        """The project as Compose understands it, with the services that only run when asked."""
        described = self.compose("--profile", "*", "config", "--format", "json")
        config: dict[str, Any] = json.loads(described)
        return config

    def containers(self, service: str) -> list[str]:
        """Ids of a service's running containers."""
        return self.compose("ps", "--quiet", service).split()

    def execute(self, container: str, *command: str) -> str:
        """Run a command in a container and return its standard output."""
        return subprocess.run(
            ["docker", "exec", container, *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    def exit_code(self, service: str) -> int:
        """Wait until a one-shot service has ended and return its exit code."""
        container = self.compose("ps", "--all", "--quiet", service).strip()
        done = subprocess.run(
            ["docker", "wait", container],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=True,
        )
        return int(done.stdout)

    def logs(self, service: str) -> str:
        """All log lines of a service's containers."""
        # One that was removed just before is still listed for a moment, without a log.
        self.until(lambda: not self._removing(service), f"the removal of a {service}")
        return self.compose("logs", "--no-color", "--no-log-prefix", service)

    def _removing(self, service: str) -> bool:
        states = ("--filter", "status=removing", "--filter", "status=dead")
        of = ("--filter", f"label=com.docker.compose.project={self._project}")
        named = ("--filter", f"label=com.docker.compose.service={service}")
        listed = ["docker", "ps", "--all", "--quiet", *states, *of, *named]
        return bool(subprocess.run(listed, capture_output=True, check=True).stdout.strip())

    def report(self) -> dict[str, Any]:
        """The key holder's last report."""
        text = self.compose(
            "run", "--rm", "--no-deps", "--entrypoint", "cat", "keyholder", "/reports/report.json"
        )
        report: dict[str, Any] = json.loads(text)
        return report

    def is_serving(self) -> bool:
        """Whether the inference service is ready."""
        try:
            return httpx.get(f"{self.url}/v2/health/ready").is_success
        except httpx.HTTPError:
            return False

    def versions(self, name: str) -> list[str]:
        """Versions of a model that the inference service has."""
        self.until(self.is_serving, "readiness of the inference service")
        metadata = httpx.get(f"{self.url}/v2/models/{name}").raise_for_status().json()
        versions: list[str] = metadata["versions"]
        return versions

    def until(self, happened: Callable[[], bool], what: str, seconds: float = 300) -> None:
        """Wait until ``happened``; fail the test, naming ``what``, when it does not."""
        deadline = time.monotonic() + seconds
        while not happened():
            if time.monotonic() > deadline:
                pytest.fail(f"{what} did not happen within {seconds:.0f} s")
            time.sleep(POLL_SECONDS)

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CLOISTER_")}
        ports = {
            "API_PORT": API_PORT,
            "CONSOLE_PORT": CONSOLE_PORT,
            "FEDERATION_PORT": FEDERATION_PORT,
        }
        return kept | {f"CLOISTER_{k}": str(v) for k, v in ports.items()} | self._settings
