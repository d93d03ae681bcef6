"""Settings under a folder of their own, and files as a user brings them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_files import OwnFiles, Signed, signed

from cloister_provision.settings import Settings


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings of a federation under ``tmp_path``, with changes."""

    def make(**changes: Any) -> Settings:
        return Settings(**({"federation_dir": tmp_path / "federation"} | changes))

    return make


@pytest.fixture(scope="session")
def authorities() -> tuple[Signed, Signed]:
    """A user's root CA and intermediate CA."""
    root = signed("Hospital root")
    return root, signed("Hospital intermediate", root)


@pytest.fixture
def own_files(tmp_path: Path, authorities: tuple[Signed, Signed]) -> OwnFiles:
    return OwnFiles(tmp_path / "own", *authorities)
