"""Creating a superuser from the command line."""

import asyncio
import getpass
import json
import sys
from dataclasses import dataclass
from io import StringIO

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from httpx2 import AsyncClient

from app.kit import project
from app.kit.db.engine import Database
from app.users import security, superuser
from app.users.models import APIKey, User, UserSession
from tests.conftest import calling, environment_for, problem
from tests.users.helpers import (
    ADA,
    BOB,
    ME,
    OTHER_WORDS,
    USERS,
    WORDS,
    add_key,
    add_user,
    bearer,
    change_user,
    count,
    login,
    stored_user,
    try_login,
    try_refresh,
)

PRODUCTION_HASHER: PasswordHasher = security.hasher
"""The production hasher, read before a fixture replaces it with a cheap one."""


@dataclass
class Ended:
    """The exit status and output of a process."""

    status: int | None
    out: str
    err: str


async def run(url: str, *arguments: str, words: str = WORDS) -> Ended:
    """Run the command, with a password on its standard input."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.users.superuser", *arguments),
        cwd=project.ROOT,
        env=environment_for(url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(f"{words}\nanother line\n".encode())
    for output in (out, err):
        assert not words or words not in output.decode()
    return Ended(process.returncode, out.decode(), err.decode())


async def main(
    monkeypatch: pytest.MonkeyPatch, url: str, *arguments: str, words: str = WORDS
) -> None:
    """Run the command in a thread, which is faster than a process."""
    monkeypatch.setattr(sys, "argv", ["superuser", *arguments])
    monkeypatch.setattr(sys, "stdin", StringIO(words))
    for name, value in environment_for(url).items():
        monkeypatch.setenv(name, value)
    await asyncio.to_thread(superuser.main)


async def test_the_command_creates_a_superuser(
    live_url: str, live_app: FastAPI, live: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "hasher", PRODUCTION_HASHER)
    new, refused = await asyncio.gather(
        run(live_url, "ADA@Example.com"), run(live_url, BOB, words="7 chars")
    )
    assert (new.status, new.out) == (0, f"{ADA} is a new superuser.\n")
    line = json.loads(new.err)
    assert (line["event"], line["level"]) == ("superuser_created", "info")
    assert refused == Ended(1, "", "password: Use 8 to 256 characters\n")
    db: Database = live_app.state.database
    assert line["user"] == str((await stored_user(db)).id)
    assert (await stored_user(db)).password_hash.startswith("$argon2id$v=19$m=65536,")
    headers = bearer(await login(live))
    listed = (await live.get(USERS, headers=headers)).json()["items"]
    assert BOB not in [user["email"] for user in listed]


async def test_an_existing_account_is_not_promoted_by_default(
    live_url: str,
    live_app: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with live_app.router.lifespan_context(live_app):
        await add_user(live_app.state.database, BOB)
        with pytest.raises(SystemExit) as caught:
            await main(monkeypatch, live_url, BOB.upper(), words=f"{OTHER_WORDS}\n")
        assert str(caught.value).startswith(f"{BOB} is registered: --promote ")
        assert "\n" not in str(caught.value)
        assert capsys.readouterr() == ("", "")
        assert not (await stored_user(live_app.state.database, BOB)).is_superuser
        async with calling(live_app) as client:
            await login(client, BOB)


async def test_a_promotion_sets_the_password_and_ends_every_credential(
    live_url: str,
    live_app: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="app.security")
    async with live_app.router.lifespan_context(live_app):
        db: Database = live_app.state.database
        before = await add_user(db, BOB)
        async with calling(live_app) as client:
            tokens = await login(client, BOB)
        key = await add_key(db, before, "read", "write", "admin")
        await change_user(db, before, is_active=False)
        await main(monkeypatch, live_url, BOB.upper(), "--promote", words=f"{OTHER_WORDS}\n")
        out, err = capsys.readouterr()
        assert out.startswith(f"{BOB} is a superuser now, with the new password; ")
        assert (out.count("\n"), err) == (1, "")
        after = await stored_user(db, BOB)
        assert f'"superuser_promoted", "user": "{after.id}"' in caplog.text
        assert (after.is_superuser, after.is_active) == (True, True)
        assert after.token_version > before.token_version
        assert (await count(db, UserSession), await count(db, APIKey)) == (0, 0)
        async with calling(live_app) as client:
            for headers in (bearer(tokens), key):
                problem(await client.get(ME, headers=headers), 401)
            problem(await try_refresh(client, tokens), 401)
            problem(await try_login(client, BOB), 401)
            headers = bearer(await login(client, BOB, OTHER_WORDS))
            assert (await client.get(USERS, headers=headers)).status_code == 200


async def test_an_unknown_user_can_not_be_promoted(
    live_url: str, live_app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live_app.router.lifespan_context(live_app):
        with pytest.raises(SystemExit) as caught:
            await main(monkeypatch, live_url, BOB, "--promote")
        assert str(caught.value) == f"{BOB} is not registered: leave out --promote."
        assert await count(live_app.state.database, User) == 0


@pytest.mark.parametrize(
    ("email", "words", "complaint"),
    [
        ("no address", WORDS, "email: "),
        ("", WORDS, "email: "),
        (ADA, "", "password: "),
        (ADA, "\n", "password: "),
        (ADA, f"{WORDS * 20}\n", "password: "),
        (f"{'a' * 250}@example.com", WORDS, "email: "),
    ],
)
async def test_errors_are_one_line(
    template: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    email: str,
    words: str,
    complaint: str,
) -> None:
    with pytest.raises(SystemExit) as caught:
        await main(monkeypatch, template, email, words=words)
    message = str(caught.value)
    assert message.startswith(complaint)
    assert "\n" not in message
    assert WORDS not in message
    assert capsys.readouterr() == ("", "")


async def test_an_address_is_required(
    template: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        await main(monkeypatch, template)
    assert "email" in capsys.readouterr().err


def test_a_terminal_is_prompted_for_the_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = []

    class Terminal:
        def isatty(self) -> bool:
            return True

    def ask() -> str:
        prompts.append("password")
        return "7 chars"

    monkeypatch.setattr(sys, "argv", ["superuser", ADA])
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(getpass, "getpass", ask)
    with pytest.raises(SystemExit, match="Use 8 to 256 characters"):
        superuser.main()
    assert prompts == ["password"]
    assert "7 chars" not in "".join(capsys.readouterr())
