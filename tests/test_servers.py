"""The service under other ASGI servers."""

import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.baking import Project, free_port, installed
from testing.serving import migrated
from testing.usage import let_in, served
from tests.conftest import Bake

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals go to a POSIX process group"),
]

APP = "app.main:app"
WARNING = "Served without `python -m app`"
PROBLEM = "application/problem+json"

# By name: the packages to install, and the command.
SERVERS = {
    "python -m app": ([], ["python", "-m", "app"]),
    "uvicorn": ([], ["uvicorn", APP, "--port", "{port}"]),
    "fastapi run": (["fastapi-cli"], ["python", "-m", "fastapi", "run", "--port", "{port}"]),
    "fastapi dev": (["fastapi-cli"], ["python", "-m", "fastapi", "dev", "--port", "{port}"]),
    "gunicorn": (
        ["gunicorn", "uvicorn-worker"],
        ["gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:{port}", APP],
    ),
    "granian": (["granian"], ["granian", "--interface", "asgi", "--port", "{port}", APP]),
    "hypercorn": (
        ["hypercorn"],
        ["hypercorn", "--bind", "127.0.0.1:{port}", "app.main:create_asgi_app()"],
    ),
}
NIGHTLY = {"fastapi dev", "gunicorn", "granian", "hypercorn"}


@pytest.fixture(scope="module")
def service(bake: Bake) -> Iterator[Project]:
    """Return an installed render."""
    with installed(bake(database="sqlite", auth="users")) as project:
        yield project


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.nightly] * (name in NIGHTLY)) for name in SERVERS],
)
def test_a_server_serves_and_stops(service: Project, tmp_path: Path, name: str) -> None:
    packages, template = SERVERS[name]
    port = free_port()
    command = [part.format(port=port) for part in template]
    url = f"sqlite:///{tmp_path / 'app.db'}"
    migrated(service, url)
    variables = ("env", "ENVIRONMENT=local", f"DATABASE_URL={url}", "SHUTDOWN_DELAY=0")
    extra = [part for package in packages for part in ("--with", package)]
    with (
        (tmp_path / "printed").open("wb") as output,
        served(
            service,
            signal.SIGTERM,
            *variables,
            *("uv", "run", "--no-sync", *extra, *command),
            to_group=False,
            port=port,
            output=output,
        ) as client,
    ):
        for _ in range(600):  # `uv` installs the server first
            if b"tartup complete" in (printed := (tmp_path / "printed").read_bytes()):
                break
            if re.search(rb"Running on|Started worker-1 runtime", printed):
                break
            time.sleep(0.1)
        assert client.get("/health/ready").status_code == 200
        let_in(client, service.answers)
        created = client.post("/v1/tasks", json={"title": "x"})
        assert created.status_code == 201
        head = client.head(created.headers["Location"])
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["ETag"] == created.headers["ETag"]
        assert client.get("/nowhere").headers["Content-Type"] == PROBLEM
    text = (tmp_path / "printed").read_text(encoding="utf-8")
    assert text.count(WARNING) == (name != "python -m app"), text
    assert "Traceback" not in text, text
