"""The command ``keyholder``: evaluate, report, predict, encrypt, decrypt, keys, serve."""

import csv
import json
import logging
import math
import shlex
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from cloister_keyholder.commands import keys as key_commands
from cloister_keyholder.commands.opening import Model, Url, chosen, open_model
from cloister_keyholder.commands.progress import show_progress
from cloister_keyholder.commands.reporting import report as report_command
from cloister_keyholder.commands.serve import serve
from cloister_keyholder.errors import InvalidSamples
from cloister_keyholder.evaluating.evaluation import evaluate as evaluate_model
from cloister_keyholder.evaluating.report import render, write_report
from cloister_keyholder.evaluating.samples import read_csv, read_held_out
from cloister_keyholder.keys import keyfile
from cloister_keyholder.model import EncryptedModel, Floats
from cloister_keyholder.querying.pipeline import Answer
from cloister_keyholder.service.credentials import read_api_key
from cloister_keyholder.service.waiting import wait_for_model
from cloister_keyholder.settings import Settings
from cloister_shared.service import run_service

log = logging.getLogger(__name__)

app = typer.Typer(
    help="Query a model with encrypted inputs. Keys and results stay here.",
    no_args_is_help=True,
    add_completion=False,
    # Its tracebacks print local variables, which here hold features, scores and keys.
    pretty_exceptions_enable=False,
)

app.add_typer(key_commands.app, name="keys")
app.command("report")(report_command)
app.command()(serve)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead")]
Rows = Annotated[Path, typer.Argument(metavar="FILE.csv", help="Rows of raw values")]


@app.command()
def evaluate(
    ctx: typer.Context,
    samples: Annotated[
        int | None,
        typer.Option(min=0, help="First held-out samples to send encrypted; 0 = all"),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Where the JSON report goes")] = None,
    url: Url = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Measure accuracy and time of encrypted predictions on the held-out samples.

    Exits 1 if any encrypted result differs from the same integers in the clear.
    """
    settings = chosen(ctx, url, model)
    held_out = read_held_out(settings.held_out_dir)
    wait_for_model(
        settings.url,
        settings.model,
        settings.wait_seconds,
        api_key=read_api_key(settings.api_key_path),
        ca_path=settings.ca_path,
    )
    with open_model(settings) as encrypted, show_progress("evaluating encrypted") as progress:
        found = evaluate_model(
            encrypted,
            held_out,
            settings.evaluate_samples if samples is None else samples,
            progress,
        )
    Console(stderr=as_json).print(render(found))
    path = report or settings.report_path
    write_report(found, path)
    if as_json:
        typer.echo(path.read_text().rstrip())
    log.info("wrote %s", path)
    if settings.console_url:
        log.info("see the training, and try a prediction: %s", settings.console_url)
    if found.differing:
        log.error(
            "%d of %d encrypted results differ from the clear-quantised ones: the service does "
            "not compute what it published",
            found.differing,
            found.evaluated,
        )
        raise typer.Exit(1)


@app.command()
def predict(
    ctx: typer.Context,
    file: Rows,
    proba: Annotated[
        bool, typer.Option("--proba", help="Print class probabilities as CSV instead")
    ] = False,
    url: Url = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Print the predicted class of every row, or value of a regression, one a line."""
    with open_model(chosen(ctx, url, model)) as encrypted:
        rows = read_csv(file, encrypted.card.data)
        answers: list[Answer] = []
        with show_progress("predicting encrypted") as progress:
            for received in encrypted.ask_all(encrypted.quantise(rows)):
                answers.append(received)
                progress(len(answers), len(rows))
        scores = encrypted.dequantise(np.vstack([one.integer_scores for one in answers]))
        if as_json:
            told = {"name": encrypted.name, "version": encrypted.description.version}
            typer.echo(json.dumps(told | _predicted(encrypted, scores, proba=proba)))
            return
        if not proba:
            for answer in encrypted.answers(scores):
                typer.echo(answer)
            return
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(encrypted.card.data.classes)
        writer.writerows(encrypted.probabilities(scores).tolist())


@app.command()
def encrypt(
    ctx: typer.Context,
    file: Rows,
    payload: Annotated[Path, typer.Option(help="New file for the ciphertext, which is sent")],
    key: Annotated[Path, typer.Option(help="New file for the secret key, which is kept")],
    row: Annotated[int, typer.Option(min=0, help="Row of the file, counted from 0")] = 0,
    url: Url = None,
    model: Model = None,
) -> None:
    """Encrypt one row under a new key, and print the curl command that sends it."""
    settings = chosen(ctx, url, model)
    with open_model(settings) as encrypted:
        rows = read_csv(file, encrypted.card.data)
        if row >= len(rows):
            raise InvalidSamples(f"{file} has {len(rows)} rows, counted from 0: there is no {row}")
        query = encrypted.encrypt(encrypted.quantise(rows)[row])
        description = encrypted.description
        keyfile.write_key(
            keyfile.new_key_file(
                encrypted.name, description.version, description.client_digest, query.key.export()
            ),
            key,
        )
        try:
            keyfile.write_new(payload, query.ciphertext, 0o644)
        except BaseException:
            key.unlink()
            raise
        curl = _curl(encrypted, payload, settings)
    typer.echo(curl)


@app.command()
def decrypt(
    ctx: typer.Context,
    result: Annotated[Path, typer.Argument(metavar="RESULT.bin", help="What the service answered")],
    key: Annotated[Path, typer.Option(help="The key file that encrypt wrote")],
    url: Url = None,
    model: Model = None,
) -> None:
    """Print the predicted class, or value of a regression, in an encrypted result."""
    held = keyfile.read_key(key)
    try:
        data = result.read_bytes()
    except OSError as error:
        raise InvalidSamples(f"{result} cannot be read: {error.strerror}") from None
    settings = chosen(ctx, url, model or held.model)
    with open_model(settings, held.version) as encrypted:
        keyfile.check_client(held, key, encrypted.description.client_digest, settings.url)
        scores = encrypted.dequantise(encrypted.read_key(held.keyset).decrypt(data)[None, :])
        (answer,) = encrypted.answers(scores)
    typer.echo(answer)
    log.info(
        "a key is for one result: delete it now with: %s", shlex.join(["shred", "-u", str(key)])
    )


def _predicted(encrypted: EncryptedModel, scores: Floats, *, proba: bool) -> dict[str, object]:
    """Return predictions of scores of shape (n, n_outputs), in types of JSON."""
    if proba:
        classes = list(encrypted.card.data.classes)
        return {
            "classes": classes,
            "probabilities": encrypted.probabilities(scores).tolist(),
        }
    answers = encrypted.answers(scores).tolist()
    # JSON has no number for what is more than a float holds.
    return {"predictions": [None if one in (math.inf, -math.inf) else one for one in answers]}


def _curl(encrypted: EncryptedModel, payload: Path, settings: Settings) -> str:
    """Return the shell command that posts a ciphertext.

    An API key is read from its file by the command and passed through a pipe: so it is neither in
    the command, which is shown and kept, nor among a process' arguments, which others can read.
    """
    command = ["curl", "--silent", "--show-error", "--fail"]
    for name, value in encrypted.infer_headers.items():
        command += ["--header", f"{name}: {value}"]
    if settings.ca_path:
        command += ["--cacert", str(settings.ca_path)]
    show = ""
    if read_api_key(settings.api_key_path):
        command += ["--header", "@-"]
        # The first line that is not blank, without the blanks around it.
        header = "/[^[:space:]]/{s/^[[:space:]]*/Authorization: Bearer /;s/[[:space:]]*$//;p;q;}"
        show = shlex.join(["sed", "-n", header, str(settings.api_key_path)]) + " | "
    command += ["--data-binary", f"@{payload}", "--output", "result.bin", encrypted.infer_url]
    return show + shlex.join(command)


def _run(settings: Settings) -> None:
    app(obj=settings, prog_name="keyholder")


def main() -> None:
    """Entry point of ``keyholder`` and of ``python -m cloister_keyholder``."""
    run_service("keyholder", Settings, _run)


if __name__ == "__main__":
    main()
