"""Writes the migration of a changed copy of the project, and tries the copy.

``python -m scripts.scaffold.revision MESSAGE`` runs in the copy, on an empty database of the tests:
the database of the developer is not touched.
"""

import asyncio
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Final

from alembic import command
from alembic.script import Script

from app.kit import project
from app.main import create_app
from app.settings import Settings
from tests.conftest import alembic_config, scratch, settings_for
from tests.database import databases

DROPPED: Final = re.compile(r'^( +)op\.drop_table\("(\w+)"\)$', re.MULTILINE)


async def write(message: str) -> None:
    """Write the revision, and check that the app starts and that it changes what it should."""
    folder = scratch() / f"{project.NAME}-new-{os.getpid()}"
    try:
        async with databases(folder, "new") as made:
            await _write(message, settings_for(await made.create()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _write(message: str, settings: Settings) -> None:
    create_app(settings)
    config = alembic_config(settings)
    await asyncio.to_thread(command.upgrade, config, "head")
    script = await asyncio.to_thread(command.revision, config, message=message, autogenerate=True)
    if isinstance(script, Script):
        _excuse(Path(script.path))
    await asyncio.to_thread(command.upgrade, config, "head")
    await asyncio.to_thread(command.check, config)


def _excuse(path: Path) -> None:
    """Tell squawk that the tables are dropped on purpose, where it reads the revisions."""
    if not (project.ROOT / ".squawk.toml").is_file():
        return
    text = path.read_text(encoding="utf-8")
    upgrade, separator, downgrade = text.partition("\ndef downgrade")
    excused = DROPPED.sub(
        r'\1op.execute("-- squawk-ignore ban-drop-table\\nDROP TABLE \2")', upgrade
    )
    path.write_text(excused + separator + downgrade, encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1]))
