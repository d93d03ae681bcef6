"""Versions that are deleted: whole or gone, never in use, and their numbers not used again."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cloister_shared.errors import CloisterError
from cloister_shared.registry import DELETED, MANIFEST, Registry


def write(folder: Path) -> dict[str, Any]:
    (folder / "one").write_bytes(b"1")
    (folder / "two").write_bytes(b"2")
    return {}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


def three(root: Path) -> Registry:
    """Versions 1 to 3 of ``digits``, the third in use, each of inputs called as its number."""
    made = Registry(root)
    for number in "123":
        made.publish("digits", number, write)
    return made


@pytest.fixture
def registry(root: Path) -> Registry:
    return three(root)


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith((".deleted-", ".stag"))]


def check_whole(registry: Registry, name: str = "digits") -> None:
    """Every version that is there is whole, and one of them is in use unless there is none."""
    versions = registry.versions(name)
    for number in versions:
        registry.open(name, number).verify()
    if versions:
        assert registry.current(name) in versions


def test_a_deleted_version_is_gone_and_its_number_is_not_used_again(
    registry: Registry, root: Path
) -> None:
    registry.promote("digits", 1)
    registry.delete("digits", 3)
    assert registry.versions("digits") == [1, 2]
    assert registry.current("digits") == 1
    assert left_over(root / "digits") == []
    with pytest.raises(CloisterError, match="no version 3 of digits"):
        registry.open("digits", 3)
    assert registry.publish("digits", "new", write).manifest.version == 4
    registry.delete("digits", 2)
    assert registry.publish("digits", "new", write).manifest.version == 5
    assert [registry.is_gone("digits", number) for number in range(1, 6)] == [
        *(False, True, True, False, False)
    ]


def test_the_version_in_use_is_not_deleted(registry: Registry) -> None:
    with pytest.raises(CloisterError, match=r"in use.*`promote digits 2`.*delete digits --force"):
        registry.delete("digits", 3)
    for number in (1, 2):
        registry.delete("digits", number)
    with pytest.raises(CloisterError, match=r"in use.*it is the only one; or delete all"):
        registry.delete("digits", 3)
    assert registry.open_current("digits").manifest.version == 3


def test_what_is_not_there_is_not_deleted(registry: Registry, root: Path) -> None:
    registry.delete("digits", 1)
    for number in (0, 1, 4):
        with pytest.raises(CloisterError, match=rf"no version {number} of digits .*\[2, 3\]"):
            registry.delete("digits", number)
    with pytest.raises(CloisterError, match="no version 1 of mnist"):
        registry.delete("mnist", 1)
    with pytest.raises(CloisterError, match="nothing is published under mnist"):
        registry.delete_all("mnist")
    assert [path.name for path in root.iterdir()] == ["digits"]
    for use in (lambda: registry.delete("../x", 1), lambda: registry.delete_all("../x")):
        with pytest.raises(CloisterError, match="is not a model name"):
            use()


def test_a_whole_model_is_deleted_and_may_be_published_again(
    registry: Registry, root: Path
) -> None:
    registry.publish("mnist", "1", write)
    assert registry.delete_all("digits") == [1, 2, 3]
    assert registry.names() == ["mnist"]
    assert registry.current("digits") is None
    assert left_over(root / "digits") == []
    with pytest.raises(CloisterError, match="nothing is published under digits"):
        registry.open_current("digits")
    assert registry.publish("digits", "new", write).manifest.version == 4
    assert registry.current("digits") == 4


def test_a_damaged_version_can_be_deleted(registry: Registry, root: Path) -> None:
    (root / "digits" / "1" / "one").write_bytes(b"damaged")
    with pytest.raises(CloisterError, match="`delete digits 1`"):
        registry.open("digits", 1).verify()
    (root / "digits" / "2" / MANIFEST).write_bytes(b"{")
    for number in (1, 2):
        registry.delete("digits", number)
    assert registry.versions("digits") == [3]
    assert registry.deleted_from("digits", "1") == 1
    assert registry.publish("digits", "new", write).manifest.version == 4


def test_a_publisher_learns_that_what_it_would_make_was_deleted(registry: Registry) -> None:
    assert registry.deleted_from("digits", "1") is None
    registry.delete("digits", 1)
    assert registry.deleted_from("digits", "1") == 1
    assert registry.deleted_from("digits", "never made") is None
    assert registry.deleted_from("mnist", "1") is None
    # Made again, it is there.
    registry.publish("digits", "1", write)
    assert registry.deleted_from("digits", "1") is None
    # An older one of the same inputs does not take its place.
    registry.publish("digits", "1", write)
    registry.promote("digits", 3)
    registry.delete("digits", 5)
    assert registry.deleted_from("digits", "1") == 5


def test_a_damaged_list_of_what_was_deleted_is_told(registry: Registry, root: Path) -> None:
    (root / "digits" / DELETED).write_text('{"inputs_digests": {"x": 1}}')
    uses: tuple[Callable[[], object], ...] = (
        lambda: registry.delete("digits", 1),
        lambda: registry.delete_all("digits"),
        lambda: registry.deleted_from("digits", "1"),
        lambda: registry.publish("digits", "new", write),
    )
    for use in uses:
        with pytest.raises(CloisterError, match="what was deleted, is damaged: restore it, or rem"):
            use()
    assert registry.versions("digits") == [1, 2, 3]
    assert left_over(root / "digits") == []


KILLED = """
import os, shutil, signal, sys
from itertools import count
from pathlib import Path
from cloister_shared.registry import Registry

registry, (owner, name), at = Registry(Path(sys.argv[1])), sys.argv[2].split("."), sys.argv[3]
owner = {"os": os, "Path": Path, "shutil": shutil}[owner]
original, calls = getattr(owner, name), count(1)
def call(*arguments, **options):
    if next(calls) == int(at):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments, **options)
setattr(owner, name, call)
registry.delete("digits", 2) if sys.argv[4] == "one" else registry.delete_all("digits")
"""


@pytest.mark.parametrize("what", ["one", "all"])
@pytest.mark.parametrize("call", ["os.fsync", "Path.replace", "Path.rename", "shutil.rmtree"])
def test_a_deletion_that_is_killed_leaves_versions_whole_or_gone(
    tmp_path: Path, what: str, call: str
) -> None:
    for at in count(1):
        root = tmp_path / str(at)
        registry = three(root)
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, str(root), call, str(at), what], check=False
        )
        check_whole(registry)
        if what == "one":
            assert {1, 3} <= set(registry.versions("digits"))
        # The next writer removes what is left, and gives no number twice.
        assert registry.publish("digits", "new", write).manifest.version == 4
        check_whole(registry)
        assert left_over(root / "digits") == []
        if killed.returncode == 0:
            break
        assert killed.returncode == -signal.SIGKILL
    assert at > 1


def test_a_volume_that_is_full_leaves_versions_whole_or_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    for failing in count(1):
        registry, calls = three(tmp_path / str(failing)), count(1)

        def full(descriptor: int, calls: Iterator[int] = calls, failing: int = failing) -> None:
            if next(calls) >= failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        with monkeypatch.context() as patched, suppress(OSError):
            patched.setattr(os, "fsync", full)
            registry.delete("digits", 1)
            break
        check_whole(registry)
        assert registry.current("digits") == 3
    assert failing > 3


def test_a_deletion_waits_for_a_publisher(registry: Registry) -> None:
    def write_while_another_deletes(folder: Path) -> dict[str, Any]:
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        return write(folder)

    thread = threading.Thread(target=registry.delete, args=("digits", 2), daemon=True)
    registry.publish("digits", "new", write_while_another_deletes)
    thread.join(60)
    assert registry.versions("digits") == [1, 3, 4]


@pytest.mark.parametrize("use", ["promote", "roll_back", "adopt", "delete"])
def test_a_version_that_is_deleted_while_one_waits_is_not_put_into_use(
    registry: Registry, use: str
) -> None:
    """Each looks before it waits for the lock, and again once it has it."""
    found: list[BaseException] = []

    def do() -> None:
        try:
            getattr(registry, use)("digits", 2)
        except CloisterError as error:
            found.append(error)

    deleted = Registry._discard

    def discard(self: Registry, folder: Path, name: str, versions: list[int]) -> None:
        # The lock is held: whoever comes has to wait for it.
        thread.start()
        thread.join(0.3)
        deleted(self, folder, name, versions)

    thread = threading.Thread(target=do, daemon=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Registry, "_discard", discard)
        registry.delete("digits", 2)
    thread.join(60)
    assert "no version 2 of digits" in str(found[0])
    assert registry.current("digits") == 3
    check_whole(registry)


class Sequences(RuleBasedStateMachine):
    """Any sequence of what people and publishers do, against what must hold in plain words."""

    folders: Iterator[Path]

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry(next(self.folders))
        self.there: dict[int, str] = {}
        self.deleted: dict[int, str] = {}
        self.in_use: int | None = None
        self.highest = 0

    @rule(inputs=st.sampled_from("ab"), fails=st.booleans())
    def publish(self, inputs: str, fails: bool) -> None:
        def fail(_folder: Path) -> dict[str, Any]:
            raise CloisterError("no")

        if fails:
            with pytest.raises(CloisterError, match="no"):
                self.registry.publish("digits", inputs, fail)
            return
        self.highest += 1
        published = self.registry.publish("digits", inputs, write)
        assert published.manifest.version == self.highest
        self.there[self.highest] = inputs
        self.in_use = self.highest

    @rule(inputs=st.sampled_from("ab"))
    def come_up_again(self, inputs: str) -> None:
        """What was made last from the same inputs is used, unless somebody put it out of use."""
        made = [number for number, of in (self.there | self.deleted).items() if of == inputs]
        deleted = self.registry.deleted_from("digits", inputs)
        if made and max(made) in self.deleted:
            assert deleted == max(made)
            return
        assert deleted is None
        found = self.registry.published_from("digits", inputs)
        assert (found.manifest.version if found else None) == max(made, default=None)
        if found:
            version = self.registry.adopt("digits", found.manifest.version).manifest.version
            assert version in (max(made), self.in_use)
            self.in_use = version

    @precondition(lambda self: self.highest)
    @rule(data=st.data())
    def promote(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(1, self.highest))
        if number in self.there:
            self.registry.promote("digits", number)
            self.in_use = number
            return
        with pytest.raises(CloisterError, match=f"no version {number}"):
            self.registry.promote("digits", number)

    @rule()
    def roll_back(self) -> None:
        earlier = [number for number in self.there if number < (self.in_use or 0)]
        if earlier:
            self.in_use = max(earlier)
            assert self.registry.roll_back("digits").manifest.version == self.in_use
            return
        with pytest.raises(CloisterError, match=r"no version of digits before|nothing is publish"):
            self.registry.roll_back("digits")

    @precondition(lambda self: self.highest)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(1, self.highest))
        if number in self.there and number != self.in_use:
            self.registry.delete("digits", number)
            self.deleted[number] = self.there.pop(number)
            return
        with pytest.raises(CloisterError, match=r"is in use|no version"):
            self.registry.delete("digits", number)

    @precondition(lambda self: self.there)
    @rule()
    def delete_all(self) -> None:
        assert self.registry.delete_all("digits") == sorted(self.there)
        self.deleted |= self.there
        self.there, self.in_use = {}, None

    @invariant()
    def holds(self) -> None:
        assert self.registry.versions("digits") == sorted(self.there)
        assert self.registry.current("digits") == self.in_use
        assert self.registry.names() == (["digits"] if self.there else [])
        check_whole(self.registry)


def test_any_sequence_of_operations(tmp_path: Path) -> None:
    Sequences.folders = (tmp_path / str(number) for number in count())
    run_state_machine_as_test(Sequences, settings=settings(max_examples=60, stateful_step_count=15))
