"""The limit: the HTTP contract of the service in a raw ASGI app on a raw driver.

No service can be faster, so the share of this throughput shows the cost of framework, ORM and
validation. It is a plain ASGI app, sends as few statements as the contract allows, reads as little
of a request as possible, and serves only the requests of the benchmark.

``python limit.py DATABASE_URL PORT HEADERS``, in the environment of a rendered service; HEADERS are
those that the service adds to every response, as JSON.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import UUID

import uvicorn
from pydantic_core import to_json
from uuid_utils.compat import uuid7

POOL: Final = 10
"""Connections to PostgreSQL: as many as both pools of the service have together."""
READERS: Final = 5
"""Connections that read from SQLite, as many as in the service; one more writes."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Answer = tuple[int, list[tuple[bytes, bytes]], object]

ITEM: Final = "id, name, description, quantity, price_cents, active, created_at, updated_at"
TASK: Final = "id, title, description, status, due_at, version, created_at, updated_at"
NOT_FOUND: Final[Answer] = (404, [], {"status": 404})


class PostgreSQL:
    """PostgreSQL by asyncpg's own pool, and how it stores the types that JSON lacks."""

    # A subquery: the sorted names of a task's tags.
    tags = """ARRAY(SELECT g.name FROM task_tags l JOIN tags g ON g.id = l.tag_id
        WHERE l.task_id = tasks.id ORDER BY g.name COLLATE "C")"""

    # One statement, which writes nothing unless every tag exists.
    _create = f"""
        WITH tag AS (
            SELECT id FROM tags WHERE name = ANY($9::text[])
        ), task AS (
            INSERT INTO tasks ({TASK})
            SELECT $1::uuid, $2, $3, $4, $5::timestamptz, $6::int, $7::timestamptz, $8::timestamptz
            WHERE (SELECT count(*) FROM tag) = cardinality($9::text[]) RETURNING id
        ), link AS (
            INSERT INTO task_tags (task_id, tag_id) SELECT task.id, tag.id FROM task, tag
        ) SELECT count(*) FROM task
    """  # noqa: S608 - names of columns

    def __init__(self, url: str) -> None:
        """Create the store without connecting."""
        self._url = url

    async def open(self) -> None:
        import asyncpg  # noqa: PLC0415 - only one of the drivers is installed

        async def skip_reset(_: object) -> None:
            # Connections keep no state here, so the four statements by which the pool resets them
            # are skipped.
            return

        self._pool = await asyncpg.create_pool(
            self._url, min_size=POOL, max_size=POOL, reset=skip_reset
        )

    async def close(self) -> None:
        await self._pool.close()

    async def read(self, sql: str, *values: object) -> Sequence[Any]:
        rows: Sequence[Any] = await self._pool.fetch(sql, *values)
        return rows

    write = read

    async def create_task(self, task: tuple[Any, ...], tags: list[str]) -> None:
        if not await self._pool.fetchval(self._create, *task, tags):
            raise LookupError(tags)  # the benchmark sends none that are new

    def key(self, value: UUID) -> object:
        return value

    def time(self, value: str) -> object:
        return datetime.fromisoformat(value)

    def id_of(self, value: Any) -> object:
        return value

    def time_of(self, value: Any) -> object:
        return value

    def iso(self, value: Any) -> str:
        return str(value.isoformat())

    def list_of(self, value: Any) -> list[Any]:
        return list(value)


class SQLite:
    """SQLite by aiosqlite: one connection writes, some read."""

    tags = """(SELECT json_group_array(name) FROM (SELECT g.name FROM task_tags l
        JOIN tags g ON g.id = l.tag_id WHERE l.task_id = tasks.id ORDER BY g.name))"""

    def __init__(self, url: str) -> None:
        """Create the store without connecting."""
        self._path = url.removeprefix("sqlite:///")
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        import aiosqlite  # noqa: PLC0415 - only one of the drivers is installed

        self._free: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
        self._all = []
        for number in range(1 + READERS):
            connection = await aiosqlite.connect(self._path, isolation_level=None)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                await connection.execute(f"PRAGMA {pragma}")
            self._all.append(connection)
            if number:
                self._free.put_nowait(connection)
        self._writer = self._all[0]

    async def close(self) -> None:
        for connection in self._all:
            await connection.close()

    async def read(self, sql: str, *values: object) -> Sequence[Any]:
        connection = await self._free.get()
        try:
            rows: Sequence[Any] = await connection.execute_fetchall(_numbered(sql), values)
            return rows
        finally:
            self._free.put_nowait(connection)

    async def write(self, sql: str, *values: object) -> Sequence[Any]:
        async with self._turn:
            rows: Sequence[Any] = await self._writer.execute_fetchall(_numbered(sql), values)
            return rows

    async def create_task(self, task: tuple[Any, ...], tags: list[str]) -> None:
        pairs = [(task[0], name) for name in tags]
        link = "INSERT INTO task_tags SELECT ?, id FROM tags WHERE name = ?"
        marks = ", ".join("?" * len(task))
        async with self._turn:
            await self._writer.execute("BEGIN IMMEDIATE")
            try:
                await self._writer.execute(
                    f"INSERT INTO tasks ({TASK}) VALUES ({marks})",  # noqa: S608 - ours
                    task,
                )
                linked = await self._writer.executemany(link, pairs)
            except BaseException:
                await self._writer.rollback()
                raise
            await self._writer.commit()
        if linked.rowcount < len(pairs):
            raise LookupError(tags)  # the benchmark sends none that are new

    def key(self, value: UUID) -> object:
        return value.hex

    def time(self, value: str) -> object:
        return value[:26].replace("T", " ")

    def id_of(self, value: Any) -> object:
        return f"{value[:8]}-{value[8:12]}-{value[12:16]}-{value[16:20]}-{value[20:]}"

    def time_of(self, value: Any) -> object:
        return value and f"{value[:10]}T{value[11:]}Z"

    def iso(self, value: Any) -> str:
        return f"{value[:10]}T{value[11:]}+00:00"

    def list_of(self, value: Any) -> list[Any]:
        found: list[Any] = json.loads(value)
        return found


def _numbered(sql: str) -> str:
    return sql.replace("$", "?")


Store = PostgreSQL | SQLite


class Limit:
    """The ASGI app."""

    def __init__(self, store: Store, headers: list[tuple[str, str]]) -> None:
        """Serve the rows of ``store``, with ``headers`` in every response."""
        self.store = store
        self.headers = [(name.encode(), value.encode()) for name, value in headers]
        live = f"SELECT {TASK}, {store.tags} FROM tasks WHERE deleted_at IS NULL"  # noqa: S608
        self.task_page = f"{live} ORDER BY created_at DESC, id DESC LIMIT $1"
        self.task_page_after = (
            f"{live} AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT $1"
        )
        self.task = f"{live} AND id = $1"

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle a request, or the lifespan of the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        status, headers, document = await self._answer(scope, receive)
        body = to_json(document)
        fixed = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        headers = [*headers, *self.headers, *fixed]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.store.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.store.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Message, receive: Receive) -> Answer:
        method: str = scope["method"]
        path: str = scope["path"]
        _, _, resource, *rest = path.split("/")
        if resource == "ready":
            return 200, [], {"status": "ok"}
        flat = resource == "items"
        if method == "GET":
            if rest:
                return await (self._item(rest[0]) if flat else self._task(rest[0]))
            return await (self._items(scope) if flat else self._tasks(scope))
        body = await _body(receive)
        if method == "PATCH":
            return await self._change(UUID(rest[0]), body, flat=flat)
        made = await (self._create_item(body) if flat else self._create_task(body))
        location = (b"location", f"{path}/{made['id']}".encode())
        return 201, [location] if flat else [location, _etag(1)], made

    # Items

    async def _item(self, key: str) -> Answer:
        store = self.store
        rows = await store.read(
            f"SELECT {ITEM} FROM items WHERE id = $1",  # noqa: S608 - names of columns
            store.key(UUID(key)),
        )
        return (200, [], self._read_item(rows[0])) if rows else NOT_FOUND

    async def _items(self, scope: Message) -> Answer:
        limit, after = self._query(scope)
        where = "WHERE (created_at, id) > ($2, $3)" if after else ""
        rows = await self.store.read(
            f"SELECT {ITEM} FROM items {where} ORDER BY created_at, id LIMIT $1",  # noqa: S608
            limit + 1,
            *after,
        )
        return self._page("created_at", limit, rows, self._read_item)

    async def _create_item(self, body: dict[str, Any]) -> dict[str, Any]:
        store = self.store
        now = datetime.now(UTC).isoformat()
        time = store.time(now)
        key = uuid7()
        item = {
            "name": body["name"],
            "description": body.get("description"),
            "quantity": body.get("quantity", 0),
            "price_cents": body["price_cents"],
            "active": body.get("active", True),
        }
        await store.write(
            f"INSERT INTO items ({ITEM})"  # noqa: S608 - names of columns
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            *(store.key(key), *item.values(), time, time),
        )
        return {"id": key, **item, "created_at": now, "updated_at": now}

    def _read_item(self, row: Any) -> dict[str, Any]:
        store = self.store
        return {
            "id": store.id_of(row[0]),
            "name": row[1],
            "description": row[2],
            "quantity": row[3],
            "price_cents": row[4],
            "active": bool(row[5]),
            "created_at": store.time_of(row[6]),
            "updated_at": store.time_of(row[7]),
        }

    # Tasks

    async def _task(self, key: str) -> Answer:
        store = self.store
        rows = await store.read(self.task, store.key(UUID(key)))
        if not rows:
            return NOT_FOUND
        task = self._read_task(rows[0])
        return 200, [_etag(task["version"])], task

    async def _tasks(self, scope: Message) -> Answer:
        limit, after = self._query(scope)
        sql = self.task_page_after if after else self.task_page
        rows = await self.store.read(sql, limit + 1, *after)
        return self._page("-created_at", limit, rows, self._read_task)

    async def _create_task(self, body: dict[str, Any]) -> dict[str, Any]:
        store = self.store
        now = datetime.now(UTC).isoformat()
        time = store.time(now)
        key = uuid7()
        due_at = body.get("due_at")
        task = {
            "title": body["title"],
            "description": body.get("description"),
            "status": body.get("status", "todo"),
        }
        tags = sorted(set(body.get("tags", ())))
        row = (store.key(key), *task.values(), due_at and store.time(due_at), 1, time, time)
        await store.create_task(row, tags)
        times = {"created_at": now, "updated_at": now}
        return {"id": key, **task, "due_at": due_at, "tags": tags, "version": 1, **times}

    def _read_task(self, row: Any) -> dict[str, Any]:
        store = self.store
        return {
            "id": store.id_of(row[0]),
            "title": row[1],
            "description": row[2],
            "status": row[3],
            "due_at": store.time_of(row[4]),
            "tags": store.list_of(row[8]),
            "version": row[5],
            "created_at": store.time_of(row[6]),
            "updated_at": store.time_of(row[7]),
        }

    # Both

    async def _change(self, key: UUID, changes: dict[str, Any], *, flat: bool) -> Answer:
        store = self.store
        columns = [*changes, "updated_at"]
        sets = ", ".join(f"{column} = ${place}" for place, column in enumerate(columns, 2))
        sql = (
            f"UPDATE items SET {sets} WHERE id = $1 RETURNING {ITEM}"  # noqa: S608 - ours
            if flat
            else f"UPDATE tasks SET {sets}, version = version + 1"  # noqa: S608 - ours
            f" WHERE id = $1 AND deleted_at IS NULL RETURNING {TASK}, {store.tags}"
        )
        time = store.time(datetime.now(UTC).isoformat())
        rows = await store.write(sql, store.key(key), *changes.values(), time)
        if not rows:
            return NOT_FOUND
        if flat:
            return 200, [], self._read_item(rows[0])
        return 200, [_etag(rows[0][5])], self._read_task(rows[0])

    def _query(self, scope: Message) -> tuple[int, tuple[object, ...]]:
        query = dict(parse_qsl(scope["query_string"].decode()))
        limit = int(query.get("limit", "20"))
        if (cursor := query.get("cursor")) is None:
            return limit, ()
        _, time, key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return limit, (self.store.time(time), self.store.key(UUID(key)))

    def _page(
        self, order: str, limit: int, rows: Sequence[Any], read: Callable[[Any], dict[str, Any]]
    ) -> Answer:
        items = [read(row) for row in rows[:limit]]
        cursor = None
        if len(rows) > limit:
            last = rows[limit - 1]
            time = self.store.iso(last[6])  # the seventh column of both tables
            text = json.dumps([order, time, str(items[-1]["id"])], separators=(",", ":"))
            cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
        return 200, [], {"items": items, "next_cursor": cursor}


async def _body(receive: Receive) -> dict[str, Any]:
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    read: dict[str, Any] = json.loads(body)
    return read


def _etag(version: int) -> tuple[bytes, bytes]:
    return b"etag", b'"%d"' % version


def main() -> None:
    """Serve until a stop signal, as the service does: one worker, uvloop and httptools."""
    url, port, headers = sys.argv[1:]
    store: Store = SQLite(url) if url.startswith("sqlite") else PostgreSQL(url)
    uvicorn.run(
        Limit(store, json.loads(headers)),
        port=int(port),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        server_header=False,
    )


if __name__ == "__main__":
    main()
