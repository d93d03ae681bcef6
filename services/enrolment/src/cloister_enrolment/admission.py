"""Who is let in: the token, the key, the name."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cloister_enrolment.nodes import NODES, NODES_LIMIT, Node, read_nodes, write_nodes
from cloister_enrolment.public_key import PublicKey
from cloister_enrolment.superlink import SuperLink, UnregisteredError
from cloister_shared.errors import CloisterError
from cloister_shared.files import locked
from cloister_shared.joining import JOIN_TOKENS, JoinToken, read_join_tokens

log = logging.getLogger(__name__)


class TokenError(Exception):
    """The join token enrols this site no more; the message says why and what to do."""


class RevokedError(Exception):
    """The key was revoked; the message says what to do."""


class ConflictError(Exception):
    """The name is another key's; the message says what to do."""


@dataclass(frozen=True)
class Admitted:
    """A site that takes part."""

    node_id: str
    is_new: bool
    """Whether it takes part for the first time."""


class Admission:
    """Decides, registers at the SuperLink, and keeps the register. For use from any thread."""

    def __init__(
        self,
        folder: Path,
        superlink: SuperLink,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Use the register and the join tokens in ``folder``.

        Raises:
            CloisterError: it is damaged.
            OSError: it cannot be read.
        """
        self._path = folder / NODES
        self._tokens = folder / JOIN_TOKENS
        self._superlink = superlink
        self._clock = clock
        read_nodes(self._path)

    def admit(self, token: JoinToken, key: PublicKey, name: str) -> Admitted:
        """Let a site in, for the first time or again.

        A key that is known keeps its name, and comes in with the token it came with even when that
        enrols nobody else any more: the SuperLink may have forgotten it.

        Args:
            token: that the site holds; what became of it meanwhile is read again.
            key: its own.
            name: that it wants.

        Raises:
            TokenError: the token is not good for it.
            RevokedError: the key was revoked.
            ConflictError: the name is taken.
            SuperLinkAwayError: it cannot be registered now.
            CloisterError: the register is damaged or full.
            OSError: the register cannot be read or written.
        """
        with locked(self._path):
            nodes = read_nodes(self._path)
            known = next((node for node in nodes if node.public_key == key.pem), None)
            if known is None or known.token != token.digest:
                _check_token(self._as_it_is(token), nodes, self._clock())
            if known is None:
                _check_name(name, nodes)
                if len(nodes) >= NODES_LIMIT:
                    raise CloisterError(f"{self._path} is full: it has {NODES_LIMIT} keys")
                asked = Node(
                    name=name,
                    public_key=key.pem,
                    fingerprint=key.fingerprint,
                    node_id=None,
                    token=token.digest,
                    enrolled=self._clock(),
                )
                # Before the SuperLink takes it: what it has taken can always be revoked.
                write_nodes(self._path, (*nodes, asked))
            elif known.revoked is not None:
                raise RevokedError(_REVOKED)
            else:
                asked = known
            try:
                node_id = str(self._superlink.register(key.pem.encode(), asked.name))
            except UnregisteredError:
                if known is None:
                    write_nodes(self._path, nodes)
                raise RevokedError(_REVOKED) from None
            node = asked.model_copy(update={"node_id": node_id})
            is_new = asked.node_id is None
            if node != known:
                others = tuple(node for node in nodes if node.public_key != key.pem)
                write_nodes(self._path, (*others, node))
                log.info(
                    "%s %s as node %s, key %s, join token %s",
                    "enrolled" if is_new else "registered again",
                    *(node.name, node_id, key.fingerprint, token.name),
                )
        return Admitted(node_id, is_new)

    def _as_it_is(self, token: JoinToken) -> JoinToken:
        try:
            kept = read_join_tokens(self._tokens)
        except (CloisterError, OSError):
            # A file that has become unreadable leaves the tokens as they were, and is told of.
            return token
        replaced = token.model_copy(update={"withdrawn": True})
        return next((other for other in kept if other.digest == token.digest), replaced)

    def revoke(self, name: str) -> list[Node]:
        """End the part of every node of this name, and return them.

        Their keys are known as revoked before the SuperLink is asked to remove them; done again,
        this asks it again.

        Raises:
            SuperLinkAwayError: the keys are revoked, but the SuperLink may still take them.
            CloisterError: the register is damaged.
            OSError: the register cannot be read or written.
        """
        with locked(self._path):
            nodes = read_nodes(self._path)
            now = self._clock()
            marked = tuple(
                node.model_copy(update={"revoked": node.revoked or now})
                if node.name == name
                else node
                for node in nodes
            )
            if marked != nodes:
                write_nodes(self._path, marked)
            revoked = [node for node in marked if node.name == name]
            for node in revoked:
                self._superlink.unregister(node.public_key.encode())
                log.info("revoked %s, node %s, key %s", name, node.node_id, node.fingerprint)
        return revoked


_REVOKED = (
    "this site's key was revoked: ask whoever runs the federation for a new join token, and "
    "remove node.key, so that a new key is made"
)


def _check_token(token: JoinToken, nodes: tuple[Node, ...], now: datetime) -> None:
    used = sum(node.token == token.digest for node in nodes)
    if token.is_usable(now, used):
        return
    if token.withdrawn:
        reason = "was withdrawn"
    elif token.expires is not None and now >= token.expires:
        reason = f"ended at {token.expires:%Y-%m-%d %H:%M} UTC"
    else:
        reason = f"has enrolled {used} of {token.uses} sites"
    raise TokenError(
        f"the join token {reason}: ask whoever runs the federation for a new one (invite)"
    )


def _check_name(name: str, nodes: tuple[Node, ...]) -> None:
    if any(node.name == name and node.revoked is None for node in nodes):
        raise ConflictError(
            f"{name} is enrolled with another key: take another CLOISTER_SITE_NAME, or have "
            "whoever runs the federation revoke that one"
        )
