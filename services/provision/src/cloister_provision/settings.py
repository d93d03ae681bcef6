"""Settings of the one-shot that makes certificates and secrets."""

from pathlib import Path
from typing import Self

from pydantic import model_validator

from cloister_shared.service import ServiceSettings


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    federation_dir: Path = Path("federation")
    """Folder whose subfolders, a volume each, get what one service needs."""
    federation_names: str = ""
    """Names and IP addresses at which sites reach the federation from outside, comma-separated."""
    service_domain: str = ""
    """DNS domain in which services are reached beside their bare names, such as
    ``cloister.svc.cluster.local``: their certificates then bear the name in it too."""
    tls_certificate_file: Path | None = None
    """PEM file with a certificate of one's own for the address that sites reach, then any
    intermediate ones; an empty file is as good as none."""
    tls_key_file: Path | None = None
    """PEM file with that certificate's private key, without a pass phrase."""
    tls_ca_file: Path | None = None
    """PEM file with the CA certificates that sites are to verify that certificate with."""

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        own = (self.tls_certificate_file, self.tls_key_file, self.tls_ca_file)
        if any(own) and not all(own):
            raise ValueError(
                "a certificate of one's own needs all of CLOISTER_TLS_CERTIFICATE_FILE, "
                "CLOISTER_TLS_KEY_FILE and CLOISTER_TLS_CA_FILE"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names and addresses from outside, in the order given."""
        return tuple(filter(None, (name.strip() for name in self.federation_names.split(","))))
