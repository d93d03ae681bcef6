"""The page in a browser, with what it complained of and sent."""

import os
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

ROOT = Path(__file__).parents[3]
CHROMIUM = Path("/usr/bin/chromium")
SCREENSHOTS = Path(os.environ.get("TEST_ARTIFACTS", ROOT / "tests" / "artifacts")) / "console"
SIZES = {"wide": 1200, "phone": 360}


class Visit:
    """A page that is open."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.url = url
        self.page: Page = browser.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda sent: self.requests.append(sent.url))

    def open(self, tab: str) -> None:
        self.page.goto(f"{self.url}/#{tab}")
        expect(self.page.locator(f"#panel-{tab} h1")).to_be_visible()

    @property
    def said(self) -> str:
        """What the tab that is shown says of itself."""
        return self.page.text_content("[role=tabpanel]:not([hidden]) .said") or ""

    def take(self, name: str) -> None:
        """Keep pictures of the page, and see that nothing of it is beside the window."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        for size, width in SIZES.items():
            self.page.set_viewport_size({"width": width, "height": 800})
            for scheme in ("light", "dark"):
                self.page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
                path = SCREENSHOTS / f"{name}-{size}-{scheme}.png"
                self.page.screenshot(path=path, full_page=True)
            assert self.page.evaluate("document.documentElement.scrollWidth") <= width
