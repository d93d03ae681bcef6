"""At most one live client holds a shard, whatever happens in between."""

import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cloister_dealer import leases as leases_module
from cloister_dealer.leases import LeaseBook, NoShardFreeError

SECONDS = 30.0
CLIENTS = tuple("abcd")


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Leasing(RuleBasedStateMachine):
    """Clients that know of their lease what the dealer told them, and when."""

    def __init__(self) -> None:
        super().__init__()
        # In memory where there is such a folder: every change of the book syncs its file.
        memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
        self.folder = tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None)
        self.clock = Clock()
        self.deal = 0
        self.shards = 0
        self.seconds = SECONDS
        self.longest = SECONDS
        self.restarted = -math.inf
        self.held: dict[str, tuple[int, float]] = {}
        """By client: its shard, and until when it was told to have it."""

    def teardown(self) -> None:
        self.folder.cleanup()

    @initialize(shards=st.integers(1, 3))
    def begin(self, shards: int) -> None:
        self.shards = shards
        self.open()

    def open(self) -> None:
        path = Path(self.folder.name) / "leases.json"
        self.book = LeaseBook(path, f"deal {self.deal}", self.shards, self.seconds, self.clock)

    def ask(self, client: str) -> tuple[int | None, float]:
        """Its shard, or None and the seconds to wait."""
        try:
            return self.book.lease(client), 0.0
        except NoShardFreeError as error:
            return None, error.seconds

    def live(self) -> dict[str, int]:
        return {
            client: shard for client, (shard, until) in self.held.items() if self.clock.now < until
        }

    @rule(client=st.sampled_from(CLIENTS))
    def lease_or_renew(self, client: str) -> None:
        live = self.live()
        shard, wait = self.ask(client)
        if shard is None:
            assert client not in live
            assert 0 < wait <= self.longest
            # After a restart a client that has gone keeps its shard for the length of a lease.
            assert len(live) == self.shards or self.clock.now < self.restarted + self.longest
            return
        assert 0 <= shard < self.shards
        if client in live:
            assert shard == live[client]
        self.held[client] = (shard, self.clock.now + self.seconds)

    @rule(client=st.sampled_from(CLIENTS))
    def release(self, client: str) -> None:
        self.book.release(client)
        shard, _ = self.held.pop(client, (None, 0.0))
        if shard is not None:
            assert not self.book.holds(client, shard)

    @rule(seconds=st.sampled_from([0.5, 10.0, 30.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @precondition(lambda self: self.live())
    @rule()
    def a_lease_is_nearly_over(self) -> None:
        ends = [until for _, until in self.held.values() if until > self.clock.now]
        self.clock.now = max(self.clock.now, min(ends) - 0.5)

    @rule()
    def live_clients_renew(self) -> None:
        for client in self.live():
            self.lease_or_renew(client)

    @rule(
        meanwhile=st.sampled_from([0.0, 5.0, 100.0]),
        seconds=st.sampled_from([SECONDS, SECONDS / 3, 2 * SECONDS]),
    )
    def restart(self, meanwhile: float, seconds: float) -> None:
        self.clock.now += meanwhile
        self.seconds = seconds
        self.longest = max(self.longest, seconds)
        self.restarted = self.clock.now
        self.open()

    @rule(shards=st.integers(1, 3))
    def deal_again(self, shards: int) -> None:
        # Shards of the old deal are other rows: who held one holds none of these.
        self.deal += 1
        self.shards = shards
        self.held = {}
        self.restarted = -math.inf
        self.open()

    @precondition(lambda self: self.shards)
    @invariant()
    def no_shard_is_held_twice(self) -> None:
        live = self.live()
        assert len(set(live.values())) == len(live)
        for client, shard in live.items():
            assert self.book.holds(client, shard)
        for shard in range(self.shards):
            assert sum(self.book.holds(client, shard) for client in CLIENTS) <= 1

    @precondition(lambda self: self.shards)
    @rule()
    def shards_of_gone_clients_become_free(self) -> None:
        self.clock.now += self.longest
        self.held = {}
        got = {self.book.lease(f"new {number}") for number in range(self.shards)}
        assert got == set(range(self.shards))
        for number in range(self.shards):
            self.book.release(f"new {number}")


Leasing.TestCase.settings = settings(deadline=None, max_examples=250, stateful_step_count=25)
TestLeasing = Leasing.TestCase


@pytest.fixture
def clock() -> Clock:
    return Clock()


def book(folder: Path, clock: Clock, shards: int = 2, deal: str = "deal") -> LeaseBook:
    return LeaseBook(folder / "leases.json", deal, shards, SECONDS, clock)


def test_a_shard_never_held_comes_before_one_whose_holder_has_gone(
    tmp_path: Path, clock: Clock
) -> None:
    leases = book(tmp_path, clock, shards=3)
    assert leases.lease("a") == 0
    clock.now += 2 * SECONDS
    assert [leases.lease("b"), leases.lease("c")] == [1, 2]
    assert leases.lease("a") == 0


def test_a_refusal_says_when_the_first_lease_runs_out(tmp_path: Path, clock: Clock) -> None:
    leases = book(tmp_path, clock)
    leases.lease("a")
    clock.now += 10
    leases.lease("b")
    with pytest.raises(NoShardFreeError) as refused:
        leases.lease("c")
    assert refused.value.seconds == SECONDS - 10
    clock.now += SECONDS - 10.25
    with pytest.raises(NoShardFreeError):
        leases.lease("c")
    clock.now += 0.25
    assert leases.lease("c") == 0


def test_after_a_restart_holders_have_the_full_time_to_renew(tmp_path: Path, clock: Clock) -> None:
    book(tmp_path, clock, shards=1).lease("a")
    clock.now += 10 * SECONDS
    leases = book(tmp_path, clock, shards=1)
    with pytest.raises(NoShardFreeError):
        leases.lease("b")
    clock.now += SECONDS - 1
    assert leases.lease("a") == 0


@pytest.mark.parametrize("content", ["", "[]", "3", '{"deal": "deal"}', '{"deal": "deal", "hol'])
def test_a_damaged_file_counts_as_none(tmp_path: Path, clock: Clock, content: str) -> None:
    (tmp_path / "leases.json").write_text(content)
    assert book(tmp_path, clock).lease("a") == 0


def test_a_lease_that_cannot_be_written_is_not_given(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = book(tmp_path, clock, shards=1)

    def full(_path: Path, _content: bytes) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(leases_module, "write_atomically", full)
        with pytest.raises(OSError, match="no space"):
            leases.lease("a")
    assert not leases.holds("a", 0)
    assert leases.lease("b") == 0


def test_the_file_names_the_deal(tmp_path: Path, clock: Clock) -> None:
    book(tmp_path, clock).lease("a")
    stored = json.loads((tmp_path / "leases.json").read_text())
    assert stored == {"deal": "deal", "seconds": SECONDS, "holders": {"0": "a"}}
    assert book(tmp_path, clock, deal="another").lease("b") == 0


def test_after_a_shorter_setting_a_holder_still_has_what_it_was_promised(
    tmp_path: Path, clock: Clock
) -> None:
    LeaseBook(tmp_path / "leases.json", "deal", 1, 10 * SECONDS, clock).lease("a")
    restarted = book(tmp_path, clock, shards=1)
    clock.now += 9 * SECONDS
    with pytest.raises(NoShardFreeError):
        restarted.lease("b")
    clock.now += SECONDS
    assert restarted.lease("b") == 0


def test_a_renewal_after_a_longer_setting_is_a_promise_too(tmp_path: Path, clock: Clock) -> None:
    book(tmp_path, clock, shards=1).lease("a")
    LeaseBook(tmp_path / "leases.json", "deal", 1, 10 * SECONDS, clock).lease("a")
    restarted = book(tmp_path, clock, shards=1)
    clock.now += 9 * SECONDS
    with pytest.raises(NoShardFreeError):
        restarted.lease("b")
