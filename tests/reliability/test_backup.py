"""A destroyed database is restored from a backup that was taken under load."""

import asyncio
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from testing.baking import clean_environment, succeeded
from testing.serving import PostgreSQL, SQLite, Stage, python
from testing.writers import WRITERS, rows, writing
from tests.figures import Measured

pytestmark = pytest.mark.slow


def run(stage: Stage, *arguments: str, url: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script of `just backup` and `just restore`."""
    return subprocess.run(
        [python(stage.project), "-m", "scripts.backup", *arguments],
        cwd=stage.project.path,
        env=clean_environment(DATABASE_URL=url or stage.database.url),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], reason: str) -> bool:
    """Return whether a command failed with one sentence that names this reason."""
    return (
        done.returncode == 1 and reason in done.stderr and len(done.stderr.strip().split("\n")) == 1
    )


async def destroy(stage: Stage) -> None:
    """Overwrite the file, or drop the database, while the service uses it."""
    if isinstance(stage.database, SQLite):
        path = stage.database.path
        path.write_bytes(b"\x55" * path.stat().st_size)
        return
    name = stage.database.url.rpartition("/")[2]
    await run_on_server(stage, f"DROP DATABASE {name} WITH (FORCE)", f"CREATE DATABASE {name}")


async def run_on_server(stage: Stage, *statements: str) -> None:
    """Run statements on the server's default database."""
    assert isinstance(stage.database, PostgreSQL)
    other = PostgreSQL(stage.database.server, "postgres")
    for statement in statements:
        await other.fetch(statement)


async def test_a_database_destroyed_under_load_is_restored_completely(
    stage: Stage, tmp_path: Path, measured: Measured
) -> None:
    file = tmp_path / "backup"
    async with stage.serving() as service, writing(service.port) as writers:
        await writers.more(200)
        before = writers.titles(201)
        succeeded(await asyncio.to_thread(run, stage, "backup", str(file)))
        until_end = writers.titles(201)
        await writers.more(50)
        await destroy(stage)
    with suppress(Exception):
        lost = await rows(stage.database)
        assert not before & set(lost)

    # A garbled file and its WAL are not an empty database.
    clean = ["--clean"] if isinstance(stage.database, SQLite) else []
    succeeded(run(stage, "restore", str(file), *clean))
    restored = await rows(stage.database)
    assert before <= set(restored), "acknowledged before the backup began"
    assert len(set(restored) - until_end) <= WRITERS, "nothing later than the requests in flight"
    assert set(restored.values()) == {1}
    if isinstance(stage.database, SQLite):
        assert await stage.database.fetch("PRAGMA integrity_check") == [("ok",)]
        assert await stage.database.fetch("PRAGMA foreign_key_check") == []
    async with stage.serving() as service:
        assert await service.ready()
        with service.client() as client:
            assert (await client.post("/v1/tasks", {"title": "new"})).status == 201
    assert await rows(stage.database) == restored | {"new": 1}
    measured(
        "A destroyed database is restored from a backup taken under load",
        stage.label,
        acknowledged_before=len(before),
        restored=len(restored),
    )


async def test_a_restore_replaces_existing_data_only_with_the_flag(
    stage: Stage, tmp_path: Path
) -> None:
    file = tmp_path / "backup"
    async with stage.serving() as service:
        with service.client() as client:
            await client.post("/v1/tasks", {"title": "kept"})
        succeeded(run(stage, "backup", str(file)))
        assert file.stat().st_mode & 0o077 == 0
        with service.client() as client:
            await client.post("/v1/tasks", {"title": "later"})
        await stage.database.fetch("CREATE TABLE later (id int)")
        assert refused(run(stage, "restore", str(file)), "not empty")
        assert refused(run(stage, "restore", str(file), "--clean"), "in use")
    assert await rows(stage.database) == {"kept": 1, "later": 1}
    succeeded(run(stage, "restore", str(file), "--clean"))
    assert await rows(stage.database) == {"kept": 1}
    await stage.database.fetch("CREATE TABLE later (id int)")  # the earlier table is gone


async def test_an_invalid_backup_is_refused_and_changes_nothing(
    stage: Stage, tmp_path: Path
) -> None:
    async with stage.serving() as service:
        with service.client() as client:
            await client.post("/v1/tasks", {"title": "kept"})
    file = tmp_path / "backup"
    assert refused(run(stage, "restore", str(file), "--clean"), "There is no file")
    assert refused(run(stage, "backup", str(tmp_path / "none" / "backup")), "none")
    succeeded(run(stage, "backup", str(file)))
    assert refused(run(stage, "backup", str(file)), "exists")
    whole = file.read_bytes()
    for damaged in (b"", b"garbage" * 99, whole[: len(whole) * 2 // 3]):
        file.write_bytes(damaged)
        done = run(stage, "restore", str(file), "--clean")
        assert refused(done, ""), done.stderr
    assert await rows(stage.database) == {"kept": 1}
    assert os.listdir(tmp_path) == ["backup"]  # noqa: PTH208 - nothing partial


async def test_a_restore_that_fails_changes_nothing(on_postgresql: Stage, tmp_path: Path) -> None:
    stage, file = on_postgresql, tmp_path / "backup"
    await stage.database.fetch("CREATE TYPE level AS ENUM ('low')")
    await stage.database.fetch("ALTER TABLE tasks ADD COLUMN level level")
    async with stage.serving() as service:
        with service.client() as client:
            await client.post("/v1/tasks", {"title": "kept"})
            succeeded(run(stage, "backup", str(file)))
            await client.post("/v1/tasks", {"title": "later"})
    # Newer than the backup, so pg_restore drops a type that something needs.
    await stage.database.fetch(
        "CREATE FUNCTION lv(given level) RETURNS text LANGUAGE sql AS 'SELECT given::text'"
    )
    done = run(stage, "restore", str(file), "--clean")
    assert refused(done, "Nothing was restored: "), done.stderr
    assert "cannot drop type public.level" in done.stderr
    assert await rows(stage.database) == {"kept": 1, "later": 1}
    await stage.database.fetch("DROP FUNCTION lv")
    succeeded(run(stage, "restore", str(file), "--clean"))
    assert await rows(stage.database) == {"kept": 1}


async def test_a_database_that_is_away_is_named(on_postgresql: Stage, tmp_path: Path) -> None:
    url = "postgresql://someone:hunter2@127.0.0.1:1/name"
    done = run(on_postgresql, "backup", str(tmp_path / "backup"), url=url)
    assert refused(done, "127.0.0.1:1: ConnectionRefusedError"), done.stderr
