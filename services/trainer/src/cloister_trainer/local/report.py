"""What a local training came to, for people and for programs."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

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
    # In a file, lines are as long as they have to be.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else FILE_WIDTH)
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


def _table(trained: Trained) -> Table:
    chosen = best(trained.search, trained.card.data)
    names = list(dict.fromkeys(name for one in trained.search for name in one.parameters))
    table = Table(title=f"{_score(trained)}, over the folds")
    for name in names:
        table.add_column(name)
    table.add_column("mean", justify="right")
    table.add_column("deviation", justify="right")
    table.add_column("")
    for one in trained.search:
        cells = [
            json.dumps(one.parameters[name]) if name in one.parameters else "" for name in names
        ]
        numbers = [_number(trained, one.mean), _number(trained, one.deviation)]
        table.add_row(*cells, *numbers, "chosen" if one is chosen else "")
    return table


def _number(trained: Trained, value: float | None) -> str:
    if value is None:
        return "failed"
    return f"{value:.4f}" if trained.card.data.classes else f"{value:.4g}"


def _score(trained: Trained) -> str:
    return "accuracy" if trained.card.data.classes else "mean absolute error"


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
        "score": _score(trained),
        "search": [_candidate(one, chosen) for one in trained.search],
    }


def _candidate(one: Candidate, chosen: Candidate | None) -> dict[str, Any]:
    return {
        "parameters": one.parameters,
        "mean": one.mean,
        "deviation": one.deviation,
        "chosen": one is chosen,
    }
