"""The commands ``cloister models``: versions listed, shown, chosen and deleted."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cloister_cli.commands import compiling, trained
from cloister_cli.home import Home
from cloister_cli.options import HOME, HomeFolder, Json, flags

app = typer.Typer(help="List, show, choose and delete versions.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the model.")]
Trained = Annotated[
    bool,
    typer.Option(
        "--trained",
        help="Of models as they were trained, in the place of those compiled to be served.",
    ),
]


@app.command("list")
def list_versions(home: HomeFolder = HOME, trained: Trained = False, json: Json = False) -> None:
    """List all versions, and which are in use.

    Example: cloister models list --json
    """
    _run(home, trained, "list", *flags(json=json))


@app.command()
def show(
    name: Name,
    version: Annotated[
        str, typer.Argument(metavar="[VERSION]", show_default="the version in use")
    ] = "",
    home: HomeFolder = HOME,
    trained: Trained = False,
    json: Json = False,
) -> None:
    """Show all that is known of a version: schema, training, privacy, and checks and cost.

    Its files are compared with their digests first. Checks and cost are of compiled ones alone.

    Example: cloister models show digits 2
    """
    _run(home, trained, "show", name, version, *flags(json=json))


@app.command()
def promote(
    name: Name,
    version: Annotated[str, typer.Argument(metavar="VERSION")],
    home: HomeFolder = HOME,
    trained: Trained = False,
) -> None:
    """Put a version into use, until another one is published.

    A running service follows within seconds.

    Example: cloister models promote digits 1
    """
    _run(home, trained, "promote", name, version)


@app.command()
def rollback(
    name: Name,
    version: Annotated[
        str,
        typer.Argument(metavar="[VERSION]", show_default="the one before the version in use"),
    ] = "",
    home: HomeFolder = HOME,
    trained: Trained = False,
) -> None:
    """Put an earlier version into use, until another one is published.

    Example: cloister models rollback digits
    """
    _run(home, trained, "rollback", name, version)


@app.command()
def delete(
    name: Name,
    version: Annotated[str, typer.Argument(metavar="[VERSION]")] = "",
    home: HomeFolder = HOME,
    trained: Trained = False,
    force: Annotated[
        bool, typer.Option("--force", help="Without a number: all versions, that in use too.")
    ] = False,
) -> None:
    """Delete a version for good; that in use only with all others.

    Its number is not used again, and it is not made again unless CLOISTER_RETRAIN=true asks for it.

    Example: cloister models delete digits 1
    """
    _run(home, trained, "delete", name, version, *flags(force=force))


def _run(folder: Path, as_trained: bool, *arguments: str) -> NoReturn:
    given = [argument for argument in arguments if argument]
    home = Home.at(folder)
    (trained(home, *given) if as_trained else compiling(home, None, *given)).become()
