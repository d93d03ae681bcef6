"""How each service is started over a home: its module, its arguments and its settings."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from cloister_cli.home import Home

PREFIX = "CLOISTER_"


@dataclass(frozen=True)
class Command:
    """A service's own command."""

    module: str
    """What ``python -m`` runs."""
    arguments: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    """Without the prefix, in lower case; what is None is left to the service."""

    @property
    def line(self) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", self.module, *self.arguments]

    @property
    def variables(self) -> dict[str, str]:
        """The settings as environment variables."""
        return {
            f"{PREFIX}{key.upper()}": str(value)
            for key, value in self.settings.items()
            if value is not None
        }

    def become(self) -> NoReturn:
        """Run it in the place of this process, with the settings of this process' environment.

        So its output, its exit code and the signals that it gets are this process'.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, self.line, os.environ | self.variables)  # noqa: S606


def compiling(home: Home, model: str | None, *arguments: str, **settings: object) -> Command:
    """Compile the current version of a model, or with arguments look after artifacts."""
    folders = {"models_dir": home.models, "artifacts_dir": home.artifacts}
    return Command("cloister_compiler", arguments, {"model": model, **folders, **settings})


def serving(home: Home, **settings: object) -> Command:
    """Serve all artifacts."""
    folders = {
        "artifacts_dir": home.artifacts,
        "keys_dir": home.evaluation_keys,
        "choices_dir": home.choices,
    }
    return Command("cloister_inference", (), {**folders, **settings})


def showing(home: Home, **settings: object) -> Command:
    """Serve the console's page, with the trainings of a home."""
    return Command("cloister_console", (), {"events_dir": home.events, **settings})


def asking(home: Home, model: str | None, *arguments: str, **settings: object) -> Command:
    """Query a model as a key holder.

    Args:
        home: holds the key holder's samples, keys and reports.
        model: its name; None leaves it, and the samples, to the key holder's own settings.
        arguments: of the key holder's command line.
        settings: of the key holder.
    """
    folders: dict[str, Path] = {"key_store_dir": home.query_keys}
    if model is not None:
        folders |= {"held_out_dir": home.held_out(model), "report_path": home.report(model)}
    return Command("cloister_keyholder", arguments, {"model": model, **folders, **settings})


def training_here(home: Home, *arguments: str, **settings: object) -> Command:
    """Train where all rows are in one place."""
    return Command("cloister_trainer.local", arguments, {"models_dir": home.models, **settings})


def tuning(*arguments: str, **settings: object) -> Command:
    """Search what predicts well and costs little."""
    return Command("cloister_trainer.tuning", arguments, settings)


def importing(home: Home, *arguments: str) -> Command:
    """Publish a model that was trained elsewhere."""
    return Command("cloister_trainer.imports", arguments, {"models_dir": home.models})


def trained(home: Home, *arguments: str) -> Command:
    """Look after models as they were trained."""
    return Command("cloister_trainer.versions", arguments, {"models_dir": home.models})
