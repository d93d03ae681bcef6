"""What a local training came to, for people and for programs."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from cloister_shared.schema import DatasetSchema
from cloister_trainer.local.search import Candidate, best
from cloister_trainer.local.training import Trained
from cloister_trainer.publication import told_metrics

FILE_WIDTH = 200
"""Columns that a table may take where it is not printed to a terminal."""


def print_report(trained: Trained, *, as_json: bool) -> None:
    """Print the search, if there was one, and the published model on standard output."""
    if as_json:
        sys.stdout.write(json.dumps(_summary(trained), indent=2) + "\n")
        return
    console = output()
    if trained.search:
        console.print(_table(trained))
    card, number = trained.card, trained.published.manifest.version
    told = told_metrics(card.final) if card.final else "not measured"
    bits = f", {card.bits} bits" if card.bits else ""
    console.print(
        f"{card.name}, version {number}: {card.estimator}{bits}; {told}",
        highlight=False,
        soft_wrap=True,
    )


def output() -> Console:
    """Return standard output for tables: in a file, lines are as long as they have to be."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else FILE_WIDTH)


def score_name(data: DatasetSchema) -> str:
    """Return what a model of these data is scored by."""
    return "accuracy" if data.classes else "mean absolute error"


def told_score(value: float | None, data: DatasetSchema) -> str:
    """Return a score, or its deviation, for people; None: a fit failed."""
    if value is None:
        return "failed"
    return f"{value:.4f}" if data.classes else f"{value:.4g}"


def _table(trained: Trained) -> Table:
    data = trained.card.data
    chosen = best(trained.search, data)
    names = list(dict.fromkeys(name for one in trained.search for name in one.parameters))
    table = Table(title=f"{score_name(data)}, over the folds")
    for name in names:
        table.add_column(name)
    table.add_column("mean", justify="right")
    table.add_column("deviation", justify="right")
    table.add_column("")
    for one in trained.search:
        cells = [
            json.dumps(one.parameters[name]) if name in one.parameters else "" for name in names
        ]
        numbers = [told_score(one.mean, data), told_score(one.deviation, data)]
        table.add_row(*cells, *numbers, "chosen" if one is chosen else "")
    return table


def _summary(trained: Trained) -> dict[str, Any]:
    card = trained.card
    chosen = best(trained.search, card.data) if trained.search else None
    return {
        "name": card.name,
        "version": trained.published.manifest.version,
        "trained": trained.is_new,
        "estimator": card.estimator,
        "parameters": card.parameters,
        "bits": card.bits,
        "final": card.final and card.final.model_dump(exclude_none=True),
        "score": score_name(card.data),
        "search": [_candidate(one, chosen) for one in trained.search],
    }


def _candidate(one: Candidate, chosen: Candidate | None) -> dict[str, Any]:
    return {
        "parameters": one.parameters,
        "mean": one.mean,
        "deviation": one.deviation,
        "chosen": one is chosen,
    }
