"""Settings: how they are read, refused and documented."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.kit import project
from app.settings import Settings, load_settings
from tests import caller, database


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    """Ignore a ``.env`` file, and set a ``DATABASE_URL``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", template)
    for name, value in (caller.SETTINGS | database.SETTINGS).items():
        monkeypatch.setenv(name.upper(), value)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1234")
    monkeypatch.setenv("DATABASE_ECHO", "")  # treated as not set
    settings = load_settings()
    assert (settings.port, settings.database_echo) == (1234, False)


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=4321\nSOMETHING_ELSE=1\n")
    assert load_settings().port == 4321


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("WORKERS", "0"),
        ("LOG_LEVEL", "loud"),
        ("DATABASE_POOL_TIMEOUT", "soon"),
        ("DATABASE_READ_POOL_SIZE", "-1"),
        ("DATABASE_URL", "mysql://user:secret@host/name"),
        ("DATABASE_URL", "secret"),
        ("DATABASE_ECHO", "perhaps"),
        ("ALLOWED_HOSTS", "https://example.com"),
        ("ALLOWED_HOSTS", "a.example:80"),
        ("ALLOWED_HOSTS", "*"),
        ("CORS_ORIGINS", "*"),
        ("CORS_ORIGINS", "example.com"),
        ("CORS_ORIGINS", "https://example.com/"),
    ],
)
def test_an_invalid_value_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as caught:
        load_settings()
    message = str(caught.value)
    assert message.startswith(f"{variable}: ")
    assert "\n" not in message
    assert "secret" not in message


def test_every_invalid_value_has_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("WORKERS", "x")
    with pytest.raises(SystemExit) as caught:
        load_settings()
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["PORT", "WORKERS"]


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "app"],
        [sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app"],
        [sys.executable, "-m", "alembic", "upgrade", "head"],
    ],
    ids=["app", "uvicorn", "alembic"],
)
def test_no_command_starts_with_an_invalid_value(command: list[str]) -> None:
    environment = os.environ | {"DATABASE_POOL_TIMEOUT": "soon"}
    ended = subprocess.run(
        command, cwd=project.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode != 0
    assert ended.stderr.startswith("DATABASE_POOL_TIMEOUT: ")
    assert ended.stderr.count("\n") == 1


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    settings = load_settings()
    url = settings.database_url.set(password="hush")  # noqa: S106
    assert "hush" not in repr(settings.model_copy(update={"database_url": url}))


@pytest.mark.parametrize(
    ("document", "pattern"),
    [(".env.example", r"^(?:# )?([A-Z_]+)="), ("docs/settings.md", r"^\| `([A-Z_]+)` \|")],
)
def test_every_setting_is_documented(document: str, pattern: str) -> None:
    text = (project.ROOT / document).read_text(encoding="utf-8")
    written = re.findall(pattern, text, flags=re.MULTILINE)
    assert sorted(written) == sorted(name.upper() for name in Settings.model_fields)


def test_env_example_has_the_defaults(monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    known: dict[str, Any] = {"database_url": template, **caller.SETTINGS}
    example = Settings(_env_file=project.ROOT / ".env.example", **known)
    assert example == Settings(_env_file=None, **known)
