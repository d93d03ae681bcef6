"""Files that appear whole or not at all."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cloister_shared.files import write_atomically


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_appears_with_its_content_and_mode_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "secret"
    write_atomically(path, b"one", mode=0o600)
    assert path.read_bytes() == b"one"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    write_atomically(path, b"other")
    assert path.read_bytes() == b"other"
    assert names(path.parent) == ["secret"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_volume_leaves_the_file_as_it_was_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write_atomically(tmp_path / "file", b"before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os if failing == "fsync" else Path, failing, full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", b"after")
    assert (tmp_path / "file").read_bytes() == b"before"
    assert names(tmp_path) == ["file"]


def test_what_a_killed_process_left_aside_is_overwritten(tmp_path: Path) -> None:
    killed = f"""
import os, signal
from pathlib import Path
from cloister_shared.files import write_atomically
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path({str(tmp_path / "file")!r}), b"half")
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    assert names(tmp_path) not in ([], ["file"])
    write_atomically(tmp_path / "file", b"whole", mode=0o600)
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
