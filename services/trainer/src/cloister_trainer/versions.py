"""Lists, shows, chooses and deletes versions of trained models."""

import argparse
from functools import partial
from pathlib import Path

from cloister_shared.registry import Registry
from cloister_shared.registry_commands import add_commands, run_command, show_all
from cloister_shared.service import ServiceSettings, run_service
from cloister_shared.showing import add_show, show_one


class Settings(ServiceSettings):
    """Environment variables with the prefix CLOISTER_; of the trainer's settings one alone."""

    models_dir: Path = Path("models")
    """Registry of models."""


def act(arguments: argparse.Namespace, settings: Settings) -> None:
    """Do what the command line says."""
    models = Registry(settings.models_dir)
    match arguments.command:
        case "list":
            show_all(models, as_json=arguments.json)
        case "show":
            show_one(models, arguments.name, arguments.version, as_json=arguments.json)
        case _:
            run_command(models, arguments)


def main() -> None:
    """Entry point of ``python -m cloister_trainer.versions``."""
    parser = argparse.ArgumentParser(
        prog="python -m cloister_trainer.versions", description="Look after trained models."
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="print all models and which are in use")
    listing.add_argument("--json", action="store_true", help="print JSON")
    add_show(commands, "a model", "data schema, training, privacy spent, and metrics per round")
    add_commands(commands, "a model")
    run_service("trainer", Settings, partial(act, parser.parse_args()))


if __name__ == "__main__":
    main()
