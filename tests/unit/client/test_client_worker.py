"""Work in a child of a warm process: whatever happens to it stays with it."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister_client.node.worker import Worker, WorkerGoneError, WorkFailedError, join, split

LONG = 60.0
memory: list[bytes] = []


def work(job: list[bytes]) -> list[bytes]:
    what, *rest = job
    match what:
        case b"echo":
            return rest
        case b"pids":
            return [str(os.getpid()).encode(), str(os.getppid()).encode()]
        case b"remember":
            memory.extend(rest)
            return [*memory, b"end"]
        case b"exit":
            os._exit(3)
        case b"signal":
            # Libraries of other tests print a stack on some signals.
            if rest[0] != b"9":
                signal.signal(int(rest[0]), signal.SIG_DFL)
            os.kill(os.getpid(), int(rest[0]))
        case b"sleep":
            Path(rest[0].decode()).write_text(str(os.getpid()))
            time.sleep(LONG)
        case b"hold":
            # No other thread of this process runs meanwhile: it cannot notice anything itself.
            Path(rest[0].decode()).write_text(str(os.getpid()))
            ctypes.PyDLL(None).sleep(int(LONG))
        case b"raise":
            raise SystemExit(0)
    raise ValueError(what)


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker(work) as made:
        yield made


def test_it_returns_what_the_work_returns(worker: Worker) -> None:
    parts = [b"", bytes(range(256)), os.urandom(1 << 21)]
    assert worker.run([b"echo", *parts], LONG) == parts


def remember(job: list[bytes]) -> None:
    memory.extend(job[1:])


def test_later_work_finds_what_is_left_after_earlier_one() -> None:
    with Worker(work, afterwards=remember) as made:
        assert made.run([b"echo", b"one"], LONG) == [b"one"]
        with pytest.raises(WorkFailedError):
            made.run([b"exit", b"not after work that failed"], LONG)
        assert made.run([b"remember", b"two"], LONG) == [b"one", b"two", b"end"]
        # What that child remembered went with it, but for what was left after it.
        assert made.run([b"remember"], LONG) == [b"one", b"two", b"end"]


def test_work_finds_what_is_left_before_it() -> None:
    with Worker(work, before=remember) as made:
        assert made.run([b"remember", b"one"], LONG) == [b"one", b"one", b"end"]


def test_a_warm_process_that_does_not_begin_in_time_is_given_up() -> None:
    def hang(_job: list[bytes]) -> None:
        time.sleep(LONG)

    with Worker(work, afterwards=hang) as made:
        assert made.run([b"echo", b"one"], LONG) == [b"one"]
        with pytest.raises(WorkerGoneError):
            made.run([b"echo", b"two"], 0.3)


def test_an_error_beside_the_work_ends_nothing() -> None:
    def fail(_job: list[bytes]) -> None:
        raise ValueError

    with Worker(work, fail, fail) as made:
        for _ in range(2):
            assert made.run([b"echo", b"one"], LONG) == [b"one"]


def test_every_piece_of_work_has_a_process_of_its_own_from_the_same_warm_one(
    worker: Worker,
) -> None:
    (first, warm), (second, same) = (worker.run([b"pids"], LONG) for _ in range(2))
    assert first != second
    assert warm == same
    assert int(warm) != os.getpid()


def test_nothing_is_left_in_memory_for_the_next(worker: Worker) -> None:
    assert worker.run([b"remember", b"one"], LONG) == [b"one", b"end"]
    assert worker.run([b"remember", b"two"], LONG) == [b"two", b"end"]
    assert memory == []


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ([b"exit"], "ended with code 3"),
        ([b"raise"], "ended with code 1"),
        ([b"unknown"], "ended with code 1"),
        ([b"signal", str(int(signal.SIGKILL)).encode()], "want of memory"),
        ([b"signal", str(int(signal.SIGSEGV)).encode()], "SIGSEGV"),
        ([b"echo"], "ended with code 0 and no result"),
    ],
)
def test_a_child_that_ends_badly_is_a_reason_and_not_the_end(
    worker: Worker, job: list[bytes], reason: str
) -> None:
    with pytest.raises(WorkFailedError, match=reason):
        worker.run(job, LONG)
    assert worker.run([b"echo", b"still here"], LONG) == [b"still here"]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        # A process that has ended is there until its parent asks for it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def child_in(marker: Path) -> int:
    wait_until(lambda: marker.exists() and bool(marker.read_text()))
    return int(marker.read_text())


def test_work_that_takes_too_long_is_given_up_and_killed(worker: Worker, tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    with pytest.raises(WorkFailedError, match=r"not done within 0\.5 s"):
        worker.run([b"sleep", str(marker).encode()], 0.5)
    assert not marker.exists() or not is_running(child_in(marker))
    assert worker.run([b"echo", b"still here"], LONG) == [b"still here"]


def test_closing_ends_the_warm_process() -> None:
    with Worker(work) as made:
        _, warm = made.run([b"pids"], LONG)
    assert not is_running(int(warm))


def test_without_its_warm_process_it_says_so(worker: Worker) -> None:
    _, warm = worker.run([b"pids"], LONG)
    os.kill(int(warm), signal.SIGKILL)
    with pytest.raises(WorkerGoneError):
        worker.run([b"echo", b""], LONG)


OWNER = """
import signal, sys, test_client_worker
from cloister_client.node.worker import Worker
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
with Worker(test_client_worker.work) as worker:
    print(*(pid.decode() for pid in worker.run([b"pids"], 60)), flush=True)
    worker.run([sys.argv[2].encode(), sys.argv[1].encode()], 60)
"""


@pytest.mark.parametrize(
    ("how", "work"),
    [(signal.SIGKILL, "sleep"), (signal.SIGTERM, "sleep"), (signal.SIGTERM, "hold")],
)
def test_children_and_warm_process_end_with_their_owner(
    tmp_path: Path, how: signal.Signals, work: str
) -> None:
    marker = tmp_path / "pid"
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(marker), work],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        _, warm = map(int, owner.stdout.readline().split())
        child = child_in(marker)
        owner.send_signal(how)
        assert owner.wait(LONG) in {7, -signal.SIGKILL}
    wait_until(lambda: not is_running(child) and not is_running(warm))


@given(st.lists(st.binary(), min_size=1))
def test_parts_that_are_joined_are_split_again(parts: list[bytes]) -> None:
    assert split(join(parts)) == parts


@given(st.lists(st.binary(max_size=20), min_size=1), st.data())
def test_what_is_cut_short_is_refused(parts: list[bytes], data: st.DataObject) -> None:
    whole = join(parts)
    boundaries = {len(join(parts[:count])) for count in range(1, len(parts))}
    length = data.draw(st.integers(0, len(whole) - 1).filter(lambda cut: cut not in boundaries))
    with pytest.raises(ValueError, match="cut short"):
        split(whole[:length])
