"""API keys: their form, and the file that holds their digests."""

import fcntl
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    StringConstraints,
    ValidationError,
    model_validator,
)

from cloister_shared.digests import digest_bytes
from cloister_shared.errors import CloisterError
from cloister_shared.files import write_atomically

ANONYMOUS = "anonymous"
"""Owner of the requests to a service without API keys; no key has this name."""
SECRET_BYTES = 32
FILE_MODE = 0o600
FILE_BYTES_LIMIT = 1 << 20
"""Some five thousand keys."""

_TOKEN = re.compile(r"cloister_([0-9a-f]{8})_[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_RATE = re.compile(r"[1-9][0-9]{0,4}/(?:second|minute)")

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def check_name(name: str) -> str:
    """Return the name of a key.

    Raises:
        ValueError: it is not plain, or is the anonymous owner's.
    """
    if not _NAME.fullmatch(name) or name == ANONYMOUS:
        raise ValueError(
            f"{name!r} cannot be the name of an API key: use 1 to 63 lower-case letters, digits "
            f"and -, a letter or digit at both ends, and another word than {ANONYMOUS}"
        )
    return name


def check_rate(rate: str) -> str:
    """Return a rate limit.

    Raises:
        ValueError: it is not ``N/second`` or ``N/minute`` with N from 1 to 99,999.
    """
    if not _RATE.fullmatch(rate):
        raise ValueError(
            f"{rate!r} is not a rate: use N/second or N/minute with N from 1 to 99999, such as "
            "100/minute"
        )
    return rate


class ApiKey(BaseModel):
    """What the service keeps of an API key: enough to recognise it, too little to use it.

    The digest is a plain SHA-256. Slow, salted hashes make up for passwords that can be guessed;
    behind this digest are 256 random bits, which no number of fast guesses finds, and a salt only
    matters where two secrets may be equal. A slow hash would cost every request, and would let
    anybody keep the service busy with wrong keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
    """Part of the token, so that one entry is compared with it and not every one."""
    name: str
    """Whose key it is; owner of everything that is done with it."""
    digest: Digest
    """SHA-256 of the whole token."""
    created: AwareDatetime
    rate: str | None = None
    """``N/second`` or ``N/minute``; None for no limit."""
    operator: bool = False
    """Whether it may put versions into use."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_name(self.name)
        if self.rate is not None:
            check_rate(self.rate)
        return self


class KeyFile(BaseModel):
    """The file of all API keys. One without any lets nobody in."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = 1
    keys: tuple[ApiKey, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for what in ("id", "name"):
            if len({getattr(key, what) for key in self.keys}) < len(self.keys):
                raise ValueError(f"two keys have the same {what}")
        return self


class KeyRing:
    """A set of API keys that can be asked for the key that a token is."""

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._keys = {key.id: key for key in keys}
        # Compared where no key has the token's id, so that this takes as long as where one has.
        self._nobody = digest_bytes(secrets.token_bytes(SECRET_BYTES))

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, token: str) -> ApiKey | None:
        """Return the key that ``token`` is, or None; takes the same time for any wrong one.

        Args:
            token: from anywhere.
        """
        match = _TOKEN.fullmatch(token)
        if not match:
            return None
        key = self._keys.get(match[1])
        expected = key.digest if key else self._nobody
        return key if hmac.compare_digest(expected, digest_bytes(token.encode())) else None


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Return the keys in a file.

    Raises:
        FileNotFoundError: there is no file.
        OSError: it cannot be read.
        CloisterError: it is not a file of API keys.
    """
    with path.open("rb") as stream:
        content = stream.read(FILE_BYTES_LIMIT + 1)
    if len(content) > FILE_BYTES_LIMIT:
        raise CloisterError(f"{path} is no file of API keys: it is larger than 1 MiB")
    try:
        return KeyFile.model_validate_json(content).keys
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}".lstrip(": ")
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise CloisterError(f"{path} is no file of API keys: {problems}") from None


class ApiKeyStore:
    """Changes the file of API keys; any number of processes may do so at the same time."""

    def __init__(
        self, path: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        """Manage a file.

        Args:
            path: of the file, which is made when the first key is created.
            clock: the time in UTC.
        """
        self._path = path
        self._clock = clock

    def stored(self) -> tuple[ApiKey, ...]:
        """Return all keys, in the order of their creation; raises as ``create`` does."""
        try:
            return read_keys(self._path)
        except FileNotFoundError:
            return ()

    def create(self, name: str, rate: str | None, *, operator: bool = False) -> str:
        """Add a key and return its token, which is stored nowhere.

        Args:
            name: plain, and of no other key.
            rate: ``N/second`` or ``N/minute``; None for no limit.
            operator: whether it may put versions into use.

        Raises:
            CloisterError: the name or the rate cannot be, or the file is damaged.
            OSError: the file cannot be read or written.
        """
        try:
            check_name(name)
            if rate is not None:
                check_rate(rate)
        except ValueError as error:
            raise CloisterError(str(error)) from None
        with self._changing():
            keys = self.stored()
            if any(key.name == name for key in keys):
                raise CloisterError(
                    f"there is an API key {name} already: revoke it first, or take another name"
                )
            taken = {key.id for key in keys}
            while (key_id := secrets.token_hex(4)) in taken:
                pass
            token = f"cloister_{key_id}_{secrets.token_hex(SECRET_BYTES)}"
            added = ApiKey(
                id=key_id,
                name=name,
                digest=digest_bytes(token.encode()),
                created=self._clock(),
                rate=rate,
                operator=operator,
            )
            self._write((*keys, added))
        return token

    def revoke(self, name: str) -> None:
        """Remove a key.

        Raises:
            CloisterError: there is no such key, or the file is damaged.
            OSError: the file cannot be read or written.
        """
        with self._changing():
            keys = self.stored()
            kept = tuple(key for key in keys if key.name != name)
            if len(kept) == len(keys):
                raise CloisterError(f"there is no API key {name!r}; `list` names those there are")
            self._write(kept)

    def _write(self, keys: tuple[ApiKey, ...]) -> None:
        content = KeyFile(keys=keys).model_dump_json(indent=2).encode() + b"\n"
        # The service would refuse to read it.
        if len(content) > FILE_BYTES_LIMIT:
            raise CloisterError(f"{self._path} is full: revoke keys that are not used")
        write_atomically(self._path, content, FILE_MODE)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # A file of its own: the other one is replaced with each change.
        with self._path.with_name(f".{self._path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
