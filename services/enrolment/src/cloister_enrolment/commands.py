"""What a person does: invite, list, revoke."""

import logging
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cloister_enrolment.admission import Admission
from cloister_enrolment.nodes import NODES, Node, read_nodes
from cloister_enrolment.superlink import SuperLinkAwayError
from cloister_shared.errors import CloisterError
from cloister_shared.joining import (
    FIRST_TOKEN,
    JOIN_TOKENS,
    JoinToken,
    add_join_token,
    make_token,
    read_join_tokens,
    token_digest,
    withdraw_join_token,
)
from cloister_shared.tables import print_table

log = logging.getLogger(__name__)


def invite(folder: Path, name: str, days: float, uses: int) -> None:
    """Print a new join token, which is stored nowhere.

    Args:
        folder: of the enrolment service.
        name: whom it is for; an earlier token of that name is good no more.
        days: for which it enrols.
        uses: sites that it enrols.

    Raises:
        CloisterError: the name cannot be, or the file of tokens is damaged.
        OSError: the file cannot be read or written.
    """
    if name == FIRST_TOKEN:
        raise CloisterError(f"{FIRST_TOKEN} is the token that provision makes: take another name")
    token, now = make_token(), datetime.now(UTC)
    try:
        kept = JoinToken(
            name=name,
            digest=token_digest(token),
            created=now,
            expires=now + timedelta(days=days),
            uses=uses,
        )
    except (ValueError, OverflowError):
        raise CloisterError(
            f"{name!r} cannot be the name of a token, for {days} days and {uses} sites: use "
            "letters, digits, ., - and _ in the name, and numbers above zero"
        ) from None
    add_join_token(folder / JOIN_TOKENS, kept)
    # The only time that it is seen: standard output has it alone.
    sys.stdout.write(f"{token}\n")
    sys.stdout.flush()
    log.info(
        "made a join token for %s: %d sites, until %s UTC. It is not stored and cannot be shown "
        "again: keep it now",
        *(name, uses, f"{kept.expires:%Y-%m-%d %H:%M}"),
    )


def show(folder: Path) -> None:
    """Print all tokens and sites.

    Raises:
        CloisterError: a file is damaged.
        OSError: a file cannot be read.
    """
    tokens, nodes = read_join_tokens(folder / JOIN_TOKENS), read_nodes(folder / NODES)
    names = {token.digest: token.name for token in tokens}
    now = datetime.now(UTC)
    print_table(
        [("TOKEN", "STATE", "SITES", "UNTIL"), *(_token(token, nodes, now) for token in tokens)]
    )
    sys.stdout.write("\n")
    lines = [("SITE", "STATE", "NODE", "TOKEN", "KEY")]
    for node in nodes:
        number, token = node.node_id or "-", names.get(node.token, "-")
        lines.append((node.name, _state(node), number, token, node.fingerprint))
    print_table(lines)


def _state(node: Node) -> str:
    if node.revoked is not None:
        return f"revoked {node.revoked:%Y-%m-%d}"
    return "waits" if node.node_id is None else "enrolled"


def _token(token: JoinToken, nodes: tuple[Node, ...], now: datetime) -> tuple[str, ...]:
    used = sum(node.token == token.digest for node in nodes)
    state = "good" if token.is_usable(now, used) else "over"
    until = f"{token.expires:%Y-%m-%d %H:%M}" if token.expires else "-"
    return token.name, state, f"{used}/{token.uses or '-'}", until


def revoke(folder: Path, admission: Admission, name: str) -> None:
    """End the token and the sites of this name.

    Raises:
        CloisterError: there is neither, or the SuperLink could not be told.
        OSError: a file cannot be read or written.
    """
    withdrawn = withdraw_join_token(folder / JOIN_TOKENS, name)
    if withdrawn:
        log.info("withdrew the join token of %s: it enrols no further site", name)
    try:
        revoked = admission.revoke(name)
    except SuperLinkAwayError as error:
        raise CloisterError(
            f"{name} is revoked and enrols no more, but {error}, and may still take it: run this "
            "again when it is there"
        ) from None
    if not withdrawn and not revoked:
        raise CloisterError(f"there is no token and no site {name!r}; `list` names those there are")
    _warn_of_open_tokens(folder, revoked)


def _warn_of_open_tokens(folder: Path, revoked: list[Node]) -> None:
    """Say which tokens would let a revoked site in again, under a new key."""
    nodes, now = read_nodes(folder / NODES), datetime.now(UTC)
    came_with = {node.token for node in revoked}
    for token in read_join_tokens(folder / JOIN_TOKENS):
        used = sum(node.token == token.digest for node in nodes)
        if token.digest in came_with and token.is_usable(now, used):
            log.warning(
                "the join token that it came with, %s, still enrols new keys: revoke %s too, "
                "unless you trust whoever holds it",
                *(token.name, token.name),
            )
