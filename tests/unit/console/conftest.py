"""A console, with a folder of events."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from cloister_console.app import create_app
from cloister_console.settings import Settings


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
