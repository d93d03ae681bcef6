"""Settings of the inference service."""

from pathlib import Path

from pydantic import Field

from cloister_shared.service import ServiceSettings, worker_threads


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port to listen on; 0 takes a free one, which the log names."""
    artifacts_dir: Path = Path("artifacts")
    """Registry of artifacts, read."""
    poll_seconds: float = Field(default=2, gt=0)
    """Seconds between two looks at the registry for versions that have become current."""
    loaded_versions: int = Field(default=4, ge=1)
    """Versions that stay loaded besides the current ones; the least recently used goes."""
    model_control: bool = True
    """Whether clients may load and unload models; new versions are loaded either way."""
    max_batch: int = Field(default=64, ge=1)
    """Ciphertexts in one request at most; with a model's sizes it bounds the bytes of a request."""
    threads: int = Field(default_factory=worker_threads, ge=1)
    """Encrypted evaluations at a time; the default is the number of cores."""
    shutdown_seconds: int = Field(default=8, ge=1)
    """Seconds that running requests have to end once the process is told to stop."""
