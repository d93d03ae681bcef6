"""Settings of the gateway."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from cloister_shared.haproxy import Address, HostAndPort
from cloister_shared.service import ServiceSettings


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    host: Address = "127.0.0.1"
    """Address to listen on, with all ports."""
    port: int = Field(default=8000, ge=1, le=65535)
    """TCP port for key holders on the gateway's own network: plain HTTP, whatever the certificate.
    """
    published_port: int = Field(default=8443, ge=1, le=65535)
    """TCP port for everyone else: HTTPS where there is a certificate, else plain HTTP."""
    metrics_port: int = Field(default=8002, ge=1, le=65535)
    """TCP port of the gateway's own /metrics and /gateway/health: plain HTTP."""
    upstream: HostAndPort = "inference:8000"
    """Name and port of the inference service; the name has one address for every replica."""
    replicas_max: int = Field(default=10, ge=1, le=1000)
    """Replicas that can be found behind the name; further ones get no requests."""
    replica_requests: int = Field(default=64, ge=1)
    """Requests that one replica is given at a time; the rest wait in the gateway."""
    queue_seconds: int = Field(default=20, ge=1)
    """Seconds that a request may wait for a replica, busy or about to start, before it is answered
    503."""
    answer_seconds: int = Field(default=60, ge=1)
    """Seconds that a replica may be silent; above CLOISTER_DEADLINE_SECONDS of the replicas."""
    client_seconds: int = Field(default=30, ge=1)
    """Seconds that a client may be silent, and may take for a body that is held for repetition."""
    header_seconds: int = Field(default=10, ge=1)
    """Seconds that a client may take for the headers of a request."""
    max_connections: int = Field(default=512, ge=1)
    """Connections of clients at a time; further ones wait until one is free."""
    body_bytes: int = Field(default=300 << 20, ge=1)
    """Bytes of a request's body at most; the replicas have closer limits of their own."""
    retry_bytes: int = Field(default=80 << 10, ge=0, le=16 << 20)
    """Bytes of a request's body up to which it is held until it is answered, so that it can be
    repeated at another replica; every connection in use may take three times that."""
    gateway_tls_pem: Path | None = None
    """One PEM file with certificate, chain and key; an empty file is as good as none."""

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if len({self.port, self.published_port, self.metrics_port}) < 3:
            raise ValueError("port, published port and metrics port must differ")
        return self
