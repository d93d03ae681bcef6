"""Settings of the inference service."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from cloister_shared.service import ServiceSettings, worker_threads


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port to listen on; 0 takes a free one, which the log names."""
    artifacts_dir: Path = Path("artifacts")
    """Registry of artifacts, read."""
    max_batch: int = Field(default=64, ge=1)
    """Ciphertexts in one request at most; with a model's sizes it bounds the bytes of a request."""
    threads: int = Field(default_factory=worker_threads, ge=1)
    """Encrypted evaluations at a time; the default is the number of cores."""
    shutdown_seconds: int = Field(default=8, ge=1)
    """Seconds that running requests have to end once the process is told to stop."""
    api_keys_path: Path | None = None
    """File with the digests of API keys, read; without one everybody is served."""
    published_host: str | None = None
    """Address at which clients reach the service; the one it listens on by default. Without API
    keys it must be loopback's."""
    tls_certificate: Path | None = None
    """PEM file with the certificate for https, then any intermediate ones; without one, http."""
    tls_key: Path | None = None
    """PEM file with the certificate's private key."""

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("set both CLOISTER_TLS_CERTIFICATE and CLOISTER_TLS_KEY, or neither")
        return self
