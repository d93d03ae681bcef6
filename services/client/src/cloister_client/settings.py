"""Settings of a client."""

from pathlib import Path

from pydantic import Field

from cloister_shared.service import ServiceSettings


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    superlink: str = "127.0.0.1:8000"
    """Host and port of the SuperLink."""
    dealer_url: str = "http://127.0.0.1:8001"
    """The dealer that leases a shard, while sites are simulated."""
    shard_dir: Path | None = None
    """A site's own folder with shard.npz and schema.json; with it no dealer is asked."""
    data_dir: Path = Path("data")
    """Where the client keeps its id and its leased shard."""
    runtime_port: int = Field(default=9094, ge=1, le=65535)
    """Loopback port at which the SuperNode's own ClientApp processes reach it."""
    lease_patience_seconds: float = Field(default=90, gt=0)
    """How long to wait for a dealer, and for a shard to become free."""
