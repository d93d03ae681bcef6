"""Holding one shard of the dealer's: at most one live client has it."""

import fcntl
import logging
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from pydantic import BaseModel, ValidationError

from cloister_shared.digests import digest_bytes, digest_file
from cloister_shared.errors import CloisterError
from cloister_shared.files import write_atomically
from cloister_shared.leasing import CLIENT_ID, Lease
from cloister_shared.samples import SCHEMA, SHARD

RETRY_SECONDS = 1.0
WATCH_SECONDS = 0.1
RENEWALS_PER_LEASE = 3
IN_USE_SHARE = 0.8
"""Of a lease: the rest is for ending what uses the shard, before another client can have it."""
_ID = re.compile(r"[0-9a-f]{32}")

log = logging.getLogger(__name__)


def client_id(data_dir: Path) -> str:
    """Return this client's own random id, made at its first start and kept."""
    path = data_dir / "client-id"
    with suppress(FileNotFoundError, UnicodeDecodeError):
        kept = path.read_text().strip()
        if _ID.fullmatch(kept):
            return kept
    made = uuid.uuid4().hex
    write_atomically(path, made.encode())
    return made


class LeasedShard:
    """A shard held by lease, renewed in the background.

    Attributes:
        folder: holds the shard and its schema.
        lost: set shortly before the lease is over, or may be: the dealer gave another shard or
            none, or was not heard of for nearly as long as the lease lasts. The rows must then no
            longer be used.
    """

    def __init__(
        self, dealer: httpx.Client, own_id: str, folder: Path, lease: Lease, asked: float
    ) -> None:
        """Begin to renew ``lease``, which was asked for at the monotonic time ``asked``."""
        self.folder = folder
        self.lost = threading.Event()
        self._dealer = dealer
        self._id = own_id
        self._lease = lease
        self._over = asked + IN_USE_SHARE * lease.seconds
        self._stopped = threading.Event()
        # A request can hang for longer than the lease lasts: the end is watched apart from it.
        self._threads = [
            threading.Thread(target=target, name="lease", daemon=True)
            for target in (self._renew, self._watch)
        ]
        for thread in self._threads:
            thread.start()

    def _renew(self) -> None:
        pause = self._lease.seconds / RENEWALS_PER_LEASE
        while not self._stopped.wait(pause) and not self.lost.is_set():
            asked = time.monotonic()
            try:
                renewed = _ask(self._dealer, self._id)
            except (httpx.HTTPError, ValidationError) as error:
                log.info("the lease of shard %d is not renewed: %s", self._lease.shard, error)
                continue
            except NoLeaseError as error:
                self._lose(f"the dealer refuses it: {error}")
                return
            if (renewed.deal, renewed.shard) != (self._lease.deal, self._lease.shard):
                self._lose("the dealer has leased this client another")
                return
            # Counted from the question on, as the dealer may have answered at once. A dealer that
            # was started with another setting leases for another time.
            self._over = asked + IN_USE_SHARE * renewed.seconds
            pause = renewed.seconds / RENEWALS_PER_LEASE

    def _watch(self) -> None:
        # By short steps, since a renewal can bring the end nearer too.
        while not self._stopped.wait(WATCH_SECONDS) and not self.lost.is_set():
            if time.monotonic() >= self._over:
                self._lose("the dealer was not heard of for as long as it lasts")

    def _lose(self, reason: str) -> None:
        log.warning("the lease of shard %d is over: %s", self._lease.shard, reason)
        self.lost.set()

    def close(self) -> None:
        """Stop renewing and give the shard back, so that another client can have it at once."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        with suppress(httpx.HTTPError):
            self._dealer.delete(f"/lease/{self._id}")


class NoLeaseError(Exception):
    """The dealer refused, for now; the message is its reason."""


class _Refusal(BaseModel):
    detail: str


@contextmanager
def leased_shard(dealer: httpx.Client, data_dir: Path, patience: float) -> Iterator[LeasedShard]:
    """Hold one shard while the context lasts.

    Args:
        dealer: HTTP client whose base URL is the dealer's.
        data_dir: where this client keeps its id and its shard.
        patience: seconds to wait for a dealer that answers and a shard that is free.

    Raises:
        CloisterError: no shard was to be had in that time, or another client runs on ``data_dir``;
            the message says why.
    """
    with _alone(data_dir):
        own_id = client_id(data_dir)
        lease, asked = _acquire(dealer, own_id, patience)
        # Renewed while it is fetched: that can take longer than the lease lasts.
        shard = LeasedShard(dealer, own_id, data_dir, lease, asked)
        try:
            _fetch(dealer, own_id, data_dir, lease)
            yield shard
        finally:
            # Gone before another client can have it.
            (data_dir / SHARD).unlink(missing_ok=True)
            shard.close()


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Keep other clients off this folder: with the same id they would hold the same shard."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CloisterError(
                f"another client runs on {data_dir}: give each its own CLOISTER_DATA_DIR"
            ) from None
        yield


def _ask(dealer: httpx.Client, own_id: str) -> Lease:
    response = dealer.post("/lease", json={"client_id": own_id})
    if response.status_code == httpx.codes.CONFLICT:
        raise NoLeaseError(_Refusal.model_validate_json(response.content).detail)
    response.raise_for_status()
    return Lease.model_validate_json(response.content)


def _acquire(dealer: httpx.Client, own_id: str, patience: float) -> tuple[Lease, float]:
    """Return a lease and the monotonic time at which it was asked for."""
    deadline = time.monotonic() + patience
    told = ""
    while True:
        asked = time.monotonic()
        try:
            return _ask(dealer, own_id), asked
        except NoLeaseError as error:
            reason = str(error)
        except (httpx.HTTPError, ValidationError) as error:
            reason = f"no dealer answers at {dealer.base_url}: {error}"
        if time.monotonic() >= deadline:
            raise CloisterError(reason)
        if reason != told:
            log.warning("waiting for a shard: %s", reason)
            told = reason
        time.sleep(RETRY_SECONDS)


def _fetch(dealer: httpx.Client, own_id: str, folder: Path, lease: Lease) -> None:
    path = folder / SHARD
    if not path.is_file() or digest_file(path) != lease.sha256:
        try:
            response = dealer.get(f"/shards/{lease.shard}", headers={CLIENT_ID: own_id})
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise CloisterError(f"the shard cannot be fetched from the dealer: {error}") from None
        if digest_bytes(response.content) != lease.sha256:
            raise CloisterError("the dealer sent a shard that is not the one it leased")
        write_atomically(path, response.content)
    write_atomically(folder / SCHEMA, lease.data.model_dump_json(indent=2).encode())
    log.info("holding shard %d of %s", lease.shard, lease.data.dataset)
