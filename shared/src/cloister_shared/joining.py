"""What provision, enrolment and client agree on when a site joins the federation."""

import secrets
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from cloister_shared.digests import digest_bytes
from cloister_shared.errors import CloisterError
from cloister_shared.files import locked, write_atomically

ENROL_PATH = "/enrolment/v1/nodes"
"""Where a site posts an ``EnrolmentRequest``, with its join token as the bearer."""
HEALTH_PATH = "/enrolment/health"
JOIN_TOKENS = "join-tokens.json"
"""File of the enrolment service with all join tokens, as digests."""
FIRST_TOKEN = "compose"  # noqa: S105 - a name, not a token
"""Name of the token that provision makes: for any number of sites, and without an end."""
TOKEN_BYTES = 32
FILE_BYTES_LIMIT = 1 << 20
"""Some five thousand tokens."""

SiteName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,126}$")]
"""A host's name is one."""


class EnrolmentRequest(BaseModel):
    """A site's wish to take part."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    public_key: str = Field(max_length=1000)
    """In OpenSSH's form, on the curve P-256, P-384 or P-521."""
    name: SiteName


class Enrolled(BaseModel):
    """The site is registered at the SuperLink."""

    model_config = ConfigDict(frozen=True)

    node_id: str
    """The SuperLink's number of the site's node, in decimal digits."""


class Refused(BaseModel):
    """Any other answer."""

    detail: str


class JoinToken(BaseModel):
    """What is kept of a join token: enough to recognise it, too little to use it.

    The digest is a plain SHA-256: behind it are 256 random bits, which no number of guesses finds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SiteName
    """Whom it was made for."""
    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the token."""
    created: AwareDatetime
    expires: AwareDatetime | None = None
    """From then on it enrols nobody; None: it does not end."""
    uses: int | None = Field(default=None, ge=1)
    """Number of sites that it enrols at most; None: any."""
    withdrawn: bool = False
    """Whether it enrols nobody any more, whatever else is said of it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.expires is not None and self.expires <= self.created:
            raise ValueError("a token must be good for some time")
        return self

    def is_usable(self, now: datetime, used: int) -> bool:
        """Whether it enrols one more site.

        Args:
            now: the time.
            used: sites that it has enrolled.
        """
        return (
            not self.withdrawn
            and (self.expires is None or now < self.expires)
            and (self.uses is None or used < self.uses)
        )


class _TokenFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    tokens: tuple[JoinToken, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({token.digest for token in self.tokens}) < len(self.tokens):
            raise ValueError("a token is there twice")
        return self


def make_token() -> str:
    """Return a new join token, of 256 random bits."""
    return f"cloister_join_{secrets.token_hex(TOKEN_BYTES)}"


def token_digest(token: str) -> str:
    """Return the digest that is kept of a token."""
    return digest_bytes(token.encode())


def read_join_tokens(path: Path) -> tuple[JoinToken, ...]:
    """Return the tokens in a file, none where there is no file.

    Raises:
        CloisterError: it is no file of join tokens.
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(FILE_BYTES_LIMIT + 1)
    except FileNotFoundError:
        return ()
    if len(content) > FILE_BYTES_LIMIT:
        raise CloisterError(f"{path} is no file of join tokens: it is larger than 1 MiB")
    try:
        return _TokenFile.model_validate_json(content).tokens
    except ValidationError as error:
        (first, *_) = error.errors(include_input=False, include_url=False)
        raise CloisterError(
            f"{path} is damaged ({first['msg']}): put back a copy, or remove it and invite sites "
            "anew"
        ) from None


def add_join_token(path: Path, token: JoinToken) -> None:
    """Add a token to a file; any number of processes may do so at the same time.

    It takes the place of an earlier one of its name.

    Raises:
        CloisterError: the file is damaged or full.
        OSError: it cannot be read or written.
    """
    with locked(path):
        others = [
            other
            for other in read_join_tokens(path)
            if other.name != token.name and other.digest != token.digest
        ]
        _write(path, (*others, token))


def withdraw_join_token(path: Path, name: str) -> bool:
    """Withdraw the token of this name, and return whether there was one.

    Raises:
        CloisterError: the file is damaged.
        OSError: it cannot be read or written.
    """
    with locked(path):
        tokens = read_join_tokens(path)
        if not any(token.name == name for token in tokens):
            return False
        _write(
            path,
            tuple(
                token.model_copy(update={"withdrawn": True}) if token.name == name else token
                for token in tokens
            ),
        )
        return True


def _write(path: Path, tokens: tuple[JoinToken, ...]) -> None:
    content = _TokenFile(tokens=tokens).model_dump_json(indent=2).encode() + b"\n"
    # It would not be read again.
    if len(content) > FILE_BYTES_LIMIT:
        raise CloisterError(f"{path} is full: it holds more tokens than anybody uses")
    write_atomically(path, content, 0o600)
