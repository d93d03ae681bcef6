"""A report in a real browser: on a screen, on a phone, in the dark and on paper."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from playwright.sync_api import Browser
from report_pages import FINAL, MADE, rounds_of, with_card
from test_keyholder_report import HOSTILE, hostile_card

from cloister_keyholder import EncryptedModel
from cloister_keyholder.evaluating.evaluation import EvaluationReport, evaluate
from cloister_keyholder.evaluating.mistakes import Confusion
from cloister_keyholder.evaluating.samples import HeldOut
from cloister_keyholder.reporting.document import render
from cloister_keyholder.reporting.sources import Published, from_registry

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing: install the system's Chromium"
)
Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
Scheme = Literal["light", "dark"]


@pytest.fixture
def published(digits_artifacts: Path) -> Published:
    found = from_registry(digits_artifacts / "artifacts", "digits", None)
    return with_card(found, rounds=rounds_of(5), final=FINAL)


@pytest.fixture
def evaluated(digits: EncryptedModel, digits_data: Data) -> EvaluationReport:
    rows, labels = digits_data[0][:20], digits_data[1][:20]
    return evaluate(digits, HeldOut(digits.card.data, rows, labels), 0)


def brightness(colour: str) -> float:
    """Mean of the channels of ``rgb(...)``, 0 to 255."""
    return float(np.mean([int(one) for one in colour[4:-1].split(",")]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
@pytest.mark.parametrize("hostile", [False, True])
def test_it_fits_its_window_and_sends_nothing(
    browser: Browser,
    published: Published,
    evaluated: EvaluationReport,
    tmp_path: Path,
    scheme: Scheme,
    width: int,
    hostile: bool,
) -> None:
    if hostile:
        published = with_card(published, **hostile_card("".join(HOSTILE[:6]) + HOSTILE[6]))
        confusion = Confusion.of(*[np.array([0, 1, 1])] * 3)
        evaluated = evaluated.model_copy(update={"confusion": confusion})
    file = tmp_path / "report.html"
    file.write_bytes(render(published, evaluated, None, MADE))
    complaints: list[str] = []
    with browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 800}
    ) as context:
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on(
            "request",
            lambda request: (
                complaints.append(request.url) if request.url != file.as_uri() else None
            ),
        )
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        style = "getComputedStyle(document.body)"
        back, text = page.evaluate(f"[{style}.backgroundColor, {style}.color]")
        assert (brightness(back) > brightness(text)) == (scheme == "light")
        assert page.get_by_role("img", name="Accuracy").is_visible()
        for region in page.get_by_role("region").all():
            # What does not fit can be scrolled with the keyboard.
            assert region.get_attribute("tabindex") == "0" or region.locator("h2").count()
        if not hostile:
            matrix = page.get_by_role("table", name="Encrypted against true labels")
            assert matrix.get_by_role("row").count() == 11
    assert complaints == []


@pytest.mark.parametrize("classes", [10, 20])
def test_on_paper_it_is_light_and_nothing_is_cut_off(
    browser: Browser,
    published: Published,
    evaluated: EvaluationReport,
    tmp_path: Path,
    classes: int,
) -> None:
    if classes == 20:
        names = [f"a rather long name of class {i}" for i in range(classes)]
        data = published.card.data.model_dump() | {"classes": names}
        published = with_card(published, data=data)
    file = tmp_path / "report.html"
    file.write_bytes(render(published, evaluated, None, MADE))
    # What A4 leaves between margins of 14 mm, in pixels of 1/96 inch.
    with browser.new_context(
        color_scheme="dark", viewport={"width": 688, "height": 1000}
    ) as context:
        page = context.new_page()
        page.goto(file.as_uri())
        page.emulate_media(media="print")
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert brightness(back) == 255
        for region in page.locator(".wide").all():
            inside, width = region.evaluate("e => [e.scrollWidth, e.clientWidth]")
            assert inside <= width
        pdf = page.pdf(prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
