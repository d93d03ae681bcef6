"""What a tuning came to: a table for people, JSON, a plot, and files to train and compile with."""

import json
import logging
import math
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from cloister_shared.files import write_atomically
from cloister_shared.probes import TOLERANCE
from cloister_shared.samples import SCHEMA
from cloister_trainer.local.report import output, score_name, told_score
from cloister_trainer.tuning.front import within
from cloister_trainer.tuning.scoring import Scored, pooled
from cloister_trainer.tuning.settings import Settings
from cloister_trainer.tuning.tuning import Tuned

SETTINGS = "settings.env"
FRONT = "front.json"
PLOT = "front.svg"
MARGIN = 1.25
"""A training on all rows has other weights than the one whose agreement was measured."""
SHOWN = 0.03
"""Loss of accuracy, or share of the error, up to which a choice is in the table."""

log = logging.getLogger(__name__)


def chosen_settings(tuned: Tuned, settings: Settings) -> dict[str, str]:
    """Return the settings of trainer and compiler that make the chosen model, by their names."""
    choice = tuned.chosen.choice
    tolerance = max(TOLERANCE, math.ceil(100 * MARGIN * tuned.agreement.share) / 100)
    found = {
        "CLOISTER_ESTIMATOR": settings.estimator,
        "CLOISTER_ESTIMATOR_PARAMETERS": json.dumps(
            settings.estimator_parameters | choice.parameters
        ),
        "CLOISTER_STANDARDISE": str(settings.standardise).lower(),
        "CLOISTER_PRUNE": str(choice.prune),
        "CLOISTER_BITS_INPUTS": str(choice.bits_inputs),
        "CLOISTER_BITS_WEIGHTS": str(choice.bits_weights),
        "CLOISTER_TOLERANCE": str(min(tolerance, 1.0)),
    }
    schema = str((settings.tuned_dir / SCHEMA).resolve())
    return found | {"CLOISTER_SCHEMA_PATH": schema, "CLOISTER_SCHEMA_FILE": schema}


def write_files(tuned: Tuned, settings: Settings) -> None:
    """Write the chosen settings and schema, the front as JSON, and where it can be made a plot.

    Raises:
        OSError: the folder is full or not writable.
    """
    folder = settings.tuned_dir
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{name}={shlex.quote(value)}\n" for name, value in chosen_settings(tuned, settings).items()
    ]
    write_atomically(folder / SETTINGS, "".join(lines).encode())
    schema = pooled(tuned.data, tuned.chosen.choice.pool)
    text = schema.model_dump_json(indent=2, exclude_defaults=True) + "\n"
    write_atomically(folder / SCHEMA, text.encode())
    write_atomically(folder / FRONT, (json.dumps(summary(tuned), indent=2) + "\n").encode())
    _plot(tuned, folder / PLOT)


def print_report(tuned: Tuned, settings: Settings, *, as_json: bool) -> None:
    """Print the front on standard output."""
    if as_json:
        sys.stdout.write(json.dumps(summary(tuned), indent=2) + "\n")
        return
    worth_showing = within(tuned.front, tuned.data, SHOWN)
    console = output()
    console.print(_table(tuned, worth_showing))
    if hidden := len(tuned.front) - len(worth_showing):
        console.print(f"{hidden} cheaper ones that predict far worse are in {FRONT}")
    share = tuned.chosen.cost.client_ms / tuned.default.cost.client_ms
    console.print(
        f"chosen: {share:.2f} of the untuned model's time to encrypt a row; settings and schema "
        f"are in {settings.tuned_dir}",
        highlight=False,
        soft_wrap=True,
    )


def _table(tuned: Tuned, worth_showing: list[Scored]) -> Table:
    title = score_name(tuned.data)
    table = Table(title=f"{title}, over the folds, and the cost of a prediction")
    for column in ("parameters", "pool", "pruned", "bits in, weights"):
        table.add_column(column)
    for column in (title, "+-", "inputs", "n", "bytes up", "down", "encrypt ms", "evaluate ms"):
        table.add_column(column, justify="right")
    table.add_column("")
    shown = [(one, "chosen" * (one is tuned.chosen)) for one in worth_showing]
    for one, note in [*shown, (tuned.default, "untuned")]:
        choice, cost = one.choice, one.cost
        table.add_row(
            json.dumps(choice.parameters) if choice.parameters else "",
            str(choice.pool),
            f"{choice.prune:g}",
            f"{choice.bits_inputs}, {choice.bits_weights}",
            told_score(one.score, tuned.data),
            told_score(one.deviation, tuned.data),
            f"{cost.features:.0f}",
            f"{cost.dimension:.0f}",
            f"{cost.bytes_up:,.0f}",
            f"{cost.bytes_down:,.0f}",
            f"{cost.client_ms:.2f}",
            f"{cost.server_ms:.3f}",
            note,
        )
    return table


def summary(tuned: Tuned) -> dict[str, Any]:
    """Return the front, the chosen and the untuned model as plain values."""
    return {
        "score": score_name(tuned.data),
        "front": [_plain(one) for one in tuned.front],
        "chosen": _plain(tuned.chosen),
        "untuned": _plain(tuned.default),
        "scored": len(tuned.scored),
    }


def _plain(one: Scored) -> dict[str, Any]:
    return {
        **asdict(one.choice),
        "score": one.score,
        "deviation": one.deviation,
        "cost": asdict(one.cost),
    }


def _plot(tuned: Tuned, path: Path) -> None:
    try:
        # Large, and not needed where nobody looks at plots.
        import matplotlib as mpl  # noqa: PLC0415
    except ModuleNotFoundError:
        log.info("matplotlib is not installed: there is no plot")
        return
    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(8, 5))
    for some, style in ((tuned.scored, "."), (tuned.front, "o-")):
        axes.plot([one.cost.client_ms for one in some], [one.score for one in some], style)
    for one, label in ((tuned.chosen, "chosen"), (tuned.default, "untuned")):
        axes.annotate(label, (one.cost.client_ms, one.score))
    axes.set_xlabel("milliseconds to encrypt a row, estimated")
    axes.set_ylabel(score_name(tuned.data))
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)
