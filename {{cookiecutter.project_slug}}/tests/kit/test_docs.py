"""The pages of the API documentation."""

import base64
import hashlib
import re

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient, Response

from app.kit import docs
from app.main import create_app
from tests.conftest import problem, running, settings_for

PAGES = ("/docs", "/redoc")


def policy_of(page: Response) -> dict[str, str]:
    """Return the directives of a page's Content-Security-Policy."""
    (policy,) = page.headers.get_list("content-security-policy")
    return dict(each.strip().split(" ", 1) for each in policy.split(";"))


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_names_only_urls_of_the_service(client: AsyncClient, path: str) -> None:
    page = await client.get(path)
    assert page.status_code == 200
    assert "//" not in re.sub(
        r"<!--.*?-->|<noscript>.*?</noscript>", "", page.text, flags=re.DOTALL
    )
    urls = re.findall(r"(?:src|href|url)(?:=|: )[\"']([^\"']+)", page.text)
    assert {"/openapi.json", "/docs/favicon.png"} < set(urls)
    for url in urls:
        assert (await client.get(url)).status_code == 200, url


@pytest.mark.parametrize("path", PAGES)
async def test_the_policy_of_a_page_names_no_host(client: AsyncClient, path: str) -> None:
    page = await client.get(path)
    policy = policy_of(page)
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    sources = {source for each in policy.values() for source in each.split()}
    hashes = {source for source in sources if source.startswith("'sha256-")}
    assert sources - hashes == {"'none'", "'self'", "'unsafe-inline'", "blob:", "data:"}
    assert "unsafe" not in policy["script-src"]
    scripts = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    assert hashes == {f"'sha256-{base64.b64encode(each).decode()}'" for each in digests}
    assert len(hashes) == (path == "/docs")


async def test_assets_are_revalidated(client: AsyncClient) -> None:
    for path in docs.ASSETS:
        first = await client.get(path)
        assert first.status_code == 200
        assert len(first.content) > 500
        assert first.headers["cache-control"] == "private, no-cache"
        again = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304
        head = await client.head(path)
        assert (head.status_code, head.content) == (200, b"")
    problem(await client.get("/docs/%2e%2e/pyproject.toml"), 404)
    problem(await client.get("/docs/swagger-ui.js"), 404)
    problem(await client.post("/docs/favicon.png"), 405)


async def test_pages_below_a_root_path_load_from_there(app: FastAPI, client: AsyncClient) -> None:
    app.root_path = "/below"
    try:
        for path in PAGES:
            page = await client.get(path)
            urls = re.findall(r"(?:src|href|url)(?:=|: )[\"']([^\"']+)", page.text)
            assert all(url.startswith("/below/") for url in urls)
    finally:
        app.root_path = ""


async def test_docs_are_off_by_default(live_url: str) -> None:
    assert not type(settings_for(live_url)).model_fields["docs"].default
    app = create_app(settings_for(live_url, docs=False))
    async with running(app) as client:
        for path in (*PAGES, *docs.ASSETS, "/docs/oauth2-redirect", "/openapi.json"):
            problem(await client.get(path), 404)
    assert app.openapi()["paths"]
