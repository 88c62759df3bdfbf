"""The settings of users. The service does not start with a secret key that others may know."""

import hashlib
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from app.settings import load_settings
from app.users.settings import LOCAL_SECRET_KEY, check_key

GOOD = "hD2q7Vb0sLx9KfTzRwYn4Jm6Pc8Gu1Ea"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    """Ignore a developer's ``.env``, and set a ``DATABASE_URL``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", template)


def refused() -> str:
    """Check that the settings are refused in one line; return it."""
    with pytest.raises(SystemExit) as caught:
        load_settings()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("environment", ["staging", "production", None])
def test_a_key_is_required(monkeypatch: pytest.MonkeyPatch, environment: str | None) -> None:
    if environment is not None:
        monkeypatch.setenv("ENVIRONMENT", environment)
    assert refused().startswith("SECRET_KEY: Required")
    monkeypatch.setenv("SECRET_KEY", "")
    assert refused().startswith("SECRET_KEY: Required")
    monkeypatch.setenv("SECRET_KEY", GOOD)
    assert load_settings().secret_key.get_secret_value() == GOOD


def test_the_default_key_is_accepted_locally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "local")
    assert load_settings().secret_key == LOCAL_SECRET_KEY
    assert "local-only" in LOCAL_SECRET_KEY.get_secret_value()
    monkeypatch.setenv("SECRET_KEY", GOOD)
    assert load_settings().secret_key.get_secret_value() == GOOD


@pytest.mark.parametrize(
    "key",
    [
        " ",
        GOOD[:-1],
        "x" * 32,
        "x" * 64,
        "abcabcab" * 8,
        "abcdefghijklmnopqrstuvwxyz0123456789",
        "01234567890123456789012345678901",
        "Tr0ub4dorTr0ub4dorTr0ub4dorTr0ub4dor",
        "zyxwvutsrqponmlkjihgfedcba9876543210",
        "0000000000000000deadbeef0000000000000000",
        "change-me-0123456789-abcdefghijklmnop",
        "CHANGEME0123456789abcdefghijklmnopqr",
        "your-secret-key-0123456789-abcdefghij",
        "this is an example of a key 0123456789",
        "placeholder-0123456789-abcdefghijklmn",
        "my password and some more 0123456789",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",  # FastAPI's tutorial
        "09D25E094FAA6CA2556C818166B7A9563B93F7099F6F0F4CAA6CF63B88E8D3E7",
        hashlib.sha256(b"").hexdigest(),
        hashlib.sha512(b"trustno1").hexdigest(),
        hashlib.md5(b"password").hexdigest(),  # noqa: S324 - as weak as it looks
        "replace-me-with-a-real-key-0123456789",
        "YOUR_SUPER_LONG_JWT_SIGNING_KEY_HERE",
        "insecure-key-do-not-use-in-production!!",
        "qwertyuiopasdfghjklzxcvbnm1234567890",
        "the quick brown fox jumps over a lazy dog",
        "CorrectHorseBatteryStapleTuesdayLisbon42",
        LOCAL_SECRET_KEY.get_secret_value(),
        f"{GOOD}{LOCAL_SECRET_KEY.get_secret_value()}",
    ],
)
@pytest.mark.parametrize("environment", ["local", "production"])
def test_a_weak_key_is_refused(monkeypatch: pytest.MonkeyPatch, environment: str, key: str) -> None:
    monkeypatch.setenv("ENVIRONMENT", environment)
    monkeypatch.setenv("SECRET_KEY", key)
    message = refused()
    assert message.startswith("SECRET_KEY: ")
    assert key.strip() not in message or not key.strip()


@pytest.mark.parametrize("fallbacks", ["x" * 32, f"{GOOD},abc", "change-me-0123456789-abcdefghi"])
def test_a_weak_fallback_is_refused(monkeypatch: pytest.MonkeyPatch, fallbacks: str) -> None:
    monkeypatch.setenv("SECRET_KEY", GOOD)
    monkeypatch.setenv("SECRET_KEY_FALLBACKS", fallbacks)
    assert refused().startswith("SECRET_KEY_FALLBACKS: ")


@pytest.mark.parametrize(
    ("number", "generate"),
    [
        (20_000, lambda numbers: numbers.randbytes(32).hex()),
        (20_000, lambda numbers: b64encode(numbers.randbytes(32)).decode()),
        (20_000, lambda numbers: urlsafe_b64encode(numbers.randbytes(32)).rstrip(b"=").decode()),
        (2_000, lambda numbers: numbers.randbytes(16).hex()),
        (2_000, lambda numbers: urlsafe_b64encode(numbers.randbytes(24)).decode()),
    ],
    ids=["openssl -hex", "openssl -base64", "token_urlsafe", "short hex", "short base64"],
)
def test_random_keys_are_accepted(
    monkeypatch: pytest.MonkeyPatch, number: int, generate: Callable[[Random], str]
) -> None:
    # Skipped: hashing every common password for each key would take minutes.
    monkeypatch.setattr("app.users.passwords.COMMON", frozenset({"password"}))
    numbers = Random(1)  # noqa: S311 - the same keys in every run
    for _ in range(number):
        key = generate(numbers)
        check_key(key)  # raises ValueError


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ENVIRONMENT", "somewhere"),
        ("REGISTRATION_OPEN", "perhaps"),
        ("ACCESS_TOKEN_LIFETIME", "0"),
        ("REFRESH_TOKEN_LIFETIME", "-1"),
        ("REFRESH_TOKEN_LIFETIME", "999999999999"),
        ("SESSION_LIFETIME", "0"),
        ("API_KEY_LIFETIME", "999999999999"),
        ("THROTTLE_WINDOW", "0"),
        ("THROTTLE_PER_EMAIL", "0"),
        ("THROTTLE_PER_EMAIL_AND_ADDRESS", "0"),
        ("THROTTLE_PER_ADDRESS", "many"),
        ("THROTTLE_AT_ONCE", "0"),
    ],
)
def test_an_invalid_value_is_refused(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("SECRET_KEY", GOOD)
    monkeypatch.setenv(variable, value)
    assert variable in refused()


@pytest.mark.parametrize(
    ("environment", "said", "is_open"),
    [
        ("local", None, True),
        ("local", "false", False),
        ("staging", None, False),
        ("production", None, False),
        ("production", "true", True),
    ],
)
def test_registration_is_closed_unless_local(
    monkeypatch: pytest.MonkeyPatch, environment: str, *, said: str | None, is_open: bool
) -> None:
    monkeypatch.setenv("SECRET_KEY", GOOD)
    monkeypatch.setenv("ENVIRONMENT", environment)
    if said is not None:
        monkeypatch.setenv("REGISTRATION_OPEN", said)
    assert load_settings().registration_open is is_open


def test_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", GOOD)
    settings = load_settings()
    assert settings.environment == "production"
    assert settings.registration_open is False
    assert settings.access_token_lifetime == 15 * 60
    assert settings.refresh_token_lifetime == 30 * 24 * 60 * 60
    assert settings.session_lifetime == 90 * 24 * 60 * 60
    assert settings.api_key_lifetime == 365 * 24 * 60 * 60
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert GOOD not in shown
