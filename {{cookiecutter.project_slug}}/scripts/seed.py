"""Fills a development database with rows: ``just seed [N]``.

The rows are created through the API by the factories of the tests: ``create_note`` of
``tests/notes/factory.py`` creates those of ``Note``.
"""

import argparse
import asyncio
import importlib
import logging
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from random import Random
from typing import Any, Final

from alembic import command
from alembic.config import Config
from dotenv import dotenv_values
from httpx2 import ASGITransport, AsyncClient, Response
from sqlalchemy import Table, UniqueConstraint, inspect, select

from app.kit import project
from app.kit.caller import Caller
from app.kit.db.engine import Database, ReadSession
from app.kit.db.models import Base
from app.kit.db.repository import Repository
from app.main import create_app
from app.settings import Settings, load_settings
from scripts import developer
from scripts.scaffold.features import KIT
from scripts.scaffold.names import snake

DEFAULT: Final = 50
MOST: Final = 10_000

HERE: Final = frozenset({None, "", "localhost", "127.0.0.1", "::1"})
"""Hosts of databases on this machine."""


class Refused(Exception):
    """Why no more rows were created, in one sentence."""


class Taken(Exception):
    """The row exists already."""


@dataclass(frozen=True)
class Feature:
    """A model whose rows a factory creates."""

    model: type[Base]
    create: Callable[..., Awaitable[object]]

    @property
    def table(self) -> Table:
        """Return the table of the model."""
        return self.model.__table__


def local_settings() -> Settings:
    """Return the settings, or raise ``Refused`` unless the database is for development."""
    stages = (os.environ.get("ENVIRONMENT"), dotenv_values(".env").get("ENVIRONMENT"))
    if stage := next((each for each in stages if each not in {None, "", "local"}), None):
        raise Refused(f"ENVIRONMENT is {stage}: `just seed` fills only a local database.")
    settings = load_settings()
    url = settings.database_url
    for host in (url.host, *url.normalized_query.get("host", ())):
        if host not in HERE and not str(host).startswith("/"):  # the folder of a Unix socket
            raise Refused(f"The database is on {host}: `just seed` fills only one on this machine.")
    return settings


def features() -> Iterator[Feature]:
    """Return the models that have a factory; what a row refers to comes before it."""
    models = {mapper.local_table: mapper.class_ for mapper in Base.registry.mappers}
    for table in Base.metadata.sorted_tables:
        package = models[table].__module__.split(".")[1] if table in models else ""
        if package in KIT or not (project.ROOT / "tests" / package / "factory.py").is_file():
            continue
        factory = importlib.import_module(f"tests.{package}.factory")
        create = getattr(factory, f"create_{snake(models[table].__name__)}", None)
        if create is not None:
            yield Feature(models[table], create)


async def seed(client: AsyncClient, database: Database, number: int) -> AsyncIterator[str]:
    """Create rows until each feature has this number; yield a line for each feature.

    Raises:
        Refused: a factory failed.
    """
    owner = await developer.sign_in(client)
    client.event_hooks = {"response": [_check_taken]}
    ids: dict[Table, Sequence[Any]] = {}
    if owner.id is not None:
        ids[Base.metadata.tables["users"]] = [owner.id]
    for feature in features():
        rows = Rows(feature.model, database.read_session(primary=True, timeout=None), owner)
        missing = number - await rows.count(rows.select())
        # Each row that exists, also another user's, may take a value.
        attempts = missing + await rows.count(select(feature.model))
        created = 0
        for attempt in range(attempts if missing > 0 else 0):
            created += await _create(client, feature, ids, attempt)
            if created == missing:
                break
        key = inspect(feature.model).primary_key[0]
        ids[feature.table] = await rows.all(rows.select(key).order_by(key).limit(MOST))
        yield f"{feature.table.name}: {created} new"


class Rows(Repository[Any]):
    """The rows of any model that are visible to a caller."""

    def __init__(self, model: type[Base], session: ReadSession, caller: Caller) -> None:
        """Read the rows of ``model``."""
        self.model = model
        super().__init__(session, caller)


async def _check_taken(response: Response) -> None:
    if response.status_code == HTTPStatus.CONFLICT:
        raise Taken


async def _create(
    client: AsyncClient, feature: Feature, ids: Mapping[Table, Sequence[Any]], attempt: int
) -> bool:
    """Create a row that refers to rows of ``ids``; return False if its values are taken."""
    try:
        await feature.create(client, **dict(_references(feature.table, ids, attempt)))
    except Taken:
        return False
    except (AssertionError, TypeError) as error:
        name = f"create_{snake(feature.model.__name__)}"
        reason = str(error).partition("\n")[0]
        raise Refused(f"{name} of the factory of {feature.table.name} failed: {reason}") from None
    return True


def _references(
    table: Table, ids: Mapping[Table, Sequence[Any]], attempt: int
) -> Iterator[tuple[str, str]]:
    unique = {
        column
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint)
        for column in constraint.columns
    }
    chosen = Random(attempt)  # noqa: S311 - the same rows each time
    for column in table.columns:
        for key in column.foreign_keys:
            if column.name != "owner_id" and (found := ids.get(key.column.table)):
                one = found[attempt % len(found)] if column in unique else chosen.choice(found)
                yield column.name, str(one)


async def run(settings: Settings, number: int) -> None:
    """Create the rows, and print how many are new."""
    app = create_app(settings)
    host = next(iter(settings.allowed_hosts), "localhost").replace("*", "seed")
    transport = ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=transport, base_url=f"http://{host}") as client,
    ):
        async for line in seed(client, app.state.database, number):
            print(line)
    if developer.ACCOUNT:
        print(f"They belong to {developer.ACCOUNT}.")


def main() -> None:
    """Read the command line and create the rows; exit with one sentence if it can't be done."""
    parser = argparse.ArgumentParser(
        prog="just seed", description="Create rows until each feature has N of them."
    )
    parser.add_argument("number", metavar="N", nargs="?", default=str(DEFAULT))
    given: str = parser.parse_args().number
    number = int(given) if re.fullmatch("[0-9]{1,9}", given) else 0
    if not 0 < number <= MOST:
        sys.exit(f"{given!r} is not a number from 1 to {MOST}.")
    try:
        settings = local_settings()
        command.upgrade(Config(toml_file=project.ROOT / "pyproject.toml"), "head")
        logging.disable(logging.WARNING)  # the first sign-in fails
        asyncio.run(run(settings, number))
    except (Refused, PermissionError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
