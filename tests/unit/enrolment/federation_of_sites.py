"""A SuperLink that keeps its nodes in memory, and keys of sites."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloister_enrolment.superlink import SuperLink, SuperLinkAwayError, UnregisteredError
from cloister_shared.joining import JoinToken, add_join_token, make_token, token_digest

DAY = timedelta(days=1)
START = datetime(2030, 1, 1, tzinfo=UTC)


class MemorySuperLink(SuperLink):
    """Behaves as Flower's does: the key of a node that was removed is taken for ever.

    Attributes:
        nodes: number by public key.
        names: by public key, of all that ever were.
        removed: public keys of removed nodes.
        away: whether it is not there.
        answers: whether it says that it has registered a node.
    """

    def __init__(self) -> None:
        self.nodes: dict[bytes, int] = {}
        self.names: dict[bytes, str] = {}
        self.removed: set[bytes] = set()
        self.away = False
        self.answers = True
        self._next = 2**63

    def register(self, key: bytes, name: str) -> int:
        if self.away:
            raise SuperLinkAwayError("no SuperLink answers")
        if key in self.removed:
            raise UnregisteredError
        if key not in self.nodes:
            self._next += 1
            self.nodes[key] = self._next
            self.names[key] = name
        if not self.answers:
            raise SuperLinkAwayError("the answer is lost")
        return self.nodes[key]

    def unregister(self, key: bytes) -> None:
        if self.away:
            raise SuperLinkAwayError("no SuperLink answers")
        if self.nodes.pop(key, None):
            self.removed.add(key)

    def forget(self) -> None:
        """Be one with a new database."""
        self.nodes.clear()
        self.removed.clear()


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def public_key(curve: ec.EllipticCurve | None = None) -> str:
    """Return a new site's public key, in OpenSSH's form."""
    key = ec.generate_private_key(curve or ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def invite(
    folder: Path, name: str, *, days: float | None = None, uses: int | None = None
) -> tuple[str, JoinToken]:
    """Add a token to a folder's file, and return it with what is kept of it."""
    token = make_token()
    kept = JoinToken(
        name=name,
        digest=token_digest(token),
        created=START,
        expires=None if days is None else START + days * DAY,
        uses=uses,
    )
    add_join_token(folder / "join-tokens.json", kept)
    return token, kept
