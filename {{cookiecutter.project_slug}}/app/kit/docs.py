"""The pages of the API documentation, whose scripts and styles the service itself serves."""

import base64
import hashlib
import re
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse

from app.kit.etag import if_none_match

ASSETS: Final = {
    "/docs/favicon.png": ("fastapi/favicon.png", "image/png"),
    "/docs/swagger-ui.css": ("swagger/swagger-ui.css", "text/css"),
    "/docs/swagger-ui-bundle.js": ("swagger/swagger-ui-bundle.js", "text/javascript"),
    "/redoc/redoc.standalone.js": ("redoc/redoc.standalone.js", "text/javascript"),
    "/redoc/logo-mini.svg": ("redoc/logo-mini.svg", "image/svg+xml"),
}
"""Paths, with files of the package ``fastapi-standalone-docs``, which pins their versions."""

_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def install(app: FastAPI) -> None:
    """Add ``/docs``, ``/redoc`` and what they load: about 3 MB, which are kept in memory."""
    app.add_route("/docs", _swagger, include_in_schema=False)
    app.add_route("/redoc", _redoc, include_in_schema=False)
    static = files("fastapi_standalone_docs") / "static"
    for path, (name, media_type) in ASSETS.items():
        content = (static / name).read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        asset = partial(Response, content, headers=headers, media_type=media_type)
        app.add_route(path, partial(_asset, asset), include_in_schema=False)


async def _asset(asset: Callable[[], Response], request: Request) -> Response:
    return if_none_match(request, asset())


async def _swagger(request: Request) -> Response:
    app, root = request.app, request.scope.get("root_path", "").rstrip("/")
    page = get_swagger_ui_html(
        openapi_url=f"{root}{app.openapi_url}",
        title=app.title,
        swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/docs/swagger-ui.css",
        swagger_favicon_url=f"{root}/docs/favicon.png",
    )
    return _with_policy(page)


async def _redoc(request: Request) -> Response:
    app, root = request.app, request.scope.get("root_path", "").rstrip("/")
    page = get_redoc_html(
        openapi_url=f"{root}{app.openapi_url}",
        title=app.title,
        redoc_js_url=f"{root}/redoc/redoc.standalone.js",
        redoc_favicon_url=f"{root}/docs/favicon.png",
        with_google_fonts=False,
    )
    return _with_policy(page)


def _with_policy(page: HTMLResponse) -> Response:
    """Add a Content-Security-Policy that names no other host, nor inline scripts of others."""
    sources = ["'self'"]
    for script in _SCRIPT.findall(bytes(page.body)):
        digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
        sources.append(f"'sha256-{digest}'")
    page.headers["Content-Security-Policy"] = (
        "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
        f"frame-ancestors 'none'; script-src {' '.join(sources)}; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data:; worker-src blob:"
    )
    return page
