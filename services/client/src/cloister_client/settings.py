"""Settings of a client."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from cloister_shared.joining import SiteName
from cloister_shared.rows.checking import Columns
from cloister_shared.service import ServiceSettings


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    superlink: str = "127.0.0.1:8000"
    """Host and port at which the SuperLink is reached."""
    ca_path: Path | None = None
    """PEM file with the CA certificates that SuperLink, enrolment and dealer are verified with;
    without one, those that Python's HTTP clients trust."""
    enrolment_url: str = "https://127.0.0.1:8003"
    """Where the site's key is enrolled."""
    join_token_path: Path | None = None
    """File with the join token, which allows this site to enrol its key."""
    site_name: SiteName | None = None
    """Name under which the site enrols, of no other site; by default the host's."""
    insecure: bool = False
    """Neither TLS nor a key of the site's own: for tests on one machine alone."""
    dealer_url: str = "https://127.0.0.1:8001"
    """The dealer that leases a shard, while sites are simulated."""
    shard_dir: Path | None = None
    """A site's own folder with schema.json and shard.npz, a .csv or a .parquet file; with it no
    dealer is asked."""
    label_column: str | None = None
    """Column of a site's CSV or Parquet file that holds the labels; by default the schema's."""
    ignored_columns: tuple[str, ...] = ()
    """Columns of a site's CSV or Parquet file that are not read, as a JSON list of names."""
    data_dir: Path = Path("data")
    """Where the client keeps its key, its id and its leased shard."""
    message_seconds: float = Field(default=600, gt=0)
    """Longest time for the work on one message; after it the work is given up and fails."""
    require_secure_aggregation: bool = False
    """Send nothing of this site's own in the clear: runs without secure aggregation are refused."""
    lease_patience_seconds: float = Field(default=90, gt=0)
    """How long to wait for a dealer, and for a shard to become free."""

    @model_validator(mode="after")
    def _check_urls(self) -> Self:
        asked = {"CLOISTER_ENROLMENT_URL": self.enrolment_url}
        if self.shard_dir is None:
            asked["CLOISTER_DEALER_URL"] = self.dealer_url
        for name, url in asked.items():
            if not self.insecure and not url.startswith("https://"):
                raise ValueError(
                    f"{name} must begin with https://, as a site sends nothing in the clear "
                    "(CLOISTER_INSECURE=true does, in tests on one machine)"
                )
        return self

    @property
    def columns(self) -> Columns:
        """What the site says of its table."""
        return Columns(self.label_column or None, frozenset(self.ignored_columns))
