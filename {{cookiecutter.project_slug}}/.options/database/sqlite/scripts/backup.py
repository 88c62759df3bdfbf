"""Backups of the SQLite file: ``just backup [FILE]`` and ``just restore FILE``."""

import argparse
import os
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from app.kit import project
from app.kit.config import CONFIG, read
from app.kit.db.driver import DriverSettings

FOLDER = project.ROOT / "backups"


class Refused(Exception):
    """Raised with the reason, in one sentence, if a backup or a restore is refused."""


class Settings(DriverSettings):
    """The settings of the database."""

    model_config = CONFIG


def backup(database: Path, file: Path) -> None:
    """Copy a database, which may be in use, to a new file.

    Raises:
        Refused: there is no database, it is damaged or empty, or the file exists.
    """
    if file.exists():
        raise Refused(f"{file} exists.")
    _copy(database, file)


def restore(file: Path, database: Path, *, clean: bool = False) -> None:
    """Replace a database, which must not be in use, by a backup.

    Args:
        file: the backup.
        database: the database to replace.
        clean: replace it even if it has tables or is damaged.

    Raises:
        Refused: the backup is missing, damaged or empty, or the database may not be replaced.
    """
    if database.exists():
        if not clean and not _is_empty(database):
            raise Refused(f"{database} is not empty: --clean replaces it.")
        _check_unused(database)
    _copy(file, database)


def _copy(source: Path, target: Path) -> None:
    if not source.is_file():
        raise Refused(f"There is no file {source}.")
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        partial.touch(mode=0o600)
        with closing(_opened(source)) as reading, closing(sqlite3.connect(partial)) as writing:
            reading.backup(writing)  # one step: a snapshot, even while others write
            writing.execute("PRAGMA journal_mode = DELETE")  # everything in one file
            (found,) = writing.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise Refused(f"{source} is damaged: {found}")
            if not _tables(writing):
                raise Refused(f"{source} holds no tables.")
        _sync(partial)
        for suffix in ("-wal", "-shm", "-journal"):  # they belong to the old file
            Path(f"{target}{suffix}").unlink(missing_ok=True)
        partial.replace(target)
        if os.name == "posix":
            _sync(target.parent)
    except sqlite3.Error as error:
        raise Refused(f"{source} can't be copied: {error}.") from None
    finally:
        partial.unlink(missing_ok=True)


def _opened(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True, timeout=30)


def _tables(connection: sqlite3.Connection) -> int:
    (count,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return int(count)


def _is_empty(database: Path) -> bool:
    try:
        with closing(_opened(database)) as connection:
            return not _tables(connection)
    except sqlite3.Error:
        return False


def _check_unused(database: Path) -> None:
    try:
        with closing(sqlite3.connect(database, timeout=1)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # only without other connections
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            raise Refused(f"{database} is in use: stop the service first.") from None
        # A damaged database is replaced.


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def main() -> None:
    """Back up or restore the configured database, as the command line says."""
    parser = argparse.ArgumentParser(prog="backup", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    saving = verbs.add_parser("backup", help="write a backup")
    saving.add_argument("file", nargs="?", help="by default a new file in backups/")
    restoring = verbs.add_parser("restore", help="replace the database by a backup")
    restoring.add_argument("file")
    restoring.add_argument("--clean", action="store_true", help="replace a database that has rows")
    given = parser.parse_args()
    database = Path(read(Settings).database_url.database or "")
    try:
        if given.verb == "restore":
            restore(Path(given.file), database, clean=given.clean)
            print(f"{database} is restored from {given.file}.")
            return
        if not given.file:
            FOLDER.mkdir(exist_ok=True)
        file = Path(given.file or FOLDER / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db")
        backup(database, file)
        print(f"{database} is backed up to {file}: {file.stat().st_size:,} bytes.")
    except (Refused, OSError) as error:
        sys.exit(f"{given.verb}: {error}")


if __name__ == "__main__":
    main()
