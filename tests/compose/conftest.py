"""One Compose project for all container tests."""

from collections.abc import Iterator

import pytest
from stack import Stack

BUILD_SECONDS = 3600


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The project with its images built and nothing running, removed afterwards."""
    stack = Stack()
    stack.compose("down", "--volumes", "--timeout", "5")
    stack.compose("--profile", "*", "build", seconds=BUILD_SECONDS)
    yield stack
    stack.compose("down", "--volumes", "--timeout", "5")
