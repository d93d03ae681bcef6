"""Who holds which shard: at most one live client each."""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cloister_shared.files import write_atomically


class NoShardFreeError(Exception):
    """Every shard is leased.

    Attributes:
        seconds: until the first lease runs out unless it is renewed.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__("no shard is free")
        self.seconds = seconds


class LeaseBook:
    """Leases of the shards of one deal, kept in a file.

    Deadlines are monotonic and not stored: after a restart every holder has the full time to
    renew, whatever the wall clock did meanwhile. That time is the longest that a holder may have
    been promised. A book of another deal starts empty.
    """

    def __init__(
        self,
        path: Path,
        deal_digest: str,
        n_shards: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._deal_digest = deal_digest
        self._n_shards = n_shards
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._holders, promised = self._read()
        self._promised = max(seconds, promised)
        self._deadlines = dict.fromkeys(self._holders, clock() + self._promised)
        if self._holders and self._promised > promised:
            # A renewal promises the longer time, and does not write.
            self._store(self._holders)

    def lease(self, client_id: str) -> int:
        """Return the shard of this client: the one it holds, else a free one.

        A shard that nobody ever held comes before one whose holder has gone, so that a site which
        comes back within reason finds its own shard still there.

        Raises:
            NoShardFreeError: every shard is held by a live client.
        """
        with self._lock:
            shard = self._shard_of(client_id)
            if shard is None:
                shard = self._free_shard()
                self._store(self._holders | {shard: client_id})
            self._deadlines[shard] = self._clock() + self._seconds
            return shard

    def holds(self, client_id: str, shard: int) -> bool:
        """Whether this client's lease of this shard is alive."""
        with self._lock:
            return self._holders.get(shard) == client_id and self._deadlines[shard] > self._clock()

    def release(self, client_id: str) -> None:
        """Free the shard of this client, if it holds one."""
        with self._lock:
            shard = self._shard_of(client_id)
            if shard is not None:
                self._store({s: holder for s, holder in self._holders.items() if s != shard})
                del self._deadlines[shard]

    def _shard_of(self, client_id: str) -> int | None:
        return next((shard for shard, holder in self._holders.items() if holder == client_id), None)

    def _free_shard(self) -> int:
        for shard in range(self._n_shards):
            if shard not in self._holders:
                return shard
        oldest = min(self._deadlines, key=lambda shard: self._deadlines[shard])
        remaining = self._deadlines[oldest] - self._clock()
        if remaining > 0:
            raise NoShardFreeError(remaining)
        return oldest

    def _read(self) -> tuple[dict[int, str], float]:
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            stored = json.loads(self._path.read_text())
            if stored["deal"] == self._deal_digest:
                holders = {int(shard): holder for shard, holder in stored["holders"].items()}
                return holders, float(stored["seconds"])
        return {}, 0.0

    def _store(self, holders: dict[int, str]) -> None:
        # On disk first: where that fails, nobody is taken to hold what was not given.
        stored = {"deal": self._deal_digest, "seconds": self._promised, "holders": holders}
        write_atomically(self._path, json.dumps(stored).encode())
        self._holders = holders
