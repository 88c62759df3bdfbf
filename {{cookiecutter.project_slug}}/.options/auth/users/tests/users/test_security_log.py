"""The security log: one line for each event, with no secret and nothing forged."""

import json
import logging
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient

from app.kit.db.engine import Database
from app.kit.security_log import security_event
from tests import caller
from tests.users.helpers import (
    ADA,
    KEYS,
    LOGOUT,
    ME,
    OTHER_WORDS,
    REFRESH,
    USERS,
    WORDS,
    add_user,
    bearer,
    login,
    refresh,
    register,
    try_login,
)

SENT = {"X-Request-ID": "request-1"}


class Log:
    """The lines of the security log so far."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.caplog = caplog

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines since the last call."""
        records = [each for each in self.caplog.records if each.name == "app.security"]
        messages = [record.getMessage() for record in records]
        self.caplog.clear()
        assert all(len(message.splitlines()) == 1 for message in messages)
        return [json.loads(message) for message in messages]

    def one(self, event: str, **fields: Any) -> dict[str, Any]:
        """Return the only line since the last call, with these fields."""
        (line,) = self.lines()
        assert line["event"] == event
        assert line["address"] == "127.0.0.1"
        assert line["request_id"] == "request-1"
        assert {name: line.get(name) for name in fields} == fields
        return line


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, anonymous: AsyncClient) -> Log:
    """Return the security log of a client."""
    caplog.set_level(logging.INFO, logger="app.security")
    anonymous.headers.update(SENT)
    return Log(caplog)


async def test_each_event_has_its_line(
    anonymous: AsyncClient, db: Database, log: Log, caplog: pytest.LogCaptureFixture
) -> None:
    secrets = [WORDS, OTHER_WORDS, ADA]
    written = ""

    def one(event: str, **fields: Any) -> None:
        nonlocal written
        written += caplog.text
        log.one(event, **fields)

    ada = (await register(anonymous))["id"]
    one("registered", user=ada)
    await try_login(anonymous, password=OTHER_WORDS)
    one("sign_in_failed", user=ada)
    await try_login(anonymous, "nobody@example.com")
    one("sign_in_failed", user=None)
    tokens = await login(anonymous)
    one("signed_in", user=ada)
    secrets += [tokens["access_token"], tokens["refresh_token"]]
    headers = bearer(tokens)

    key = (await anonymous.post(KEYS, json={"name": "k"}, headers=headers)).json()
    one("api_key_created", user=ada, api_key=key["id"])
    secrets.append(key["key"])
    await anonymous.delete(f"{KEYS}/{key['id']}", headers=headers)
    one("api_key_revoked", user=ada, api_key=key["id"])

    fresh = await refresh(anonymous, tokens)
    assert log.lines() == []
    secrets += [fresh["access_token"], fresh["refresh_token"]]

    wrong = {"password": OTHER_WORDS, "current_password": OTHER_WORDS}
    await anonymous.patch(ME, json=wrong, headers=headers)
    one("password_check_failed", user=ada)
    await anonymous.patch(ME, json=wrong | {"current_password": WORDS}, headers=headers)
    one("password_changed", user=ada)
    tokens = await login(anonymous, password=OTHER_WORDS)
    one("signed_in", user=ada)
    root = await caller.superuser(db)
    changed = await anonymous.patch(f"{USERS}/{ada}", json={"is_superuser": True}, headers=root)
    assert changed.status_code == 200
    superuser = str(caller.CALLERS_CREATED[-1])
    one("user_changed", user=ada, caller=superuser, is_superuser=True)
    await anonymous.delete(ME, headers=bearer(tokens))
    one("user_deleted", user=ada)
    assert not [secret for secret in secrets if secret in written]


async def test_a_reused_refresh_token_has_a_line(anonymous: AsyncClient, log: Log) -> None:
    await register(anonymous)
    tokens = await login(anonymous)
    await refresh(anonymous, await refresh(anonymous, tokens))
    log.lines()
    sent = {"refresh_token": tokens["refresh_token"]}
    assert (await anonymous.post(REFRESH, json=sent)).status_code == 401
    log.one("refresh_token_reused")
    for _ in range(2):  # of a session that has ended
        assert (await anonymous.post(REFRESH, json=sent)).status_code == 401
        assert log.lines() == []
    tokens = await login(anonymous)
    log.lines()
    await anonymous.post(LOGOUT, json={"refresh_token": tokens["refresh_token"]})
    log.one("signed_out")


async def test_a_throttled_attempt_has_a_line(
    anonymous: AsyncClient, app: FastAPI, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"throttle_per_email_and_address": 1}
    settings = app.state.settings.model_copy(update=limits)
    monkeypatch.setitem(app.state._state, "settings", settings)  # noqa: SLF001
    await add_user(app.state.database, ADA)
    await try_login(anonymous, password=OTHER_WORDS)
    log.lines()
    assert (await try_login(anonymous)).status_code == 429
    log.one("throttled")


@pytest.mark.parametrize("given", ["a\nb", 'x", "event": "signed_in', "x" * 101, "\u2028", "a b"])
async def test_nothing_can_be_forged(anonymous: AsyncClient, log: Log, given: str) -> None:
    security_event("test", detail=given)
    (line,) = log.lines()
    assert line == {"event": "test", "detail": given}
    headers = [(b"X-Request-ID", given.encode())]
    del anonymous.headers["X-Request-ID"]
    sent = {"username": f"{given}@example.com", "password": WORDS}
    await anonymous.post("/v1/auth/token", data=sent, headers=headers)
    await anonymous.post("/v1/auth/token", data=sent | {"username": ADA}, headers=headers)
    for line in log.lines():
        assert line == {"event": "sign_in_failed", "address": "127.0.0.1"}
