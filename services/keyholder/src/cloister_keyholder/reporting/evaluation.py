"""What a report says of an encrypted evaluation."""

from collections.abc import Sequence

from cloister_keyholder.evaluating.evaluation import EvaluationReport, Milliseconds, Scores
from cloister_keyholder.evaluating.mistakes import FEWEST_FOR_DECILES, Pair
from cloister_keyholder.reporting.parts import Cell, Fact, Matrix, Note, Table
from cloister_keyholder.reporting.text import count, moment, number, shown
from cloister_shared.schema import Label

CLASSES_SHOWN = 20
"""Above which a matrix becomes a list of its largest cells."""
MISTAKES_SHOWN = 20
SHADES = 8

NOT_EVALUATED = (
    "Not evaluated yet: cloister evaluate, or keyholder evaluate, measures it on held-out samples, "
    "encrypted."
)


def verdict(report: EvaluationReport | None, why_not: str | None) -> Note:
    """Say whether encrypted results are those of the same integers in the clear.

    Args:
        report: of this version.
        why_not: what there is in its place.
    """
    if report is None:
        return Note("plain", f"{NOT_EVALUATED} ({why_not})" if why_not else NOT_EVALUATED)
    found = report.agreement
    if found is None:
        why = report.without_reference or "there is no reference"
        return Note("plain", f"Not compared with the clear-quantised results: {why}.")
    told = (
        f"{count(found.equal_predictions)} of {count(found.samples)} predictions, "
        f"{count(found.equal_scores)} of {count(found.samples)} bit by bit."
    )
    if report.differing:
        return Note(
            "bad",
            "The service does not compute what it published. Encrypted equal to clear-quantised: "
            f"{told}",
        )
    return Note("good", f"Encrypted equal to clear-quantised: {told}")


def evaluation_facts(report: EvaluationReport) -> list[Fact]:
    """Return what was sent, and who took part."""
    speed = report.throughput
    return [
        ("Evaluated", moment(report.evaluated_at)),
        ("Held-out samples", f"{count(report.evaluated)} of {count(report.held_out)}, encrypted"),
        ("Client", f"{report.client}: made keys, encrypted and decrypted"),
        (
            "Evaluator",
            f"{report.evaluator}, as the service says" if report.evaluator else "not told",
        ),
        ("Bytes a prediction", f"{count(report.bytes_up)} up, {count(report.bytes_down)} down"),
        (
            "Throughput",
            f"{count(report.evaluated)} predictions in {number(speed.seconds, '.2f')} s: "
            f"{number(speed.predictions_per_second, ',.1f')} a second, in "
            f"{count(speed.requests)} requests",
        ),
    ]


def scores_table(report: EvaluationReport) -> Table:
    """Return how well the three executions predict."""
    # Of all samples it is the same once more, where all were sent.
    everything = report.reference_scores if report.held_out > report.evaluated else None
    rows = [
        (f"{report.score} of {count(one.samples)} samples", *_scores(one))
        for one in (report.scores, everything)
        if one
    ]
    if not report.scores:
        told = number(report.encrypted_score, ".4f")
        rows = [(f"{report.score} of {count(report.evaluated)} samples", "-", "-", told), *rows]
    if report.absolute_errors:
        rows.append(("mean absolute error", *_scores(report.absolute_errors)))
    return Table(
        title="How well it predicts",
        columns=("", "float", "clear quantised", "encrypted"),
        rows=rows,
    )


def latency_table(report: EvaluationReport) -> Table:
    """Return where the time of a prediction goes."""
    times = report.milliseconds
    return Table(
        title="Milliseconds a prediction",
        columns=("", "median", "mean", "95 %", "longest"),
        rows=[
            ("encrypt, with its key", *_times(times.encrypt)),
            ("its request, with others", *_times(times.request)),
            ("of it, evaluated encrypted", *_times(times.server)),
            ("decrypt", *_times(times.decrypt)),
        ],
        remark="A request carries several predictions and counts once for each; many are under "
        "way at a time.",
    )


def deciles_table(report: EvaluationReport) -> Table | Note:
    """Return deciles of a regression's absolute errors, or say why there are none."""
    found = report.error_deciles
    if found is None:
        return Note(
            "plain",
            f"No deciles of errors: they need {FEWEST_FOR_DECILES} samples, and an evaluation by "
            "this release.",
        )
    missing: tuple[None, ...] = (None,) * 9
    columns = (found.float_model or missing, found.clear_quantised or missing, found.encrypted)
    return Table(
        title="Absolute errors",
        columns=("share of the samples", "float", "clear quantised", "encrypted"),
        rows=[
            (f"{10 * tenth} % below", *(number(column[tenth - 1]) for column in columns))
            for tenth in range(1, 10)
        ],
        remark="In the unit of the target.",
    )


def confusions(
    report: EvaluationReport, classes: Sequence[Label]
) -> list[Matrix] | list[Table] | Note:
    """Return what was taken for what, against labels and against the clear-quantised results."""
    found = report.confusion
    if found is None:
        return Note("plain", "No confusion matrix: evaluate again with this release.")
    kinds = [("label", "Encrypted against true labels", found.labels)]
    if found.clear_quantised is not None:
        kinds.insert(
            0, ("clear quantised", "Encrypted against clear-quantised", found.clear_quantised)
        )
    if len(classes) <= CLASSES_SHOWN:
        return [_matrix(title, expected, pairs, classes) for expected, title, pairs in kinds]
    return [_largest(title, expected, pairs, classes) for expected, title, pairs in kinds]


def _matrix(title: str, expected: str, pairs: Sequence[Pair], classes: Sequence[Label]) -> Matrix:
    counts = {(one.expected, one.predicted): one.samples for one in pairs}
    places = range(len(classes))
    rows = []
    for row in places:
        samples = [counts.get((row, column), 0) for column in places]
        total = sum(samples)
        cells = [_cell(one, column == row, total) for column, one in enumerate(samples)]
        rows.append((shown(str(classes[row]), 60), cells, total))
    heads = [shown(str(label), 12) for label in classes]
    upright = len(heads) > 2 and max(map(len, heads)) > 3
    return Matrix(
        title=title,
        expected=expected,
        heads=heads,
        rows=rows,
        remark=_right(pairs),
        large=len(heads) > (8 if upright else 12),
        upright=upright,
    )


def _cell(samples: int, right: bool, total: int) -> Cell:
    shade = -(-SHADES * samples // total) if total else 0
    return Cell(samples, right, shade)


def _largest(title: str, expected: str, pairs: Sequence[Pair], classes: Sequence[Label]) -> Table:
    wrong = [one for one in pairs if one.expected != one.predicted]
    wrong.sort(key=lambda one: -one.samples)
    rows = [
        (str(classes[one.expected]), str(classes[one.predicted]), count(one.samples))
        for one in wrong[:MISTAKES_SHOWN]
    ]
    hidden = len(wrong) - len(rows)
    more = f" The {len(rows)} most frequent pairs are shown, of {len(wrong):,}." if hidden else ""
    return Table(
        title=title,
        columns=(expected, "encrypted", "samples"),
        rows=rows,
        remark=f"{_right(pairs)}{more} {len(classes):,} classes are too many for a matrix.",
    )


def _right(pairs: Sequence[Pair]) -> str:
    right = sum(one.samples for one in pairs if one.expected == one.predicted)
    return f"{count(right)} of {count(sum(one.samples for one in pairs))} samples are the same."


def _scores(scores: Scores) -> tuple[str, str, str]:
    encrypted = scores.encrypted
    return (
        number(scores.float_model, ".4f"),
        number(scores.clear_quantised, ".4f"),
        "not sent" if encrypted is None else number(encrypted, ".4f"),
    )


def _times(values: Milliseconds | None) -> tuple[str, ...]:
    if values is None:
        return ("-",) * 4
    measured = (values.median, values.mean, values.p95, values.maximum)
    return tuple(number(value, ",.2f") for value in measured)
