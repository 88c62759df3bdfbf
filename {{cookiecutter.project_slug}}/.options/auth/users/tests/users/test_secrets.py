"""No response or log contains a password, token, key or hash."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from httpx2 import AsyncClient, Response
from sqlalchemy import ColumnElement, bindparam, literal_column, select, text

from app.kit.db.engine import Database
from app.kit.db.models import now
from app.main import create_app
from app.users import repository, security
from app.users.caller import SessionClaims, UserCaller
from app.users.models import APIKey, RefreshToken, User, UserSession
from app.users.permissions import MEMBER
from app.users.schemas import (
    APIKeyCreate,
    APIKeySecret,
    Login,
    Refresh,
    Registered,
    Tokens,
    UserCreate,
    UserUpdate,
)
from tests.conftest import running, settings_for
from tests.users.helpers import (
    ADA,
    BOB,
    KEYS,
    LOGOUT,
    ME,
    REFRESH,
    SESSIONS,
    TOKEN,
    USERS,
    Headers,
    Json,
    bearer,
    body,
    with_key,
)

OLD = "canary-of-the-old-words"
NEW = "canary-of-the-new-words"
WRONG = "canary-of-the-wrong-words"
SHORT = "canary7"
LONG = "canary-of-long-words" * 20
SIGNING = "cAnArY0fTheK3yThatSignsEverything"


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Capture every log record."""
    # Without a handler, SQLAlchemy would add one that outlives the test.
    handler = logging.NullHandler()
    engine = logging.getLogger("sqlalchemy.engine.Engine")
    engine.addHandler(handler)
    with caplog.at_level(logging.DEBUG):
        yield caplog
    engine.removeHandler(handler)


class Session:
    """A client's responses, and the secrets that must not leak."""

    def __init__(self, client: AsyncClient, db: Database) -> None:
        self.client = client
        self.db = db
        self.answered: list[str] = []
        self.canaries = {OLD, NEW, WRONG, SHORT, LONG[:256], SIGNING}

    async def call(self, status: int, method: str, path: str, **sent: Any) -> Response:
        """Send a request; keep the response without the secrets that it returns on purpose."""
        response = await self.client.request(method, path, **sent)
        assert response.status_code == status, response.text
        shown = str(response.headers)
        if response.content:
            document = response.json()
            for meant in (document, document.get("api_key") or {}):
                for name in ("access_token", "refresh_token", "key"):
                    if status < 300 and name in meant:
                        self.canaries.add(meant.pop(name))
            shown += str(document)
        self.answered.append(shown)
        await self.look_into_the_database()
        return response

    async def look_into_the_database(self) -> None:
        columns = (
            User.password_hash,
            RefreshToken.token_hash,
            RefreshToken.successor_salt,
            APIKey.key_hash,
        )
        async with self.db.reading() as session:
            for column in columns:
                self.canaries |= set(await session.scalars(select(column)))


def form(words: str) -> Json:
    return {"username": ADA, "password": words}


async def signing_in(session: Session) -> tuple[Json, Headers]:
    """Register, sign in and refresh, also with invalid input; return tokens and a key header."""
    call = session.call

    first = await call(201, "POST", USERS, json=body(ADA, OLD), params={"with_api_key": "true"})
    key = with_key(first.json()["api_key"])
    for words in (SHORT, LONG, [OLD], {"x": OLD}):
        await call(422, "POST", USERS, json=body(BOB) | {"password": words})
    await call(422, "POST", USERS, json=body(BOB, OLD, is_superuser=True))
    await call(422, "POST", USERS, json=[body(BOB, OLD)])
    await call(422, "POST", USERS, content=f'{{"password": "{OLD}", ')
    await call(409, "POST", USERS, json=body(ADA, NEW))
    tokens = (await call(200, "POST", TOKEN, data=form(OLD))).json()
    await call(401, "POST", TOKEN, data=form(WRONG))
    await call(401, "POST", TOKEN, data=form(LONG))
    await call(422, "POST", TOKEN, data=form(LONG * 10))
    await call(422, "POST", TOKEN, json=form(OLD))
    fresh = (await call(200, "POST", REFRESH, json=_refresh(tokens))).json()
    await call(200, "POST", REFRESH, json=_refresh(fresh))
    await call(401, "POST", REFRESH, json=_refresh(tokens))  # reuse
    await call(422, "POST", REFRESH, json=_refresh(tokens) | {"x": tokens["refresh_token"]})
    await call(204, "POST", LOGOUT, json=_refresh(fresh))
    tokens = (await call(200, "POST", TOKEN, data=form(OLD))).json()
    sent = {"name": "key", "scopes": ["read"]}
    await call(201, "POST", KEYS, json=sent, headers=bearer(tokens))
    await call(200, "GET", KEYS, headers=bearer(tokens))
    await call(200, "GET", SESSIONS, headers=bearer(tokens))
    await call(200, "GET", ME, headers=key)
    await call(401, "GET", ME, headers={"X-API-Key": f"{key['X-API-Key']}x"})
    await call(401, "GET", ME, headers={"Authorization": f"Bearer {tokens['access_token']}x"})
    return tokens, key


async def whole_session(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send valid and invalid requests with passwords, tokens and keys."""
    call = session.call
    tokens, key = await signing_in(session)
    change = {"current_password": WRONG, "password": NEW}
    await call(403, "PATCH", ME, json=change, headers=bearer(tokens))
    await call(422, "PATCH", ME, json=change | {"password": SHORT}, headers=bearer(tokens))
    await call(422, "PATCH", ME, json={"password": NEW}, headers=bearer(tokens))
    change["current_password"] = OLD
    await call(200, "PATCH", ME, json=change, headers=bearer(tokens))
    await call(401, "GET", ME, headers=bearer(tokens))
    await call(401, "GET", ME, headers=key)
    tokens = (await call(200, "POST", TOKEN, data=form(NEW))).json()
    sent = {"name": "key", "scopes": ["read"]}
    key = with_key((await call(201, "POST", KEYS, json=sent, headers=bearer(tokens))).json())
    # An insert that fails: the same key again.
    with monkeypatch.context() as patched:
        patched.setattr(security, "opaque_token", lambda _: key["X-API-Key"])
        await call(409, "POST", KEYS, json={"name": "again"}, headers=bearer(tokens))
        await call(409, "POST", USERS, json=body(BOB, OLD), params={"with_api_key": "true"})
    # Unexpected errors: a defect in the code, a row that is refused, and an invalid statement.
    with monkeypatch.context() as patched:
        patched.setattr(security, "access_token", lambda *_: 1 / 0)
        await call(500, "POST", TOKEN, data=form(NEW))
    with monkeypatch.context() as patched:
        patched.setattr(security, "hash_token", lambda _: None)
        await call(500, "POST", TOKEN, data=form(NEW))
    with monkeypatch.context() as patched:
        unknown: ColumnElement[str] = literal_column("unknown_column")
        by_key = select(unknown).where(APIKey.key_hash == bindparam("key_hash"))
        patched.setattr(repository, "BY_KEY", by_key)
        await call(500, "GET", ME, headers=key)
    # A schema without a column.
    fresh = (await call(200, "POST", TOKEN, data=form(NEW))).json()
    await rename(session.db, "refresh_tokens.token_hash", "elsewhere")
    assert (await session.client.post(TOKEN, data=form(NEW))).status_code == 503
    assert (await session.client.post(REFRESH, json=_refresh(fresh))).status_code == 503
    await rename(session.db, "refresh_tokens.elsewhere", "token_hash")
    await rename(session.db, "api_keys.key_hash", "elsewhere")
    assert (await session.client.get(ME, headers=key)).status_code == 503
    await rename(session.db, "api_keys.elsewhere", "key_hash")
    await call(204, "DELETE", ME, headers=bearer(tokens))


def _refresh(tokens: Json) -> Json:
    return {"refresh_token": tokens["refresh_token"]}


async def rename(db: Database, column: str, name: str) -> None:
    table, old = column.split(".")
    async with db.transaction() as session:
        await session.execute(text(f"ALTER TABLE {table} RENAME COLUMN {old} TO {name}"))


async def test_no_secret_reaches_a_response_or_the_log(
    live_url: str,
    logged: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_for(
        live_url, secret_key=SIGNING, database_echo=True, throttle_per_email_and_address=1000
    )
    app = create_app(settings)
    async with running(app) as client:
        session = Session(client, app.state.database)
        await whole_session(session, monkeypatch)
    said = "\n".join([*session.answered, logged.text, *capfd.readouterr()])
    # The search works: the records were captured.
    assert len(session.canaries) > 15
    assert "INSERT INTO refresh_tokens" in logged.text
    assert "ZeroDivisionError" in logged.text
    assert logged.text.count("Unhandled error") == 3
    found = {canary for canary in session.canaries if canary in said}
    assert found == set()


async def test_a_repr_contains_no_secret(live_url: str) -> None:
    canary = "canary-hD2q7Vb0sLx9KfTzRwYn4Jm6Pc8"
    settings = settings_for(live_url, secret_key=canary)
    app = create_app(settings)
    form = {"email": ADA, "password": canary, "name": "Ada"}
    async with running(app) as client:
        await client.post(USERS, json=form, params={"with_api_key": "true"})
        response = await client.post(TOKEN, data={"username": ADA, "password": canary})
        db: Database = app.state.database
        async with db.reading() as session:
            user = (await session.scalars(select(User))).one()
            key = (await session.scalars(select(APIKey))).one()
            token = (await session.scalars(select(RefreshToken))).one()
            login = (await session.scalars(select(UserSession))).one()
    secret = APIKeySecret.model_validate(
        {name: getattr(key, name) for name in APIKeySecret.model_fields if name != "key"}
        | {"key": canary}
    )
    things: list[Any] = [
        *(settings, app, db, user, key, token, login),
        UserCaller(user.id, user.name, user.is_superuser, MEMBER, SessionClaims(user.id, 1, now())),
        UserCreate.model_validate(form),
        UserUpdate.model_validate({"password": canary, "current_password": canary}),
        Login.model_validate({"username": ADA, "password": canary}),
        Refresh.model_validate({"refresh_token": canary}),
        Tokens(access_token=canary, refresh_token=canary, expires_in=1),
        Tokens.model_validate(response.json()),
        APIKeyCreate(name="x"),
        secret,
        Registered.model_validate(user).model_copy(update={"api_key": secret}),
    ]
    canaries = {canary, user.password_hash, key.key_hash, token.token_hash}
    canaries |= {response.json()["access_token"], response.json()["refresh_token"]}
    for thing in things:
        for shown in (repr(thing), str(thing)):
            assert not any(each in shown for each in canaries), type(thing)


async def test_no_openapi_schema_contains_a_hash(client: AsyncClient) -> None:
    document = (await client.get("/openapi.json")).text
    for inside in ("hash", "token_version", "family"):
        assert inside not in document
