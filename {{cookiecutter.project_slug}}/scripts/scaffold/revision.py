"""Writes the migration of a changed copy of the project, and tries the copy.

``python -m scripts.scaffold.revision MESSAGE [OLD NEW]`` runs in the copy, on an empty database of
the tests: the database of the developer is not touched. OLD and NEW are the names of a feature that
is renamed, as JSON.
"""

import asyncio
import json
import os
import shutil
import sys

from alembic import command
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from app.kit import project
from app.main import create_app
from app.settings import Settings
from scripts.scaffold.names import Names
from scripts.scaffold.renaming import Renaming
from scripts.scaffold.tables import Directives, rename_tables
from tests.conftest import alembic_config, scratch, settings_for
from tests.database import databases


async def write(message: str, directives: Directives) -> None:
    """Write the revision, and check that the app starts and that it changes what it should."""
    folder = scratch() / f"{project.NAME}-new-{os.getpid()}"
    try:
        async with databases(folder, "new") as made:
            await _write(message, settings_for(await made.create()), directives)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _write(message: str, settings: Settings, directives: Directives) -> None:
    create_app(settings)
    config = alembic_config(settings)
    await asyncio.to_thread(command.upgrade, config, "head")
    await asyncio.to_thread(
        command.revision,
        config,
        message=message,
        autogenerate=True,
        process_revision_directives=directives,
    )
    for do, revision in (
        (command.upgrade, "head"),
        (command.downgrade, "-1"),
        (command.upgrade, "head"),
    ):
        await asyncio.to_thread(do, config, revision)
    await asyncio.to_thread(command.check, config)


def drop_whole_tables(
    context: MigrationContext, _revision: object, scripts: list[ops.MigrationScript]
) -> None:
    """Drop tables in the order of their references, without their indexes, which go with them."""
    tables = [name for name, _ in inspect(context.connection).get_sorted_table_and_fkc_names()]
    for script in scripts:
        for container in script.upgrade_ops_list:
            drops = [each for each in container.ops if isinstance(each, ops.DropTableOp)]
            dropped = {each.table_name for each in drops}
            others = [
                each
                for each in container.ops
                if not isinstance(each, (ops.DropTableOp, ops.ModifyTableOps))
                or (isinstance(each, ops.ModifyTableOps) and each.table_name not in dropped)
            ]
            drops.sort(key=lambda each: tables.index(each.table_name), reverse=True)
            container.ops = [*others, *map(_excused, drops)]
        for undo in script.downgrade_ops_list:
            creates = [each for each in undo.ops if isinstance(each, ops.CreateTableOp)]
            rest = [each for each in undo.ops if not isinstance(each, ops.CreateTableOp)]
            creates.sort(key=lambda each: tables.index(each.table_name))
            undo.ops = [*creates, *rest]


def _excused(drop: ops.DropTableOp) -> ops.MigrateOperation:
    """Return what drops a table, with a word for squawk where it reads the revisions."""
    if not (project.ROOT / ".squawk.toml").is_file():
        return drop
    return ops.ExecuteSQLOp(f"-- squawk-ignore ban-drop-table\nDROP TABLE {drop.table_name}")


def main() -> None:
    """Read the command line and write the revision."""
    message, *names = sys.argv[1:]
    if names:
        old, new = (Names(**json.loads(each)) for each in names)
        asyncio.run(write(message, rename_tables(Renaming(old, new))))
    else:
        asyncio.run(write(message, drop_whole_tables))


if __name__ == "__main__":
    main()
