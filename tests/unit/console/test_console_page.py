"""The page in a browser: tabs by keyboard, a training that is watched, and who sees what."""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pages import CHROMIUM, ROOT, Visit
from playwright.sync_api import Page, expect

from cloister_trainer.events import EventLog, run_events

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing: install the system's Chromium"
)
MakeVisit = Callable[[str], Visit]
SITES = ["9129371298371293", "8129371298371293", "10129371298371293"]


def begin(events_dir: Path, run: int = 1, **changes: object) -> EventLog:
    """Events of a training across three sites, of three rounds."""
    log = run_events(events_dir, run)
    told = {
        "expected": 3,
        "model": "digits",
        "dataset": "digits",
        "task": "classification",
        "estimator": "LogisticRegression",
        "strategy": "FedAvg",
        "secure_aggregation": False,
        "delta": None,
        "epsilon_budget": None,
    }
    log.write("waiting", **(told | changes))
    log.write("started", sites=3, expected=3, rounds=3)
    return log


def do_round(
    log: EventLog, number: int, *, hidden: bool = False, epsilon: float | None = None
) -> None:
    accuracy = 1 - 0.9 * math.exp(1 - number)
    if not hidden:
        measured = [
            {
                "site": site,
                "num-examples": 100 + index,
                "validation-examples": 10,
                "accuracy": accuracy - 0.01 * index,
                "loss": 1 / number,
            }
            for index, site in enumerate(SITES)
        ]
        log.write("sites", round=number, sites=measured)
    log.write(
        "round",
        round=number,
        rounds=3,
        sites=3,
        failures=0,
        examples=None if hidden else 303,
        accuracy=None if hidden else accuracy,
        absolute_error=None,
        loss=None if hidden else 1 / number,
        epsilon=epsilon,
        seconds=1.5,
        seconds_left=1.5 * (3 - number),
    )


def fact(page: Page, name: str) -> str:
    found = page.locator("#panel-training .facts div", has=page.get_by_text(name, exact=True))
    return found.locator("dd").first.text_content() or ""


def test_a_training_is_watched_while_it_is_written(
    visit: MakeVisit, console_url: str, events_dir: Path
) -> None:
    seen = visit(console_url)
    seen.open("training")
    page = seen.page
    expect(page.get_by_text("No training yet")).to_be_visible()
    seen.take("training-empty")

    log = begin(events_dir)
    held = log.hold()
    expect(page.locator(".said").first).to_contain_text("Round 1 of 3 is under way")
    expect(page.locator(".toolbar .tag")).to_have_text("running")
    do_round(log, 1)
    do_round(log, 2)
    log.write("log", level=30, message="site 7: no valid reply: the disk is full")
    expect(page.locator(".said").first).to_contain_text("Round 3 of 3 is under way, accuracy 0.66")
    assert fact(page, "Rounds") == "2 of 3"
    assert fact(page, "Sites present") == "3 of 3"
    assert fact(page, "Seconds a round") == "1.5 s"
    # Sites by their numbers, which Flower makes larger than JavaScript counts.
    rows = page.locator("[aria-label='Table by Site'] tbody tr")
    assert [row.split("\t")[:2] for row in rows.all_inner_texts()] == [
        ["site 1", "101"],
        ["site 2", "100"],
        ["site 3", "102"],
    ]
    assert page.locator("abbr").first.get_attribute("title") == f"node {SITES[1]}"
    expect(page.locator("summary", has_text="Log")).to_have_text("Log, 1 warning")
    accuracy = page.locator(".plot-box").first
    expect(accuracy).to_have_attribute("aria-label", "Accuracy: 0.6689 after 2 rounds")
    expect(accuracy.locator("canvas")).to_be_visible()
    seen.take("training-running")

    # An event that is just being written.
    path = events_dir / "run-1.jsonl"
    with path.open("a") as stream:
        stream.write('{"event": "final", "sites": 3, "accu')
        stream.flush()
        page.wait_for_timeout(1500)
        expect(page.locator(".said").first).to_contain_text("Round 3 of 3 is under way")
        stream.write('racy": 0.9876, "loss": 0.1}\n')
    log.write("published", version=4)
    os.close(held)
    expect(page.locator(".said").first).to_have_text("Version 4 is published, accuracy 0.9876.")
    expect(page.locator(".toolbar .tag")).to_have_text("published")
    page.get_by_text("All rounds in numbers").click()
    table = page.locator("[aria-label='Table by Round'] tbody tr")
    assert [row.split("\t")[0] for row in table.all_inner_texts()] == ["1", "2", "final"]
    # Nothing was told twice.
    expect(page.locator("summary", has_text="Log")).to_have_text("Log, 1 warning")
    assert seen.complaints == []


def test_a_training_that_is_interrupted_fails_or_goes_says_so(
    visit: MakeVisit, console_url: str, events_dir: Path
) -> None:
    log = begin(events_dir)
    do_round(log, 1)
    seen = visit(console_url)
    seen.open("training")
    said = seen.page.locator(".said").first
    expect(said).to_contain_text("Interrupted after round 1")
    other = begin(events_dir, 2, model="wine")
    other.write("failed", reason="round 1 has 1 valid replies of 3, and 2 are needed")
    # Nobody has chosen one: the newest is shown.
    expect(said).to_contain_text("failed: round 1 has 1 valid replies", timeout=15000)
    seen.page.select_option("#training-run", "1")
    expect(said).to_contain_text("Interrupted after round 1")
    (events_dir / "run-1.jsonl").unlink()
    expect(said).to_contain_text("Its events were deleted", timeout=15000)
    assert fact(seen.page, "Rounds") == "1 of 3"
    # Browsers report an answer of 404 by themselves.
    assert all("404" in complaint for complaint in seen.complaints)


def test_of_two_that_run_the_one_that_began_last_stays_shown(
    visit: MakeVisit, console_url: str, events_dir: Path
) -> None:
    first, second = begin(events_dir, 1), begin(events_dir, 2)
    held = [first.hold(), second.hold()]
    seen = visit(console_url)
    seen.open("training")
    expect(seen.page.locator("#training-run")).to_have_value("2")
    do_round(first, 1)
    # It is the one written last now.
    expect(seen.page.locator("#training-run option").first).to_have_attribute("value", "1")
    expect(seen.page.locator("#training-run")).to_have_value("2")
    for descriptor in held:
        os.close(descriptor)


def test_where_single_sites_are_hidden_it_says_why_and_what_is_spent(
    visit: MakeVisit, console_url: str, events_dir: Path
) -> None:
    log = begin(events_dir, secure_aggregation=True, delta=1e-5, epsilon_budget=8.0)
    for number in (1, 2, 3):
        do_round(log, number, hidden=True, epsilon=2.0 * number)
    log.write("published", version=1)
    seen = visit(console_url)
    seen.open("training")
    expect(seen.page.locator(".said").first).to_contain_text("Version 1 is published")
    assert fact(seen.page, "Differential privacy") == "ε 6 at δ 0.00001"
    expect(seen.page.get_by_text("epsilon 6 of 8 spent")).to_be_visible()
    expect(seen.page.locator("figure", has_text="Epsilon spent")).to_be_visible()
    expect(seen.page.get_by_text("the trainer sees sums alone")).to_be_visible()
    seen.take("training-private")
    assert seen.complaints == []


def test_names_from_elsewhere_are_text(
    visit: MakeVisit, console_url: str, events_dir: Path
) -> None:
    hostile = "<img src=x onerror=alert(1)>\u202e&amp;"
    log = begin(events_dir, model=hostile, estimator=hostile)
    log.write("log", level=40, message=hostile)
    log.write("failed", reason=hostile)
    seen = visit(console_url)
    seen.open("training")
    expect(seen.page.locator(".said").first).to_contain_text(hostile)
    assert fact(seen.page, "Model") == hostile
    assert seen.page.locator("img").count() == 0
    assert seen.complaints == []


def test_thousands_of_events_and_sites_are_shown(
    visit: MakeVisit, console_url: str, events_dir: Path
) -> None:
    log = begin(events_dir)
    measured = [
        {"site": str(site), "num-examples": 9, "validation-examples": 1, "accuracy": 0.5, "loss": 1}
        for site in range(1000)
    ]
    log.write("sites", round=1, sites=measured)
    with (events_dir / "run-1.jsonl").open("a") as stream:
        stream.write('{"event": "log", "level": 30, "message": "again"}\n' * 20_000)
    do_round(log, 1, hidden=True)
    seen = visit(console_url)
    seen.open("training")
    rows = seen.page.locator("[aria-label='Table by Site'] tbody tr")
    expect(rows).to_have_count(1000, timeout=30000)
    # As many lines as people can tell apart, and no more.
    assert seen.page.locator(".plot").first.locator(".u-series").count() == 4
    assert seen.complaints == []


def test_tabs_are_chosen_by_keyboard(visit: MakeVisit, console_url: str) -> None:
    seen = visit(console_url)
    seen.open("parties")
    page = seen.page

    def focused() -> str:
        return str(page.evaluate("document.activeElement.id || document.activeElement.className"))

    page.keyboard.press("Tab")
    assert focused() == "skip"
    page.keyboard.press("Tab")
    # One stop for all tabs: that which is shown.
    assert focused() == "tab-parties"
    page.keyboard.press("ArrowRight")
    assert focused() == "tab-try"
    page.keyboard.press("ArrowRight")
    assert (focused(), page.evaluate("location.hash")) == ("tab-training", "#training")
    expect(page.locator("#panel-training")).to_be_visible()
    expect(page.locator("#panel-parties")).to_be_hidden()
    expect(page).to_have_title("Training · Cloister")
    page.keyboard.press("End")
    assert focused() == "tab-parties"
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    assert focused() == "tab-parties"
    selected = page.locator("[role=tab][aria-selected=true]")
    expect(selected).to_have_attribute("id", "tab-parties")
    assert page.locator("[role=tab][tabindex='0']").count() == 1
    page.go_back()
    expect(page.locator("#panel-try")).to_be_visible()


def test_the_skip_link_leads_past_the_tabs_and_leaves_the_tab(
    visit: MakeVisit, console_url: str
) -> None:
    seen = visit(console_url)
    seen.open("parties")
    seen.page.keyboard.press("Tab")
    seen.page.keyboard.press("Enter")
    expect(seen.page.locator("#panel-parties")).to_be_visible()
    assert seen.page.evaluate("document.activeElement.id") == "panel"


BESIDE_BOXES = """() => {
    const parties = [...document.querySelectorAll('.flow.narrow .flow-party')];
    return parties.flatMap((party) => {
        const { right } = party.querySelector('rect').getBoundingClientRect();
        return [...party.querySelectorAll('text')]
            .filter((text) => text.getBoundingClientRect().right > right)
            .map((text) => text.textContent);
    });
}"""


def test_who_sees_what_is_the_readmes_table(visit: MakeVisit, console_url: str) -> None:
    seen = visit(console_url)
    seen.open("parties")
    lines = (ROOT / "README.md").read_text().splitlines()
    begins = next(index for index, line in enumerate(lines) if line.startswith("| | rows of"))
    expected = []
    for line in lines[begins:]:
        if not line.startswith("|"):
            break
        expected.append([cell.strip() for cell in line.strip("|").split("|")])
    shown = [
        [cell.strip() for cell in row.locator("th, td").all_text_contents()]
        for row in seen.page.locator("table.sight tr").all()
    ]
    assert shown == [row for row in expected if not re.fullmatch("[- ]+", "".join(row))]
    expect(seen.page.locator("svg.flow.wide")).to_be_visible()
    expect(seen.page.locator("svg.flow.narrow")).to_be_hidden()
    # Everything that the picture names is told of beneath it.
    named = seen.page.locator("svg.flow.wide .flow-name").all_text_contents()
    told = seen.page.locator(".party h2").all_text_contents()
    assert [name.split(":")[0] for name in told] == named
    seen.take("parties")
    expect(seen.page.locator("svg.flow.narrow")).to_be_visible()
    assert seen.page.evaluate(BESIDE_BOXES) == []
    assert seen.complaints == []


def test_it_asks_nobody_but_the_console_and_the_service(
    visit: MakeVisit, console_url: str, events_dir: Path
) -> None:
    begin(events_dir)
    seen = visit(console_url)
    for tab in ("training", "parties"):
        seen.open(tab)
    assert all(url.startswith((console_url, "data:")) for url in seen.requests)
    reached = seen.page.evaluate(
        "fetch('http://192.0.2.1/').then(() => 'reached', () => 'refused')"
    )
    assert reached == "refused"
    assert any("connect-src" in complaint for complaint in seen.complaints)
