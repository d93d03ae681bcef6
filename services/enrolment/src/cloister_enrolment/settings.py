"""Settings of the enrolment service."""

from pathlib import Path

from pydantic import Field

from cloister_shared.service import ServiceSettings


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8003, ge=1, le=65535)
    """Port to listen on, for HTTPS."""
    tls_certificate: Path = Path("federation/enrolment-tls/tls.crt")
    """PEM file with the service's certificate."""
    tls_key: Path = Path("federation/enrolment-tls/tls.key")
    """PEM file with the certificate's private key."""
    superlink: str = "127.0.0.1:8000"
    """Host and port of the SuperLink, whose Control API registers nodes."""
    ca_path: Path = Path("federation/trust/ca.crt")
    """PEM file with the CA certificates that the SuperLink is verified with."""
    enrolment_dir: Path = Path("federation/enrolment")
    """Folder with join tokens (digests alone) and enrolled nodes, read and written."""
