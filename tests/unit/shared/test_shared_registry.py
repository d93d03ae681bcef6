"""Immutable versions on a volume."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cloister_shared.errors import CloisterError
from cloister_shared.registry import ADOPTED, CURRENT, MANIFEST, Manifest, Registry

FILES = {"one.bin": b"1" * 1000, "other.txt": b"text"}
Write = Callable[[Path], dict[str, Any]]


def writing(files: dict[str, bytes]) -> Write:
    def write(folder: Path) -> dict[str, Any]:
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return {"files": len(files)}

    return write


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "volume" / "registry")


@pytest.fixture
def folder(registry: Registry, tmp_path: Path) -> Path:
    """The folder of ``digits``, in which one version is published."""
    registry.publish("digits", "inputs", writing(FILES))
    return tmp_path / "volume" / "registry" / "digits"


def left_over(folder: Path) -> list[str]:
    """Names in the folder that are neither versions, nor the lock, nor say what is in use."""
    return sorted(
        path.name
        for path in folder.iterdir()
        if not path.name.isdecimal() and path.name not in (ADOPTED, CURRENT, ".lock")
    )


def test_a_published_version_is_found_opened_verified_and_in_use(registry: Registry) -> None:
    published = registry.publish("digits", "inputs", writing(FILES))
    assert registry.names() == ["digits"]
    assert registry.versions("digits") == [1]
    assert registry.current("digits") == 1
    opened = registry.open_current("digits")
    assert opened == registry.open("digits", 1) == published
    assert opened.manifest.details == {"files": 2}
    assert opened.manifest.inputs_digest == "inputs"
    opened.verify()
    for name, content in FILES.items():
        assert opened.file(name).read_bytes() == content
    with pytest.raises(CloisterError, match=r"has no file manifest\.json"):
        opened.file(MANIFEST)


def test_a_second_version_is_numbered_on_and_leaves_the_first_as_it_was(
    registry: Registry, folder: Path
) -> None:
    before = {path.name: path.read_bytes() for path in (folder / "1").iterdir()}
    second = registry.publish("digits", "other inputs", writing({"one.bin": b"2"}))
    assert second.manifest.version == registry.current("digits") == 2
    assert registry.versions("digits") == [1, 2]
    assert {path.name: path.read_bytes() for path in (folder / "1").iterdir()} == before


def test_numbers_are_ordered_as_numbers_and_never_used_twice(
    registry: Registry, folder: Path
) -> None:
    for _ in range(10):
        registry.publish("digits", "inputs", writing(FILES))
    assert registry.versions("digits") == list(range(1, 12))
    # What is not a version's folder does not count as one, and is not overwritten.
    (folder / "12").write_bytes(b"")
    for name in ("007", "²", "٣", "x"):
        (folder / name).mkdir()
    assert registry.versions("digits") == list(range(1, 12))
    assert registry.publish("digits", "inputs", writing(FILES)).manifest.version == 13


def test_names_are_those_with_a_version(registry: Registry, folder: Path) -> None:
    root = folder.parent
    for name in ("empty", "Upper", ".hidden"):
        (root / name / "1" if name == "Upper" else root / name).mkdir(parents=True)
    (root / "file").write_bytes(b"")
    assert registry.names() == ["digits"]
    assert registry.versions("file") == []
    assert registry.current("file") is None
    assert Registry(root / "none").names() == []


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../models", "a/b", "/etc", "Digits", "-a", "a\n", "a\0", "ä", "a" * 64, "a.b"],
)
def test_a_name_that_is_not_one_reaches_no_file(registry: Registry, name: str) -> None:
    for use in (
        lambda: registry.versions(name),
        lambda: registry.current(name),
        lambda: registry.open(name, 1),
        lambda: registry.open_current(name),
        lambda: registry.published_from(name, "inputs"),
        lambda: registry.promote(name, 1),
        lambda: registry.adopt(name, 1),
        lambda: registry.roll_back(name),
        lambda: registry.publish(name, "inputs", writing(FILES)),
    ):
        with pytest.raises(CloisterError, match="is not a model name"):
            use()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../1/one.bin", "/etc/hostname", "sub/one.bin", "a\0", MANIFEST]
)
def test_a_manifest_cannot_name_a_file_elsewhere(
    registry: Registry, folder: Path, name: str
) -> None:
    manifest = json.loads((folder / "1" / MANIFEST).read_text())
    manifest["files"][name] = "0" * 64
    (folder / "1" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CloisterError, match="is damaged"):
        registry.open("digits", 1)


@given(st.sampled_from(sorted(FILES)), st.data())
def test_verification_sees_any_byte_changed_added_or_removed(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "version"
    folder.mkdir(exist_ok=True)
    published = Registry(folder / "registry").publish("digits", "inputs", writing(FILES))
    published.verify()
    content = FILES[name]
    at = data.draw(st.integers(0, len(content) - 1))
    changed = data.draw(
        st.sampled_from(
            [
                content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :],
                content[:at] + content[at + 1 :],
                content[:at] + b"\0" + content[at:],
                None,
            ]
        )
    )
    path = published.file(name)
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)
    with pytest.raises(
        CloisterError, match=rf"{name} .*(is not what was published|cannot be read)"
    ):
        published.verify()


def test_a_missing_version_or_name_says_so(registry: Registry, folder: Path) -> None:
    (folder / "5").write_bytes(b"")
    for version in (0, -1, 2, 5):
        with pytest.raises(CloisterError, match=f"no version {version} of digits"):
            registry.open("digits", version)
    with pytest.raises(CloisterError, match="no version 2 of digits"):
        registry.promote("digits", 2)
    assert registry.current("digits") == 1
    with pytest.raises(CloisterError, match="nothing is published under mnist"):
        registry.open_current("mnist")
    assert registry.current("mnist") is None
    assert registry.published_from("mnist", "inputs") is None


@pytest.mark.parametrize("content", [b"", b"x", b"-1", b"0", b"1.0", b"1 2", b"\xff", b"\xd9\xa1"])
def test_a_damaged_current_names_no_version_and_is_mended(
    registry: Registry, folder: Path, content: bytes
) -> None:
    (folder / CURRENT).write_bytes(content)
    assert registry.current("digits") is None
    with pytest.raises(CloisterError, match=r"current names no version; there are \[1\]"):
        registry.open_current("digits")
    registry.promote("digits", 1)
    assert registry.open_current("digits").manifest.version == 1


def test_a_current_that_names_a_missing_version_says_what_there_is(
    registry: Registry, folder: Path
) -> None:
    (folder / CURRENT).write_text("7\n")
    with pytest.raises(CloisterError, match=r"names version 7, which is missing; there are \[1\]"):
        registry.open_current("digits")


def test_equal_inputs_find_the_newest_version_made_from_them(
    registry: Registry, folder: Path
) -> None:
    for inputs in ("other", "inputs", "other"):
        registry.publish("digits", inputs, writing(FILES))
    found = registry.published_from("digits", "inputs")
    assert found is not None
    assert found.manifest.version == 3
    assert registry.published_from("digits", "none") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda manifest: manifest.write_bytes(b""),
        lambda manifest: manifest.write_bytes(b"\xff{"),
        lambda manifest: manifest.write_text('{"name": "digits"}'),
        lambda manifest: manifest.unlink(),
        lambda manifest: manifest.write_text(manifest.read_text().replace("digits", "mnist")),
        lambda manifest: manifest.write_text(manifest.read_text().replace(": 2,", ": 1,")),
    ],
)
def test_one_damaged_manifest_leaves_the_other_versions_usable(
    registry: Registry,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], Any],
) -> None:
    registry.publish("digits", "more inputs", writing(FILES))
    damage(folder / "2" / MANIFEST)
    with pytest.raises(CloisterError, match=r"damaged|no version 2"):
        registry.open("digits", 2)
    found = registry.published_from("digits", "inputs")
    assert found is not None
    assert found.manifest.version == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert registry.names() == ["digits"]
    registry.promote("digits", 1)
    assert registry.open_current("digits").manifest.version == 1
    assert registry.publish("digits", "inputs", writing(FILES)).manifest.version == 3


@pytest.mark.parametrize("failure", [CloisterError("no"), KeyboardInterrupt(), SystemExit(143)])
def test_a_writer_that_fails_leaves_nothing(
    registry: Registry, folder: Path, failure: BaseException
) -> None:
    def write(staging: Path) -> dict[str, Any]:
        (staging / "half").write_bytes(b"x")
        (staging / "folder").mkdir()
        raise failure

    for name, versions in (("digits", [1]), ("mnist", [])):
        with pytest.raises(type(failure)):
            registry.publish(name, "new inputs", write)
        assert registry.versions(name) == versions
        assert left_over(folder.parent / name) == []
    assert registry.current("digits") == 1
    assert registry.current("mnist") is None
    assert registry.names() == ["digits"]


def test_a_writer_cannot_replace_the_manifest(registry: Registry, folder: Path) -> None:
    with pytest.raises(ValidationError, match="plain name"):
        registry.publish("digits", "new inputs", writing({MANIFEST: b"{}"}))
    assert registry.versions("digits") == [1]
    assert left_over(folder) == []


def test_a_volume_that_fills_up_at_any_point_leaves_a_consistent_registry(
    registry: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    for failing in count(1):
        calls = count(1)

        def full(descriptor: int, calls: Iterator[int] = calls, failing: int = failing) -> None:
            if next(calls) >= failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        before = registry.versions("digits")
        with monkeypatch.context() as patched, suppress(OSError):
            patched.setattr(os, "fsync", full)
            registry.publish("digits", "inputs", writing(FILES))
            break
        assert left_over(folder) == []
        assert registry.current("digits") in registry.versions("digits")
        assert registry.versions("digits")[: len(before)] == before
        for version in registry.versions("digits"):
            registry.open("digits", version).verify()
    # Root, two files, manifest, staging folder, current, and the folder it is renamed in.
    assert failing > 7


@contextmanager
def child(root: Path, script: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python code with a ``registry`` of ``root`` and a ``write``; kill it at the end."""
    preamble = f"""
import os, signal, sys
from pathlib import Path
from cloister_shared.registry import Registry
registry = Registry(Path({str(root)!r}))
def say(word):
    print(word, flush=True)
def write(folder, content=b"x"):
    (folder / "file").write_bytes(content)
    return {{}}
"""
    with subprocess.Popen(
        [sys.executable, "-c", preamble + script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


def tell(process: subprocess.Popen[str], word: str = "go") -> None:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


WAITING_WRITER = """
def wait(folder):
    write(folder)
    say("writing")
    sys.stdin.readline()
    return {}
registry.publish("digits", "of the child", wait)
say("done")
"""


def test_a_process_killed_while_it_writes_is_cleaned_up_after(
    registry: Registry, folder: Path
) -> None:
    with child(folder.parent, WAITING_WRITER) as process:
        assert line(process.stdout) == "writing"
        assert len(left_over(folder)) == 1
        process.kill()
        process.wait()
    assert registry.versions("digits") == [1]
    assert len(left_over(folder)) == 1
    assert registry.publish("digits", "inputs", writing(FILES)).manifest.version == 2
    assert left_over(folder) == []


def test_a_process_killed_before_its_version_is_in_use_leaves_it_to_be_found(
    registry: Registry, tmp_path: Path
) -> None:
    root = tmp_path / "volume" / "registry"
    script = """
Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
registry.publish("digits", "of the child", write)
"""
    with child(root, script) as process:
        assert process.wait() == -signal.SIGKILL
    assert registry.versions("digits") == [1]
    assert registry.current("digits") is None
    found = registry.published_from("digits", "of the child")
    assert found is not None
    assert registry.adopt("digits", 1) == registry.open_current("digits") == found
    registry.publish("digits", "inputs", writing(FILES))
    assert left_over(root / "digits") == []


@pytest.fixture
def two(registry: Registry, folder: Path) -> Registry:
    """A registry with two versions of ``digits``, the second in use."""
    registry.publish("digits", "other inputs", writing({"one.bin": b"2"}))
    return registry


def test_a_rollback_stays_when_the_same_inputs_come_again(two: Registry) -> None:
    assert two.roll_back("digits") == two.open_current("digits") == two.open("digits", 1)
    for _ in range(2):
        assert two.adopt("digits", 2).manifest.version == two.current("digits") == 1
    # And so does a number that somebody has written into the file.
    two.promote("digits", 2)
    two.promote("digits", 1)
    assert two.adopt("digits", 2).manifest.version == 1


def test_what_is_published_after_a_rollback_is_in_use(two: Registry) -> None:
    two.roll_back("digits", 1)
    assert two.publish("digits", "third", writing(FILES)).manifest.version == 3
    assert two.current("digits") == 3
    assert two.roll_back("digits").manifest.version == 2
    assert two.roll_back("digits").manifest.version == 1
    assert two.adopt("digits", 3).manifest.version == 1


def test_inputs_that_were_not_the_last_are_adopted(two: Registry) -> None:
    """Settings that go back and forth: each time the version made from them comes into use."""
    for version in (1, 2, 1):
        assert two.adopt("digits", version).manifest.version == two.current("digits") == version
    assert two.roll_back("digits", 2).manifest.version == 2
    assert two.adopt("digits", 1).manifest.version == 2
    assert two.adopt("digits", 2).manifest.version == 2


def test_a_version_that_is_not_noted_as_adopted_is_adopted(two: Registry, folder: Path) -> None:
    """As of a publisher that was killed before it could, or of an earlier release."""
    (folder / ADOPTED).unlink()
    (folder / CURRENT).write_text("1\n")
    assert two.adopt("digits", 2).manifest.version == two.current("digits") == 2
    (folder / ADOPTED).unlink()
    # A rollback right after it is one all the same.
    two.roll_back("digits")
    assert two.adopt("digits", 2).manifest.version == 1


@pytest.mark.parametrize("content", [b"", b"x", b"\xff", b"7\n"])
def test_a_current_that_names_nothing_is_mended_by_adoption(
    two: Registry, folder: Path, content: bytes
) -> None:
    (folder / CURRENT).write_bytes(content)
    assert two.adopt("digits", 2).manifest.version == two.current("digits") == 2


def test_a_damaged_version_is_neither_rolled_back_to_nor_adopted(
    two: Registry, folder: Path
) -> None:
    (folder / "1" / "one.bin").write_bytes(b"x")
    uses: tuple[Callable[[], Any], ...] = (
        lambda: two.roll_back("digits"),
        lambda: two.roll_back("digits", 1),
        lambda: two.adopt("digits", 1),
    )
    for use in uses:
        with pytest.raises(CloisterError, match=r"one\.bin is not what was published"):
            use()
        assert two.current("digits") == 2
    # One that was rolled back from may be damaged: it is not in use.
    (folder / "1" / "one.bin").write_bytes(FILES["one.bin"])
    two.roll_back("digits")
    (folder / "2" / "one.bin").write_bytes(b"x")
    assert two.adopt("digits", 2).manifest.version == 1


def test_there_must_be_something_to_roll_back_to(two: Registry, folder: Path) -> None:
    with pytest.raises(CloisterError, match="no version 3 of digits"):
        two.roll_back("digits", 3)
    with pytest.raises(CloisterError, match="nothing is published under mnist"):
        two.roll_back("mnist")
    two.roll_back("digits")
    with pytest.raises(CloisterError, match=r"no version of digits before 1: \[1, 2\]"):
        two.roll_back("digits")
    (folder / CURRENT).write_bytes(b"x")
    with pytest.raises(CloisterError, match=r"no version of digits is in use: name one of \[1, 2"):
        two.roll_back("digits")
    assert two.roll_back("digits", 2).manifest.version == 2


def test_a_rollback_that_waited_for_a_publisher_leaves_what_it_published(
    two: Registry, folder: Path, waited: threading.Event
) -> None:
    reasons: list[str] = []

    def roll_back() -> None:
        try:
            two.roll_back("digits")
        except CloisterError as error:
            reasons.append(str(error))

    thread = threading.Thread(target=roll_back, daemon=True)
    with child(folder.parent, WAITING_WRITER) as process:
        assert line(process.stdout) == "writing"
        thread.start()
        assert waited.wait(60)
        tell(process)
        assert line(process.stdout) == "done"
    thread.join(60)
    assert two.current("digits") == 3
    assert len(reasons) == 1
    assert "version 3 of digits was put into use meanwhile" in reasons[0]


class Waited(logging.Handler):
    """Notices that a publisher waits for another one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if "waiting for another process" in record.getMessage():
            self.seen.set()


@pytest.fixture
def waited() -> Iterator[threading.Event]:
    logger, handler = logging.getLogger("cloister_shared.registry"), Waited()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.seen
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.parametrize("second", ["publishes", "sets current"])
def test_a_second_writer_waits_and_leaves_the_first_ones_files_alone(
    registry: Registry, folder: Path, waited: threading.Event, second: str
) -> None:
    registry.publish("digits", "inputs", writing(FILES))

    def write_too() -> None:
        if second == "publishes":
            registry.publish("digits", "of the second", writing(FILES))
        else:
            registry.promote("digits", 1)

    thread = threading.Thread(target=write_too, daemon=True)
    with child(folder.parent, WAITING_WRITER) as process:
        assert line(process.stdout) == "writing"
        thread.start()
        assert waited.wait(60)
        # Another name is not held up.
        registry.publish("mnist", "inputs", writing(FILES))
        assert registry.versions("digits") == [1, 2]
        tell(process)
        assert line(process.stdout) == "done"
        assert process.wait() == 0
    thread.join(60)
    assert not thread.is_alive()
    assert left_over(folder) == []
    assert registry.open("digits", 3).manifest.inputs_digest == "of the child"
    if second == "publishes":
        assert registry.open("digits", 4).manifest.inputs_digest == "of the second"
        assert registry.current("digits") == 4
    else:
        assert registry.current("digits") == 1
    for version in registry.versions("digits"):
        registry.open("digits", version).verify()


def test_nothing_of_several_publishers_is_lost(registry: Registry, tmp_path: Path) -> None:
    root, each = tmp_path / "volume" / "registry", 8
    script = f"""
name = sys.stdin.readline().strip()
for index in range({each}):
    content = f"{{name}} {{index}}".encode()
    version = registry.publish("digits", content.decode(), lambda folder: write(folder, content))
    say(version.manifest.version)
"""
    numbers: list[int] = []
    with child(root, script) as one, child(root, script) as two, child(root, script) as three:
        processes = (one, two, three)
        for index, process in enumerate(processes):
            tell(process, str(index))
        for process in processes:
            assert process.stdout is not None
            numbers += map(int, process.stdout.read().split())
            assert process.wait() == 0
    assert sorted(numbers) == registry.versions("digits") == list(range(1, 3 * each + 1))
    contents = set()
    for version in registry.versions("digits"):
        opened = registry.open("digits", version)
        opened.verify()
        contents.add(opened.file("file").read_text())
        assert opened.manifest.inputs_digest == opened.file("file").read_text()
    assert contents == {f"{name} {index}" for name in range(3) for index in range(each)}
    assert registry.current("digits") == 3 * each
    assert left_over(root / "digits") == []


def test_readers_see_one_version_or_the_other_while_current_changes(
    registry: Registry, folder: Path
) -> None:
    registry.publish("digits", "inputs", writing(FILES))
    script = """
say("ready")
for index in range(200):
    registry.promote("digits", 1 + index % 2)
say("done")
"""
    seen: set[int | None] = set()
    with child(folder.parent, script) as process:
        assert line(process.stdout) == "ready"
        while process.poll() is None:
            seen.add(registry.current("digits"))
            assert registry.open_current("digits").manifest.version in (1, 2)
        assert line(process.stdout) == "done"
        assert process.returncode == 0
    assert seen <= {1, 2}


def test_a_published_manifest_reads_back(folder: Path) -> None:
    manifest = Manifest.model_validate_json((folder / "1" / MANIFEST).read_bytes())
    assert sorted(manifest.files) == sorted(FILES)
    assert manifest.created.tzinfo is not None
