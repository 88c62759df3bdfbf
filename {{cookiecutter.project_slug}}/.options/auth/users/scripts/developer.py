"""The account that has the rows of ``just seed``."""

from typing import Final
from uuid import UUID

from httpx2 import AsyncClient

from app.kit.caller import Caller

EMAIL: Final = "developer@example.com"
PASSWORD: Final = "correct horse battery"  # noqa: S105 - of a local database only
ACCOUNT: Final = f"{EMAIL}, whose password is {PASSWORD!r}"
"""How to sign in to see the rows."""


async def sign_in(client: AsyncClient) -> Caller:
    """Sign in, and register before if the account is missing.

    Raises:
        PermissionError: the account has another password, or can't be registered.
    """
    form = {"username": EMAIL, "password": PASSWORD}
    answer = await client.post("/v1/auth/token", data=form)
    if answer.is_error:
        account = {"email": EMAIL, "password": PASSWORD, "name": "Developer"}
        registered = await client.post("/v1/users", json=account)
        if registered.is_error:
            raise PermissionError(f"{EMAIL} can't sign in: {registered.json()['detail']}")
        answer = await client.post("/v1/auth/token", data=form)
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    me = (await client.get("/v1/users/me")).json()
    return Caller(UUID(me["id"]), me["name"])
