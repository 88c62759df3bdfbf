"""The rendered service with a flat resource, the limit, and their databases."""

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import asyncpg
import psutil

from benchmarks.data import DEPTH, PATHS, RESOURCES, Rows, http_request, requests_of
from testing.baking import ROOT, Project, clean_environment, copy_template, free_port
from testing.postgres import Postgres

HERE: Final = Path(__file__).parent
LIMIT: Final = "limit"
FLAT_PARENT: Final = "4d1f0c7e2a95"
"""The revision before that of the flat resource, in a render without users."""
PATIENCE: Final = 30
"""Seconds that a server may take to start or to become idle."""

# What differs between the responses of two servers: cursors are private, a change makes
# a new version, and a new row has an id and times of its own.
_CHANGED: Final = {"updated_at", "version"}
_VARYING: Final = {"content-length", "content-type", "date", "etag", "location"}
_OWN: Final = {"patch": _CHANGED, "post": {"id", "created_at", *_CHANGED}}


# The last core is for the measured server, the others are for everything else.
CORES: Final[list[int]] = []
if sys.platform == "linux":
    CORES.extend(sorted(os.sched_getaffinity(0)))
PINNED: Final = len(CORES) > 1


def pin(process: psutil.Process, cores: list[int]) -> None:
    """Run a process, and those that it starts from now on, on these cores."""
    if sys.platform == "linux" and PINNED:
        process.cpu_affinity(cores)


def _output(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a command that must not fail."""
    if done.returncode:
        words = " ".join(map(str, done.args))
        sys.exit(f"This failed, with status {done.returncode}: {words}\n{done.stdout}{done.stderr}")
    return done.stdout


def render(folder: Path, template: Path, database: str, auth: str) -> tuple[Project, float]:
    """Render a service by Cookiecutter's command line; return it and the seconds it took."""
    target = folder / f"{database}-{auth}"
    home = folder / "home"
    home.mkdir(exist_ok=True)
    started = time.perf_counter()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cookiecutter", str(template), "--no-input"),
            *("--overwrite-if-exists", "--output-dir", str(target)),
            *(f"database={database}", f"auth={auth}"),
        ],
        env=clean_environment(HOME=str(home), USERPROFILE=str(home)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    seconds = time.perf_counter() - started
    _output(done)
    (path,) = target.iterdir()
    return Project(path, {"database": database, "auth": auth}), seconds


def template_copy(folder: Path) -> Path:
    """Copy the template without caches and other files."""
    return copy_template(folder / "template")


def with_items(project: Project) -> None:
    """Add the flat resource as a user does: its files, and two lines in ``app/api.py``."""
    revisions = project.path / "migrations" / "versions"
    texts = "".join(file.read_text(encoding="utf-8") for file in revisions.glob("*.py"))
    parents = set(re.findall(r'^down_revision: .* = "(\w+)"', texts, re.MULTILINE))
    (head,) = set(re.findall(r'^revision: .* = "(\w+)"', texts, re.MULTILINE)) - parents
    ignored = shutil.ignore_patterns("ruff.toml", "__pycache__", ".*_cache")
    shutil.copytree(HERE / "flat", project.path, ignore=ignored, dirs_exist_ok=True)
    (revision,) = revisions.glob("*_items.py")
    text = revision.read_text(encoding="utf-8")
    revision.write_text(text.replace(FLAT_PARENT, head), encoding="utf-8")
    api = project.path / "app" / "api.py"
    text = api.read_text(encoding="utf-8")
    for before, after in (
        (
            "from app.kit import routing",
            "from app.items.router import router as items\nfrom app.kit import routing",
        ),
        ('    ("/v1", tasks),\n', '    ("/v1", items),\n    ("/v1", tasks),\n'),
    ):
        if before not in text:
            sys.exit(f"app/api.py of the render has no {before!r}: benchmarks/harness.py is behind")
        text = text.replace(before, after, 1)
    api.write_text(text, encoding="utf-8")


def script(project: Project, name: str) -> str:
    """Return the path of a program in a render's environment."""
    windows = sys.platform == "win32"
    return str(project.path / ".venv" / ("Scripts" if windows else "bin") / name)


def import_seconds(project: Project) -> float:
    """Return the seconds that a fresh process takes to import the service."""
    code = "import time; t = time.perf_counter(); import app.main; print(time.perf_counter() - t)"
    return float(_output(_python(project, code)))


def suite_seconds(project: Project) -> float:
    """Return the seconds that the service's own tests take."""
    folder = project.path.parent
    log = folder / "suite.log"
    began = time.perf_counter()
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [script(project, "python"), "-m", "pytest", "-q", "-n", "auto"],
            cwd=project.path,
            # Not the common folder: another pytest may make it unreadable for PostgreSQL's user.
            env=clean_environment(TMPDIR=str(folder)),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        ) as process,
    ):
        try:
            status = process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)  # lets it stop its PostgreSQL
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            process.kill()
            raise
    if status:
        sys.exit(f"The service's own tests fail:\n{log.read_text(encoding='utf-8')}")
    return time.perf_counter() - began


def versions(project: Project) -> dict[str, str]:
    """Return the versions of the libraries that a render uses."""
    driver = "asyncpg" if project.answers["database"] == "postgresql" else "aiosqlite"
    names = ("fastapi", "sqlalchemy", "pydantic", "uvicorn", "uvloop", "httptools", driver)
    code = (
        "import json, platform, sqlite3\n"
        "from importlib.metadata import version\n"
        f"found = {{name: version(name) for name in {names!r}}}\n"
        "found |= {'Python': platform.python_version(), 'SQLite': sqlite3.sqlite_version}\n"
        "print(json.dumps(found))"
    )
    found: dict[str, str] = json.loads(_output(_python(project, code)))
    return found


def _python(project: Project, code: str) -> subprocess.CompletedProcess[str]:
    # Empty: allow .pyc files, as in normal use.
    return project.run(script(project, "python"), "-c", code, PYTHONDONTWRITEBYTECODE="")


def made(project: Project, folder: Path, server: Postgres | None) -> str:
    """Create a migrated database for a project; return its URL."""
    name = f"bench_{project.answers['auth']}"
    if server is None:
        url = f"sqlite:///{folder / name}.db"
    else:
        url = server.url(name)
        asyncio.run(_execute(server.url("postgres"), f"CREATE DATABASE {name}"))
    _output(project.run(script(project, "alembic"), "upgrade", "head", DATABASE_URL=url, **_LOCAL))
    return url


def fill(url: str, rows: Rows) -> None:
    """Write the rows into a database."""
    if url.startswith("sqlite"):
        rows.fill_sqlite(Path(url.removeprefix("sqlite:///")))
    else:
        asyncio.run(rows.fill_postgresql(url))


def postgresql_settings(server: Postgres) -> dict[str, str]:
    """Return the settings of the server that affect the figures."""
    names = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "max_connections")
    return {name: asyncio.run(_execute(server.url("postgres"), f"SHOW {name}")) for name in names}


def database_cpu(server: Postgres | None) -> float:
    """Return the CPU time of all PostgreSQL processes, in seconds."""
    seconds = 0.0
    for process in server.processes() if server else ():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds


async def _execute(url: str, sql: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval(sql))
    finally:
        await connection.close()


@dataclass
class Server:
    """A running server: the service or the limit."""

    process: psutil.Process
    port: int

    def cpu(self) -> float:
        """Return its CPU time in seconds."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> float:
        """Return its memory in MiB."""
        return float(self.process.memory_info().rss / 2**20)

    def ask(self, request: bytes) -> tuple[int, dict[str, str], Any]:
        """Send one request; return status, headers and JSON of the response."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            connection.sendall(request)
            response = HTTPResponse(connection)
            response.begin()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return response.status, headers, json.loads(response.read())

    def settle(self, request: bytes) -> None:
        """Wait until the server is idle: cancelled requests may still run.

        First, wait for another request, which is queued behind most of those. Then wait until the
        server uses no CPU time for 0.15 s: SQLite's writer mostly waits for the disk.
        """
        deadline = time.monotonic() + PATIENCE
        with suppress(OSError, HTTPException):
            self.ask(request)
        used = self.cpu()
        while time.monotonic() < deadline:
            time.sleep(0.15)
            before, used = used, self.cpu()
            if used - before < 0.015:  # one clock tick
                return


@contextmanager
def started(command: list[str], project: Project, port: int, **settings: str) -> Iterator[Server]:
    """Run a server on its own core, and stop it at the end."""
    log = project.path.parent / f"{port}.log"
    with log.open("wb") as file:
        process = psutil.Popen(
            command,
            cwd=project.path,
            env=clean_environment(PYTHONDONTWRITEBYTECODE="", **settings),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C must not stop it before the load has ended
        )
    pin(process, CORES[-1:])
    server = Server(process, port)
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"A server did not start:\n{log.read_text(encoding='utf-8')}")
            try:
                if server.ask(b"GET /health/ready HTTP/1.1\r\n\r\n")[0] == 200:
                    break
            except OSError:
                pass
            time.sleep(0.05)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(PATIENCE)


@dataclass(frozen=True, eq=False)
class Side:
    """Requests of one kind to one server, which take turns with those to other servers."""

    service: str
    """A service of ``data.RESOURCES``, or the limit of a resource."""
    caller: str
    """The credential of the requests: ``none``, ``token`` or ``key``."""
    endpoint: str
    server: Server
    requests: Sequence[bytes]


@dataclass(frozen=True)
class Stage:
    """The servers on a database: the limit, and the service with and without users."""

    limit: Server
    none: Server
    users: Server
    rows: Rows
    callers: Mapping[str, str]
    """The headers of each caller."""

    def server(self, caller: str) -> Server:
        """Return the server for the requests of a caller."""
        return self.none if caller == "none" else self.users

    def sides(self, resource: str, endpoints: Sequence[str]) -> dict[str, list[Side]]:
        """Return the sides to compare, by endpoint. Check that their responses are equal.

        Each service is compared with the limit without users, and the example also with a token.
        The cost of a credential is measured for GET and POST of the first service.
        """
        first, *_ = services = RESOURCES[resource]
        limit = requests_of(services[-1], self.rows)
        default = "token" if resource == "example" else "none"
        found = {}
        for endpoint in endpoints:
            callers = [default] if endpoint in {"page", "patch"} else ["token", "key"]
            wanted = [(service, "none") for service in services]
            wanted += [(first, caller) for caller in callers if caller != "none"]
            found[endpoint] = [
                Side(f"{LIMIT} of {resource}", "none", endpoint, self.limit, limit[endpoint]),
                *(self._side(service, caller, endpoint) for service, caller in wanted),
            ]
            _compare(found[endpoint])
        if "page" in found:
            found["page"].append(self._side(first, default, DEPTH))
        return found

    def _side(self, service: str, caller: str, endpoint: str) -> Side:
        server, headers = self.server(caller), self.callers[caller]
        cursor = end_of_list(server, service, headers, self.rows) if endpoint == DEPTH else ""
        requests = requests_of(service, self.rows, headers, cursor)[endpoint]
        return Side(service, caller, endpoint, server, requests)


@contextmanager
def staged(
    projects: Mapping[str, Project],
    urls: Mapping[str, str],
    rows: Rows,
    settings: Mapping[str, str],
) -> Iterator[Stage]:
    """Run the services with their production command, and the limit; fill the databases."""
    with ExitStack() as stack:
        servers = {}
        for auth, project in projects.items():
            port = free_port()
            own = {"DATABASE_URL": urls[auth], "PORT": str(port), "LOG_LEVEL": "warning"}
            command = [script(project, "python"), "-m", "app"]
            servers[auth] = stack.enter_context(
                started(command, project, port, **{**own, **_LOCAL, **settings})
            )
        owner, callers = _signed_in(servers["users"])
        fill(urls["none"], rows)
        fill(urls["users"], replace(rows, owner=owner))
        project, port = projects["none"], free_port()
        _, headers, _ = servers["none"].ask(requests_of("example", rows)["get"][0])
        fixed = json.dumps([pair for pair in headers.items() if pair[0] not in _VARYING])
        command = [
            script(project, "python"),
            str(HERE / "limit.py"),
            urls["none"],
            str(port),
            fixed,
        ]
        limit = stack.enter_context(started(command, project, port))
        yield Stage(limit, servers["none"], servers["users"], rows, callers)


_LOCAL: Final = {
    "SECRET_KEY": secrets.token_urlsafe(32),
    "ACCESS_TOKEN_LIFETIME": "86400",
    "REGISTRATION_OPEN": "true",
}


def _signed_in(server: Server) -> tuple[UUID, dict[str, str]]:
    """Register a user; return its id, and the headers of each caller."""
    email, password = "ada@example.com", secrets.token_urlsafe(16)
    body = {"email": email, "password": password, "name": "Ada"}
    status, _, user = server.ask(http_request("POST", "/v1/users?with_api_key=true", body))
    if status != 201:
        sys.exit(f"The user can't be registered: {status} {user}")
    form = urlencode({"username": email, "password": password})
    head = "Content-Type: application/x-www-form-urlencoded\r\n"
    head += f"Content-Length: {len(form)}\r\n"
    _, _, tokens = server.ask(http_request("POST", "/v1/auth/token", headers=head) + form.encode())
    return UUID(user["id"]), {
        "none": "",
        "token": f"Authorization: Bearer {tokens['access_token']}\r\n",
        "key": f"X-API-Key: {user['api_key']['key']}\r\n",
    }


def end_of_list(server: Server, service: str, headers: str, rows: Rows) -> str:
    """Read a list page by page; return the cursor of the last full page."""
    path = f"/v1/{PATHS[service]}?limit=100"
    cursor = ""
    # Stop before the end, so that a full page follows.
    for _ in range(rows.count // 100 - 1):
        suffix = f"&cursor={cursor}" if cursor else ""
        status, _, page = server.ask(http_request("GET", path + suffix, headers=headers))
        if status != 200:
            sys.exit(f"The list of {service} can't be walked: {status} {page}")
        cursor = page["next_cursor"]
    return cursor


def _compare(sides: Sequence[Side]) -> None:
    """Exit unless all sides have the same successful response to their first request."""
    seen = []
    for side in sides:
        status, headers, document = side.server.ask(side.requests[0])
        own = _OWN.get(side.endpoint, {"next_cursor"})
        seen.append((status, sorted(headers), json.dumps(_masked(document, own))))
        if status >= 300 or seen[0] != seen[-1]:
            sys.exit(
                f"{side.service} {side.endpoint}, caller {side.caller}, does not respond as the"
                f" limit does:\n{seen[0]}\n{seen[-1]}"
            )


def _masked(document: Any, own: set[str]) -> Any:
    """Replace values that differ between servers by the names of their types."""
    if isinstance(document, list):
        return [_masked(item, own) for item in document]
    if isinstance(document, dict):
        return {
            name: type(value).__name__ if name in own else _masked(value, own)
            for name, value in document.items()
        }
    return document


def commit() -> str:
    """Return the measured commit, with a plus if files have changed; empty outside of git."""
    command = ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    return done.stdout.strip()
