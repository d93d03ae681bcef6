"""What all parts of an evaluation's JSON have in common."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Frozen, and without members that are not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")
