"""pyright strict finds nothing in `app/`; mypy is part of each render's own check."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from testing.baking import installed
from testing.groups import label, proven
from testing.requirements import require
from tests.conftest import Bake

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


@pytest.fixture(scope="module")
def pyright(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Install pyright and return its path."""
    folder = tmp_path_factory.mktemp("pyright")
    npm = require("npm")
    command = [npm, "install", "--silent", "--prefix", str(folder), "pyright"]
    subprocess.run(command, check=True, capture_output=True)
    program = shutil.which("pyright", path=str(folder / "node_modules" / ".bin"))
    assert program
    return program


@pytest.mark.parametrize("answers", proven(), ids=label)
def test_pyright_finds_nothing_in_the_app(
    bake: Bake, pyright: str, answers: dict[str, str]
) -> None:
    with installed(bake(**answers)) as project:
        settings = {
            "include": ["app"],
            "typeCheckingMode": "strict",
            "reportMissingTypeStubs": "none",  # asyncpg has no type stubs
            "venvPath": ".",
            "venv": ".venv",
        }
        Path(project.path, "pyrightconfig.json").write_text(json.dumps(settings), "utf-8")
        done = project.run(pyright)
        assert done.returncode == 0, done.stdout
