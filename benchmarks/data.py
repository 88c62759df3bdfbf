"""The rows of the databases and the requests: the same in every run, by fixed seeds."""

import json
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import asyncpg

SERVICES: Final = {"flat": "items", "example": "tasks"}
"""The measured services and their resources: a single table, and the example of the template."""

ENDPOINTS: Final = ("get", "page", "depth", "post", "patch", "batch")
BATCH: Final = 100
"""Rows that one batch writes."""

STATUSES: Final = ("todo", "doing", "done")
TAGS: Final = [f"tag-{number:02}" for number in range(50)]
DESCRIPTION: Final = "It came with the others, in good order, and was counted twice on arrival."

_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
_DUE_AT: Final = datetime(2026, 12, 1, 8, 30, tzinfo=UTC)
_VARIANTS: Final = 1000


@dataclass(frozen=True)
class Rows:
    """The first rows of both tables, of a chosen number."""

    count: int

    def created(self, number: int) -> datetime:
        """Return the time of a row, a second after that of the previous row."""
        # With microseconds: whole seconds have two text forms in the databases.
        return _BEGIN + timedelta(seconds=number, microseconds=1 + number % 999_999)

    def keys(self, table: str) -> list[UUID]:
        """Return the ids of a table, in the order of its rows."""
        generator = random.Random(table)  # noqa: S311 - no secret
        return [_uuid7(self.created(number), generator) for number in range(self.count)]

    def items(self) -> Iterator[tuple[Any, ...]]:
        """Return the flat table."""
        for number, key in enumerate(self.keys("items")):
            at = self.created(number)
            description = DESCRIPTION if number % 3 else None
            cents = 100 + number % 9900
            yield key, f"Item {number}", description, number % 500, cents, number % 7 != 0, at, at

    def tasks(self) -> Iterator[tuple[Any, ...]]:
        """Return the tasks."""
        for number, key in enumerate(self.keys("tasks")):
            at = self.created(number)
            due_at = _DUE_AT + timedelta(microseconds=number) if number % 2 else None
            description = DESCRIPTION if number % 3 else None
            status = STATUSES[number % 3]
            yield key, f"Task {number}", description, status, due_at, at, at, 1, None

    def tags(self) -> Iterator[tuple[Any, ...]]:
        """Return the tags."""
        generator = random.Random("tags")  # noqa: S311 - no secret
        for name in TAGS:
            yield _uuid7(_BEGIN, generator), name

    def task_tags(self) -> Iterator[tuple[Any, ...]]:
        """Return the tags of each task: none to three."""
        tags = [key for key, _ in self.tags()]
        for number, key in enumerate(self.keys("tasks")):
            for step in range(number % 4):
                yield key, tags[(number + 17 * step) % len(tags)]

    def comments(self) -> Iterator[tuple[Any, ...]]:
        """Return four comments on every fifth task."""
        generator = random.Random("comments")  # noqa: S311 - no secret
        for number, key in list(enumerate(self.keys("tasks")))[::5]:
            for step in range(4):
                at = self.created(number) + timedelta(minutes=step)
                yield _uuid7(at, generator), key, f"Author {step}", DESCRIPTION, at

    def tables(self) -> dict[str, tuple[str, Iterable[tuple[Any, ...]]]]:
        """Return the columns and rows of each table, parents first."""
        return {
            "items": (
                "id name description quantity price_cents active created_at updated_at",
                self.items(),
            ),
            "tasks": (
                "id title description status due_at created_at updated_at version deleted_at",
                self.tasks(),
            ),
            "tags": ("id name", self.tags()),
            "task_tags": ("task_id tag_id", self.task_tags()),
            "comments": ("id task_id author body created_at", self.comments()),
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


def written(method: str, path: str, body: object = None) -> bytes:
    """Return the bytes of a request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: service\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    text = json.dumps(body, separators=(",", ":"))
    head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n"
    return f"{head}\r\n{text}".encode()


def asked(service: str, rows: Rows, cursor: str) -> dict[str, Sequence[bytes]]:
    """Return the request of each endpoint; ``cursor`` leads to the last page of the list."""
    resource = SERVICES[service]
    path = f"/v1/{resource}"
    generator = random.Random(service)  # noqa: S311 - no secret
    keys = generator.choices(rows.keys(resource), k=_VARIANTS)
    new, change = _BODIES[service]
    return {
        "get": [written("GET", f"{path}/{key}") for key in keys],
        "page": [written("GET", f"{path}?limit=20")],
        "depth": [written("GET", f"{path}?limit=20&cursor={cursor}")],
        "post": [written("POST", path, new(number)) for number in range(_VARIANTS)],
        "patch": [
            written("PATCH", f"{path}/{key}", change(number)) for number, key in enumerate(keys)
        ],
        "batch": [
            written("POST", f"{path}/batch", {"items": list(map(new, range(start, start + BATCH)))})
            for start in range(0, _VARIANTS, BATCH)
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
    "flat": (_item, _item_change),
    "example": (_task, _task_change),
}
