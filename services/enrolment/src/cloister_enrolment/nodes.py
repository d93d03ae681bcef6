"""The register of enrolled keys."""

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

from cloister_shared.errors import CloisterError
from cloister_shared.files import write_atomically
from cloister_shared.joining import SiteName

NODES = "nodes.json"
NODES_LIMIT = 10_000
"""Keys that are registered at most; with some 600 bytes each."""


class Node(BaseModel):
    """A site's key, and what became of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: SiteName
    """Of no other node that is not revoked."""
    public_key: str
    """PEM."""
    fingerprint: str
    node_id: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}$")] | None
    """The SuperLink's number of it, when it last answered; None before it has."""
    token: str
    """Digest of the join token that it came with."""
    enrolled: AwareDatetime
    revoked: AwareDatetime | None = None


class _NodeFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    nodes: tuple[Node, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len({node.public_key for node in self.nodes}) < len(self.nodes):
            raise ValueError("a key is there twice")
        return self


def read_nodes(path: Path) -> tuple[Node, ...]:
    """Return the nodes in a file, none where there is no file.

    Raises:
        CloisterError: it is no such file. It is not made anew by itself: revoked keys are in it.
        OSError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ()
    try:
        return _NodeFile.model_validate_json(content).nodes
    except ValidationError as error:
        (first, *_) = error.errors(include_input=False, include_url=False)
        raise CloisterError(
            f"{path} is damaged ({first['msg']}): put back a copy, or remove it; sites then enrol "
            "again, and those that were revoked must be revoked again"
        ) from None


def write_nodes(path: Path, nodes: tuple[Node, ...]) -> None:
    """Replace all nodes in a file; whoever does so has it locked.

    Raises:
        OSError: the volume is full or not writable.
    """
    content = _NodeFile(nodes=nodes).model_dump_json(indent=2).encode() + b"\n"
    write_atomically(path, content, 0o600)
