"""The models tab in a browser, with a real service: versions, a promotion, and what is refused."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pages import CHROMIUM, Visit
from playwright.sync_api import Page, expect

from cloister_cli.processes import Processes, free_ports
from cloister_inference.access.credentials import ApiKeyStore
from cloister_shared.registry import Registry

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"{CHROMIUM} is missing: install the system's Chromium"
)
MakeVisit = Callable[[str], Visit]


@pytest.fixture
def artifacts(digits_artifacts: Path, tmp_path: Path) -> Path:
    """Two versions of digits, of which the second is in use."""
    root = tmp_path / "artifacts"
    shutil.copytree(digits_artifacts / "artifacts", root)
    registry = Registry(root)
    first = registry.open("digits", 1)

    def write(folder: Path) -> dict[str, Any]:
        for file in first.manifest.files:
            shutil.copy(first.path / file, folder)
        return dict(first.manifest.details)

    registry.publish("digits", "published again", write)
    return root


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    store = ApiKeyStore(tmp_path / "api-keys.json")
    return {
        "hospital": store.create("hospital", None),
        "operator": store.create("operator", None, operator=True),
    }


@pytest.fixture
def ports() -> list[int]:
    """Of service and console."""
    return free_ports(2)


@pytest.fixture
def service(
    artifacts: Path, keys: dict[str, str], ports: list[int], tmp_path: Path
) -> Iterator[str]:
    """A service that wants API keys."""
    folder = tmp_path / "service"
    folder.mkdir()
    with Processes(folder, {}) as processes:
        process = processes.start(
            "inference",
            "cloister_inference",
            port=ports[0],
            artifacts_dir=artifacts,
            api_keys_path=tmp_path / "api-keys.json",
            choices_dir=tmp_path / "choices",
            metrics_port=0,
            drain_seconds=0,
            cors_origins=f"http://127.0.0.1:{ports[1]}",
        )
        process.wait_healthy(f"http://127.0.0.1:{ports[0]}/v2/health/ready", 120)
        yield f"http://127.0.0.1:{ports[0]}"


def use(page: Page, key: str) -> None:
    page.fill("#models-key", key)
    page.get_by_role("button", name="Use and reload").click()


def promote(page: Page, button: str) -> None:
    page.locator("summary", has_text="Version 1").click()
    page.get_by_role("button", name=button).click()
    page.get_by_role("button", name="Yes: let version 1 of digits serve").click()


def test_a_version_is_put_into_use_with_an_operators_key_alone(
    visit: MakeVisit,
    start_console: Callable[[int, str], str],
    service: str,
    keys: dict[str, str],
    ports: list[int],
) -> None:
    seen = visit(start_console(ports[1], service))
    seen.open("models")
    page = seen.page
    expect(page.get_by_text("The service wants an API key")).to_be_visible()
    seen.take("models-no-key")

    use(page, keys["hospital"])
    expect(page.get_by_text("Version 2 serves requests that name none.")).to_be_visible()
    shown = page.locator("details.version")
    assert shown.first.inner_text().startswith("Version 2")
    facts = page.locator("details[open] .facts")
    expect(facts).to_contain_text("LogisticRegression")
    expect(facts).to_contain_text("native")
    expect(facts).to_contain_text("1.7 kB up")
    promote(page, "Roll back to version 1")
    expect(page.locator("#panel-models .said")).to_contain_text(
        "This API key may not do that (403)"
    )
    expect(page.get_by_text("Version 2 serves requests that name none.")).to_be_visible()
    seen.take("models-refused")

    use(page, keys["operator"])
    page.wait_for_timeout(500)
    promote(page, "Roll back to version 1")
    expect(page.locator("#panel-models .said")).to_have_text("Version 1 of digits serves now.")
    expect(page.get_by_text("Version 1 serves requests that name none.")).to_be_visible()
    expect(page.get_by_text("The registry puts version 2 into use.")).to_be_visible()
    headers = {"Authorization": f"Bearer {keys['hospital']}"}
    described = httpx.get(f"{service}/v2/models/digits", headers=headers).raise_for_status()
    assert described.json()["parameters"]["version"] == "1"
    seen.take("models")

    # The key is in this page alone.
    assert page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])") == (
        '[{},{},""]'
    )
    assert all(key not in url for key in keys.values() for url in seen.requests)
    # Browsers report answers of 401 and 403 by themselves.
    assert all("40" in complaint for complaint in seen.complaints)
    page.reload()
    assert page.input_value("#models-key") == ""
    expect(page.get_by_text("The service wants an API key")).to_be_visible()


def test_a_service_that_cannot_be_reached_is_said(visit: MakeVisit, console_url: str) -> None:
    seen = visit(console_url)
    seen.open("models")
    error = seen.page.locator("#panel-models .state.error")
    expect(error).to_contain_text("The service cannot be reached")
    expect(error).to_contain_text("CLOISTER_CORS_ORIGINS")
    seen.take("models-unreachable")
