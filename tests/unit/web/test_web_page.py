"""The page in a browser: a digit is drawn, and what it reads is the Python SDK's answer."""

import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from cloister_keyholder import EncryptedModel

WEB = Path(__file__).parents[3] / "services" / "keyholder" / "web"
CHROMIUM = Path("/usr/bin/chromium")

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing: install the system's Chromium"
)
Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and logs nothing."""

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - http.server's
        """Say nothing."""


@pytest.fixture(scope="module")
def page_url(page_port: int) -> Iterator[str]:
    """Of the page as any server of static files serves it."""
    handler = partial(Quiet, directory=str(WEB))
    with ThreadingHTTPServer(("127.0.0.1", page_port), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{page_port}/demo/"
        server.shutdown()


class Visit:
    """A page that is open, with what it complained of and sent."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[tuple[str, str, bytes | None]] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "request",
            lambda sent: self.requests.append((sent.method, sent.url, sent.post_data_buffer)),
        )

    def open(self, url: str, model: str) -> None:
        self.page.fill("#url", url)
        self.page.fill("#model", model)
        self.page.click("#service button")
        self.page.wait_for_selector("#query:not([hidden]), #status.error")

    def ask(self) -> str:
        """Return the answer that is shown."""
        self.page.click("#ask")
        self.page.wait_for_selector("#answer:not(:empty), #status.error")
        return self.page.text_content("#answer") or self.said

    @property
    def said(self) -> str:
        return self.page.text_content("#status") or ""


@pytest.fixture
def visit(browser: Browser, page_url: str) -> Iterator[Visit]:
    page = browser.new_page()
    visit = Visit(page)
    page.goto(page_url)
    yield visit
    page.close()


def draw(page: Page, strokes: list[list[tuple[float, float]]]) -> None:
    """Draw lines through points whose coordinates are in parts of the canvas."""
    box = page.locator("#drawing").bounding_box()
    assert box is not None
    for stroke in strokes:
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=8)
        page.mouse.up()


DIGITS = {
    "0": [[(0.5, 0.12), (0.3, 0.3), (0.3, 0.7), (0.5, 0.88), (0.7, 0.7), (0.7, 0.3), (0.5, 0.12)]],
    "1": [[(0.4, 0.25), (0.55, 0.12), (0.55, 0.9)]],
    "4": [[(0.5, 0.1), (0.25, 0.55), (0.75, 0.55)], [(0.58, 0.35), (0.58, 0.9)]],
    "7": [[(0.3, 0.14), (0.7, 0.14), (0.45, 0.88)], [(0.35, 0.5), (0.65, 0.5)]],
}


@pytest.mark.parametrize("digit", DIGITS)
def test_a_drawn_digit_is_read_as_the_sdk_reads_it(visit: Visit, url: str, digit: str) -> None:
    visit.open(url, "digits")
    draw(visit.page, DIGITS[digit])
    answer = visit.ask()
    # What is on the canvas, averaged as the page does it.
    side, height = 8, 8
    dots = visit.page.evaluate(
        """() => {
            const canvas = document.querySelector('#drawing');
            const { width, height } = canvas;
            const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
            return [width, [...data.filter((_, index) => index % 4 === 0)]];
        }"""
    )
    image = np.array(dots[1], dtype=np.float64).reshape(side, dots[0] // side, height, -1)
    row = 16 * (image.sum(axis=(1, 3)) / (255 * (dots[0] // side) ** 2)).ravel()
    assert row.any()
    with EncryptedModel(url, "digits") as model:
        assert answer == str(model.predict([row])[0])
        shares = [f"{100 * share:.1f} %" for share in model.predict_proba([row])[0]]
    shown = visit.page.locator("#probabilities li").all_text_contents()
    assert shown == [f"{label}{share}" for label, share in enumerate(shares)]
    assert visit.complaints == []


def test_what_it_sends_is_a_ciphertext_and_nothing_comes_after_the_answer(
    visit: Visit, url: str
) -> None:
    visit.open(url, "digits")
    draw(visit.page, DIGITS["4"])
    visit.ask()
    visit.page.wait_for_timeout(300)
    sent = [one for one in visit.requests if one[1].startswith(url)]
    assert [(method, path.removeprefix(url)) for method, path, _ in sent] == [
        ("GET", "/v2/models/digits"),
        ("GET", "/v2/models/digits/versions/1/client"),
        ("POST", "/v2/models/digits/versions/1/infer"),
    ]
    body = sent[-1][2]
    assert body is not None
    described = httpx.get(f"{url}/v2/models/digits").raise_for_status().json()
    assert len(body) == described["parameters"]["input_bytes"]
    # Nothing but the page itself and the service is asked for anything.
    page = visit.page.url.removesuffix("demo/")
    assert all(path.startswith((url, page, "data:")) for _, path, _ in visit.requests)


def test_a_table_is_entered_in_fields(visit: Visit, url: str, breast_cancer_data: Data) -> None:
    visit.open(url, "breast_cancer")
    row = breast_cancer_data[0][3]
    fields = visit.page.locator("#fields input").all()
    for field, value in zip(fields, row.tolist(), strict=True):
        field.fill(repr(value))
    with EncryptedModel(url, "breast_cancer") as model:
        assert visit.ask() == str(model.predict([row])[0])
    fields[0].fill("12,5")
    assert "the value is not finite, or no number; it must be a number in" in visit.ask()
    assert visit.complaints == []


def test_categories_are_chosen_and_gaps_left(visit: Visit, url: str) -> None:
    visit.open(url, "visits")
    visit.page.select_option("select[name=ward]", "7")
    visit.page.fill("input[name=dose]", "-1")
    with EncryptedModel(url, "visits") as model:
        assert visit.ask() == str(model.predict([["", 7, -1, "f"]])[0])


def test_it_says_what_is_wrong(visit: Visit, url: str) -> None:
    visit.open(url, "no-such-model")
    assert "the service refused the request (404)" in visit.said
    visit.open("http://127.0.0.1:9", "digits")
    assert "CLOISTER_CORS_ORIGINS" in visit.said


def test_its_policy_allows_no_other_script_and_no_other_service(visit: Visit) -> None:
    injected = """async () => {
        const script = document.createElement('script');
        let trusted = true;
        try { script.textContent = 'window.injected = 1'; } catch { trusted = false; }
        document.head.append(script);
        let reached = true;
        try { await fetch('http://192.0.2.1/'); } catch { reached = false; }
        return { trusted, ran: 'injected' in window, reached };
    }"""
    assert visit.page.evaluate(injected) == {"trusted": False, "ran": False, "reached": False}
    said = json.dumps(visit.complaints)
    assert "connect-src" in said
    assert "TrustedScript" in said
