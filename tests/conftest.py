"""Fixtures: a clean copy of the template, and the two ways to render it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest
from pytest_cookies.plugin import Cookies

from testing.baking import Project, clean_environment, copy_template

pytest_plugins = ["tests.figures", "tests.scheduling"]
collect_ignore = ["clients", "feature", "generic", "recipes", "squawk"]  # copied into a render


class Bake(Protocol):
    """Renders the template with these answers, and defaults for the others."""

    def __call__(self, **answers: str) -> Project: ...


class CommandLine(Protocol):
    """Runs `cookiecutter <template> ...` in a folder, as a user does."""

    def __call__(
        self,
        folder: Path,
        *arguments: str,
        typed: str = "",
        umask: int = 0o022,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture(scope="session", autouse=True)
def types_known(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Share mypy's cache between renders, which have the same libraries."""
    os.environ["MYPY_CACHE_DIR"] = str(tmp_path_factory.mktemp("mypy"))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the template without caches."""
    return copy_template(tmp_path_factory.mktemp("template") / "clone")


@pytest.fixture(scope="session")
def bake(cookies_session: Cookies, template: Path) -> Bake:
    """Render once for the same answers: read the project, do not change it."""
    baked: dict[tuple[tuple[str, str], ...], Project] = {}

    def render(**answers: str) -> Project:
        key = tuple(sorted(answers.items()))
        if key not in baked:
            result = cookies_session.bake(extra_context=answers, template=str(template))
            assert result.exception is None, result.exception
            baked[key] = Project(result.project_path, result.context)
        return baked[key]

    return render


@pytest.fixture(scope="session")
def command_line(template: Path, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Run Cookiecutter's command line in a home of its own."""
    home = str(tmp_path_factory.mktemp("home"))

    def run(
        folder: Path,
        *arguments: str,
        typed: str = "",
        umask: int = 0o022,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cookiecutter", str(template), *arguments],
            cwd=folder,
            env=clean_environment(HOME=home, USERPROFILE=home, PYTHONUTF8="1", **environment),
            input=typed,
            capture_output=True,
            encoding="utf-8",
            umask=umask,
            check=False,
        )

    return run
