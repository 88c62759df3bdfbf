"""cruft updates an older project that its owner has changed."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from scripts.release import previous_release
from testing.baking import ROOT, TREE, Project, clean_environment, copy_template, install, succeeded
from testing.requirements import require
from testing.usage import just, let_in, served
from tests.conftest import Bake

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("update"),
    pytest.mark.skipif(sys.platform == "win32", reason="the services are stopped by signals"),
]

HERE: Final = Path(__file__).parent
PREVIOUS: Final = previous_release(ROOT) or "f2559043fb8a1268c005a7c551ae9aa8fe76f787"
"""The previous release; before the first release, an older commit."""

ANSWERS: Final = {
    "project_name": "Notes",
    "project_slug": "our-notes",
    "database": "sqlite",
    "auth": "none",
    "license": "BSD-3-Clause",
}

OURS: Final = {
    "README.md": "\n## Ours\n\nWhat this team has written down.\n",
    ".env.example": "\n# Ours: nothing yet.\n",
    "pyproject.toml": "\n[tool.ours]\nflag = true\n",
}
"""Text that the owner has appended to files of the template."""


def git(folder: Path, *arguments: str) -> str:
    """Run git with an author."""
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false")
    return succeeded(
        subprocess.run(
            ["git", *who, *arguments],
            cwd=folder,
            env=clean_environment(),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    )


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", message)


def cruft(folder: Path, *arguments: str) -> str:
    return succeeded(
        subprocess.run(
            [sys.executable, "-m", "cruft", *arguments],
            cwd=folder,
            # Its own home folder, for clones and replay files.
            env=clean_environment(HOME=str(folder.parent)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    )


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a folder that the embedded PostgreSQL can read, too: see `installed`."""
    with tempfile.TemporaryDirectory(prefix="update-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture(scope="module")
def repository(folder: Path) -> Path:
    """Return a repository with two releases of the template: the one before, and this one."""
    path = folder / "template"
    path.mkdir()
    git(path, "init", "--quiet", "--initial-branch=main")
    archive = subprocess.run(
        ["git", "archive", PREVIOUS, "cookiecutter.json", "hooks", TREE.name],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    require(f"the history back to {PREVIOUS}", found=archive.returncode == 0)
    subprocess.run(["tar", "x"], cwd=path, input=archive.stdout, check=True)
    commit(path, "The release before")
    git(path, "tag", "before")
    for child in path.iterdir():
        if child.name != ".git":
            shutil.rmtree(child) if child.is_dir() else child.unlink()
    copy_template(folder / "now")
    shutil.copytree(folder / "now", path, dirs_exist_ok=True)
    commit(path, "This release")
    return path


@pytest.fixture(scope="module")
def older_project(folder: Path, repository: Path) -> Path:
    """Return a project of the previous release, with its owner's additions and changes."""
    cruft(
        folder,
        *("create", str(repository), "--checkout", "before", "--no-input"),
        *("--extra-context", json.dumps(ANSWERS)),
    )
    path = folder / "our-notes"
    git(path, "init", "--quiet", "--initial-branch=main")
    commit(path, "As rendered")
    shutil.copytree(
        HERE / "feature",
        path,
        ignore=shutil.ignore_patterns("ruff.toml", "__*__"),
        dirs_exist_ok=True,
    )
    for package in ("app/notes", "tests/notes"):
        shutil.copy2(HERE / "feature" / package / "__init__.py", path / package)
    api = path / "app" / "api.py"
    api.write_text(with_notes(api.read_text(encoding="utf-8")), encoding="utf-8")
    for name, text in OURS.items():
        file = path / name
        file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")
    commit(path, "Notes")
    return path


def with_notes(api: str) -> str:
    """Mount the notes in the text of ``app/api.py``."""
    for before, after in (
        ("from app.tasks", "from app.notes.router import router as notes\nfrom app.tasks"),
        ('    ("/v1", tasks),\n', '    ("/v1", tasks),\n    ("/v1", notes),\n'),
    ):
        assert api.count(before) == 1, f"{before} in app/api.py"
        api = api.replace(before, after)
    return api


def updated(path: Path, target: Path, **answers: str) -> Project:
    """Update a copy of a project, as its owner would."""
    shutil.copytree(path, target, ignore=shutil.ignore_patterns(".venv", "uv.lock", ".postgres"))
    more = ("--variables-to-update", json.dumps(answers)) if answers else ()
    cruft(target, "update", "--skip-apply-ask", "--checkout", "main", *more)
    state = json.loads((target / ".cruft.json").read_text(encoding="utf-8"))
    chosen = state["context"]["cookiecutter"]
    assert {name: chosen[name] for name in answers} == answers
    return Project(target, chosen)


def conflicts(project: Project) -> set[str]:
    """Return the files with conflicts of an update."""
    listed = git(project.path, "diff", "--name-only", "--diff-filter=U").split()
    rejected = [file.removesuffix(".rej") for file in project.files() if file.endswith(".rej")]
    return {*listed, *rejected}


def check_equals_new_render(project: Project, bake: Bake, **answers: str) -> None:
    """Check that a project differs from a new render only by its owner's changes."""
    fresh = bake(**ANSWERS | answers)
    feature = Project(HERE / "feature", {})
    added = {file for file in feature.files() if file.startswith(("app/", "tests/", "migrations/"))}
    wanted = {file: (fresh.path / file).read_bytes() for file in fresh.files()}
    wanted |= {
        file: (feature.path / file).read_bytes() for file in added if "__pycache__" not in file
    }
    wanted["app/api.py"] = with_notes(fresh.text("app/api.py")).encode()
    for file, text in OURS.items():
        wanted[file] += text.encode()
    listed = git(project.path, "ls-files", "--cached", "--others", "--exclude-standard")
    found = {
        file: (project.path / file).read_bytes()
        for file in listed.splitlines()
        if file != ".cruft.json"
    }
    assert sorted(found) == sorted(wanted)
    assert {file for file in wanted if found[file] != wanted[file]} == set()


def check_passes(project: Project) -> None:
    """Run the tests that an update affects; the other files equal those of a new render."""
    just(project, "lint")
    just(project, "test", "tests/notes", "tests/kit/test_migrations.py", "tests/kit/test_main.py")


@pytest.fixture(scope="module")
def current(older_project: Path, folder: Path, bake: Bake) -> Project:
    """Return the updated project."""
    project = updated(older_project, folder / "current" / older_project.name)
    assert conflicts(project) == set()
    check_equals_new_render(project, bake)
    commit(project.path, "Update")
    install(project)
    return project


def test_cruft_reports_a_newer_template(older_project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cruft", "check", "--checkout", "main"],
        cwd=older_project,
        env=clean_environment(HOME=str(older_project.parent)),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr


def test_an_older_project_with_changes_is_updated(current: Project) -> None:
    cruft(current.path, "check", "--checkout", "main")
    check_passes(current)


def test_a_project_changes_from_sqlite_to_postgresql_with_its_rows(
    current: Project, folder: Path, bake: Bake
) -> None:
    with served(current, signal.SIGINT, "uv", "run", "just", "dev") as client:
        for number in range(30):
            note = client.post("/v1/notes", json={"body": f"Nöte {number}"})
            assert note.status_code == 201, note.text
            task = {"title": f"Task {number}", "tags": ["a", f"b{number}"]}
            assert client.post("/v1/tasks", json=task).status_code == 201
        before = [client.get(f"/v1/{name}?limit=100").json() for name in ("notes", "tasks", "tags")]

    project = updated(
        current.path, folder / "postgresql" / current.path.name, database="postgresql"
    )
    assert conflicts(project) == set()
    check_equals_new_render(project, bake, database="postgresql")
    install(project)
    check_passes(project)

    just(project, "migrate")
    assert "rows were copied." in just(project, "copy-database", "sqlite:///app.db")
    with served(project, signal.SIGINT, "uv", "run", "just", "dev") as client:
        after = [client.get(f"/v1/{name}?limit=100").json() for name in ("notes", "tasks", "tags")]
        assert client.post("/v1/notes", json={"body": "and on"}).status_code == 201
    assert after == before


def test_a_project_adds_users(current: Project, folder: Path, bake: Bake) -> None:
    project = updated(current.path, folder / "users" / current.path.name, auth="users")
    # The only module that both sides have changed: it requires a caller now.
    assert conflicts(project) <= {"app/api.py"}
    if conflicts(project):
        git(project.path, "checkout", "--theirs", "app/api.py")
    api = with_notes(bake(**ANSWERS | {"auth": "users"}).text("app/api.py"))
    (project.path / "app" / "api.py").write_text(api, encoding="utf-8")
    for file in project.path.rglob("*.rej"):
        file.unlink()
    check_equals_new_render(project, bake, auth="users")
    install(project)
    # Two revisions have the same parent: the owner's and that of users.
    succeeded(project.run("uv", "run", "alembic", "merge", "heads", "--message", "users"))
    just(project, "fix")
    check_passes(project)
    with served(project, signal.SIGINT, "uv", "run", "just", "dev") as client:
        let_in(client, {"auth": "users"})
        assert client.post("/v1/notes", json={"body": "mine"}).status_code == 201
