"""How this site's SuperNode reaches the SuperLink."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Connection:
    """Where the SuperLink is, and what the two know each other by."""

    superlink: str
    """Host and port."""
    ca_path: Path | None = None
    """PEM file with the CA certificates that the SuperLink is verified with; None: those that
    Python's HTTP clients trust."""
    key_path: Path | None = None
    """The site's own private key, EC P-384 in OpenSSH's form; None: neither TLS nor
    authentication."""

    @property
    def insecure(self) -> bool:
        """Whether there is neither TLS nor authentication."""
        return self.key_path is None
