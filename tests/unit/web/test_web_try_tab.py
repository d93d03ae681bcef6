"""The console's tab "Try it" in a browser: what it reads is the SDK's answer."""

import csv
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route

from cloister_cli.processes import Processes, free_ports
from cloister_inference.access.credentials import ApiKeyStore
from cloister_keyholder import EncryptedModel

ROOT = Path(__file__).parents[3]
CHROMIUM = Path("/usr/bin/chromium")
SCREENSHOTS = Path(os.environ.get("TEST_ARTIFACTS", ROOT / "tests" / "artifacts")) / "try"
"""Folder for pictures of what the tests saw."""
SEVEN = [[(0.3, 0.14), (0.7, 0.14), (0.45, 0.88)], [(0.35, 0.5), (0.65, 0.5)]]
Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing: install the system's Chromium"
)


@dataclass
class Stack:
    """Addresses of what runs, and of consoles whose services do not."""

    service: str
    keyholder: str
    console: str
    without_service: str
    without_keyholder: str
    with_api_keys: str
    api_key: str


@pytest.fixture(scope="module")
def stack(
    web_artifacts: Path, tree_artifacts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("try")
    artifacts = folder / "artifacts"
    for source in (web_artifacts, tree_artifacts / "artifacts"):
        shutil.copytree(source, artifacts, dirs_exist_ok=True)
    api_key = ApiKeyStore(folder / "api-keys").create("page", None)
    ports = free_ports(8)
    service, keyed, keyholder, nobody, *consoles = (f"http://127.0.0.1:{port}" for port in ports)
    with Processes(folder, {}) as processes:

        def serve(name: str, port: int, **settings: Any) -> None:
            processes.start(
                name,
                "cloister_inference",
                port=port,
                artifacts_dir=artifacts,
                keys_dir=folder / f"{name}-keys",
                metrics_port=0,
                drain_seconds=0,
                cors_origins=",".join(consoles),
                **settings,
            ).wait_healthy(f"http://127.0.0.1:{port}/v2/health/ready", 120)

        def show(port: int, url: str, keyholder_url: str) -> None:
            processes.start(
                f"console-{port}",
                "cloister_console",
                port=port,
                url=url,
                keyholder_url=keyholder_url,
                events_dir=folder,
            ).wait_healthy(f"http://127.0.0.1:{port}/health", 60)

        serve("open", ports[0])
        serve("keyed", ports[1], api_keys_path=folder / "api-keys")
        processes.start(
            "keyholder",
            "cloister_keyholder",
            "serve",
            port=ports[2],
            url=service,
            key_store_dir=folder / "query-keys",
            console_origins=consoles[0],
        ).wait_healthy(f"{keyholder}/health", 60)
        show(ports[4], service, keyholder)
        show(ports[5], nobody, keyholder)
        show(ports[6], service, nobody)
        show(ports[7], keyed, nobody)
        yield Stack(
            service=service,
            keyholder=keyholder,
            console=consoles[0],
            without_service=consoles[1],
            without_keyholder=consoles[2],
            with_api_keys=consoles[3],
            api_key=api_key,
        )


class Tab:
    """The tab in a page, with what the page complained of and sent."""

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

    def choose(self, model: str) -> None:
        self.page.wait_for_selector("#try-model:enabled")
        self.page.wait_for_selector("#ask, .state.error")
        self.page.select_option("#try-model", model)
        self.page.wait_for_function(
            """model => {
                const about = document.querySelector('.about').textContent;
                const isOpen = document.querySelector('#ask') && about.startsWith('Version');
                return isOpen || document.querySelector('.state.error');
            }""",
            arg=model,
        )

    def ask(self) -> str:
        """Return the answer that is shown, or what is said instead."""
        self.page.evaluate("document.querySelector('.results').replaceChildren()")
        self.page.click("#ask")
        self.page.wait_for_selector("#predicted, .results .state.error", timeout=120_000)
        shown = self.page.locator("#predicted")
        return (shown if shown.count() else self.page.locator(".results")).inner_text()

    def paste(self, row: Any) -> None:
        text = io.StringIO()
        csv.writer(text).writerow(row)
        if not self.page.is_visible("#pasted"):
            self.page.click("summary")
        self.page.fill("#pasted", text.getvalue())
        self.page.click("text=Use this row")

    def draw(self, strokes: list[list[tuple[float, float]]]) -> None:
        """Draw lines through points whose coordinates are in parts of the canvas."""
        box = self.page.locator("#drawing").bounding_box()
        assert box is not None
        for stroke in strokes:
            points = [
                (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke
            ]
            self.page.mouse.move(*points[0])
            self.page.mouse.down()
            for point in points[1:]:
                self.page.mouse.move(*point, steps=8)
            self.page.mouse.up()

    def bars(self) -> list[str]:
        return [bar.strip() for bar in self.page.locator(".bars .number").all_inner_texts()]

    def picture(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    @property
    def text(self) -> str:
        return self.page.inner_text("#panel-try")


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Tab]]:
    pages: list[Page] = []

    def open_(url: str, **options: Any) -> Tab:
        page = browser.new_page(**options)
        pages.append(page)
        tab = Tab(page)
        page.goto(f"{url}/#try")
        return tab

    yield open_
    for page in pages:
        page.close()


@pytest.fixture
def tab(visit: Callable[..., Tab], stack: Stack) -> Tab:
    return visit(stack.console)


def percent(shares: Any) -> list[str]:
    return [f"{100 * share:.1f} %" for share in shares]


def drawn(page: Page, side: int) -> Any:
    """The row of digits that is on the canvas, averaged as the page does it."""
    width, dots = page.evaluate(
        """() => {
            const canvas = document.querySelector('#drawing');
            const { width, height } = canvas;
            const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
            return [width, [...data.filter((_, index) => index % 4 === 0)]];
        }"""
    )
    image = np.array(dots, dtype=np.float64).reshape(side, width // side, side, -1)
    return 16 * (image.sum(axis=(1, 3)) / (255 * (width // side) ** 2)).ravel()


def test_a_drawn_digit_is_read_as_the_sdk_reads_it(tab: Tab, stack: Stack) -> None:
    tab.choose("digits")
    tab.draw(SEVEN)
    answer = tab.ask()
    row = drawn(tab.page, 8)
    assert row.any()
    with EncryptedModel(stack.service, "digits") as model:
        assert answer == str(model.predict([row])[0])
        assert tab.bars() == percent(model.predict_proba([row])[0])
    assert "equal, bit by bit: yes" in tab.text
    assert tab.complaints == []
    tab.picture("digit")


def test_it_shows_what_the_server_received(tab: Tab, stack: Stack) -> None:
    tab.choose("digits")
    tab.draw(SEVEN)
    tab.ask()
    described = httpx.get(f"{stack.service}/v2/models/digits").raise_for_status().json()
    bytes_up = described["parameters"]["input_bytes"]
    (sent,) = [body for method, path, body in tab.requests if path.endswith("/infer")]
    assert sent is not None
    assert len(sent) == bytes_up
    assert f"{bytes_up:,} bytes" in tab.text
    assert f"{described['parameters']['output_bytes']:,} bytes" in tab.text
    pixels = tab.page.evaluate(
        """() => {
            const canvas = document.querySelector('#ciphertext');
            const { width, height } = canvas;
            const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
            return [...data.filter((_, index) => index % 4 === 0)];
        }"""
    )
    assert bytes(pixels[:bytes_up]) == sent
    first = tab.page.inner_text(".digest code")
    tab.page.click("#again")
    tab.page.wait_for_selector("#differing")
    digests = tab.page.locator(".digest code").all_inner_texts()
    assert digests[1] == first != digests[0]
    differing = re.match(r"[0-9,]+", tab.page.inner_text("#differing"))
    assert differing is not None
    assert int(differing[0].replace(",", "")) > 0.75 * bytes_up
    # Another row is not told to be the same one.
    tab.page.click("text=Clear")
    tab.ask()
    assert tab.page.locator("#differing").count() == 0


def test_the_time_is_told_by_its_parts(tab: Tab) -> None:
    tab.choose("digits")
    tab.ask()
    names = tab.page.locator("#times th").all_inner_texts()
    assert names == ["encrypt", "network and queue", "evaluate", "decrypt", "together"]
    *parts, total = (
        float(one.removesuffix(" ms").replace(",", ""))
        for one in tab.page.locator("#times .number").all_inner_texts()
    )
    assert all(part >= 0 for part in parts)
    # Each is rounded by itself.
    assert total == pytest.approx(sum(parts), rel=0.02, abs=0.1)


def test_by_keyboard_alone_a_digit_is_drawn_and_asked(tab: Tab, stack: Stack) -> None:
    tab.choose("digits")
    tab.page.focus("#try-model")
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.id") == "drawing"
    for key in ["ArrowUp"] * 4 + [" "] + ["ArrowDown"] * 7 + [" "]:
        tab.page.keyboard.press(key)
    assert "Row 8, column 5, pen up" in tab.page.inner_text(".image [role=status]")
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.id") == "ask"
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("#predicted")
    row = drawn(tab.page, 8)
    assert row.reshape(8, 8)[:, 4].min() > 4
    with EncryptedModel(stack.service, "digits") as model:
        assert tab.page.inner_text("#predicted") == str(model.predict([row])[0])
    assert tab.page.evaluate("document.activeElement.id") == "ask"
    assert tab.page.inner_text("#try-status").startswith("Answered: ")


def test_a_pasted_image_goes_as_it_is(tab: Tab, stack: Stack, digits_data: Data) -> None:
    tab.choose("digits")
    with EncryptedModel(stack.service, "digits") as model:
        for row in digits_data[0][[0, 13, 700]]:
            tab.paste(row.tolist())
            assert tab.ask() == str(model.predict([row])[0])
            assert tab.bars() == percent(model.predict_proba([row])[0])
    # A canvas would have made white of it.
    tab.paste([17, *digits_data[0][0].tolist()[1:]])
    assert "the value is outside its declared bounds" in tab.ask()


def test_a_table_is_asked_and_a_refused_value_is_shown(
    tab: Tab, stack: Stack, breast_cancer_data: Data
) -> None:
    tab.choose("breast_cancer")
    row = breast_cancer_data[0][3].tolist()
    fields = tab.page.locator(".fields input")
    for index, value in enumerate(row):
        fields.nth(index).fill(repr(value))
    with EncryptedModel(stack.service, "breast_cancer") as model:
        assert tab.ask() == str(model.predict([row])[0])
        assert tab.bars() == percent(model.predict_proba([row])[0])
    fields.nth(2).fill("100000")
    asked = len(tab.requests)
    assert "feature mean perimeter: the value is outside its declared bounds" in tab.ask()
    assert "Nothing was sent." in tab.text
    assert len(tab.requests) == asked
    assert fields.nth(2).get_attribute("aria-invalid") == "true"
    assert tab.page.evaluate("document.activeElement.name") == "mean perimeter"
    tab.picture("refused")


def test_categories_gaps_and_examples(tab: Tab, stack: Stack) -> None:
    tab.choose("visits")
    tab.page.select_option("select[name=ward]", "7")
    tab.page.fill("input[name=dose]", "-1")
    tab.page.select_option("select[name=sex]", "(none of these)")
    with EncryptedModel(stack.service, "visits") as model:
        assert tab.ask() == str(model.predict([["", 7, -1, "other"]])[0])
        tab.page.click("summary")
        tab.page.click("text=Middle of the bounds")
        assert tab.ask() == str(model.predict([[55, "north", 0.5, "f"]])[0])
        for _ in range(5):
            tab.page.click("text=Random within the bounds")
            values = tab.page.locator(".fields").locator("input, select")
            row = [values.nth(index).input_value() for index in range(4)]
            assert tab.ask() == str(model.predict([row])[0])
    assert tab.complaints == []


@pytest.mark.parametrize(
    "text",
    [
        'sex,note,dose,age,ward\nf,"a, ""b""",-1,30,7.0\n',
        "sex\tnote\tdose\tage\tward\nf\tx\t-1\t30\t7\n",
        "30,7,-1,f",
    ],
)
def test_a_pasted_row_may_have_names_over_it(tab: Tab, stack: Stack, text: str) -> None:
    tab.choose("visits")
    tab.page.click("summary")
    tab.page.fill("#pasted", text)
    tab.page.click("text=Use this row")
    with EncryptedModel(stack.service, "visits") as model:
        assert tab.ask() == str(model.predict([[30, 7, -1, "f"]])[0])


def test_a_pasted_row_that_does_not_fit_is_said(tab: Tab) -> None:
    tab.choose("visits")
    tab.paste([1, 2, 3])
    assert "has 4 values, and 3 were pasted" in tab.page.inner_text(".wrong")


def test_a_regression_is_a_value_in_its_range(tab: Tab, stack: Stack) -> None:
    tab.choose("costs")
    row = [9.5, 1.25, 8.0, 0.5]
    tab.paste(row)
    with EncryptedModel(stack.service, "costs") as model:
        value = float(model.predict([row])[0])
    assert float(tab.ask().replace(",", "")) == pytest.approx(value, rel=1e-5)
    ends = tab.page.inner_text(".range-ends")
    assert ends.split("\n")[0] == "0"
    assert "1,000" in ends
    assert ("outside of the declared range" in ends) == (not 0 <= value <= 1000)
    tab.picture("regression")


def test_a_tree_is_asked_through_the_key_holder(tab: Tab, stack: Stack, tree_data: Data) -> None:
    tab.choose("tree")
    tab.paste(tree_data[0][140].tolist())
    tab.page.evaluate(
        """() => {
            window.said = [];
            new MutationObserver(() => {
                window.said.push(document.querySelector('#try-status').textContent);
            }).observe(document.querySelector('#try-status'), { childList: true });
        }"""
    )
    assert tab.ask() == "virginica"
    said = " ".join(tab.page.evaluate("window.said"))
    assert "Keys are being made" in said or "evaluation keys go to the service" in said
    assert "keys and waiting" in tab.page.inner_text("#times")
    assert "equal, bit by bit: yes" in tab.text
    asked = {path for method, path, _ in tab.requests if method == "POST"}
    assert asked == {
        f"{stack.service}/v2/repository/index",
        f"{stack.keyholder}/v1/models/tree/predict",
    }
    assert not any(path.endswith("/infer") for _, path, _ in tab.requests)
    tab.paste([*tree_data[0][140].tolist()[:3], 30])
    assert "feature petal width: the value is" in tab.ask()
    tab.picture("tree")


def test_without_a_key_holder_a_tree_says_how_to_start_it(
    visit: Callable[..., Tab], stack: Stack
) -> None:
    tab = visit(stack.without_keyholder)
    tab.choose("tree")
    assert "keyholder serve" in tab.text
    tab.picture("without-keyholder")
    tab.choose("digits")
    assert tab.ask().isdecimal()


def test_without_a_service_it_says_so_and_tries_again(
    visit: Callable[..., Tab], stack: Stack
) -> None:
    tab = visit(stack.without_service)
    tab.page.wait_for_selector(".state.error")
    assert "The inference service is not available" in tab.text
    tab.picture("without-service")
    tried = sum(path.endswith("/v2/repository/index") for _, path, _ in tab.requests)
    tab.page.click("text=Try again")
    tab.page.wait_for_selector(".state.error")
    assert sum(path.endswith("/v2/repository/index") for _, path, _ in tab.requests) == tried + 1


def test_what_was_asked_stays_until_another_version_serves(tab: Tab, stack: Stack) -> None:
    tab.choose("digits")
    tab.draw(SEVEN)
    assert tab.ask() == "7"
    for name in ("parties", "try"):
        tab.page.click(f"#tab-{name}")
    tab.page.wait_for_load_state("networkidle")
    assert tab.page.inner_text("#predicted") == "7"

    def describe_another(route: Route) -> None:
        answer = route.fetch()
        described = answer.json()
        described["parameters"]["version"] = "2"
        route.fulfill(response=answer, json=described)

    # Which it then asks for, and which is not there.
    tab.page.route("**/v2/models/digits", describe_another)
    for name in ("parties", "try"):
        tab.page.click(f"#tab-{name}")
    tab.page.wait_for_selector(".state.error")
    assert "There is no such model" in tab.text
    tab.page.unroute("**/v2/models/digits")
    tab.page.click("text=Try again")
    tab.page.wait_for_selector("#ask")
    assert tab.page.locator("#predicted").count() == 0


def test_without_a_model_it_waits_for_one(tab: Tab, stack: Stack) -> None:
    tab.page.wait_for_selector("#ask, .state.error")
    tab.page.route("**/v2/repository/index", lambda route: route.fulfill(json=[]))
    tab.page.reload()
    tab.page.wait_for_selector(".state.empty")
    assert "No model is served yet" in tab.text
    tab.picture("no-model")
    tab.page.unroute("**/v2/repository/index")
    tab.page.click("text=Look again")
    tab.page.wait_for_selector("#ask, .state.error")
    assert tab.page.locator("#try-model option").count() == 6


@pytest.mark.parametrize(
    ("status", "why"),
    [(409, "encrypted for another client.zip"), (422, "no good"), (503, "the queue is full")],
)
def test_a_refused_query_is_shown(tab: Tab, status: int, why: str) -> None:
    tab.choose("costs")
    tab.page.click("summary")
    tab.page.click("text=Middle of the bounds")
    origin = {"Access-Control-Allow-Origin": tab.page.url.split("/#")[0], "Retry-After": "9"}
    tab.page.route(
        "**/infer",
        lambda route: route.fulfill(status=status, json={"detail": why}, headers=origin),
    )
    assert why in tab.ask()
    tab.page.unroute("**/infer")
    tab.page.click("text=Try again")
    if status == 409:
        # The version is gone: the model is opened anew.
        tab.page.wait_for_selector(".state.empty")
    else:
        tab.page.wait_for_selector("#predicted")


def test_an_api_key_is_asked_for_and_kept_in_the_page_alone(
    visit: Callable[..., Tab], stack: Stack
) -> None:
    tab = visit(stack.with_api_keys)
    tab.page.wait_for_selector(".key-form")
    assert "The service needs an API key" in tab.text
    tab.picture("api-key")
    field = tab.page.locator(".key-form input")
    assert field.get_attribute("type") == "password"
    field.fill("cloister_wrong")
    tab.page.keyboard.press("Enter")
    # Until the service has answered, there is no form.
    tab.page.wait_for_selector(".key-form")
    assert "The service needs an API key" in tab.text
    tab.page.locator(".key-form input").fill(stack.api_key)
    tab.page.keyboard.press("Enter")
    tab.choose("digits")
    tab.draw(SEVEN)
    assert tab.ask() == "7"
    kept = tab.page.evaluate("JSON.stringify([{ ...localStorage }, { ...sessionStorage }])")
    assert kept == "[{},{}]"
    assert stack.api_key not in tab.page.content() + tab.page.url


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(visit: Callable[..., Tab], stack: Stack, scheme: str) -> None:
    viewport = {"width": 360, "height": 740}
    tab = visit(stack.console, viewport=viewport, color_scheme=scheme, has_touch=True)
    for model in ("digits", "breast_cancer", "visits", "costs", "tree"):
        tab.choose(model)
        if model != "digits":
            tab.page.click("summary")
            tab.page.click("text=Random within the bounds")
        tab.ask()
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360, model
        tab.picture(f"phone-{scheme}-{model}")
