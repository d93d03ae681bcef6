"""An evaluation for people, as a table, and for programs, as JSON."""

from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table

from cloister_keyholder.evaluation import Accuracies, EvaluationReport, Milliseconds
from cloister_shared.files import write_atomically


def render(report: EvaluationReport) -> RenderableType:
    """Return the report as tables for a rich console."""
    parts: list[RenderableType] = [_accuracy_table(report)]
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
        f"Each prediction: {report.bytes_up:,} bytes up, {report.bytes_down:,} down."
    )
    return Group(*parts)


def write_report(report: EvaluationReport, path: Path) -> None:
    """Write the report as JSON, whole or not at all, with its folder where that is missing.

    Raises:
        OSError: the folder is not writable or the volume is full.
    """
    write_atomically(path, (report.model_dump_json(indent=2) + "\n").encode(), mode=0o600)


def _accuracy_table(report: EvaluationReport) -> Table:
    table = Table(title=f"{report.model}, version {report.version}: accuracy", title_justify="left")
    for column in ("held-out samples", "float", "clear quantised", "encrypted"):
        table.add_column(column, justify="right")
    if report.accuracies is None:
        table.add_row(f"{report.evaluated:,}", "-", "-", f"{report.encrypted_accuracy:.4f}")
    for accuracies in (report.accuracies, report.reference_accuracies):
        if accuracies:
            table.add_row(*_accuracy_cells(accuracies))
    return table


def _accuracy_cells(accuracies: Accuracies) -> tuple[str, str, str, str]:
    encrypted = accuracies.encrypted
    return (
        f"{accuracies.samples:,}",
        f"{accuracies.float_model:.4f}",
        f"{accuracies.clear_quantised:.4f}",
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
