"""Versions that were put into use over HTTP."""

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloister_shared.errors import CloisterError
from cloister_shared.files import write_atomically

log = logging.getLogger(__name__)


class _Choice(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(ge=1)
    instead_of: int | None = Field(ge=1)
    """What the registry said was in use."""


class Choices:
    """Which versions serve in the place of those that the registry of artifacts puts into use.

    The registry is not the service's to write. A choice stands beside it, in a folder that all
    replicas share, and holds until the registry puts another version into use: whoever publishes,
    promotes or rolls back there has the last word. For use from any number of threads and
    processes.
    """

    def __init__(self, folder: Path | None) -> None:
        """Keep choices.

        Args:
            folder: made when the first one is kept; None keeps none.
        """
        self._folder = folder

    @property
    def can_keep(self) -> bool:
        """Whether there is anywhere to keep a choice."""
        return self._folder is not None

    def instead_of(self, name: str, current: int | None) -> int | None:
        """Return the version to serve where the registry puts ``current`` into use.

        A choice that cannot be read counts as none, with a line in the log.

        Args:
            name: of a model that is published.
            current: None: no version is in use.
        """
        if self._folder is None:
            return current
        try:
            content = self._path(self._folder, name).read_bytes()
            choice = _Choice.model_validate_json(content)
        except FileNotFoundError:
            return current
        except (OSError, ValidationError) as error:
            log.error("the choice of a version of %s cannot be read: %s", name, error)
            return current
        return choice.version if choice.instead_of == current else current

    def choose(self, name: str, version: int, current: int | None) -> None:
        """Have a version serve for as long as the registry puts ``current`` into use.

        Args:
            name: of a model that is published.
            version: one of its versions.
            current: what the registry says is in use.

        Raises:
            CloisterError: choices are not kept here.
            OSError: the folder is full or not writable.
        """
        if self._folder is None:
            raise CloisterError("choices of versions are not kept here (CLOISTER_CHOICES_DIR)")
        path = self._path(self._folder, name)
        if version == current:
            path.unlink(missing_ok=True)
            return
        choice = _Choice(version=version, instead_of=current)
        write_atomically(path, choice.model_dump_json().encode())

    @staticmethod
    def _path(folder: Path, name: str) -> Path:
        return folder / f"{name}.json"
