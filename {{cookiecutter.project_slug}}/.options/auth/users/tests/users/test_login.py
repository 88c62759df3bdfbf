"""Signing in, and what a failed login reveals."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import pytest
from httpx2 import AsyncClient
from pydantic import SecretStr
from sqlalchemy import delete, select

from app.kit import project
from app.kit.db.engine import Database
from app.kit.db.models import now
from app.main import create_app
from app.users import security
from app.users.models import RefreshToken, User, UserSession
from app.users.security import key_id
from app.users.settings import LOCAL_SECRET_KEY
from tests.conftest import problem, running, settings_for
from tests.users.helpers import (
    ADA,
    BOB,
    ME,
    OTHER_WORDS,
    TOKEN,
    WORDS,
    RecordingHasher,
    add_user,
    bearer,
    blamed,
    count,
    login,
    register,
    try_login,
    try_refresh,
)

KEY = "hD2q7Vb0sLx9KfTzRwYn4Jm6Pc8Gu1Ea"


def claims(token: str, key: str = LOCAL_SECRET_KEY.get_secret_value()) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(
        token, key, algorithms=["HS256"], audience=project.NAME, issuer=project.NAME
    )
    return found


async def test_a_login_returns_tokens(anonymous: AsyncClient) -> None:
    await register(anonymous)
    tokens = await login(anonymous)
    assert set(tokens) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (tokens["token_type"], tokens["expires_in"]) == ("bearer", 15 * 60)
    assert tokens["refresh_token"].startswith("refresh_")
    assert (await anonymous.get(ME, headers=bearer(tokens))).json()["email"] == ADA


async def test_the_claims_of_an_access_token(anonymous: AsyncClient) -> None:
    user = await register(anonymous)
    before = datetime.now(UTC).timestamp()
    token = (await login(anonymous))["access_token"]
    payload = claims(token)
    assert set(payload) == {"sub", "sid", "ver", "iat", "exp", "jti", "iss", "aud"}
    assert (payload["sub"], payload["ver"]) == (user["id"], 1)
    assert payload["exp"] - payload["iat"] == 15 * 60
    assert before - 1 <= payload["iat"] <= datetime.now(UTC).timestamp()
    assert payload["iss"] == payload["aud"] == project.NAME
    kid = key_id(LOCAL_SECRET_KEY)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT", "kid": kid}
    assert UUID(payload["jti"]) != UUID(claims((await login(anonymous))["access_token"])["jti"])


async def test_lifetimes_and_key_are_settings(live_url: str) -> None:
    key = KEY
    app = create_app(
        settings_for(
            live_url,
            secret_key=key,
            access_token_lifetime=60,
            refresh_token_lifetime=3600,
            session_lifetime=7200,
        )
    )
    async with running(app) as client:
        await register(client)
        before = now()
        tokens = await login(client)
        after = now()
        payload = claims(tokens["access_token"], key)
        assert tokens["expires_in"] == payload["exp"] - payload["iat"] == 60
        db: Database = app.state.database
        async with db.reading() as session:
            (kept,) = await session.scalars(select(UserSession))
        for moment, seconds in ((kept.expires_at, 3600), (kept.ends_at, 7200)):
            lifetime = timedelta(seconds=seconds)
            assert before + lifetime <= moment <= after + lifetime


@pytest.mark.parametrize("spelling", [ADA, ADA.upper(), "Ada@eXample.com", f" {ADA} "])
async def test_email_addresses_are_case_insensitive(anonymous: AsyncClient, spelling: str) -> None:
    await register(anonymous)
    await login(anonymous, spelling)


@pytest.fixture
async def known(db: Database) -> None:
    """Store an active and an inactive user."""
    await add_user(db, ADA)
    await add_user(db, BOB, is_active=False)


def _part(name: str, value: str) -> bytes:
    return f"--x\r\nContent-Disposition: form-data; {name}\r\n\r\n{value}\r\n".encode()


STRANGERS = [
    ("nobody@example.com", WORDS),
    (ADA, OTHER_WORDS),
    (ADA, "short"),
    (BOB, WORDS),
    (BOB, OTHER_WORDS),
    ("no address", WORDS),
    ("@", " "),
]


@pytest.mark.usefixtures("known")
async def test_every_failed_login_has_the_same_response(anonymous: AsyncClient) -> None:
    anonymous.headers["X-Request-ID"] = "the-same"
    responses = [await try_login(anonymous, *stranger) for stranger in STRANGERS]
    first = responses[0]
    problem(first, 401)
    for response in responses:
        assert response.status_code == first.status_code
        assert response.content == first.content
        assert response.headers == first.headers


@pytest.mark.usefixtures("known")
async def test_every_failed_login_takes_one_hash(
    anonymous: AsyncClient, recorded: RecordingHasher
) -> None:
    done = []
    for stranger in STRANGERS:
        recorded.done.clear()
        problem(await try_login(anonymous, *stranger), 401)
        done.append([(work.verb, work.parameters) for work in recorded.done])
    assert [verb for verb, _ in done[0]] == ["verify"]
    assert done == [done[0]] * len(STRANGERS)


@pytest.mark.usefixtures("known")
async def test_a_failed_login_returns_no_token(anonymous: AsyncClient, db: Database) -> None:
    for stranger in STRANGERS:
        await try_login(anonymous, *stranger)
    assert await count(db, RefreshToken) == 0


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    "words",
    [
        "x" * 257,
        "x" * 1024,
        "🦄" * 1024,
        "\x00" * 10,
        "ﷺ" * 1024,
        "\u202e\u0000\uffff",
        "' OR 1=1 --",
        "%",
    ],
    ids=ascii,
)
async def test_unusual_passwords_are_wrong_passwords(anonymous: AsyncClient, words: str) -> None:
    problem(await try_login(anonymous, ADA, words), 401)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({}, "username"),
        ({"username": ADA}, "password"),
        ({"username": ADA, "password": "x" * 1025}, "password"),
        ({"username": ADA, "password": "x" * 500_000}, "password"),
        ({"username": "x" * 255, "password": WORDS}, "username"),
        ({"username": "a\x00b", "password": WORDS}, "username"),
        ({"username": ADA, "password": WORDS, "grant_type": "refresh_token"}, "grant_type"),
    ],
)
async def test_an_unreadable_form_is_refused(
    anonymous: AsyncClient, form: dict[str, str], field: str
) -> None:
    response = await anonymous.post(TOKEN, data=form)
    assert f"body.{field}" in blamed(response)
    assert "xxxx" not in response.text


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("content_type", "sent"),
    [
        ("application/json", b'{"username": "ada@example.com", "password": "x"}'),
        ("text/plain", b"username=ada@example.com&password=x"),
        ("application/x-www-form-urlencoded", b"username=a%ff%ed%a0%80&password=%ed%a0%80%00%ff"),
        ("application/x-www-form-urlencoded", b"username=ada@example.com&username=x&password=x"),
        ("application/x-www-form-urlencoded", b"\xff\x00&&==%"),
        ("multipart/form-data; boundary=x", b"--x"),
        ("multipart/form-data", b""),
        (
            # In this charset, bytes can decode to lone surrogates.
            "multipart/form-data; charset=unicode_escape; boundary=x",
            _part('name="username"', ADA) + _part('name="password"', r"\ud800") + b"--x--\r\n",
        ),
        (
            "multipart/form-data; boundary=x",
            _part('name="username"', ADA)
            + _part('name="password"; filename="x"', "x")
            + b"--x--\r\n",
        ),
    ],
)
async def test_invalid_forms_are_refused(
    anonymous: AsyncClient, content_type: str, sent: bytes
) -> None:
    response = await anonymous.post(TOKEN, content=sent, headers={"Content-Type": content_type})
    assert response.status_code in {400, 401, 422}, response.text


async def test_logins_are_independent(anonymous: AsyncClient) -> None:
    await register(anonymous)
    first, second = [await login(anonymous) for _ in range(2)]
    for tokens in (first, second):
        assert (await anonymous.get(ME, headers=bearer(tokens))).status_code == 200
    assert (await try_refresh(anonymous, first)).status_code == 200
    assert (await try_refresh(anonymous, second)).status_code == 200


async def test_a_token_is_refused_by_another_service(live_url: str) -> None:
    other = create_app(settings_for(live_url, secret_key=KEY))
    async with running(other) as client:
        await register(client)
        tokens = await login(client)
        assert (await client.get(ME, headers=bearer(tokens))).status_code == 200
    async with running(create_app(settings_for(live_url))) as client:
        problem(await client.get(ME, headers=bearer(tokens)), 401)


async def test_a_user_deleted_during_a_login_gets_the_response_of_an_unknown_user(
    anonymous: AsyncClient, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    anonymous.headers["X-Request-ID"] = "the-same"
    user = await add_user(db, ADA)
    verify = security.verify_password

    async def verify_and_delete(password: SecretStr, stored: str | None) -> bool:
        good = await verify(password, stored)
        async with db.transaction() as session:
            await session.execute(delete(User).where(User.id == user.id))
        return good

    with monkeypatch.context() as patch:
        patch.setattr(security, "verify_password", verify_and_delete)
        late = problem(await try_login(anonymous), 401)
    assert late == problem(await try_login(anonymous), 401)
