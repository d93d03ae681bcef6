"""A console, with a folder of events, in this process and as one that a browser can ask."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pages import Visit
from playwright.sync_api import Browser

from cloister_cli.processes import Processes, free_ports
from cloister_console.app import create_app
from cloister_console.settings import Settings

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def events_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "events"
    folder.mkdir()
    return folder


@pytest.fixture
def console(events_dir: Path) -> Iterator[TestClient]:
    app = create_app(Settings(events_dir=events_dir))
    with TestClient(app, base_url="http://127.0.0.1:8080") as client:
        yield client


StartConsole = Callable[[int, str], str]


@pytest.fixture
def start_console(events_dir: Path, tmp_path: Path) -> Iterator[StartConsole]:
    """Start a console at a port, whose page finds the service at a URL; return its own."""
    with Processes(tmp_path, {}) as processes:

        def start(port: int, service_url: str) -> str:
            process = processes.start(
                "console", "cloister_console", port=port, events_dir=events_dir, url=service_url
            )
            process.wait_healthy(f"http://127.0.0.1:{port}/health", 60)
            return f"http://127.0.0.1:{port}"

        yield start


@pytest.fixture
def console_url(start_console: StartConsole) -> str:
    """Of a console whose page finds no service."""
    (port,) = free_ports(1)
    return start_console(port, NOWHERE)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[[str], Visit]]:
    """Open pages, which are closed at the end."""
    with ExitStack() as opened:

        def make(url: str) -> Visit:
            made = Visit(browser, url)
            opened.callback(made.page.close)
            return made

        yield make
