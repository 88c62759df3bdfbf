"""What the tests render from, and what they get to hold."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
TREE: Final = ROOT / "{{cookiecutter.project_slug}}"

# The questions with fixed answers, the default first.
CHOICES: Final[dict[str, list[str]]] = {
    question: answers
    for question, answers in json.loads((ROOT / "cookiecutter.json").read_text("utf-8")).items()
    if isinstance(answers, list) and not question.startswith("_")
}

DEFAULTS: Final = {question: answers[0] for question, answers in CHOICES.items()}

# Set by whoever runs the tests; a rendered service must neither see nor need it.
FOREIGN_VARIABLES: Final = (
    "COV_",
    "COVERAGE_",
    "DATABASE_",
    "PYTEST_",
    "PYTHONDONTWRITEBYTECODE",  # each start would compile all that is installed
    "TEST_DATABASE_",
    "UV_RUN_RECURSION_DEPTH",
    "VIRTUAL_ENV",
)


def combinations(*questions: str) -> list[dict[str, str]]:
    """Give every combination of the answers to these questions, or to all of them."""
    asked = questions or tuple(CHOICES)
    every = itertools.product(*(CHOICES[question] for question in asked))
    return [dict(zip(asked, answers, strict=True)) for answers in every]


def pairwise() -> list[dict[str, str]]:
    """Give combinations in which any two answers to any two questions meet, few of them."""

    def pairs(answers: Mapping[str, str]) -> set[frozenset[tuple[str, str]]]:
        return {frozenset(pair) for pair in itertools.combinations(answers.items(), 2)}

    every = combinations()
    missing = set[frozenset[tuple[str, str]]]().union(*map(pairs, every))
    chosen = []
    while missing:
        chosen.append(max(every, key=lambda answers: len(pairs(answers) & missing)))
        missing -= pairs(chosen[-1])
    return chosen


def proven() -> list[dict[str, str]]:
    """Give one combination for each that changes the Python: these prove themselves."""
    by_python: dict[tuple[str, str], dict[str, str]] = {}
    for answers in pairwise():
        by_python.setdefault((answers["database"], answers["auth"]), answers)
    return list(by_python.values())


def clean_environment(**changes: str) -> dict[str, str]:
    """Give the environment of a user who has uv and nothing else of ours."""
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
    """Copy what Cookiecutter reads, without caches: it would render whatever lies in the tree."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    names = [line.rstrip("/") for line in lines if line and not line.startswith("#")]
    target.mkdir()
    shutil.copy2(root / "cookiecutter.json", target)
    for folder in (root / "hooks", root / TREE.name):
        shutil.copytree(folder, target / folder.name, ignore=shutil.ignore_patterns(*names))
    return target


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

    def text(self, file: str) -> str:
        """Give the text of a file."""
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
    """Give the output of a command that must not fail."""
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def installed(rendered: Project, **environment: str) -> Iterator[Project]:
    """Install a copy of a render: running it leaves data behind.

    It lies outside pytest's folder, which every start of pytest closes to other users: as root, the
    embedded PostgreSQL runs as another user.
    """
    with tempfile.TemporaryDirectory(prefix=f"{rendered.answers['database']}-") as folder:
        path = shutil.copytree(rendered.path, Path(folder, rendered.path.name))
        project = Project(path, rendered.answers)
        succeeded(project.run("uv", "sync", **environment))
        yield project


def free_port() -> int:
    """Find a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
