"""The databases of the tests: files in a folder of the test run."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

SETTINGS: dict[str, str] = {}
"""The settings that the service needs."""

PATIENT = {
    "database_pool_timeout": "120",
    "database_session_timeout": "120",
    "database_busy_timeout": "60",
}
"""Time limits that even a slow machine does not reach. Tests of a limit set their own."""

RUNAWAY = (
    "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) "
    "SELECT max(n) FROM numbers"
)
"""A statement that takes much longer than any limit."""

FULL_SCAN = "SCAN "
"""What a plan has before the name of a table that is read completely."""

CONNECT = ("aiosqlite/core.py", "connect")
"""The file and the function in which the driver connects."""


async def plan(connection: AsyncConnection, statement: str, parameters: Any) -> str:
    """Return the plan of a statement."""
    rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    return "\n".join(map(str, rows))


class Databases:
    """Creates databases for one test process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()

    async def create(self) -> str:
        """Return the URL of an empty database."""
        return f"sqlite:///{self._folder / f'test_{next(self._numbers)}.db'}"

    async def copy(self, template: str) -> str:
        """Copy a database without connections."""
        copy = await self.create()
        shutil.copy(_path(template), _path(copy))
        return copy

    @asynccontextmanager
    async def read_only(self, url: str) -> AsyncIterator[None]:
        """Make new connections to a database read-only."""
        # By a flag in the file's header, because root may write to read-only files.
        file = os.open(_path(url), os.O_RDWR)
        kept = os.pread(file, 1, 18)
        os.pwrite(file, b"\x03", 18)
        yield
        os.pwrite(file, kept, 18)
        os.close(file)

    async def drop(self, url: str) -> None:
        """Remove a database."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{_path(url)}{suffix}").unlink(missing_ok=True)


@asynccontextmanager
async def databases(folder: Path, worker: str) -> AsyncIterator[Databases]:
    """Create the databases of one test process in a subfolder of ``folder``."""
    (own := folder / worker).mkdir(parents=True)
    yield Databases(own)
    shutil.rmtree(own)
    with suppress(OSError):  # another process still uses it
        folder.rmdir()


def _path(url: str) -> str:
    return url.removeprefix("sqlite:///")
