"""What ``python -m cloister_client`` does besides running a site."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from cloister_client.data.check import check_folder
from cloister_client.data.infer import infer_file
from cloister_client.settings import Settings
from cloister_shared.estimators import Task
from cloister_shared.preprocessing import OutOfBounds

Command = Callable[[Settings], None]


def command(arguments: Sequence[str]) -> Command:
    """Return what the command line asks for, to be run with the settings.

    Args:
        arguments: those after the name of the program.

    Raises:
        SystemExit: with 2 and the usage, they are not understood.
    """
    parser = argparse.ArgumentParser(prog="python -m cloister_client")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_check(commands)
    _add_infer(commands)
    parsed = parser.parse_args(arguments)
    found: Command = parsed.make(parsed)
    return found


def _add_check(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    check = commands.add_parser(
        "check",
        help="see whether a site's folder fits its schema; nothing leaves this machine",
        description="Read schema.json and the file of rows beside it as a training would, and say "
        "what is there, or all that is wrong with it.",
    )
    check.add_argument("folder", nargs="?", type=Path, help="default: CLOISTER_SHARD_DIR")
    check.add_argument(
        "--out-of-bounds",
        choices=get_args(OutOfBounds),
        default="refuse",
        help="what the training does with a value outside its bounds (default: %(default)s)",
    )
    check.set_defaults(
        make=lambda given: (
            lambda settings: check_folder(
                settings, given.folder or settings.shard_dir, given.out_of_bounds
            )
        )
    )


def _add_infer(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    infer = commands.add_parser(
        "infer",
        help="guess a schema from a file of rows, to be checked by hand; nothing leaves this "
        "machine",
        description="Write a schema for the rows of a CSV, Parquet or .npz file to standard "
        "output, or to a file, and say on standard error what was guessed of each column and why.",
    )
    infer.add_argument("file", type=Path, help="a sample of the rows")
    infer.add_argument(
        "--label",
        help="column with the labels or targets (default: CLOISTER_LABEL_COLUMN, else label; y of "
        "an .npz)",
    )
    infer.add_argument("--task", choices=get_args(Task), help="default: told by the labels")
    infer.add_argument("--name", help="of the dataset (default: the file's)")
    infer.add_argument("--output", type=Path, help="a file to write (default: standard output)")
    infer.add_argument("--force", action="store_true", help="overwrite it")
    infer.set_defaults(
        make=lambda given: (
            lambda settings: infer_file(
                given.file,
                given.label or settings.label_column,
                given.task,
                given.name or given.file.stem,
                given.output,
                force=given.force,
            )
        )
    )
