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
    max_batch: int = Field(default=64, ge=1)
    """Ciphertexts in one request at most; with a model's sizes it bounds the bytes of a request."""
    threads: int = Field(default_factory=worker_threads, ge=1)
    """Encrypted evaluations at a time; the default is the number of cores."""
    shutdown_seconds: int = Field(default=8, ge=1)
    """Seconds that running requests have to end once the process is told to stop."""
    keys_dir: Path = Path("evaluation-keys")
    """Folder for evaluation keys, written; on a volume that all replicas share."""
    key_bytes: int = Field(default=256 << 20, ge=1)
    """Bytes that one set of evaluation keys may have."""
    key_quota_bytes: int = Field(default=1 << 30, ge=0)
    """Bytes that the evaluation keys of one owner may have together; 0 takes none."""
    key_days: float = Field(default=30, gt=0, allow_inf_nan=False)
    """Days since their last use after which evaluation keys are removed."""
    key_cache_bytes: int = Field(default=2 << 30, ge=0)
    """Memory for evaluation keys that were used last; what is in use may exceed it."""
