"""``python -m app.users.superuser EMAIL``: create a superuser, or promote a user."""

import argparse
import asyncio
import getpass
import sys

from pydantic import TypeAdapter, ValidationError

from app.kit.db.engine import Database
from app.kit.errors import AppError
from app.settings import load_settings
from app.users.repository import UserRepository
from app.users.schemas import UserCreate
from app.users.security import hash_password


def main() -> None:
    """Read a password, from a prompt or standard input, and write the user."""
    parser = argparse.ArgumentParser(prog="just superuser", description=__doc__)
    parser.add_argument("email", help="the e-mail address to sign in with")
    email: str = parser.parse_args().email
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    try:
        user = TypeAdapter(UserCreate).validate_python(
            {"email": email, "password": password, "name": email.partition("@")[0]}
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        sys.exit(f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}")
    try:
        print(asyncio.run(make_superuser(user)))  # noqa: T201 - the output of a command
    except AppError as error:
        sys.exit(error.detail)


async def make_superuser(body: UserCreate) -> str:
    """Create a superuser, or promote the user with this address; return what was done.

    A user who exists keeps the password.
    """
    database = Database(load_settings())
    try:
        password_hash = await hash_password(body.password)
        async with database.transaction() as session:
            users = UserRepository(session)
            if (user := await users.by_email(body.email)) is not None:
                await users.update(user.id, {"is_superuser": True, "is_active": True})
                return f"{body.email} is a superuser now, with the same password as before."
            await users.create(
                {
                    "email": body.email,
                    "name": body.name,
                    "password_hash": password_hash,
                    "is_superuser": True,
                }
            )
            return f"{body.email} is a new superuser."
    finally:
        await database.close()


if __name__ == "__main__":
    main()
