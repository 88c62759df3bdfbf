"""``python -m app.users.superuser EMAIL [--promote]``: create a superuser, or promote a user."""

import argparse
import asyncio
import getpass
import sys

from pydantic import TypeAdapter, ValidationError

from app.kit import logs
from app.kit.db.engine import Database
from app.kit.errors import AppError, Conflict, NotFound
from app.kit.security_log import security_event
from app.settings import load_settings
from app.users.repository import UserRepository
from app.users.schemas import UserCreate
from app.users.security import hash_password


def main() -> None:
    """Read a password from a prompt or standard input, and create or promote the user."""
    parser = argparse.ArgumentParser(prog="just superuser", description=__doc__)
    parser.add_argument("email", help="the e-mail address to sign in with")
    parser.add_argument("--promote", action="store_true", help="promote a registered user")
    arguments = parser.parse_args()
    email: str = arguments.email
    password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    try:
        user = TypeAdapter(UserCreate).validate_python(
            {"email": email, "password": password, "name": email.partition("@")[0]}
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        sys.exit(f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}")
    try:
        print(asyncio.run(make_superuser(user, promote=arguments.promote)))  # noqa: T201 - the output of a command
    except AppError as error:
        sys.exit(error.detail)


async def make_superuser(body: UserCreate, *, promote: bool) -> str:
    """Create a superuser, or promote the user with this address; return what was done.

    A stranger may have registered the address. A promotion therefore sets the new password, and
    revokes every session and API key of the account.

    Raises:
        Conflict: the address is registered, and ``promote`` was not requested.
        NotFound: the address is not registered, and ``promote`` was requested.
    """
    settings = load_settings()
    logs.configure(settings.log_level, settings.log_format)
    database = Database(settings)
    try:
        password_hash = await hash_password(body.password)
        rights = {"password_hash": password_hash, "is_superuser": True, "is_active": True}
        async with database.transaction() as session:
            users = UserRepository(session)
            user = await users.by_email(body.email)
            if not promote:
                if user is not None:
                    raise Conflict(
                        f"{body.email} is registered: --promote makes the user a superuser, sets "
                        "this password, and revokes every session and API key."
                    )
                user = await users.create({"email": body.email, "name": body.name, **rights})
            elif user is None:
                raise NotFound(f"{body.email} is not registered: leave out --promote.")
            else:
                await users.update(user.id, rights)
                await users.revoke_credentials(user.id)
        security_event("superuser_promoted" if promote else "superuser_created", user=user.id)
        if not promote:
            return f"{body.email} is a new superuser."
        return (
            f"{body.email} is a superuser now, with the new password; every session and API "
            "key was revoked."
        )
    finally:
        await database.close()


if __name__ == "__main__":
    main()
