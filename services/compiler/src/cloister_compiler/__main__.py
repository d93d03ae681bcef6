"""Compiles the current model once and exits; or shows, chooses or deletes artifacts."""

import argparse
import logging
from functools import partial

from cloister_compiler.settings import Settings
from cloister_compiler.versions import circuit_lines, show_in_use
from cloister_shared.artifact import CARD
from cloister_shared.card import read_card
from cloister_shared.estimators import estimator
from cloister_shared.registry import Registry
from cloister_shared.registry_commands import COMMANDS, add_commands, run_command, show_all
from cloister_shared.service import run_service
from cloister_shared.showing import add_show, show_one

log = logging.getLogger(__name__)


def compile_once(settings: Settings) -> None:
    """Publish the artifact of the current model."""
    # Takes seconds and a compiler, and the other commands need neither.
    from cloister_compiler.artifact import publish_artifact  # noqa: PLC0415
    from cloister_compiler.selection import Precision  # noqa: PLC0415
    from cloister_compiler.tree import publish_trees  # noqa: PLC0415

    models, artifacts = Registry(settings.models_dir), Registry(settings.artifacts_dir)
    precision = Precision(
        inputs=settings.bits_inputs or settings.bits,
        weights=settings.bits_weights or settings.bits,
        tolerance=settings.tolerance,
    )
    model = models.open_current(settings.model)
    # Whoever publishes verifies the model's files, before anything is made of them.
    if estimator(read_card(model.file(CARD)).estimator).family == "tree":
        if settings.bits_inputs:
            log.warning(
                "a tree's inputs have the bits that it needs: CLOISTER_BITS_INPUTS is unused"
            )
        publish_trees(
            model,
            artifacts,
            precision=precision,
            publish_reference=settings.publish_reference,
            verification_samples=settings.verification_samples,
            again=settings.retrain,
        )
        return
    publish_artifact(
        model,
        artifacts,
        precision=precision,
        publish_reference=settings.publish_reference,
        verification_samples=settings.verification_samples,
        again=settings.retrain,
    )


def act(arguments: argparse.Namespace, settings: Settings) -> None:
    """Do what the command line says."""
    artifacts = Registry(settings.artifacts_dir)
    match arguments.command:
        case "list":
            show_all(artifacts, as_json=arguments.json)
        case "show":
            show_one(
                artifacts,
                arguments.name,
                arguments.version,
                as_json=arguments.json,
                more=circuit_lines,
            )
        case command if command in COMMANDS:
            run_command(artifacts, arguments)
        case _:
            compile_once(settings)
            if arguments.json:
                show_in_use(artifacts, settings.model)


def main() -> None:
    """Entry point of ``python -m cloister_compiler``."""
    parser = argparse.ArgumentParser(
        prog="python -m cloister_compiler",
        description="Without a command: compile the current model, prove it, and publish it.",
    )
    parser.add_argument("--json", action="store_true", help="print the version in use as JSON")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    listing = commands.add_parser("list", help="print all artifacts and which are in use")
    listing.add_argument("--json", action="store_true", help="print JSON")
    add_show(
        commands,
        "an artifact",
        "data schema, training, privacy spent, metrics per round, checks, sizes and cost",
    )
    add_commands(commands, "an artifact")
    run_service("compiler", Settings, partial(act, parser.parse_args()))


if __name__ == "__main__":
    main()
