"""The folder in which a user of one machine has models, artifacts and what goes with them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Home:
    """A folder; what is in it is made by the services, where it is missing."""

    folder: Path
    """Absolute: the services may have other working folders."""

    @classmethod
    def at(cls, folder: Path) -> Self:
        """Return the home in a folder, wherever this process is."""
        return cls(folder.expanduser().resolve())

    @property
    def models(self) -> Path:
        """Registry of trained models."""
        return self.folder / "models"

    @property
    def artifacts(self) -> Path:
        """Registry of artifacts: models compiled to run on ciphertexts."""
        return self.folder / "artifacts"

    @property
    def events(self) -> Path:
        """The course of every training."""
        return self.folder / "events"

    @property
    def checkpoints(self) -> Path:
        """Unfinished trainings."""
        return self.folder / "checkpoints"

    @property
    def deal_key(self) -> Path:
        """The key of the digests from which a training knows what was dealt."""
        return self.folder / "deal.key"

    @property
    def query_keys(self) -> Path:
        """Secret keys of models that need evaluation keys."""
        return self.folder / "query-keys"

    @property
    def evaluation_keys(self) -> Path:
        """What key holders have uploaded to the service."""
        return self.folder / "evaluation-keys"

    @property
    def choices(self) -> Path:
        """Versions that were put into use over the service's interface."""
        return self.folder / "choices"

    def held_out(self, model: str) -> Path:
        """Samples that no site has seen."""
        return self.folder / "held-out" / model

    def report(self, model: str) -> Path:
        """Where the evaluation of a model is written."""
        return self.folder / "reports" / f"{model}.json"

    def page(self, model: str) -> Path:
        """Where the report on a model goes, as HTML."""
        return self.folder / "reports" / f"{model}.html"

    @staticmethod
    def latest(registry: Path) -> str | None:
        """Return the name of which a version was put into use last; None in an empty registry."""
        chosen = [path for path in registry.glob("*/current") if path.is_file()]
        newest = max(chosen, key=lambda path: path.stat().st_mtime_ns, default=None)
        return newest.parent.name if newest else None

    @staticmethod
    def has(registry: Path, name: str) -> bool:
        """Whether there is something under a name."""
        return (registry / name).is_dir()

    @staticmethod
    def current(registry: Path, name: str) -> int | None:
        """Return the version in use of a name; None where nothing says so."""
        try:
            return int((registry / name / "current").read_text())
        except (OSError, ValueError):
            return None
