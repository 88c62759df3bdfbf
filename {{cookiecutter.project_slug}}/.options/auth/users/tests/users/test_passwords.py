"""Passwords: validation and hashing."""

import unicodedata

import pytest
from argon2 import PasswordHasher, Type, extract_parameters
from fastapi import FastAPI
from httpx2 import AsyncClient

from app.kit import project
from app.kit.db.engine import Database
from app.users import passwords, security
from app.users.models import User
from tests.caller import headers as bearer_of
from tests.conftest import checked_out, problem
from tests.users.helpers import (
    ADA,
    CHEAP,
    ME,
    OTHER_WORDS,
    USERS,
    WORDS,
    RecordingHasher,
    add_user,
    bearer,
    blamed,
    body,
    count,
    login,
    register,
    stored_user,
    try_login,
)

PRODUCTION_HASHER = security.hasher
"""The production hasher, read before a fixture replaces it with a cheap one."""

SERVICE = "telegraph"

# NFKC makes one character of these four: no text becomes shorter by more.
LONGEST = unicodedata.normalize("NFD", "\u1f82\u1f83") * 128


@pytest.mark.parametrize(
    "words",
    [
        "8 chars.",
        "xy" * 128,
        "🦄🐎" * 4,
        "🦄🐎" * 128,
        "👩‍👩‍👧‍👦" * 8,
        "пароль из слов",
        "密码密码密码密码",
        "كلمة المرور",
        " two spaces ",
        "      \t\t",
        "\ttab and\nline\r\n",
        "nul\x00inside",
        "a&b=c+d%20e;f#g",
        "e\u0301a" * 4,
        "éa" * 4,
        "ﬁsh and ﷺ",
    ],
    ids=ascii,
)
async def test_any_characters_are_allowed(anonymous: AsyncClient, words: str) -> None:
    await register(anonymous, password=words)
    await login(anonymous, password=words)
    problem(await try_login(anonymous, password=words[:-1]), 401)
    problem(await try_login(anonymous, password=f"{words} "), 401)


@pytest.mark.parametrize(
    "words",
    [
        *("", "7 chars", "🦄" * 7, "x" * 257, "🦄" * 257, "x" * 100_000),
        *("e\u0301" * 7, "ﷺ" * 7, "ﷺ" * 256),
    ],
    ids=[
        *("none", "7", "7 emoji", "257", "257 emoji", "100,000"),
        *("7 once normal", "7 that grow", "256 that grow"),
    ],
)
async def test_length_is_limited(
    anonymous: AsyncClient, db: Database, recorded: RecordingHasher, words: str
) -> None:
    response = await anonymous.post(USERS, json=body(password=words))
    assert blamed(response) == ["body.password"]
    if words:
        assert words not in response.text
    assert (await count(db, User), recorded.done) == (0, [])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("password", "common"),
        ("PassWord", "common"),
        ("12345678", "common"),
        ("\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18", "common"),
        ("qwertyuiop", "common"),
        ("summer2026", "common"),
        ("letmein123", "common"),
        ("Password123456", "common"),
        ("aaaaaaaa", "repeated"),
        ("AaAaAaAa", "repeated"),
        ("        ", "repeated"),
        ("\U0001f984" * 256, "repeated"),
        ("e\u0301" * 8, "repeated"),
        ("at mail.babbage of", "contain"),
        ("at mail.Babbage.com", "contain"),
        (f"in {SERVICE} we trust", "service"),
        ("my lovelace 99", "contain"),
        ("COUNTESS of something", "contain"),
        ("\uff43ountess of something", "contain"),
    ],
    ids=ascii,
)
async def test_passwords_that_are_easy_to_guess_are_refused(
    anonymous: AsyncClient,
    db: Database,
    recorded: RecordingHasher,
    monkeypatch: pytest.MonkeyPatch,
    *,
    words: str,
    reason: str,
) -> None:
    monkeypatch.setattr(project, "NAME", SERVICE)
    email = "lovelace@mail.babbage.com"
    sent = body(email, words) | {"name": "Ada Countess"}
    (error,) = problem(await anonymous.post(USERS, json=sent), 422)["errors"]
    assert error["field"] == "body.password"
    assert reason in error["message"]
    assert (await count(db, User), recorded.done) == (0, [])
    # As a new password, too.
    user = await add_user(db, email, name="Ada Countess")
    change = {"current_password": WORDS, "password": words}
    response = await anonymous.patch(ME, json=change, headers=bearer_of(user))
    assert problem(response, 422)["errors"] == [error]
    assert (await stored_user(db, user.email)).password_hash == user.password_hash


async def test_the_new_name_and_address_are_checked(anonymous: AsyncClient, db: Database) -> None:
    headers = bearer_of(await add_user(db, ADA))
    words = "something of babbage"
    for more in ({"name": "Charles Babbage"}, {"email": "babbage@example.com"}):
        change = {"current_password": WORDS, "password": words, **more}
        assert blamed(await anonymous.patch(ME, json=change, headers=headers)) == ["body.password"]
    change = {"current_password": WORDS, "password": words}
    assert (await anonymous.patch(ME, json=change, headers=headers)).status_code == 200


def test_a_password_that_resembles_a_common_one_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for words in ("summer rain 2026", "password of a kind 12", "adam8273645182736451", "aaaaaaab"):
        assert passwords.complaint(words, email=ADA, name="Ada") is None
    monkeypatch.setattr(project, "NAME", "svc")  # short names occur by chance
    assert passwords.complaint("svc of a kind", email=ADA, name="Ada") is None


async def test_a_password_may_contain_a_short_name(anonymous: AsyncClient) -> None:
    sent = body(ADA, "adamant words") | {"name": "Ada"}
    assert (await anonymous.post(USERS, json=sent)).status_code == 201


async def test_an_existing_common_password_still_signs_in(
    anonymous: AsyncClient, db: Database
) -> None:
    common = "iloveyou"
    assert common in passwords.COMMON
    await add_user(db, ADA, password_hash=CHEAP.hash(common))
    headers = bearer(await login(anonymous, password=common))
    change = {"current_password": common, "password": OTHER_WORDS}
    assert (await anonymous.patch(ME, json=change, headers=headers)).status_code == 200


def test_the_list_of_common_passwords() -> None:
    assert len(passwords.COMMON) > 10_000
    assert all(each == each.casefold() for each in passwords.COMMON)


async def test_the_longest_password_in_its_longest_normal_form(anonymous: AsyncClient) -> None:
    assert len(LONGEST) == 1024
    await register(anonymous, password=LONGEST)
    await login(anonymous, password=LONGEST)
    await login(anonymous, password="\u1f82\u1f83" * 128)
    problem(await try_login(anonymous, password="\u1f82\u1f83" * 127), 401)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cafe\u0301 noir", "café noir"),
        ("\u212bngstrom", "Ångstrom"),
        ("ﬁve words", "five words"),
        ("\uff37\uff29\uff24\uff25\u3000words", "WIDE words"),
        ("\uac00\uac01" * 4, "\u1100\u1161\u1100\u1161\u11a8" * 4),
    ],
    ids=ascii,
)
async def test_equal_passwords_in_other_unicode_forms_match(
    anonymous: AsyncClient, one: str, other: str
) -> None:
    assert one != other
    await register(anonymous, ADA, one)
    await register(anonymous, "other@example.com", other)
    for words in (one, other):
        await login(anonymous, ADA, words)
        await login(anonymous, "other@example.com", words)
    # As the current password, too.
    headers = bearer(await login(anonymous, ADA, one))
    change = {"current_password": other, "password": OTHER_WORDS}
    response = await anonymous.patch(ME, json=change, headers=headers)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("near", [f" {WORDS}", f"{WORDS} ", WORDS.upper(), f"{WORDS}\n"])
async def test_similar_passwords_do_not_match(anonymous: AsyncClient, near: str) -> None:
    await register(anonymous)
    problem(await try_login(anonymous, password=near), 401)


async def test_argon2id_uses_the_parameters_of_the_rfc(
    anonymous: AsyncClient, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "hasher", PRODUCTION_HASHER)
    await register(anonymous)
    stored = (await stored_user(db)).password_hash
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert WORDS not in stored
    parameters = extract_parameters(stored)
    assert (parameters.type, parameters.salt_len, parameters.hash_len) == (Type.ID, 16, 32)
    await login(anonymous)


async def test_each_hash_has_its_own_salt(anonymous: AsyncClient, db: Database) -> None:
    await register(anonymous, ADA)
    await register(anonymous, "other@example.com")
    hashes = {(await stored_user(db, email)).password_hash for email in (ADA, "other@example.com")}
    assert len(hashes) == 2


@pytest.mark.parametrize(
    "outdated",
    [
        PasswordHasher(time_cost=2, memory_cost=8, parallelism=1),
        PasswordHasher(time_cost=1, memory_cost=16, parallelism=1),
        PasswordHasher(time_cost=1, memory_cost=16, parallelism=2),
        PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, type=Type.I),
    ],
    ids=["time", "memory", "parallelism", "type"],
)
async def test_a_login_updates_an_old_hash(
    anonymous: AsyncClient, db: Database, outdated: PasswordHasher
) -> None:
    old = outdated.hash(WORDS)
    await add_user(db, ADA, password_hash=old)
    problem(await try_login(anonymous, password=OTHER_WORDS), 401)
    assert (await stored_user(db)).password_hash == old
    tokens = await login(anonymous)
    user = await stored_user(db)
    assert not CHEAP.check_needs_rehash(user.password_hash)
    assert user.token_version == 1
    assert (await anonymous.get(ME, headers=bearer(tokens))).status_code == 200
    await login(anonymous)
    assert (await stored_user(db)).password_hash == user.password_hash


@pytest.mark.parametrize("stored", ["none", "$argon2id$v=19$m=8,t=1,p=1$x$y", "plain text"])
async def test_an_invalid_hash_never_matches(
    anonymous: AsyncClient, db: Database, stored: str
) -> None:
    await add_user(db, ADA, password_hash=stored)
    for words in (WORDS, stored, "none"):
        problem(await try_login(anonymous, password=words), 401)


async def test_hashing_does_not_block_the_event_loop(
    live_app: FastAPI, live: AsyncClient, recorded: RecordingHasher
) -> None:
    """Hashing runs in threads, and no connection is open meanwhile."""
    db: Database = live_app.state.database
    recorded.held = lambda: checked_out(db)
    old = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1).hash(WORDS)
    await register(live)
    await add_user(db, "old@example.com", password_hash=old)
    tokens = await login(live)
    await login(live, "old@example.com")
    problem(await try_login(live, password=OTHER_WORDS), 401)
    problem(await try_login(live, "nobody@example.com"), 401)
    change = {"current_password": WORDS, "password": OTHER_WORDS, "email": "new@example.com"}
    assert (await live.patch(ME, json=change, headers=bearer(tokens))).status_code == 200
    verbs = [work.verb for work in recorded.done]
    assert verbs == [
        *("hash", "verify"),  # register, login
        *("verify", "hash"),  # login with an old hash
        *("verify", "verify"),  # wrong password, unknown user
        *("verify", "hash"),  # change
    ]
    assert {work.held for work in recorded.done} == {0}
    assert all(work.thread.startswith("argon2") for work in recorded.done)
