"""``just routes``."""

import subprocess
import sys

from fastapi import FastAPI

from app.kit import docs, project
from scripts.routes import routes


def test_every_operation_is_listed_once(shared_app: FastAPI) -> None:
    found = [(method, path) for method, path, _ in routes(shared_app)]
    assert found == sorted(found, key=lambda route: route[::-1])
    documented = [
        (method.upper(), path)
        for path, methods in shared_app.openapi()["paths"].items()
        for method in methods
    ]
    pages = [("GET", path) for path in ("/docs", "/openapi.json", "/redoc", *docs.ASSETS)]
    assert sorted(found) == sorted([*documented, *pages])


def test_each_route_is_one_line_without_a_database() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.routes"],
        cwd=project.ROOT,
        capture_output=True,
        check=True,
        encoding="utf-8",
    )
    assert "GET     /health/live" in done.stdout
    assert {len(line.split(maxsplit=2)) for line in done.stdout.splitlines()} == {3}
