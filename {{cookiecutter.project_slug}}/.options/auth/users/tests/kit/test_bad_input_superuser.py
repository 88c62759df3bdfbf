"""Bad input of superusers, for whom there is more to reach."""

import pytest
from fastapi import FastAPI

from app.db.engine import Database
from tests import caller
from tests.kit.test_bad_input import Bad, bad_bodies, bad_fields, bad_parameters, see_refused
from tests.users.helpers import ADA, USERS, add_user


async def superuser(database: Database) -> dict[str, str]:
    return caller.headers(await add_user(database, ADA, is_superuser=True))


@pytest.mark.parametrize("bad", [bad_fields, bad_bodies, bad_parameters])
async def test_bad_input_of_superusers(shared_app: FastAPI, bad: Bad) -> None:
    await see_refused(shared_app, bad, who=superuser, below=USERS)
