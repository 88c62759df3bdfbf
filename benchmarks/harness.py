"""The rendered service with a flat resource, the limit, and their databases."""

import asyncio
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import asyncpg
import psutil

from benchmarks.data import ENDPOINTS, SERVICES, Rows, asked
from testing.baking import ROOT, Project, clean_environment, copy_template, free_port
from testing.postgres import Postgres

HERE: Final = Path(__file__).parent
PATIENCE: Final = 30
"""Seconds that a server may take to start or to become idle."""

# What differs between the responses of both sides: cursors are private, a change makes
# a new version, and a new row has an id and times of its own.
_CHANGED: Final = {"updated_at", "version"}
_NEW: Final = {"id", "created_at", *_CHANGED}
_OWN: Final = {"patch": _CHANGED, "post": _NEW, "batch": _NEW}


class Cores:
    """The cores of the processes: one for the measured server, the others for everything else."""

    def __init__(self) -> None:
        """Choose the last core, if the platform allows it and there are two."""
        self.allowed = os.sched_getaffinity(0) if sys.platform == "linux" else set[int]()
        self.server = {max(self.allowed)} if len(self.allowed) > 1 else set[int]()
        self.others = self.allowed - self.server if self.server else set[int]()

    @contextmanager
    def pinned(self, cores: set[int]) -> Iterator[None]:
        """Run this process, and those that it starts meanwhile, on these cores."""
        if sys.platform != "linux" or not cores:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


def _output(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a command that must not fail."""
    if done.returncode:
        words = " ".join(map(str, done.args))
        sys.exit(f"This failed, with status {done.returncode}: {words}\n{done.stdout}{done.stderr}")
    return done.stdout


def render(folder: Path, template: Path, database: str) -> tuple[Project, float]:
    """Render a service by Cookiecutter's command line; return it and the seconds it took."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    started = time.perf_counter()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "cookiecutter", str(template), "--no-input"),
            *("--overwrite-if-exists", "--output-dir", str(folder / database)),
            *(f"database={database}", "auth=none"),
        ],
        env=clean_environment(HOME=str(home), USERPROFILE=str(home)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    seconds = time.perf_counter() - started
    _output(done)
    (path,) = (folder / database).iterdir()
    return Project(path, {"database": database, "auth": "none"}), seconds


def template_copy(folder: Path) -> Path:
    """Copy the template without caches and other files."""
    return copy_template(folder / "template")


def with_items(project: Project) -> None:
    """Add the flat resource as a user does: its files, and two lines in ``app/api.py``."""
    ignored = shutil.ignore_patterns("ruff.toml", "__pycache__", ".*_cache")
    shutil.copytree(HERE / "flat", project.path, ignore=ignored, dirs_exist_ok=True)
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
    """Return a program of an installed render."""
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
            # A folder of its own: a pytest elsewhere may close the common one to PostgreSQL's user.
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
            process.send_signal(signal.SIGINT)  # it may have a PostgreSQL of its own to stop
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            process.kill()
            raise
    if status:
        sys.exit(f"The service's own tests fail:\n{log.read_text(encoding='utf-8')}")
    return time.perf_counter() - began


def versions(project: Project) -> dict[str, str]:
    """Return the versions of what runs in a render."""
    names = {
        "FastAPI": "fastapi",
        "SQLAlchemy": "sqlalchemy",
        "Pydantic": "pydantic",
        "uvicorn": "uvicorn",
        "uvloop": "uvloop",
        "httptools": "httptools",
        **({"asyncpg": "asyncpg"} if project.answers["database"] == "postgresql" else {}),
        **({"aiosqlite": "aiosqlite"} if project.answers["database"] == "sqlite" else {}),
    }
    code = (
        "import json, platform, sqlite3\n"
        "from importlib.metadata import version\n"
        f"found = {{'Python': platform.python_version(), 'SQLite': sqlite3.sqlite_version}}\n"
        f"found |= {{name: version(package) for name, package in {names!r}.items()}}\n"
        "print(json.dumps(found))"
    )
    found: dict[str, str] = json.loads(_output(_python(project, code)))
    return found


def _python(project: Project, code: str) -> subprocess.CompletedProcess[str]:
    # Empty: so that it may keep what it compiles, as it does at a user's.
    return project.run(script(project, "python"), "-c", code, PYTHONDONTWRITEBYTECODE="")


def sqlite_made(project: Project, path: Path, rows: Rows) -> str:
    """Create a migrated file with rows; return its URL."""
    url = f"sqlite:///{path}"
    _migrate(project, url)
    rows.fill_sqlite(path)
    return url


def postgresql_made(project: Project, server: Postgres, rows: Rows) -> str:
    """Create a migrated database with rows; return its URL."""
    url = server.url("bench")
    asyncio.run(_execute(server.url("postgres"), "CREATE DATABASE bench"))
    _migrate(project, url)
    asyncio.run(rows.fill_postgresql(url))
    return url


def postgresql_settings(server: Postgres) -> dict[str, str]:
    """Return the settings of the server that affect the figures."""
    names = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "max_connections")
    return {name: asyncio.run(_execute(server.url("postgres"), f"SHOW {name}")) for name in names}


def _migrate(project: Project, url: str) -> None:
    _output(project.run(script(project, "alembic"), "upgrade", "head", DATABASE_URL=url))


async def _execute(url: str, sql: str) -> str:
    connection = await asyncpg.connect(url)
    try:
        return str(await connection.fetchval(sql))
    finally:
        await connection.close()


@dataclass
class Server:
    """The service or the limit, running."""

    process: psutil.Popen
    port: int
    log: Path

    def cpu(self) -> float:
        """Return the processor time that it has used, in seconds."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def memory(self) -> float:
        """Return the memory that it holds, in MiB."""
        return float(self.process.memory_info().rss / 2**20)

    def ask(self, request: bytes) -> tuple[int, dict[str, str], Any]:
        """Send one request; return status, headers and JSON of the response."""
        head, _, body = request.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        method, path, _ = first.split(" ")
        headers = dict(line.split(": ") for line in lines)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with closing(connection):
            connection.request(method, path, body or None, headers)
            response = connection.getresponse()
            text = response.read()
            named = {name.lower(): value for name, value in response.getheaders()}
            return response.status, named, json.loads(text)

    def settle(self, request: bytes) -> None:
        """Wait until it is idle: cancelled requests may still run.

        One more request of the kind has to be answered, behind most of those; then the processor
        tells. SQLite's writer mostly waits for the disk, so a short look would see it idle.
        """
        deadline = time.monotonic() + PATIENCE
        with suppress(OSError, http.client.HTTPException):
            self.ask(request)
        used = self.cpu()
        while time.monotonic() < deadline:
            time.sleep(0.15)
            before, used = used, self.cpu()
            if used - before < 0.015:  # one tick of its clock
                return


@contextmanager
def started(
    command: list[str], project: Project, cores: Cores, log: Path, port: int, **settings: str
) -> Iterator[Server]:
    """Run a server on its core; stop it at the end, also after an error."""
    with log.open("wb") as file, cores.pinned(cores.server):
        process = psutil.Popen(
            command,
            cwd=project.path,
            env=clean_environment(PYTHONDONTWRITEBYTECODE="", **settings),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C is ours to pass on, once the load has ended
        )
    server = Server(process, port, log)
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


@contextmanager
def sides(
    project: Project, cores: Cores, url: str, settings: Mapping[str, str]
) -> Iterator[dict[str, Server]]:
    """Run the service by its own production command, and the limit."""
    python = script(project, "python")
    port, other = free_port(), free_port()
    folder = project.path.parent
    own = {"DATABASE_URL": url, "PORT": str(port), "LOG_LEVEL": "warning", **settings}
    limit = [python, str(HERE / "limit.py"), url, str(other)]
    with (
        started([python, "-m", "app"], project, cores, folder / "ours.log", port, **own) as ours,
        started(limit, project, cores, folder / "limit.log", other) as below,
    ):
        yield {"ours": ours, "limit": below}


def end_of_list(server: Server, service: str, rows: Rows) -> str:
    """Read a list page by page; return the cursor that leads to the last full page."""
    path = f"/v1/{SERVICES[service]}?limit=100"
    cursor = ""
    # Stop before the end, so that a full page follows.
    for _ in range(rows.count // 100 - 1):
        suffix = f"&cursor={cursor}" if cursor else ""
        status, _, page = server.ask(f"GET {path}{suffix} HTTP/1.1\r\n\r\n".encode())
        if status != 200:
            sys.exit(f"The list of {service} can't be walked: {status} {page}")
        cursor = page["next_cursor"]
    return cursor


def prepared(
    both: Mapping[str, Server], service: str, rows: Rows
) -> dict[str, dict[str, Sequence[bytes]]]:
    """Return the requests of each side by endpoint, after checking that both respond alike."""
    wanted = {
        name: asked(service, rows, end_of_list(server, service, rows))
        for name, server in both.items()
    }
    for endpoint in ENDPOINTS:
        ours, limit = (
            json.dumps(_seen(server.ask(wanted[name][endpoint][0]), endpoint))
            for name, server in both.items()
        )
        if ours != limit:
            same = takewhile(lambda pair: pair[0] == pair[1], zip(ours, limit, strict=False))
            start = max(0, sum(1 for _ in same) - 60)
            sys.exit(
                f"The service and its limit differ in {service} {endpoint}:"
                f"\n... {ours[start : start + 200]}\n... {limit[start : start + 200]}"
            )
        if ours[1] != "2":
            sys.exit(f"{service} {endpoint} is refused: {ours}")
    return {endpoint: {name: wanted[name][endpoint] for name in both} for endpoint in ENDPOINTS}


def _seen(answer: tuple[int, dict[str, str], Any], endpoint: str) -> tuple[int, list[str], Any]:
    status, headers, document = answer
    return status, sorted(headers), _masked(document, _OWN.get(endpoint, {"next_cursor"}))


def _masked(document: Any, own: Collection[str]) -> Any:
    """Replace what differs between both sides."""
    if isinstance(document, list):
        return [_masked(item, own) for item in document]
    if isinstance(document, dict):
        return {
            name: type(value).__name__ if name in own else _masked(value, own)
            for name, value in document.items()
        }
    return document


def commit() -> str:
    """Return the measured commit, with a plus if the tree has uncommitted changes."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")
