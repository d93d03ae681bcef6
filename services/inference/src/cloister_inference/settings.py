"""Settings of the inference service."""

import re
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from cloister_inference.evaluation.evaluator import EvaluatorSetting
from cloister_inference.options import KeyOptions, Options
from cloister_shared.service import ServiceSettings, worker_threads

# RFC 6454, 6.2, in the form in which browsers send it; never every page's.
_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """TCP port to listen on; 0 takes a free one, which the log names."""
    artifacts_dir: Path = Path("artifacts")
    """Registry of artifacts, read."""
    evaluator: EvaluatorSetting = "auto"
    """Native where it was seen to equal Concrete's run; or only one of the two."""
    poll_seconds: float = Field(default=2, gt=0)
    """Seconds between two looks at the registry for versions that have become current."""
    loaded_versions: int = Field(default=4, ge=1)
    """Versions that stay loaded besides the current ones; the least recently used goes."""
    model_control: bool = True
    """Whether clients may load and unload models; new versions are loaded either way."""
    choices_dir: Path = Path("choices")
    """Folder for versions that were put into use over HTTP, written; on a volume that all replicas
    share."""
    max_batch: int = Field(default=64, ge=1)
    """Ciphertexts in one request at most; with a model's sizes it bounds the bytes of a request."""
    threads: int = Field(default_factory=worker_threads, ge=1)
    """Encrypted evaluations at a time; the default is the number of cores."""
    queue: int = Field(default=256, ge=1)
    """Ciphertexts that may wait or be evaluated at a time; further ones are answered with 503."""
    deadline_seconds: float = Field(default=30.0, gt=0, allow_inf_nan=False)
    """Seconds after which a request that is not evaluated is given up and answered with 503."""
    drain_seconds: float = Field(default=3.0, ge=0, le=60)
    """Seconds for which everything is still served once the process is told to stop, while
    ``/v2/health/ready`` answers 404 so that load balancers and clients go elsewhere."""
    shutdown_seconds: int = Field(default=8, ge=1)
    """Seconds that running requests have to end after that."""
    metrics_port: int = Field(default=8002, ge=0, le=65535)
    """TCP port for Prometheus, at the same address; 0 takes a free one, which the log names."""

    api_keys_path: Path | None = None
    """File with the digests of API keys, read; without one everybody is served."""
    cors_origins: str = ""
    """Origins of web pages that may query models, such as https://example.org, comma-separated;
    none by default."""
    published_host: str | None = None
    """Address at which clients reach the service; the one it listens on by default. Without API
    keys it must be loopback's."""
    tls_certificate: Path | None = None
    """PEM file with the certificate for https, then any intermediate ones; without one, http."""
    tls_key: Path | None = None
    """PEM file with the certificate's private key."""

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

    @model_validator(mode="after")
    def _a_batch_fits_the_queue(self) -> Self:
        if self.queue < self.max_batch:
            raise ValueError(
                f"CLOISTER_QUEUE is {self.queue}, and a request of CLOISTER_MAX_BATCH "
                f"({self.max_batch}) ciphertexts would never fit: raise the first or lower the "
                "second"
            )
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("set both CLOISTER_TLS_CERTIFICATE and CLOISTER_TLS_KEY, or neither")
        return self

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, stated: str) -> str:
        for origin in _listed(stated):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin: name each page's scheme, host and port alone, such "
                    "as https://example.org or http://127.0.0.1:8080"
                )
        return stated

    def options(self) -> Options:
        """Return how the process is to serve."""
        return Options(
            threads=self.threads,
            max_batch=self.max_batch,
            queue=self.queue,
            deadline_seconds=self.deadline_seconds,
            loaded_versions=self.loaded_versions,
            poll_seconds=self.poll_seconds,
            model_control=self.model_control,
            choices_dir=self.choices_dir,
            evaluator=self.evaluator,
            cors_origins=_listed(self.cors_origins),
            keys=KeyOptions(
                dir=self.keys_dir,
                key_bytes=self.key_bytes,
                quota_bytes=self.key_quota_bytes,
                days=self.key_days,
                cache_bytes=self.key_cache_bytes,
            ),
        )


def _listed(stated: str) -> tuple[str, ...]:
    return tuple(filter(None, (one.strip() for one in stated.split(","))))
