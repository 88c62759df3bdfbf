"""Alembic's command line."""

import asyncio
import os
import sys
from pathlib import Path

from sqlalchemy import make_url

from app.kit import project
from tests.conftest import environment_for


async def alembic(url: str) -> tuple[int | None, str]:
    """Run ``alembic current``; return its exit code and what it prints to standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "alembic", "current"),
        cwd=project.ROOT,
        env=environment_for(url) | {"PYTHONPATH": os.curdir},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    return process.returncode, errors.decode()


def broken_urls(url: str, tmp_path: Path) -> dict[str, str]:
    """Return URLs of unusable databases, with the expected error for each."""
    if url.startswith("sqlite"):
        (tmp_path / "text.db").write_text("This is no database. " * 100)
        return {f"sqlite:///{tmp_path / 'text.db'}": f"{tmp_path / 'text.db'}: file is not a"}
    given = make_url(url)
    wrong = given.set(database="nowhere", password="hunter2")  # noqa: S106
    return {
        "postgresql://someone:hunter2@127.0.0.1:1/name": "127.0.0.1:1: ",
        "postgresql:///name?host=/nowhere&port=1": "/nowhere:1: FileNotFoundError",
        wrong.render_as_string(hide_password=False): 'database "nowhere" does not exist',
    }


async def test_an_unusable_database_is_reported_in_one_line(live_url: str, tmp_path: Path) -> None:
    for url, expected in broken_urls(live_url, tmp_path).items():
        code, errors = await alembic(url)
        assert code == 1
        assert expected in errors
        assert errors.startswith("The database can't be reached: ")
        assert errors.count("\n") == 1, errors
        assert "hunter2" not in errors


async def test_a_usable_database_prints_no_error(live_url: str) -> None:
    code, errors = await alembic(live_url)
    assert code == 0
    assert "plugin" not in errors
    assert "Error" not in errors
