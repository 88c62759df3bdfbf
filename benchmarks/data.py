"""The rows of the databases and the requests: the same in every run, by fixed seeds."""

import json
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg

RESOURCES: Final = {"flat": ("rows", "entities"), "example": ("example",)}
"""The measured resources, a single table and the template's example, and the services of each."""

PATHS: Final = {"rows": "item-rows", "entities": "items", "example": "tasks"}
"""The path of each service: the flat table is served as rows of columns and as entities."""

ENDPOINTS: Final = ("get", "page", "post", "patch")
DEPTH: Final = "depth"
"""The last page of the list, which is measured as well as the first one."""

STATUSES: Final = ("todo", "doing", "done")
TAGS: Final = [f"tag-{number:02}" for number in range(50)]
DESCRIPTION: Final = "It came with the others, in good order, and was counted twice on arrival."

_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_DUE_AT: Final = datetime(2026, 12, 1, 8, 30, tzinfo=UTC)
_VARIANTS: Final = 1000


@dataclass(frozen=True)
class Rows:
    """A chosen number of rows for each table."""

    count: int
    owner: UUID | None = None
    """The owner of the tasks and tags, if there are users."""

    def keys(self, table: str) -> list[UUID]:
        """Return the ids of a table, in the order of its rows."""
        return _keys(table, self.count)

    def items(self) -> Iterator[tuple[Any, ...]]:
        """Return the flat table."""
        for number, key in enumerate(self.keys("items")):
            at = _created(number)
            description = DESCRIPTION if number % 3 else None
            cents = 100 + number % 9900
            yield key, f"Item {number}", description, number % 500, cents, number % 7 != 0, at, at

    def tasks(self) -> Iterator[tuple[Any, ...]]:
        """Return the tasks."""
        for number, key in enumerate(self.keys("tasks")):
            at = _created(number)
            due_at = _DUE_AT + timedelta(microseconds=number) if number % 2 else None
            description = DESCRIPTION if number % 3 else None
            status = STATUSES[number % 3]
            task = (key, f"Task {number}", description, status, due_at, at, at, 1, None)
            yield (*task, *self._owner)

    def tags(self) -> Iterator[tuple[Any, ...]]:
        """Return the tags."""
        generator = random.Random("tags")  # noqa: S311 - no secret
        for name in TAGS:
            yield (_uuid7(_BEGIN, generator), name, *self._owner)

    def task_tags(self) -> Iterator[tuple[Any, ...]]:
        """Return the tags of each task: none to three."""
        tags = [key for key, *_ in self.tags()]
        for number, key in enumerate(self.keys("tasks")):
            for step in range(number % 4):
                yield key, tags[(number + 17 * step) % len(tags)]

    @property
    def _owner(self) -> tuple[UUID, ...]:
        return () if self.owner is None else (self.owner,)

    def tables(self) -> dict[str, tuple[str, Iterable[tuple[Any, ...]]]]:
        """Return the columns and rows of each table, parents first."""
        owner = "" if self.owner is None else " owner_id"
        return {
            "items": (
                "id name description quantity price_cents active created_at updated_at",
                self.items(),
            ),
            "tasks": (
                "id title description status due_at created_at updated_at version deleted_at"
                + owner,
                self.tasks(),
            ),
            "tags": ("id name" + owner, self.tags()),
            "task_tags": ("task_id tag_id", self.task_tags()),
        }

    def fill_sqlite(self, path: Path) -> None:
        """Write every table into a SQLite file, in one transaction."""
        with closing(sqlite3.connect(path)) as connection, connection:
            for table, (columns, rows) in self.tables().items():
                names = columns.split()
                connection.executemany(
                    f"INSERT INTO {table} ({', '.join(names)})"  # noqa: S608 - ours
                    f" VALUES ({', '.join('?' * len(names))})",
                    (tuple(map(_plain, row)) for row in rows),
                )

    async def fill_postgresql(self, url: str) -> None:
        """Write every table into a PostgreSQL database, then vacuum it."""
        connection = await asyncpg.connect(url)
        try:
            for table, (columns, rows) in self.tables().items():
                await connection.copy_records_to_table(table, records=rows, columns=columns.split())
            await connection.execute("VACUUM ANALYZE")
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()


def _created(number: int) -> datetime:
    """Return the time of a row, a second after that of the previous row."""
    # With microseconds: whole seconds have two text forms in the databases.
    return _BEGIN + timedelta(seconds=number, microseconds=1 + number % 999_999)


@cache
def _keys(table: str, count: int) -> list[UUID]:
    generator = random.Random(table)  # noqa: S311 - no secret
    return [_uuid7(_created(number), generator) for number in range(count)]


def _uuid7(at: datetime, generator: random.Random) -> UUID:
    milliseconds = int(at.timestamp() * 1000)
    number = milliseconds << 80 | 7 << 76 | generator.getrandbits(12) << 64
    return UUID(int=number | 2 << 62 | generator.getrandbits(62))


def _plain(value: object) -> object:
    """Return a value as SQLAlchemy stores it in SQLite."""
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(" ", "microseconds")
    return value


def http_request(method: str, path: str, body: object = None, headers: str = "") -> bytes:
    """Return the bytes of a request; each of ``headers`` ends with a line break."""
    head = f"{method} {path} HTTP/1.1\r\nHost: service\r\n{headers}"
    if body is None:
        return f"{head}\r\n".encode()
    text = json.dumps(body, separators=(",", ":"))
    head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n"
    return f"{head}\r\n{text}".encode()


def requests_of(
    service: str, rows: Rows, headers: str = "", cursor: str = ""
) -> dict[str, Sequence[bytes]]:
    """Return the requests of each endpoint; ``cursor`` leads to the last page of the list."""
    resource = PATHS[service]
    path = f"/v1/{resource}"
    table = "tasks" if service == "example" else "items"
    generator = random.Random(table)  # noqa: S311 - no secret
    keys = generator.choices(rows.keys(table), k=_VARIANTS)
    new, change = _BODIES[table]
    return {
        "get": [http_request("GET", f"{path}/{key}", headers=headers) for key in keys],
        "page": [http_request("GET", f"{path}?limit=20", headers=headers)],
        DEPTH: [http_request("GET", f"{path}?limit=20&cursor={cursor}", headers=headers)],
        "post": [http_request("POST", path, new(number), headers) for number in range(_VARIANTS)],
        "patch": [
            http_request("PATCH", f"{path}/{key}", change(number), headers)
            for number, key in enumerate(keys)
        ],
    }


def _item(number: int) -> dict[str, object]:
    return {
        "name": f"New item {number}",
        "description": DESCRIPTION,
        "quantity": number % 500,
        "price_cents": 100 + number,
        "active": True,
    }


def _item_change(number: int) -> dict[str, object]:
    return {"quantity": number, "price_cents": 200 + number}


def _task(number: int) -> dict[str, object]:
    return {
        "title": f"New task {number}",
        "description": DESCRIPTION,
        "status": "todo",
        "due_at": "2026-12-24T18:00:00.000001Z",
        "tags": [TAGS[number % 50], TAGS[(number + 7) % 50]],
    }


def _task_change(number: int) -> dict[str, object]:
    return {"status": STATUSES[number % 3], "description": f"{DESCRIPTION} ({number})"}


_Body = Callable[[int], dict[str, object]]
_BODIES: Final[dict[str, tuple[_Body, _Body]]] = {
    "items": (_item, _item_change),
    "tasks": (_task, _task_change),
}
