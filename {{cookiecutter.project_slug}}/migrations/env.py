"""Runs migrations: ``alembic upgrade head``. The URL comes from the service's settings."""

import asyncio
import importlib
import sys
import warnings
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection
from sqlalchemy.exc import SAWarning, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.kit import logs, project
from app.kit.config import CONFIG, LogSettings, read
from app.kit.db import autogenerate, driver
from app.kit.db.driver import DriverSettings
from app.kit.db.models import Base, UTCDateTime
from app.kit.errors import AppError, Unavailable

# SQLite's indexes on expressions, which app.kit.db.autogenerate compares.
warnings.filterwarnings("ignore", ".*expression-based index", UserWarning)
warnings.filterwarnings("ignore", ".*expression-based index", SAWarning)

# Import every model: autogenerate would drop the tables of the others.
for path in sorted(project.ROOT.glob("app/**/models.py")):
    importlib.import_module(".".join(path.relative_to(project.ROOT).with_suffix("").parts))


class Settings(LogSettings, DriverSettings):
    """The settings of migrations, which don't require the secrets of the service."""

    model_config = CONFIG


def render_item(kind: str, item: Any, _: AutogenContext) -> str | Literal[False]:
    """Write plain SQLAlchemy into revisions: they must run when the service's types are gone."""
    if kind == "type" and isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def configure(**options: Any) -> None:
    """Return the options of every run."""
    context.configure(
        target_metadata=Base.metadata,
        render_as_batch=driver.RENDER_AS_BATCH,
        render_item=render_item,
        autogenerate_plugins=autogenerate.PLUGINS,
        process_revision_directives=autogenerate.rewrite,
        # One transaction, even if Alembic assumes that the database has no transactional DDL.
        transactional_ddl=True,
        **options,
    )


def migrate(connection: Connection) -> None:
    """Run the command on an open connection."""
    configure(connection=connection)
    with context.begin_transaction():
        driver.before_migrations(connection)
        context.run_migrations()
        driver.after_migrations(connection)


async def migrate_online(settings: DriverSettings) -> None:
    """Connect, and migrate in one transaction."""
    engine = driver.migration_engine(settings)
    try:
        connection = await connect(engine)
        try:
            await connection.run_sync(migrate)
        finally:
            await connection.close()
    finally:
        await engine.dispose()


async def connect(engine: AsyncEngine) -> AsyncConnection:
    """Connect; on the command line, an error is one line with the address and the cause."""
    try:
        connection = await engine.connect()
        await (await connection.begin()).rollback()  # SQLite reads the file here
        return connection  # noqa: TRY300 - closed by the caller
    except (AppError, SQLAlchemyError, OSError) as error:
        if context.config.cmd_opts is None:
            raise
        reason = str(error.__cause__ or error).partition("\n")[0] or type(error).__name__
        cause = error.cause if isinstance(error, Unavailable) else ""  # with the address
        sys.exit(f"The database can't be reached: {cause or f'{engine.url.database}: {reason}'}")


settings = context.config.attributes.get("settings") or read(Settings)
logs.configure(settings.log_level, settings.log_format)

if context.is_offline_mode():
    configure(url=settings.database_url, literal_binds=True)
    with context.begin_transaction():
        for statement in driver.BEFORE_MIGRATIONS:  # also in SQL output
            context.execute(statement)
        context.run_migrations()
else:
    asyncio.run(migrate_online(settings))
