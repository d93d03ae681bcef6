"""Settings of a client."""

from pathlib import Path

from pydantic import Field

from cloister_client.rows import Columns
from cloister_shared.service import ServiceSettings


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    superlink: str = "127.0.0.1:8000"
    """Host and port of the SuperLink."""
    dealer_url: str = "http://127.0.0.1:8001"
    """The dealer that leases a shard, while sites are simulated."""
    shard_dir: Path | None = None
    """A site's own folder with schema.json and shard.npz, a .csv or a .parquet file; with it no
    dealer is asked."""
    label_column: str = Field(default="label", min_length=1)
    """Column of a site's CSV or Parquet file that holds the labels."""
    ignored_columns: tuple[str, ...] = ()
    """Columns of a site's CSV or Parquet file that are not read, as a JSON list of names."""
    data_dir: Path = Path("data")
    """Where the client keeps its id and its leased shard."""
    runtime_port: int = Field(default=9094, ge=1, le=65535)
    """Loopback port at which the SuperNode's own ClientApp processes reach it."""
    lease_patience_seconds: float = Field(default=90, gt=0)
    """How long to wait for a dealer, and for a shard to become free."""

    @property
    def columns(self) -> Columns:
        """What the site says of its table."""
        return Columns(self.label_column, frozenset(self.ignored_columns))
