"""The template, its answers, its renders, and how a render is installed."""

import hashlib
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock

ROOT: Final = Path(__file__).resolve().parent.parent
TREE: Final = ROOT / "{{cookiecutter.project_slug}}"

# The questions with fixed answers, the default first.
CHOICES: Final[dict[str, list[str]]] = {
    question: answers
    for question, answers in json.loads((ROOT / "cookiecutter.json").read_text("utf-8")).items()
    if isinstance(answers, list) and not question.startswith("_")
}

DEFAULTS: Final = {question: answers[0] for question, answers in CHOICES.items()}

# Set where the tests run; a rendered service must not see it.
FOREIGN_VARIABLES: Final = (
    "COV_",
    "COVERAGE_",
    "DATABASE_",
    "PYTEST_",
    "PYTHONDONTWRITEBYTECODE",  # each start would compile all that is installed
    "TEST_DATABASE_",
    "TEMPLATE_TESTS_",
    "UV_PROJECT_ENVIRONMENT",
    "UV_RUN_RECURSION_DEPTH",
    "VIRTUAL_ENV",
)


ENVIRONMENTS: Final = "TEMPLATE_TESTS_ENVIRONMENTS"
"""The variable that names the folder of the shared virtual environments."""


def combinations(*questions: str) -> list[dict[str, str]]:
    """Return every combination of the answers to these questions, or to all of them."""
    asked = questions or tuple(CHOICES)
    every = itertools.product(*(CHOICES[question] for question in asked))
    return [dict(zip(asked, answers, strict=True)) for answers in every]


def pairwise() -> list[dict[str, str]]:
    """Return a few combinations in which any two answers to different questions occur together."""

    def pairs(answers: Mapping[str, str]) -> set[frozenset[tuple[str, str]]]:
        return {frozenset(pair) for pair in itertools.combinations(answers.items(), 2)}

    every = combinations()
    missing = set[frozenset[tuple[str, str]]]().union(*map(pairs, every))
    chosen = []
    while missing:
        chosen.append(max(every, key=lambda answers: len(pairs(answers) & missing)))
        missing -= pairs(chosen[-1])
    return chosen


def clean_environment(**changes: str) -> dict[str, str]:
    """Return the environment of a user who has uv and nothing else of the tests."""
    own_scripts = Path(sys.prefix).resolve()
    search_path = [
        folder
        for folder in os.environ["PATH"].split(os.pathsep)
        if not Path(folder).resolve().is_relative_to(own_scripts)
    ]
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_VARIABLES)
    }
    return kept | {"PATH": os.pathsep.join(search_path)} | changes


def copy_template(target: Path, root: Path = ROOT) -> Path:
    """Copy what Cookiecutter reads, without caches, which it would render as well."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    names = [line.rstrip("/") for line in lines if line and not line.startswith("#")]
    target.mkdir()
    shutil.copy2(root / "cookiecutter.json", target)
    for folder in (root / "hooks", root / TREE.name):
        shutil.copytree(folder, target / folder.name, ignore=shutil.ignore_patterns(*names))
    return target


def dependencies(pyproject: str) -> str:
    """Return the parts of a `pyproject.toml` that decide which packages are installed, as JSON."""
    document = tomllib.loads(pyproject)
    project = document["project"]
    parts = [project["dependencies"], document["dependency-groups"], project["requires-python"]]
    return json.dumps([*parts, document["tool"]["uv"]], sort_keys=True)


@dataclass(frozen=True)
class Project:
    """A rendered service."""

    path: Path
    answers: Mapping[str, str]

    def files(self) -> set[str]:
        """Every file, as a POSIX path relative to the project."""
        return {
            file.relative_to(self.path).as_posix()
            for file in self.path.rglob("*")
            if not file.is_dir()
        }

    def python(self) -> set[str]:
        """Every module."""
        return {file for file in self.files() if file.endswith(".py")}

    def text(self, file: str) -> str:
        """Return the text of a file."""
        return (self.path / file).read_text(encoding="utf-8")

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project, as its user would."""
        return subprocess.run(
            command,
            cwd=self.path,
            env=clean_environment(**environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a command that must not fail."""
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def tool(name: str, *arguments: str) -> str:
    """Run a program of the tests' own environment and return its output."""
    program = shutil.which(name, path=str(Path(sys.executable).parent))
    assert program, f"{name} is not installed: uv sync"
    return succeeded(
        subprocess.run(
            [program, *arguments],
            env=clean_environment(),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    )


def install(project: Project, *arguments: str) -> None:
    """Return a project its virtual environment.

    While tests run, projects that declare the same dependencies share one: it is made for the first
    of them, by `uv sync`, and the others get a link to it and a copy of the lock file.

    Args:
        project: where it is installed.
        *arguments: for `uv sync`, where nothing is shared.

    """
    shared = os.environ.get(ENVIRONMENTS)
    if shared is None or sys.platform == "win32":  # where links take a privilege
        succeeded(project.run("uv", "sync", *arguments))
        return
    pyproject = project.text("pyproject.toml")
    folder = Path(shared, hashlib.sha256(dependencies(pyproject).encode()).hexdigest()[:16])
    with FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            for file in ("pyproject.toml", "README.md"):
                shutil.copy2(project.path / file, folder)
            succeeded(Project(folder, project.answers).run("uv", "sync"))
            (folder / "done").touch()
    lock = (folder / "uv.lock").read_text(encoding="utf-8")
    first, name = (
        tomllib.loads(text)["project"]["name"]
        for text in ((folder / "pyproject.toml").read_text(encoding="utf-8"), pyproject)
    )
    (project.path / "uv.lock").write_text(lock.replace(f'name = "{first}"', f'name = "{name}"'))
    (project.path / ".venv").symlink_to(folder / ".venv")


@contextmanager
def installed(rendered: Project, **environment: str) -> Iterator[Project]:
    """Install a copy of a render: running it leaves data behind.

    It lies outside pytest's folder, which every start of pytest closes to other users: as root, the
    embedded PostgreSQL runs as another user.

    Args:
        rendered: the render.
        **environment: variables for uv, such as another Python; the copy then has a virtual
            environment of its own.

    """
    with tempfile.TemporaryDirectory(prefix=f"{rendered.answers['database']}-") as folder:
        path = shutil.copytree(rendered.path, Path(folder, rendered.path.name))
        project = Project(path, rendered.answers)
        if environment:
            succeeded(project.run("uv", "sync", **environment))
        else:
            install(project)
        yield project


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
