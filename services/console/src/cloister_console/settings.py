"""Settings of the console."""

import re
from pathlib import Path

from pydantic import Field, field_validator

from cloister_shared.service import ServiceSettings

# RFC 6454, 6.2: scheme, host and port. It goes into a header, where a ";" or a space would be more.
_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?")
_NAME = re.compile(r"[a-z0-9.-]+")
# Of a checkout; an image says where they are. It may have fewer folders above this one.
_SERVICES = Path(__file__).parent / ".." / ".." / ".."


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8080, ge=1, le=65535)
    """TCP port to listen on."""
    console_names: str = ""
    """Host names, comma-separated, by which browsers reach the console besides 127.0.0.1 and
    localhost; requests by other names are refused."""
    url: str = "http://127.0.0.1:8000"
    """Origin at which the page, in the user's browser, reaches the inference service."""
    keyholder_url: str | None = "http://127.0.0.1:8004"
    """Origin at which the page reaches the key holder's loopback interface, for models that the
    browser's client does not fit."""
    events_dir: Path = Path("events")
    """Folder with the events of trainings, read."""
    page_dir: Path = _SERVICES / "console" / "web"
    """Folder with the page: index.html, style.css, src, and node_modules with uPlot."""
    browser_client_dir: Path = _SERVICES / "keyholder" / "web"
    """Folder with the browser's client: src and dist."""

    @field_validator("url", "keyholder_url")
    @classmethod
    def _check_origin(cls, stated: str | None) -> str | None:
        if stated is not None and not _ORIGIN.fullmatch(stated):
            raise ValueError(
                f"{stated!r} is no origin: state scheme, host and port alone, such as "
                "http://127.0.0.1:8000"
            )
        return stated

    @field_validator("console_names")
    @classmethod
    def _check_names(cls, stated: str) -> str:
        for name in _listed(stated):
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is no host name: name hosts alone, such as console.example.org"
                )
        return stated

    @property
    def names(self) -> tuple[str, ...]:
        """Host names that requests may state."""
        return ("127.0.0.1", "localhost", *_listed(self.console_names))


def _listed(stated: str) -> tuple[str, ...]:
    return tuple(filter(None, (one.strip() for one in stated.split(","))))
