"""Settings of the fleet's address."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from cloister_shared.haproxy import Address, HostAndPort
from cloister_shared.service import ServiceSettings


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    host: Address = "127.0.0.1"
    """Address to listen on, with all ports."""
    port: int = Field(default=8443, ge=1, le=65535)
    """TCP port for sites: HTTPS alone."""
    metrics_port: int = Field(default=8002, ge=1, le=65535)
    """TCP port of its own /metrics and /fleet/health: plain HTTP."""
    superlink: HostAndPort = "server:8000"
    """Host name and port of the SuperLink; its certificate has to bear the name."""
    enrolment: HostAndPort = "enrolment:8003"
    """Host name and port of enrolment; its certificate has to bear the name."""
    fleet_tls_pem: Path = Path("fleet-tls/tls.pem")
    """One PEM file with the certificate that sites see, its chain and its key."""
    fleet_inside_pem: Path | None = None
    """Another one, for those who call this address by a name that is in it and not in the first:
    the sites of the same machine, where the first is one's own."""
    ca_path: Path = Path("fleet-tls/ca.crt")
    """PEM file with the CA that signed the certificates of SuperLink and enrolment."""
    fleet_body_bytes: int = Field(default=16 << 20, ge=1)
    """Bytes of a request's body at most. Flower sends arrays in pieces of 5 MiB, other records
    whole."""
    fleet_max_connections: int = Field(default=512, ge=1)
    """Connections of sites at a time; further ones wait until one is free."""
    fleet_address_connections: int = Field(default=128, ge=1)
    """Connections from one address at a time; further ones are closed. Sites behind one NAT share
    an address."""
    fleet_header_seconds: int = Field(default=10, ge=1)
    """Seconds that a site may take for the headers of a request, and for a body that is held."""
    fleet_client_seconds: int = Field(default=30, ge=1)
    """Seconds that a site may be silent."""
    fleet_queue_seconds: int = Field(default=20, ge=1)
    """Seconds that a request waits for a SuperLink that is busy, or refuses connections because it
    starts anew, before it is answered 503. Flower's own requests give up after 30."""
    fleet_answer_seconds: int = Field(default=60, ge=1)
    """Seconds that the SuperLink may be silent."""

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.port == self.metrics_port:
            raise ValueError("port and metrics port must differ")
        return self
