"""Reports taken apart, and what they are made of."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

from cloister_keyholder.evaluating.evaluation import EvaluationReport
from cloister_keyholder.reporting.document import render
from cloister_keyholder.reporting.sources import Published
from cloister_shared.card import FinalMetrics, ModelCard, RoundMetrics

MADE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
VOID = {"meta", "path", "circle"}


@dataclass
class Page(HTMLParser):
    """The elements, texts, facts and tables of a report."""

    html: str
    tags: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    """Every element with the names of its attributes, in order."""
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    """Element, attribute and value."""
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    """Cells by caption, the heads first."""
    facts: dict[str, str] = field(default_factory=dict)
    style: str = ""
    _open: list[str] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _rows: list[list[str]] = field(default_factory=list)
    _name: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        """All of it that is read, with single blanks."""
        return " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self._open.pop() == tag
        if tag == "table":
            caption, self._rows = self._rows[0][0], self._rows[1:]
            self.tables[caption] = self._rows
            self._rows = []

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            self.style += data
            return
        self._texts.append(data)
        place = self._open[-1] if self._open else ""
        if place == "bdi":
            place = self._open[-2]
        if place == "caption":
            self._rows.append([data])
        elif place in ("th", "td"):
            self._rows[-1][-1] += data
        elif place == "dt":
            self._name = data
        elif place == "dd":
            self.facts[self._name] = data


def page(
    published: Published, evaluated: EvaluationReport | None = None, why_not: str | None = None
) -> Page:
    """Render a report and take it apart."""
    return Page(render(published, evaluated, why_not, MADE).decode())


def with_card(published: Published, **changes: Any) -> Published:
    """Change what the card of a version says."""
    fields = published.card.model_dump() | changes
    return replace(published, card=ModelCard.model_validate(fields))


def rounds_of(count: int, **changes: Any) -> tuple[RoundMetrics, ...]:
    """Make rounds whose model becomes better."""
    fields = {"sites": 3, "failures": 0, "examples": 300, "seconds": 1.5}
    return tuple(
        RoundMetrics.model_validate(
            fields | {"round": i + 1, "accuracy": 1 - 0.5 / (i + 1), "loss": 2 / (i + 1)} | changes
        )
        for i in range(count)
    )


FINAL = FinalMetrics(sites=3, accuracy=0.875, loss=0.25)
