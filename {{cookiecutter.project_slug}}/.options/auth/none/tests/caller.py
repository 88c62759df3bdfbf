"""Who calls in the tests: anybody may."""

import pytest
from fastapi import FastAPI

from app.db.engine import Database

STATEMENTS = 0
"""How many statements it takes to know who is calling."""

SETTINGS: dict[str, str] = {}
"""What the service has to be told."""


async def credentials(database: Database) -> dict[str, str]:
    """Give the headers of a caller who may do everything."""
    return {}


CALLERS = (credentials,)
"""Who calls in the generic tests: the next one, where the one before gets 403."""


def admit_anybody(app: FastAPI) -> None:
    """Let requests of this app pass without asking who is calling."""


def hash_cheaply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do nothing: there are no passwords."""
