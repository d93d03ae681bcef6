"""Settings of the key holder."""

import re
from pathlib import Path

from pydantic import Field, field_validator

from cloister_keyholder.encryption.client import ClientSetting
from cloister_shared.service import ServiceSettings, worker_threads

_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::[1-9][0-9]{0,4})?")


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    url: str = "http://127.0.0.1:8000"
    """Where the inference service is reached."""
    model: str = "digits"
    """Name of the model to query; its current version is taken."""
    held_out_dir: Path = Path("held-out")
    """Folder with held_out.npz and schema.json, read by evaluate."""
    report_path: Path = Path("reports/report.json")
    """Where evaluate writes its report, as JSON."""
    evaluate_samples: int = Field(default=200, ge=0)
    """Held-out samples to evaluate encrypted, the first in stored order; 0 means all."""
    console_url: str | None = None
    """Address of the console's page, told at the end of evaluate; by default it is not."""
    wait_seconds: float = Field(default=600, ge=0, allow_inf_nan=False)
    """How long evaluate waits for the service and the model to be ready, in seconds."""
    retry_seconds: float = Field(default=60, ge=0, allow_inf_nan=False)
    """How long one request is repeated while the service is unreachable or busy, in seconds."""
    client: ClientSetting = "auto"
    """What makes keys, encrypts and decrypts: native where it fits the model, or concrete."""
    compact: bool = True
    """Whether messages are compact where the service and the client can."""
    processes: int = Field(default_factory=worker_threads, ge=1)
    """Cores that encrypt many rows, all by default: threads of the native client, processes of
    Concrete's."""
    connections: int = Field(default=4, ge=1)
    """Requests to the service at a time."""
    batch: int = Field(default=16, ge=1)
    """Ciphertexts in one request at most; fewer where the service takes fewer."""
    api_key_path: Path | None = None
    """File that holds the service's API key and nothing else; an empty one stands for none."""
    ca_path: Path | None = None
    """PEM file with the CA certificates to trust for https; the usual ones by default."""
    key_store_dir: Path = Path("query-keys")
    """Folder for the secret keys of models that need evaluation keys, for its owner alone."""
    key_rotate_days: float = Field(default=30, gt=0, allow_inf_nan=False)
    """Days after which a stored key is replaced by a new one."""
    host: str = "127.0.0.1"
    """Address that serve listens on; loopback's alone."""
    port: int = Field(default=8004, ge=1, le=65535)
    """TCP port that serve listens on."""
    console_origins: str = "http://127.0.0.1:8080,http://localhost:8080"
    """Origins of the pages that serve answers, comma-separated; empty: none."""

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of the pages that serve answers."""
        return tuple(filter(None, (one.strip() for one in self.console_origins.split(","))))

    @field_validator("console_origins")
    @classmethod
    def _check_origins(cls, stated: str) -> str:
        for one in filter(None, (one.strip() for one in stated.split(","))):
            if not _ORIGIN.fullmatch(one):
                raise ValueError(
                    f"{one!r} is no origin: state scheme, host and port alone, such as "
                    "http://127.0.0.1:8080"
                )
        return stated
