"""What dealer and client agree on when a shard is leased."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cloister_shared.schema import DatasetSchema

CLIENT_ID = "Cloister-Client-Id"
"""Header that names the client which fetches a shard."""

ClientId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""A client's own persistent random id."""


class Lease(BaseModel):
    """A shard, for a time."""

    model_config = ConfigDict(frozen=True)

    deal: str
    """Digest of the deal; shards of two deals overlap, and a lease is of one."""
    shard: int
    sha256: str
    """Of the shard's file: an .npz with raw features X and labels y."""
    seconds: float = Field(gt=0)
    """The lease ends this long after it was given or last renewed."""
    data: DatasetSchema
