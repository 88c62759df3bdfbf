"""The caller in the tests: anonymous, since the service has no users."""

import pytest
from fastapi import FastAPI

from app.kit.db.engine import Database
from tests.kit.openapi import Examples

STATEMENTS = 0
"""The number of statements for authentication."""

SETTINGS: dict[str, str] = {}
"""The settings that the service needs."""

AUTHOR = "Ada"
"""The author of comments."""

COMMENT = {"author": AUTHOR}
"""The fields of a comment that name its author."""


async def credentials(database: Database) -> dict[str, str]:
    """Return the headers of a caller with all permissions."""
    return {}


CALLERS = (credentials,)
"""The callers of the generic tests: if one gets 403, the next one is used."""


EXAMPLES: Examples = {}
"""Requests that the generic tests can't generate: there are none."""

RULES: frozenset[str] = frozenset()
"""Fields with a rule that the OpenAPI document can't express: there are none."""


def own(*rows: object) -> None:
    """Do nothing: rows have no owner."""


def admit_anybody(app: FastAPI) -> None:
    """Do nothing: there is no authentication to skip."""


def hash_cheaply(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do nothing: there are no passwords."""
