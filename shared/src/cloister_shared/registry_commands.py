"""Commands with which whoever owns a registry lists, chooses and deletes versions."""

import argparse
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from cloister_shared.artifact import CARD
from cloister_shared.card import read_card
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry
from cloister_shared.tables import print_table

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001

COMMANDS = ("promote", "rollback", "delete")

log = logging.getLogger(__name__)


def add_commands(commands: "Commands", what: str) -> None:
    """Add ``promote``, ``rollback`` and ``delete`` to the commands of a program.

    Args:
        commands: of the program's parser.
        what: one thing of which there are versions, "a model" for example.
    """
    promote = _add(
        commands,
        "promote",
        f"put a version of {what} into use",
        f"Put any version of {what} into use, until another one is published.",
    )
    promote.add_argument("version", metavar="VERSION", type=int, help="its number")
    rollback = _add(
        commands,
        "rollback",
        f"put an earlier version of {what} into use",
        f"Put a version of {what} into use, until another one is published.",
    )
    rollback.add_argument(
        "version",
        metavar="VERSION",
        type=int,
        nargs="?",
        help="its number (default: the one before the version in use)",
    )
    delete = _add(
        commands,
        "delete",
        f"remove a version of {what} that is not in use, or with --force all of it",
        f"Remove a version of {what} for good. That in use is never removed alone: put another "
        "one into use first, or remove all versions with --force and no number.",
    )
    delete.add_argument("version", metavar="VERSION", type=int, nargs="?", help="its number")
    delete.add_argument(
        "--force", action="store_true", help="without a number: all versions, that in use too"
    )


def run_command(registry: Registry, arguments: argparse.Namespace) -> None:
    """Do what one of the commands of ``add_commands`` says, and log it.

    Raises:
        CloisterError: the registry refuses it, or the command does not say what is meant.
    """
    name: str = arguments.name
    version: int | None = arguments.version
    match arguments.command:
        case "promote":
            _put_into_use(registry, name, arguments.version, back=False)
        case "rollback":
            _put_into_use(registry, name, version, back=True)
        case _:
            _delete(registry, name, version, force=arguments.force)


def show_all(registry: Registry, *, as_json: bool) -> None:
    """Print every version of every name, those in use marked, and log which are damaged."""
    versions = [
        summary(registry, name, number)
        for name in registry.names()
        for number in registry.versions(name)
    ]
    if as_json:
        print_json(versions)
    else:
        print_table([_COLUMNS, *map(_row, versions)])
    for one in versions:
        if one["damaged"]:
            log.error("version %d of %s: %s", one["version"], one["name"], one["damaged"])


def summary(registry: Registry, name: str, number: int) -> dict[str, Any]:
    """Return what a list says of a version, in types of JSON; ``damaged`` says what is wrong.

    Files are not verified: only what cannot be read is found damaged.
    """
    told: dict[str, Any] = {
        "name": name,
        "version": number,
        "in_use": registry.current(name) == number,
        **dict.fromkeys(("estimator", "dataset", "created", "client_digest", "damaged")),
    }
    try:
        version = registry.open(name, number)
        card = read_card(version.file(CARD))
    except CloisterError as error:
        return told | {"damaged": str(error)}
    return told | {
        "estimator": card.estimator,
        "dataset": card.data.dataset,
        "created": version.manifest.created.isoformat(),
        "client_digest": version.manifest.details.get("client_digest"),
    }


_COLUMNS = ("NAME", "VERSION", "IN USE", "ESTIMATOR", "DATASET", "CREATED")


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    cells = one["name"], str(one["version"]), "yes" if one["in_use"] else ""
    if one["damaged"]:
        return (*cells, "damaged", "", "")
    return (*cells, one["estimator"], one["dataset"], one["created"][:16].replace("T", " "))


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def _add(commands: "Commands", command: str, summary: str, text: str) -> argparse.ArgumentParser:
    added = commands.add_parser(command, help=summary, description=text)
    added.add_argument("name", metavar="NAME", help="under which it is published")
    return added


def _put_into_use(registry: Registry, name: str, version: int | None, *, back: bool) -> None:
    before = registry.current(name)
    if back or version is None:
        chosen = registry.roll_back(name, version)
    else:
        chosen = registry.promote(name, version)
    number = chosen.manifest.version
    log.info("version %d of %s is in use, before it was %s", number, name, before or "none")


def _delete(registry: Registry, name: str, version: int | None, *, force: bool) -> None:
    if version is not None:
        registry.delete(name, version)
        log.info("deleted version %d of %s", version, name)
        return
    if not force:
        raise CloisterError(
            f"say which version of {name} is to be deleted ({registry.versions(name)}), or "
            f"`delete {name} --force` for all of them, that in use too"
        )
    numbers = ", ".join(map(str, registry.delete_all(name)))
    log.info("deleted all of %s: version %s", name, numbers)
