"""Evaluation keys on the volume: owners, quotas, age, and what dead processes leave behind."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloister_inference.keys.keystore import TOUCH_SECONDS, EvaluationKeyStore
from cloister_inference.problems import (
    InsufficientStorageError,
    OtherClientError,
    UnavailableError,
)

DAY = 86400.0
CLIENT, OTHER_CLIENT = "a" * 64, "b" * 64


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> EvaluationKeyStore:
    return EvaluationKeyStore(tmp_path / "keys", quota_bytes=100, days=10, clock=clock)


def put(store: EvaluationKeyStore, owner: str, content: bytes, client: str = CLIENT) -> str:
    upload = store.begin(owner, len(content))
    try:
        upload.write(content)
        digest = upload.finish()
        store.commit(upload, owner, digest, client)
    finally:
        upload.discard()
    return digest


def files(root: Path) -> list[str]:
    return sorted(path.suffix for path in (root / "keys").rglob("*") if path.is_file())


def test_what_was_put_is_there_under_its_digest(store: EvaluationKeyStore, tmp_path: Path) -> None:
    digest = put(store, "anna", b"x" * 40)
    assert digest == hashlib.sha256(b"x" * 40).hexdigest()
    held = store.find("anna", digest)
    assert held
    assert (held.record.bytes, held.record.client_digest) == (40, CLIENT)
    assert held.record.created == held.used
    assert store.path(digest).read_bytes() == b"x" * 40
    assert store.find("bert", digest) is None
    assert files(tmp_path) == ["", "", ".json"]


@pytest.mark.parametrize("owner", ["anna", "../../etc", "", "a/b", "ü" * 300, "\0"])
def test_any_name_can_own(store: EvaluationKeyStore, owner: str, tmp_path: Path) -> None:
    digest = put(store, owner, b"x")
    assert store.find(owner, digest)
    assert {path.name for path in tmp_path.iterdir()} == {"keys"}


def test_files_are_the_services_alone(store: EvaluationKeyStore, tmp_path: Path) -> None:
    put(store, "anna", b"x")
    for path in (tmp_path / "keys").rglob("*"):
        assert path.name == ".lock" or not path.stat().st_mode & 0o077, path


class TestQuota:
    def test_counts_uploads_in_progress(self, store: EvaluationKeyStore) -> None:
        put(store, "anna", b"x" * 40)
        running = store.begin("anna", 40)
        with pytest.raises(InsufficientStorageError, match="20 are free"):
            store.begin("anna", 21)
        # Another owner has a quota of its own.
        store.begin("bert", 100).discard()
        running.discard()
        store.begin("anna", 60).discard()

    def test_holds_when_many_begin_at_once(
        self, store: EvaluationKeyStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        allocate = os.posix_fallocate

        def allocate_slowly(descriptor: int, offset: int, length: int) -> None:
            time.sleep(0.02)
            allocate(descriptor, offset, length)

        # So that others look while the space is not yet taken.
        monkeypatch.setattr(os, "posix_fallocate", allocate_slowly)

        def begin(_index: int) -> object:
            try:
                return store.begin("anna", 30)
            except InsufficientStorageError:
                return None

        with ThreadPoolExecutor(8) as pool:
            begun = [upload for upload in pool.map(begin, range(20)) if upload]
        assert len(begun) == 3

    def test_is_free_again_after_removal(self, store: EvaluationKeyStore) -> None:
        digest = put(store, "anna", b"x" * 100)
        with pytest.raises(InsufficientStorageError):
            store.begin("anna", 1)
        assert store.delete("anna", digest)
        put(store, "anna", b"y" * 100)


class TestOwners:
    def test_share_what_is_equal(self, store: EvaluationKeyStore) -> None:
        digest = put(store, "anna", b"x" * 40)
        assert put(store, "bert", b"x" * 40, OTHER_CLIENT) == digest
        assert len(store.digests()) == 1
        for owner in ("anna", "bert"):
            with pytest.raises(InsufficientStorageError, match="60 are free"):
                store.begin(owner, 61)
        assert store.has_for(digest, CLIENT)
        assert store.delete("anna", digest)
        assert not store.delete("anna", digest)
        assert store.find("bert", digest)
        assert not store.has_for(digest, CLIENT)
        assert store.has_for(digest, OTHER_CLIENT)
        assert store.delete("bert", digest)
        assert store.digests() == set()

    def test_have_a_key_for_one_client(self, store: EvaluationKeyStore, tmp_path: Path) -> None:
        digest = put(store, "anna", b"x")
        with pytest.raises(OtherClientError):
            put(store, "anna", b"x", OTHER_CLIENT)
        held = store.find("anna", digest)
        assert held
        assert held.record.client_digest == CLIENT
        assert ".upload" not in files(tmp_path)


class TestAge:
    def test_keys_that_are_not_used_are_removed(
        self, store: EvaluationKeyStore, clock: Clock
    ) -> None:
        old, used = put(store, "anna", b"old"), put(store, "anna", b"used")
        clock.now += 9 * DAY
        held = store.find("anna", used)
        assert held
        store.touch("anna", used, held.used)
        store.sweep()
        assert store.digests() == {old, used}
        clock.now += 2 * DAY
        store.sweep()
        assert store.digests() == {used}
        assert store.find("anna", old) is None
        clock.now += 10 * DAY
        store.sweep()
        assert store.digests() == set()

    def test_a_use_is_noted_once_an_hour(self, store: EvaluationKeyStore, clock: Clock) -> None:
        digest = put(store, "anna", b"x")
        first = store.find("anna", digest)
        assert first
        for later, noted in ((TOUCH_SECONDS - 1, False), (1, True)):
            clock.now += later
            store.touch("anna", digest, first.used)
            held = store.find("anna", digest)
            assert held
            assert (held.used != first.used) == noted

    def test_a_use_of_what_was_removed_brings_nothing_back(
        self, store: EvaluationKeyStore, clock: Clock
    ) -> None:
        digest = put(store, "anna", b"x")
        held = store.find("anna", digest)
        assert held
        store.delete("anna", digest)
        clock.now += DAY
        store.touch("anna", digest, held.used)
        assert store.find("anna", digest) is None


KILLED = """
import sys, time
from pathlib import Path
from cloister_inference.keys.keystore import EvaluationKeyStore

store = EvaluationKeyStore(Path(sys.argv[1]), quota_bytes=100, days=10)
upload = store.begin("anna", 60)
upload.write(b"x" * 30)
if sys.argv[2] == "between":
    # The content has its place, and what follows never happens.
    upload.write(b"x" * 30)
    digest = upload.finish()
    (Path(sys.argv[1]) / "content").mkdir()
    upload.path.rename(store.path(digest))
print("begun", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("moment", ["during", "between"])
def test_what_a_killed_process_left_is_removed_and_what_lives_stays(
    store: EvaluationKeyStore, tmp_path: Path, moment: str
) -> None:
    digest = put(store, "anna", b"kept")
    living = store.begin("bert", 10)
    root = tmp_path / "keys"
    if moment == "between":
        (root / "content").rename(root / "aside")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(root), moment], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "begun\n"
    if moment == "between":
        (root / "aside" / digest).rename(root / "content" / digest)
        (root / "aside").rmdir()
    else:
        store.sweep()
        # It still lives: its upload counts and stays.
        assert len(list(root.rglob("*.upload"))) == 2
        with pytest.raises(InsufficientStorageError):
            store.begin("anna", 40)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    # Its space is free at once, without a sweep.
    store.begin("anna", 90).discard()
    store.sweep()
    assert store.digests() == {digest}
    assert list(root.rglob("*.upload")) == [living.path]
    assert store.find("anna", digest)
    living.discard()


class TestDisk:
    @pytest.mark.parametrize(
        ("function", "code", "error"),
        [
            ("posix_fallocate", 28, InsufficientStorageError),
            ("posix_fallocate", 122, InsufficientStorageError),
            ("posix_fallocate", 30, UnavailableError),
            ("fsync", 28, InsufficientStorageError),
            ("fsync", 5, UnavailableError),
        ],
    )
    def test_trouble_is_said_and_leaves_nothing(
        self,
        store: EvaluationKeyStore,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        function: str,
        code: int,
        error: type[Exception],
    ) -> None:
        kept = put(store, "anna", b"kept")

        def fail(*_args: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, function, fail)
        with pytest.raises(error):
            put(store, "anna", b"x" * 10)
        monkeypatch.undo()
        assert files(tmp_path) == ["", "", ".json"]
        assert store.find("anna", kept)

    def test_a_record_that_cannot_be_written_takes_its_content_along(
        self, store: EvaluationKeyStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upload = store.begin("anna", 1)
        upload.write(b"x")
        digest = upload.finish()
        synced = os.fsync
        calls = []

        def fail_later(descriptor: int) -> None:
            calls.append(descriptor)
            if len(calls) > 2:
                raise OSError(28, "No space left on device")
            synced(descriptor)

        monkeypatch.setattr(os, "fsync", fail_later)
        with pytest.raises(InsufficientStorageError):
            store.commit(upload, "anna", digest, CLIENT)
        upload.discard()
        assert len(calls) > 2
        assert store.digests() == set()
        assert store.find("anna", digest) is None

    def test_a_damaged_record_counts_as_none(
        self, store: EvaluationKeyStore, tmp_path: Path
    ) -> None:
        digest = put(store, "anna", b"x")
        (record,) = (tmp_path / "keys").rglob("*.json")
        record.write_text("{")
        assert store.find("anna", digest) is None
        assert not store.has_for(digest, CLIENT)
        put(store, "anna", b"x")
        assert store.find("anna", digest)

    def test_forgetting_removes_it_from_all_owners(self, store: EvaluationKeyStore) -> None:
        digest = put(store, "anna", b"x")
        put(store, "bert", b"x")
        store.forget(digest)
        assert store.find("anna", digest) is store.find("bert", digest) is None
        assert store.digests() == set()

    def test_a_store_that_was_never_used_is_empty(
        self, store: EvaluationKeyStore, tmp_path: Path
    ) -> None:
        store.sweep()
        assert store.digests() == set()
        assert store.find("anna", "0" * 64) is None
        assert not store.delete("anna", "0" * 64)
        assert not (tmp_path / "keys").exists()


def test_more_than_was_announced_is_not_written(store: EvaluationKeyStore) -> None:
    upload = store.begin("anna", 3)
    with pytest.raises(ValueError, match="3 bytes"):
        upload.write(b"1234")
    upload.discard()
