"""Copies every row of one database into another: ``just copy-database FROM [TO]``.

For a service that moves from SQLite to PostgreSQL, or to another server. Both databases have to be
at the newest revision, and the target has to be empty. All rows are copied in one transaction.
"""

import argparse
import asyncio
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    ForeignKeyConstraint,
    MetaData,
    NullPool,
    Table,
    bindparam,
    create_engine,
    event,
    exists,
    func,
    insert,
    inspect,
    make_url,
    or_,
    select,
    text,
    update,
)
from sqlalchemy import Sequence as DatabaseSequence
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.util import greenlet_spawn

from app.kit import project
from app.kit.config import CONFIG, read
from app.kit.db import driver
from app.kit.db.driver import DriverSettings
from app.kit.db.models import Base
from app.kit.errors import AppError
from app.kit.health import schema_history

BATCH: Final = 1000
"""The number of rows that are held in memory."""


_IS_NULL: Final = "kit_is_null_"


class Refused(Exception):
    """Raised with the reason, in one sentence, if nothing was copied."""


class Settings(DriverSettings):
    """The default target: the database of the service."""

    model_config = CONFIG


def copy_database(
    source: str, target: str, progress: Progress, metadata: MetaData = Base.metadata
) -> int:
    """Copy every row; return their number. Run it by ``greenlet_spawn``: the drivers are async.

    Args:
        source: the URL of a SQLite file, or of a database like that of this service.
        target: the same.
        progress: shows the progress of each table.
        metadata: the tables to copy.

    Raises:
        Refused: one of them can't be used, or a row can't be copied.
    """
    try:
        return _copy_all(source, target, progress, metadata)
    except (SQLAlchemyError, AppError, ValueError, LookupError, OSError) as error:
        raise Refused(_reason(error)) from None


def _copy_all(source: str, target: str, progress: Progress, metadata: MetaData) -> int:
    with (
        _opened(source, "BEGIN") as reading,
        _opened(target, "BEGIN IMMEDIATE") as writing,
        _snapshot(reading).begin(),
        writing.begin(),
    ):
        _check_revision(source, reading)
        _check_revision(target, writing)
        tables, postponed = _plan(metadata)
        if writing.dialect.name == "sqlite":  # foreign keys are checked at the end
            postponed = {table: [] for table in tables}
        for table in tables:
            if writing.scalar(select(exists().select_from(table))):
                raise Refused(f"The target is not empty: there are rows in {table.name!r}.")
        counts = {table: _count(reading, table) for table in tables}
        for table in tables:
            shown = progress.add_task(table.name, total=counts[table])
            for rows in _copy_table(reading, writing, table, postponed[table]):
                progress.advance(shown, rows)
        for table in tables:
            _fill_in(reading, writing, table, postponed[table])
            _raise_sequences(writing, table)
            if (arrived := _count(writing, table)) != counts[table]:
                raise Refused(f"Of {counts[table]} rows of {table.name!r}, {arrived} arrived.")
        _check_references(writing)
        return sum(counts.values())


def _opened(url: str, begin: str) -> Any:
    try:
        engine = _engine(url, begin)
        return closing(engine.connect())
    except (SQLAlchemyError, AppError, ValueError, OSError) as error:
        raise Refused(f"{_shown(url)}: {_reason(error)}") from None


def _snapshot(reading: Connection) -> Connection:
    """Read everything from one snapshot; on SQLite, every transaction does."""
    if reading.dialect.name == "sqlite":
        return reading
    return reading.execution_options(isolation_level="REPEATABLE READ")


def _engine(url: str, begin: str) -> Engine:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # its message may contain a part of a password
        raise ValueError("Not a database URL: sqlite:///app.db is one.") from None
    if parsed.get_backend_name() != "sqlite":
        settings = read(Settings, database_url=driver.parse_url(url))
        return driver.migration_engine(settings).sync_engine
    if not parsed.database or not Path(parsed.database).is_file():
        raise ValueError("There is no such file.")
    # The sqlite3 module, because a service on PostgreSQL does not install aiosqlite.
    engine = create_engine(
        parsed.set(drivername="sqlite"),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"isolation_level": None},
    )
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _check_revision(url: str, connection: Connection) -> None:
    found: set[str] = set()
    if inspect(connection).has_table("alembic_version"):
        found = set(connection.scalars(text("SELECT version_num FROM alembic_version")))
    if found != schema_history().heads:  # not ahead either: models lack new columns
        raise Refused(
            f"{_shown(url)}: The schema is not at head: run `alembic upgrade head` on it."
        )


def _plan(metadata: MetaData) -> tuple[list[Table], dict[Table, list[Column[Any]]]]:
    """Return the tables, parents first, and the columns that can be filled only at the end."""
    tables = list(metadata.tables.values())
    try:
        ordered = _ordered(tables, lambda _: True)
    except CycleError:
        try:
            ordered = _ordered(tables, lambda constraint: not _optional(constraint))
        except CycleError as error:
            names = ", ".join(sorted({table.name for table in error.args[1]}))
            raise Refused(
                f"{names} refer to each other in a circle by columns that can't be null: no row "
                "can be inserted first."
            ) from None
    postponed: dict[Table, list[Column[Any]]] = {}
    for place, table in enumerate(ordered):
        later = [
            constraint
            for constraint in table.foreign_key_constraints
            if constraint.referred_table in ordered[place:]
        ]
        if any(not _optional(constraint) for constraint in later) or (
            later and not table.primary_key
        ):
            raise Refused(f"{table.name!r} refers to itself by a column that can't be null.")
        postponed[table] = [column for constraint in later for column in _optional(constraint)]
    return ordered, postponed


def _ordered(
    tables: Sequence[Table], counts: Callable[[ForeignKeyConstraint], object]
) -> list[Table]:
    graph = {
        table: [
            constraint.referred_table
            for constraint in sorted(table.foreign_key_constraints, key=lambda each: str(each.name))
            if constraint.referred_table is not table and counts(constraint)
        ]
        for table in tables
    }
    return list(TopologicalSorter(graph).static_order())


def _optional(constraint: ForeignKeyConstraint) -> list[Column[Any]]:
    return [column for column in constraint.columns if column.nullable]


def _copy_table(
    reading: Connection, writing: Connection, table: Table, postponed: Sequence[Column[Any]]
) -> Iterator[int]:
    """Copy a table; yield the number of rows after each batch."""
    columns = [column for column in table.columns if column.computed is None]
    nothing = dict.fromkeys(column.name for column in postponed)
    statement = insert(table).values({column: _bound(column) for column in columns})
    # Both the null of JSON and that of SQL are read as None.
    documents = [column for column in columns if isinstance(column.type, JSON)]
    flags = [column.is_(None).label(_IS_NULL + column.name) for column in documents]
    rows = reading.execution_options(yield_per=BATCH).execute(
        select(*(column.label(column.name) for column in columns), *flags)
    )
    for batch in rows.mappings().partitions():
        values = [{**row, **nothing} for row in batch]
        for value in values:
            for column in documents:
                if not value.pop(_IS_NULL + column.name) and value[column.name] is None:
                    value[column.name] = JSON.NULL
        try:
            writing.execute(statement, values)
        except (SQLAlchemyError, AppError) as error:
            raise Refused(f"A row of {table.name!r} can't be copied: {_reason(error)}") from None
        yield len(batch)


def _bound(column: Column[Any]) -> Any:
    kind = column.type
    if isinstance(kind, JSON):  # None is the null of SQL here, JSON.NULL that of JSON
        kind = kind.copy()
        kind.none_as_null = True
    return bindparam(column.name, type_=kind)


def _fill_in(
    reading: Connection, writing: Connection, table: Table, postponed: Sequence[Column[Any]]
) -> None:
    """Write the references that could not be written before all rows existed."""
    if not postponed:
        return
    keys = list(table.primary_key)
    # Also set columns with `onupdate`, which an update would otherwise change.
    changed = [*postponed, *(column for column in table.columns if column.onupdate is not None)]
    statement = (
        update(table)
        .where(*(column == bindparam(f"key_{column.name}") for column in keys))
        .values({column: bindparam(f"new_{column.name}") for column in changed})
    )
    rows = reading.execution_options(yield_per=BATCH).execute(
        select(
            *(column.label(f"key_{column.name}") for column in keys),
            *(column.label(f"new_{column.name}") for column in changed),
        ).where(or_(*(column.is_not(None) for column in postponed)))
    )
    for batch in rows.mappings().partitions():
        writing.execute(statement, [dict(row) for row in batch])


def _check_references(writing: Connection) -> None:
    """Check the foreign keys on SQLite, which does not enforce them here."""
    if writing.dialect.name == "sqlite":
        broken = writing.execute(text("PRAGMA foreign_key_check")).first()
        if broken is not None:
            raise Refused(
                f"A row of {broken[0]!r} refers to one of {broken[2]!r} that is not there."
            )


def _raise_sequences(writing: Connection, table: Table) -> None:
    """Let sequences of PostgreSQL continue after the highest copied values."""
    if writing.dialect.name != "postgresql":
        return
    name = writing.dialect.identifier_preparer.format_table(table)
    for column in table.columns:
        if column is table.autoincrement_column or column.identity is not None:
            sequence = func.pg_get_serial_sequence(name, column.name)
        elif isinstance(column.default, DatabaseSequence):
            sequence = func.quote_ident(column.default.name)
        else:
            continue
        writing.execute(
            select(func.setval(sequence, func.max(column)))
            .select_from(table)
            .having(func.max(column).is_not(None))
        )


def _count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _shown(url: str) -> str:
    try:
        # Without the query, which may contain a password.
        return make_url(url).set(query={}).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return "This URL"


def _reason(error: BaseException) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    text = str(cause).partition("\n")[0]
    return re.sub(r"^<class '[^']*'>: ", "", text)  # removes SQLAlchemy's prefix


def main() -> None:
    """Copy a database as the command line says, and print the result."""
    parser = argparse.ArgumentParser(prog="copy-database", description=__doc__)
    parser.add_argument("source", metavar="FROM", help="sqlite:///app.db, or another URL")
    parser.add_argument("target", metavar="TO", nargs="?", help="DATABASE_URL by default")
    given = parser.parse_args()
    for path in sorted(project.ROOT.glob("app/**/models.py")):
        importlib.import_module(".".join(path.relative_to(project.ROOT).with_suffix("").parts))
    target = given.target or read(Settings).database_url.render_as_string(hide_password=False)
    try:
        with Progress() as progress:
            count = asyncio.run(greenlet_spawn(copy_database, given.source, target, progress))
    except (Refused, AppError) as error:
        sys.exit(f"Nothing was copied. {error}")
    print(f"{count:,} rows were copied.")


if __name__ == "__main__":
    main()
