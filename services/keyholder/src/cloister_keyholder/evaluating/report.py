"""An evaluation for people, as a table, and for programs, as JSON."""

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table

from cloister_keyholder.evaluating.evaluation import EvaluationReport, Milliseconds, Scores
from cloister_shared.files import write_atomically


def render(report: EvaluationReport) -> RenderableType:
    """Return the report as tables for a rich console."""
    parts: list[RenderableType] = [_score_table(report)]
    if report.agreement:
        found = report.agreement
        parts.append(
            f"Encrypted equal to clear-quantised: {found.equal_predictions} of {found.samples} "
            f"predictions, {found.equal_scores} of {found.samples} bit by bit."
        )
    if report.without_reference:
        parts.append(f"Not compared: {report.without_reference}.")
    parts.append(_time_table(report))
    speed = report.throughput
    parts.append(
        f"{report.evaluated:,} predictions in {speed.seconds:.1f} s: "
        f"{speed.predictions_per_second:.1f} a second, in {speed.requests:,} requests.\n"
        f"Each prediction: {report.bytes_up:,} bytes up, {report.bytes_down:,} down, "
        f"by the {report.client} client."
    )
    return Group(*parts)


def write_report(report: EvaluationReport, path: Path) -> None:
    """Write the report as JSON, whole or not at all, with its folder where that is missing.

    Raises:
        OSError: the folder is not writable or the volume is full.
    """
    write_atomically(path, (report.model_dump_json(indent=2) + "\n").encode(), mode=0o600)


def _score_table(report: EvaluationReport) -> Table:
    title = f"{report.model}, version {report.version}: {report.score}"
    table = Table(title=title, title_justify="left")
    for column in ("held-out samples", "float", "clear quantised", "encrypted"):
        table.add_column(column, justify="right")
    if report.scores is None:
        table.add_row(f"{report.evaluated:,}", "-", "-", f"{report.encrypted_score:.4f}")
    for scores in (report.scores, report.reference_scores):
        if scores:
            table.add_row(f"{scores.samples:,}", *_score_cells(scores))
    if report.absolute_errors:
        table.add_row("mean absolute error", *_score_cells(report.absolute_errors))
    return table


def _score_cells(scores: Scores) -> tuple[str, str, str]:
    encrypted = scores.encrypted
    return (
        f"{scores.float_model:.4f}",
        f"{scores.clear_quantised:.4f}",
        "not sent" if encrypted is None else f"{encrypted:.4f}",
    )


def _time_table(report: EvaluationReport) -> Table:
    table = Table(title="milliseconds a prediction", title_justify="left")
    table.add_column("")
    for column in ("median", "mean", "95 %", "longest"):
        table.add_column(column, justify="right")
    times = report.milliseconds
    for name, values in (
        ("encrypt, with its key", times.encrypt),
        ("its request, with others", times.request),
        ("  evaluated encrypted", times.server),
        ("decrypt", times.decrypt),
    ):
        table.add_row(name, *_time_cells(values))
    return table


def _time_cells(values: Milliseconds | None) -> tuple[str, ...]:
    if values is None:
        return ("-",) * 4
    return tuple(
        f"{value:.2f}" for value in (values.median, values.mean, values.p95, values.maximum)
    )
