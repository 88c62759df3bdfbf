"""A new version replaces the old one without a failed request."""

import asyncio
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from testing.baking import Project, free_port, installed
from testing.client import Answer, CutError
from testing.load import slowest
from testing.requirements import require
from testing.serving import PostgreSQL, Service, Stage, listens, migrated, until
from testing.writers import rows
from tests.conftest import Bake
from tests.figures import Measured

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are stopped by POSIX signals"),
]

CONFIGURATION = Path(__file__).parent / "haproxy.cfg"

CLIENTS = 16
DELAY = "4"
"""Seconds for which a stopping instance still serves: longer than the proxy needs to notice."""
SERVERS = "abcd"
"""The proxy's names of the instances: two of the old version, then two of the new one."""

EXPAND = '''"""The schema changes of the next version."""

import sqlalchemy as sa
from alembic import op

revision = "expand"
down_revision = {head!r}


def upgrade() -> None:
    op.create_table("labels", sa.Column("id", sa.Uuid(), primary_key=True))
    op.add_column("tasks", sa.Column("priority", sa.Integer(), nullable=True))
'''

INDEX = '''"""An index on a table with concurrent writes."""

from alembic import op

revision = "index"
down_revision = "expand"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index("ix_tasks_priority", "tasks", ["priority"], postgresql_concurrently=True)
'''


@pytest.fixture(scope="session")
def next_version(bake: Bake) -> Iterator[Project]:
    """Return an installed render of a next version with additional tables and columns."""
    with installed(bake(database="postgresql", auth="none")) as project:
        (pyproject := project.path / "pyproject.toml").write_text(
            project.text("pyproject.toml").replace('version = "0.1.0"', 'version = "0.2.0"')
        )
        assert 'version = "0.2.0"' in pyproject.read_text()
        versions = project.path / "migrations" / "versions"
        texts = [file.read_text() for file in versions.glob("*.py")]
        revisions, built_upon = (
            {found for text in texts for found in re.findall(rf'(?m)^{name}\b.* = "(\w+)"', text)}
            for name in ("revision", "down_revision")
        )
        (head,) = revisions - built_upon
        (versions / "expand.py").write_text(EXPAND.format(head=head))
        (versions / "index.py").write_text(INDEX)
        yield project


@asynccontextmanager
async def haproxy(folder: Path, ports: dict[str, int]) -> AsyncIterator[Service]:
    """Run HAProxy in front of the instances, with the settings of ``haproxy.cfg``."""
    program = require("haproxy")
    front = free_port()
    text = CONFIGURATION.read_text().replace("0.0.0.0:80", f"127.0.0.1:{front}")
    text = text.replace("/run/haproxy/admin.sock", str(folder / "admin.sock"))
    for server, port in ports.items():
        text = re.sub(rf"(?m)^( +server {server}) .*", rf"\1 127.0.0.1:{port}", text)
    assert "10.0.0." not in text
    settings, log = folder / "haproxy.cfg", folder / "haproxy.log"
    settings.write_text(text)
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: ASYNC220 - it starts at once, and is awaited below
            [program, "-db", "-f", str(settings)], stdout=output, stderr=output
        ) as process,
    ):

        async def listening() -> bool:
            assert process.poll() is None, log.read_text()
            return await listens(front)

        try:
            await until(listening, "HAProxy")
            yield Service(process, front, log)
        finally:
            process.kill()


async def statistics(folder: Path) -> dict[str, dict[str, str]]:
    """Return HAProxy's statistics of each server, and of all (``BACKEND``)."""
    reader, writer = await asyncio.open_unix_connection(str(folder / "admin.sock"))
    writer.write(b"show stat\n")
    lines = [line.split(",") for line in (await reader.read()).decode().splitlines()]
    writer.close()
    rows = [dict(zip(lines[0], line, strict=False)) for line in lines[1:]]
    return {row["svname"]: row for row in rows if row.get("# pxname") == "service"}


async def up(folder: Path) -> str:
    """Return the names of the servers to which HAProxy sends requests."""
    found = await statistics(folder)
    return "".join(server for server in SERVERS if found[server]["status"].startswith("UP"))


class Crowd:
    """Clients of the proxy that send the next request as soon as they get a response."""

    def __init__(self, proxy: Service) -> None:
        """Count the responses through ``proxy``."""
        self.proxy = proxy
        self.answers: list[Answer] = []
        self.served: Counter[str] = Counter()
        self.failed: list[str] = []
        self.acknowledged: set[str] = set()
        self.stopping = False

    async def ask(self, number: int) -> None:
        """Write and read in turn, on a persistent connection."""
        with self.proxy.client() as client:
            while not self.stopping:
                number += 1
                title = uuid4().hex
                try:
                    if number % 2:
                        answer = await client.post("/v1/tasks", {"title": title})
                    else:
                        answer = await client.get("/v1/tasks?limit=5")
                except (ConnectionError, CutError) as error:
                    self.failed.append(repr(error))
                    continue
                self.answers.append(answer)
                self.served[answer.headers.get("x-served-by", "nobody")] += 1
                if answer.status != (201 if number % 2 else 200):
                    self.failed.append(f"{answer.status} {answer.body!r}")
                elif number % 2:
                    self.acknowledged.add(title)

    async def more(self, count: int = 200) -> None:
        """Wait for a number of further responses, or for the first failure."""
        wanted = len(self.answers) + count
        await until(lambda: len(self.answers) >= wanted or bool(self.failed), f"{count} responses")

    async def more_of(self, server: str) -> None:
        """Wait until an instance gets its share of requests."""
        await until(
            lambda: self.served[server] >= 50 or bool(self.failed), f"responses of {server}"
        )


async def version(service: Service) -> str:
    """Return the version of an instance."""
    with service.client() as client:
        return str((await client.get("/openapi.json")).json()["info"]["version"])


async def test_a_rolling_update_loses_no_request(
    on_postgresql: Stage, next_version: Project, tmp_path: Path, measured: Measured
) -> None:
    require("haproxy")
    database = on_postgresql.database
    assert isinstance(database, PostgreSQL)
    new_stage = Stage(next_version, database)
    ports = {server: free_port() for server in SERVERS}
    instances: dict[str, Service] = {}
    async with AsyncExitStack() as stack:

        async def start(stage: Stage, server: str) -> None:
            serving = stage.serving(port=ports[server], SHUTDOWN_DELAY=DELAY)
            instances[server] = await stack.enter_async_context(serving)

        async def replace(old: str, new: str) -> None:
            await start(new_stage, new)
            await crowd.more_of(new)
            instances[old].terminate()
            await instances[old].ended(20)
            await crowd.more()

        for server in "ab":
            await start(on_postgresql, server)
        proxy = await stack.enter_async_context(haproxy(tmp_path, ports))

        async def checked() -> bool:  # it considers all servers up before the first check
            return await up(tmp_path) == "ab"

        await until(checked, "only the old version to be up")
        crowd = Crowd(proxy)
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(crowd.ask(number))
            await crowd.more()
            await crowd.more_of("a")
            await crowd.more_of("b")
            await asyncio.to_thread(migrated, next_version, database.url)
            await crowd.more()
            still_ready = [await instances[server].ready() for server in "ab"]
            await replace("a", "c")
            versions = [await version(instances[server]) for server in "bc"]
            await replace("b", "d")
            crowd.stopping = True
        redispatched = (await statistics(tmp_path))["BACKEND"]["wredis"]
        log = "".join(instance.log() for instance in instances.values())

    written = await rows(database)
    lost = sum(written[title] != 1 for title in crowd.acknowledged)
    measured(
        "A rolling update loses no request",
        on_postgresql.label,
        requests=len(crowd.answers),
        failed=len(crowd.failed),
        by_the_old_version=crowd.served["a"] + crowd.served["b"],
        by_the_new_one=crowd.served["c"] + crowd.served["d"],
        acknowledged_writes=len(crowd.acknowledged),
        lost=lost,
        slowest=f"{slowest(crowd.answers):.2f} s",
        connections_refused_and_retried_elsewhere=redispatched,
    )
    assert not crowd.failed, "\n".join(crowd.failed)
    assert still_ready == [True, True]
    assert versions == ["0.1.0", "0.2.0"]
    assert set(crowd.served) == set(SERVERS)
    assert lost == 0
    assert redispatched == "0"  # the proxy noticed in time: no connection was refused
    assert "Traceback" not in log
