"""What a client needs before it does anything."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cloister_client.__main__ import run_site
from cloister_client.settings import Settings
from cloister_shared.errors import CloisterError


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"enrolment_url": "http://127.0.0.1:8003"}, "CLOISTER_ENROLMENT_URL"),
        ({"dealer_url": "http://127.0.0.1:8001"}, "CLOISTER_DEALER_URL"),
    ],
)
def test_a_site_sends_nothing_in_the_clear(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} must begin with https://"):
        Settings(**changes)
    Settings(insecure=True, **changes)


def test_a_site_with_its_own_folder_asks_no_dealer() -> None:
    Settings(shard_dir=Path("site"), dealer_url="http://127.0.0.1:8001")


@pytest.mark.parametrize("content", [None, b"", b"not PEM"])
def test_a_file_that_is_no_ca_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CloisterError, match=r"CLOISTER_CA_PATH: .*ca\.crt has no CA certificate"):
        run_site(Settings(data_dir=tmp_path, ca_path=path, join_token_path=path))


def test_without_a_join_token_it_says_so_and_makes_no_key(tmp_path: Path) -> None:
    with pytest.raises(CloisterError, match="CLOISTER_JOIN_TOKEN_PATH"):
        run_site(Settings(data_dir=tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a/b", "-a", "a b", "x" * 128])
def test_a_name_that_cannot_be_is_a_wrong_setting(tmp_path: Path, name: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "cloister_client"],
        env=os.environ | {"CLOISTER_SITE_NAME": name, "CLOISTER_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "CLOISTER_SITE_NAME: " in ended.stderr


def test_a_host_whose_name_cannot_be_a_sites_needs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "a b")
    with pytest.raises(CloisterError, match="set CLOISTER_SITE_NAME: this host's name, 'a b'"):
        run_site(Settings(data_dir=tmp_path, join_token_path=tmp_path))
