"""The command ``keyholder report``."""

import json as json_module
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cloister_keyholder.commands.opening import Model, Url, chosen, open_model
from cloister_keyholder.errors import ReportError
from cloister_keyholder.reporting.document import render
from cloister_keyholder.reporting.sources import (
    Published,
    check_is_of,
    from_registry,
    from_service,
    read_evaluation,
)
from cloister_keyholder.settings import Settings
from cloister_shared.files import write_atomically

STANDARD_OUTPUT = Path("-")

log = logging.getLogger(__name__)


def report(  # noqa: PLR0913, PLR0917 - each is an option
    ctx: typer.Context,
    output: Annotated[Path, typer.Option(help="The HTML file; - for standard output")],
    artifacts: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            exists=True,
            help="Registry of artifacts to read in the place of asking the service",
        ),
    ] = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="What evaluate wrote [default: CLOISTER_REPORT_PATH]")
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Of the model [default: the one in use]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there")] = False,
    url: Url = None,
    model: Model = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was written as JSON, for programs")
    ] = False,
) -> None:
    """Write a training and its encrypted evaluation as one HTML file, to be sent to others.

    It has no row and no key, loads nothing and runs nothing.
    """
    to_stdout = output == STANDARD_OUTPUT
    if to_stdout and as_json:
        raise typer.BadParameter("prints what - prints to as well", param_hint="--json")
    if not (to_stdout or force) and output.exists():
        raise ReportError(f"{output} exists: give another --output, or --force to replace it")
    settings = chosen(ctx, url, model)
    published = _published(settings, artifacts, version)
    found = read_evaluation(evaluation or settings.report_path)
    if found is None and evaluation is not None:
        raise ReportError(f"{evaluation} is missing: `keyholder evaluate` writes it")
    why_not = check_is_of(found, published) if found else None
    if why_not:
        log.warning("%s: the report goes without it", why_not)
    page = render(published, None if why_not else found, why_not, datetime.now(UTC))
    if to_stdout:
        typer.echo(page, nl=False)
        return
    write_atomically(output, page, mode=0o600)
    log.info("wrote %s", output)
    if as_json:
        told = {"name": published.name, "version": published.version, "path": str(output)}
        typer.echo(json_module.dumps(told | {"evaluated": found is not None and not why_not}))


def _published(settings: Settings, artifacts: Path | None, version: int | None) -> Published:
    if artifacts is not None:
        return from_registry(artifacts, settings.model, version)
    with open_model(settings, version) as model:
        return from_service(model)
