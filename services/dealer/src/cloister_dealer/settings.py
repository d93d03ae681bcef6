"""Settings of the dealer."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from cloister_shared.datasets import DatasetName
from cloister_shared.preprocessing import OutOfBounds
from cloister_shared.rows.checking import Columns
from cloister_shared.service import ServiceSettings


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8001, ge=1, le=65535)
    """Port to listen on."""
    tls_certificate: Path | None = None
    """PEM file with the certificate for https, then any intermediate ones; without one, http."""
    tls_key: Path | None = None
    """PEM file with the certificate's private key."""
    dataset: DatasetName = "digits"
    """What is dealt, unless there is a file of rows."""
    schema_path: Path | None = None
    """JSON file with the schema of the rows; without one, that of the dataset."""
    data_path: Path | None = None
    """CSV, Parquet or .npz file of rows to deal in the place of the dataset's."""
    label_column: str | None = None
    """Column of a CSV or Parquet file that holds the labels; by default the schema's."""
    ignored_columns: tuple[str, ...] = ()
    """Columns of a CSV or Parquet file that are not read, as a JSON list of names."""
    out_of_bounds: OutOfBounds = "refuse"
    """What the training does with a value outside its declared bounds: ``refuse`` or ``clip``."""
    mnist_path: Path | None = None
    """An .npz with x_train, y_train, x_test, y_test; without one, MNIST comes from OpenML."""
    shards: int = Field(default=10, ge=1, le=1000)
    """Number of shards; there can be as many sites."""
    clients: int = Field(default=3, ge=1, le=1000)
    """Sites expected: there are at least as many shards."""
    partition: Literal["iid", "dirichlet"] = "iid"
    """How rows are spread over the shards: evenly, or with label skew."""
    dirichlet_alpha: float = Field(default=0.3, gt=0)
    """Label skew of the dirichlet partition: the smaller, the more skewed."""
    held_out_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the rows kept for the key holder, stratified; MNIST keeps its canonical 10,000."""
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    """Equal settings and seed deal equal shards."""
    lease_seconds: float = Field(default=30, gt=0)
    """A shard is free again this long after its site was last heard of."""
    shards_dir: Path = Path("shards")
    """Where shards and leases are kept."""
    held_out_dir: Path = Path("held-out")
    """Where the key holder's samples are written."""
    deal_path: Path | None = None
    """File that gets a keyed digest of what was dealt, for the trainer; none by default."""
    deal_key_path: Path = Path("deal.key")
    """The key of that digest, which nobody else is to read; made where it is missing."""

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("set both CLOISTER_TLS_CERTIFICATE and CLOISTER_TLS_KEY, or neither")
        return self

    @property
    def columns(self) -> Columns:
        """What is said of the file of rows."""
        return Columns(self.label_column or None, frozenset(self.ignored_columns))

    @property
    def n_shards(self) -> int:
        """Number of shards dealt."""
        return max(self.shards, self.clients)
