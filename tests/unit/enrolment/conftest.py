"""The application with a SuperLink in memory."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from federation_of_sites import Clock, MemorySuperLink
from starlette.testclient import TestClient

from cloister_enrolment.admission import Admission
from cloister_enrolment.app import create_app
from cloister_enrolment.attempts import Attempts
from cloister_enrolment.join_tokens import JoinTokens


@pytest.fixture
def superlink() -> MemorySuperLink:
    return MemorySuperLink()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(tmp_path: Path, superlink: MemorySuperLink, clock: Clock) -> Admission:
    return Admission(tmp_path, superlink, clock)


@pytest.fixture
def http(tmp_path: Path, admission: Admission) -> Iterator[TestClient]:
    app = create_app(JoinTokens(tmp_path / "join-tokens.json"), admission, Attempts())
    with TestClient(app) as client:
        yield client
