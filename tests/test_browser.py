"""The pages of a service in a real browser, which can reach nothing else. Slow."""

import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, sync_playwright

from testing.baking import installed
from testing.requirements import require
from testing.usage import served
from tests.conftest import Bake

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

HOST = "api.example"
"""A name for the service: pages may behave differently on 127.0.0.1."""

TIMEOUT = 60_000
"""Milliseconds after which the browser hangs."""


@pytest.fixture(scope="module")
def address(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a running service."""
    log = tmp_path_factory.mktemp("browser") / "log"
    with (
        installed(bake(database="sqlite", auth="users")) as service,
        log.open("wb") as output,
        served(service, signal.SIGINT, "uv", "run", "just", "dev", output=output) as client,
    ):
        assert client.get("/health/ready").status_code == 200
        yield f"127.0.0.1:{client.base_url.port}"


class Visit:
    """A page, what it has requested, and what is in its console."""

    def __init__(self, page: Page, address: str) -> None:
        """Observe a page."""
        self.page = page
        self.url = f"http://{HOST}:{address.rpartition(':')[2]}"
        self.requested: list[str] = []
        self.console: list[str] = []
        page.set_default_timeout(TIMEOUT)
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))

    def elsewhere(self) -> list[str]:
        """Return what was requested from other hosts."""
        own = (f"{self.url}/", "data:", f"blob:{self.url}/")
        return [url for url in self.requested if not url.startswith(own)]


@pytest.fixture
def visit(address: str) -> Iterator[Visit]:
    """Return a page of a browser that resolves only the name of the service."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=require("chromium"),
            args=[f"--host-resolver-rules=MAP {HOST}:* {address}, MAP * ~NOTFOUND"],
        )
        with browser, browser.new_context() as context:
            yield Visit(context.new_page(), address)


def test_requests_and_the_console_are_observed(visit: Visit) -> None:
    image = "http://elsewhere.example/x.png"
    visit.page.goto(f"data:text/html,<img src='{image}'>")
    visit.page.wait_for_load_state("networkidle")
    assert visit.elsewhere() == [image]
    assert len(visit.console) == 1
    # The policy refuses a request before it is sent.
    visit.page.goto(f"{visit.url}/docs")
    visit.page.evaluate("fetch('https://elsewhere.example/').catch(() => null)")
    assert visit.elsewhere() == [image]
    assert "Content Security Policy" in visit.console[1]


def test_swagger_ui_calls_the_service(visit: Visit) -> None:
    page = visit.page
    page.goto(f"{visit.url}/docs")
    page.locator(".opblock-summary-control", has_text="/health/live").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    page.locator(".live-responses-table .response-col_status", has_text="200").wait_for()
    page.wait_for_load_state("networkidle")
    assert f"{visit.url}/health/live" in visit.requested
    assert visit.elsewhere() == []
    assert visit.console == []


def test_redoc_is_shown_and_searched(visit: Visit) -> None:
    page = visit.page
    page.goto(f"{visit.url}/redoc")
    page.get_by_role("heading", name="Create Task").first.wait_for()
    page.get_by_placeholder("Search...").fill("comment")  # a worker searches
    page.locator("[data-role='search:results'] [role=menuitem]").first.wait_for()
    page.wait_for_load_state("networkidle")
    assert f"{visit.url}/redoc/logo-mini.svg" in visit.requested
    assert visit.elsewhere() == []
    assert visit.console == []
