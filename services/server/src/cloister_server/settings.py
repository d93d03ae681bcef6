"""Settings of the server."""

from pathlib import Path

from pydantic import Field

from cloister_shared.service import ServiceSettings


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=1, le=65535)
    """Port of all of the SuperLink's interfaces."""
    state_dir: Path = Path("state")
    """Where the SuperLink keeps its database: runs and nodes outlive a restart."""
    superexec_secret: Path = Path("control/superexec.secret")
    """Secret that a SuperExec must know to be given tasks; made where it is missing."""
    tls_certificate: Path | None = None
    """PEM file with the certificate of the SuperLink, then any intermediate ones."""
    tls_key: Path | None = None
    """PEM file with the certificate's private key."""
    tls_ca: Path | None = None
    """PEM file with the CA certificates that the certificate is verified with."""
    insecure: bool = False
    """Neither TLS nor authentication of nodes: for tests on one machine alone."""
