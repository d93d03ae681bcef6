"""The commands ``cloister schema``: what describes the columns of data."""

from typing import Annotated

import typer

from cloister_cli.commands import Command
from cloister_cli.options import Json, flags

app = typer.Typer(help="Describe the columns of data.", no_args_is_help=True)


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def infer(context: typer.Context) -> None:
    """Write a schema for a file with rows; `cloister schema infer --help` tells its options.

    Example: cloister schema infer patients.csv --label outcome
    """
    Command("cloister_client", ("infer", *context.args)).become()


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="digits, mnist, breast_cancer or diabetes.")
    ],
    json: Json = False,
) -> None:
    """Show the schema of a dataset known by name; as JSON it is one to begin one's own from.

    Example: cloister schema show diabetes --json > schema.json
    """
    Command("cloister_dealer.schemas", (name, *flags(json=json))).become()
