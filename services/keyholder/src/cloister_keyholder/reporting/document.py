"""The report as one HTML file, which loads nothing and runs nothing."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cloister_keyholder.evaluating.evaluation import EvaluationReport
from cloister_keyholder.reporting import about, charts, compilation, evaluation, training
from cloister_keyholder.reporting.parts import Figure, Matrix, Note, Table
from cloister_keyholder.reporting.sources import Published
from cloister_keyholder.reporting.text import moment, number, shown, yes_no

PACKAGE = "cloister_keyholder.reporting"
LIBRARIES_SHOWN = 40


def render(
    published: Published, evaluated: EvaluationReport | None, why_not: str | None, made: datetime
) -> bytes:
    """Return the report as HTML in UTF-8.

    Every text in it is escaped, without exception but for the style sheet of this package.

    Args:
        published: what was trained and compiled.
        evaluated: its evaluation; None where there is none.
        why_not: what there is in place of an evaluation, where it is not of this version.
        made: when the report is made.
    """
    page = _environment()
    style = (files(PACKAGE) / "templates" / "report.css").read_text()
    text = page.get_template("report.html").render(
        # Part of this package, and the policy names its digest: escaped it would be another.
        style=Markup(style),  # noqa: S704
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        dates=_dates(published, evaluated, made),
        **_content(published, evaluated, why_not),
    )
    return text.encode()


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(PACKAGE),
        autoescape=True,
        finalize=_laid_out,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _laid_out(value: Any) -> Any:
    """Shorten every text, but for what is markup already, and keep it on its line."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _content(
    published: Published, evaluated: EvaluationReport | None, why_not: str | None
) -> dict[str, Any]:
    card = published.card
    return {
        "name": published.name,
        "version": published.version,
        "estimator": card.estimator,
        "task": card.data.task,
        "dataset": card.data.dataset,
        "verdict": evaluation.verdict(evaluated, why_not),
        "figures": _figures(published, evaluated),
        "model_facts": about.model_facts(published),
        "schema_facts": about.schema_facts(card.data, card.out_of_bounds),
        "features": about.features(card.data),
        "training_facts": training.training_facts(card),
        "training_note": training.training_note(card),
        "charts": training.training_charts(card),
        "rounds": training.rounds_table(card),
        "compilation_facts": compilation.compilation_facts(published),
        "compilation_note": None if published.details else compilation.NOT_TOLD,
        "evaluation": evaluated and _evaluation(evaluated, published),
        "libraries": _libraries(published, evaluated),
        "size": {
            "width": charts.WIDTH,
            "height": charts.HEIGHT,
            "left": charts.LEFT,
            "right": charts.RIGHT,
            "top": charts.TOP,
            "bottom": charts.BOTTOM,
        },
    }


def _dates(published: Published, evaluated: EvaluationReport | None, made: datetime) -> str:
    told = [("Trained", published.card.created), ("compiled", published.compiled)]
    told += [("evaluated", evaluated.evaluated_at if evaluated else None), ("reported", made)]
    return f"{', '.join(f'{name} {moment(when)}' for name, when in told if when)}."


def _evaluation(evaluated: EvaluationReport, published: Published) -> dict[str, Any]:
    data = published.card.data
    if data.task == "regression":
        mistakes: list[Any] = [evaluation.deciles_table(evaluated)]
    else:
        found = evaluation.confusions(evaluated, data.classes)
        mistakes = [found] if isinstance(found, Note) else list(found)
    return {
        "facts": evaluation.evaluation_facts(evaluated),
        "scores": evaluation.scores_table(evaluated),
        "matrices": [one for one in mistakes if isinstance(one, Matrix)],
        "tables": [one for one in mistakes if isinstance(one, Table)],
        "notes": [one for one in mistakes if isinstance(one, Note)],
        "latency": evaluation.latency_table(evaluated),
    }


def _figures(published: Published, evaluated: EvaluationReport | None) -> list[Figure]:
    spent, meaning = training.privacy_spent(published.card)
    federation = published.card.federation
    hidden = bool(federation and federation.secure_aggregation)
    privacy = [
        Figure("Epsilon spent", spent, meaning),
        Figure(
            "Secure aggregation",
            yes_no(hidden),
            "the server saw sums of updates only" if hidden else "",
        ),
    ]
    if evaluated is None:
        return [Figure("Encrypted evaluation", "not yet"), *privacy]
    scores, agreement = evaluated.scores, evaluated.agreement
    found = [
        Figure(
            f"Encrypted {evaluated.score}",
            number(evaluated.encrypted_score, ".4f"),
            f"as floats {number(scores.float_model, '.4f')}" if scores else "",
        )
    ]
    if evaluated.absolute_errors:
        errors = evaluated.absolute_errors
        found.append(
            Figure(
                "Mean absolute error",
                number(errors.encrypted),
                f"as floats {number(errors.float_model)}",
            )
        )
    if agreement:
        found.append(
            Figure(
                "Equal bit by bit",
                f"{agreement.equal_scores:,} of {agreement.samples:,}",
                "encrypted and clear-quantised",
            )
        )
    return [*found, *privacy]


def _libraries(published: Published, evaluated: EvaluationReport | None) -> Table:
    compiled: Mapping[str, str] = published.details.libraries if published.details else {}
    columns = (published.card.libraries, compiled, evaluated.libraries if evaluated else {})
    names = sorted(set().union(*columns))[:LIBRARIES_SHOWN]
    return Table(
        title="Versions",
        columns=("library", "training", "compilation", "evaluation"),
        rows=[(name, *(one.get(name, "-") for one in columns)) for name in names],
        remark="" if names else "None are told.",
    )
