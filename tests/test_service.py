"""A rendered service, used as its README says: installed, checked, migrated, served.

Slow, for it installs the service; `uv run pytest -m "not slow"` leaves it out.
"""

import re
import shlex
import shutil
import signal
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from testing.baking import ROOT, Project, installed, succeeded
from testing.groups import each_answer_once, label, proven
from testing.usage import ci_commands, just, let_in, served
from tests.conftest import Bake
from tests.figures import Measured

pytestmark = pytest.mark.slow

LABELS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}

URLS = {
    "sqlite": "sqlite:///service.db",
    "postgresql": "postgresql://localhost:5432/service",
}


def each(chosen: list[dict[str, str]]) -> list[Any]:
    """Return parameters for these combinations; the tests of one run in one process."""
    return [
        pytest.param(answers, id=label(answers), marks=pytest.mark.xdist_group(label(answers)))
        for answers in chosen
    ]


@pytest.fixture(scope="module", params=each(proven()))
def answers(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return a combination of answers of each group in turn."""
    chosen: dict[str, str] = request.param
    return chosen


@pytest.fixture(scope="module")
def database(answers: dict[str, str]) -> str:
    """Return the database of the render."""
    return answers["database"]


@pytest.fixture(scope="module")
def service(bake: Bake, answers: dict[str, str]) -> Iterator[Project]:
    """Return an installed render of this module's own."""
    with installed(bake(**answers)) as project:
        yield project


CHECK = "uv run just check"
WITHOUT_COVERAGE = ["uv run just lint", "uv run just test"]
"""What `check` does, without coverage: that is measured once for each answer."""


def test_what_its_ci_runs_passes(
    service: Project, answers: dict[str, str], measured: Measured
) -> None:
    covered = answers in each_answer_once()
    for command in ci_commands(service):
        for each_command in [command] if covered or command != CHECK else WITHOUT_COVERAGE:
            just(service, *shlex.split(each_command.removeprefix("uv run just ")))
    measured(
        "A render that passes its own CI",
        LABELS[answers["database"]],
        answers=", ".join(answers.values()),
    )


FUZZED = [answers for answers in proven() if answers["auth"] == "users"]
"""With users there is all that there is without, and more."""


@pytest.mark.parametrize("chosen", FUZZED, ids=label)
def test_made_up_requests_find_nothing(
    bake: Bake, chosen: dict[str, str], *, full: bool, measured: Measured
) -> None:
    most = 400 if full else 100  # of a kind
    with installed(bake(**chosen)) as service:
        printed = just(service, "fuzz", str(most))

    cases = sum(int(count) for count in re.findall(r"(\d+) generated", printed))
    measured("Requests made up from the OpenAPI document", LABELS[chosen["database"]], cases=cases)
    assert cases >= 25 * most


def test_no_slug_can_be_the_name_of_what_is_installed(service: Project) -> None:
    hook = (ROOT / "hooks" / "pre_gen_project.py").read_text(encoding="utf-8")
    reserved = set(re.findall(r"[\w-]+", hook.partition("PACKAGES")[2].partition(".split")[0]))
    lock = tomllib.loads(service.text("uv.lock"))
    installed = {package["name"] for package in lock["package"]} - {service.path.name}
    assert sorted(installed - reserved) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://user:secret@host/name"),
        ("DATABASE_URL", "other"),
        ("DATABASE_POOL_TIMEOUT", "abc"),
        ("PORT", "abc"),
    ],
)
def test_a_bad_setting_is_named_in_one_line(
    service: Project, database: str, variable: str, value: str
) -> None:
    if value == "other":
        value = next(url for name, url in URLS.items() if name != database)
    environment = {"DATABASE_URL": URLS[database], "ENVIRONMENT": "local", variable: value}

    done = service.run("uv", "run", "python", "-m", "app", **environment)

    assert done.returncode != 0
    assert done.stderr.startswith(f"{variable}: ")
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr


def test_a_migration_is_a_revision_with_a_timestamp(service: Project) -> None:
    succeeded(service.run("uv", "run", "just", "migrate"))
    versions = service.path / "migrations" / "versions"
    before = set(versions.glob("*.py"))

    succeeded(service.run("uv", "run", "just", "migration", "add a $(thing)"))

    (revision,) = set(versions.glob("*.py")) - before
    assert re.fullmatch(r"\d{4}_\d\d_\d\d_\d{4}_[0-9a-f]+_add_a_thing\.py", revision.name)
    succeeded(service.run("uv", "run", "just", "migrate"))


@pytest.mark.skipif(sys.platform == "win32", reason="signals go to a POSIX process group")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_dev_serves_at_once_and_leaves_nothing_running(
    service: Project, answers: dict[str, str], stop: signal.Signals
) -> None:
    with served(service, stop, "uv", "run", "just", "dev") as client:
        assert client.get("/docs").status_code == 200
        let_in(client, answers)
        created = client.post("/v1/tasks", json={"title": "x"})
        assert created.status_code == 201, created.text
        assert client.get(created.headers["Location"]).json()["title"] == "x"


# What an editor adds to the code that the README shows.
IMPORTS = {
    "models": """
        from sqlalchemy import Index, String
        from sqlalchemy.orm import Mapped, mapped_column
        from app.db.models import Base, Identified, Timestamped
    """,
    "schemas": """
        from datetime import datetime
        from typing import Annotated
        from uuid import UUID
        from pydantic import Field
        from app.schemas import Body, Public, Text
    """,
    "repository": """
        from functools import cache
        from typing import Any
        from sqlalchemy import Row, Select, insert, select
        from app import pagination
        from app.db.engine import WriteSession
        from app.db.repository import RowRepository
        from app.pagination import Order, Slice, Start
        from app.projects.models import Project
        from app.projects.schemas import ProjectCreate
        from app.schemas import PageQuery
    """,
    "router": """
        from typing import Annotated
        from fastapi import Depends, Query
        from app.db.session import ReadsDep, SessionDep
        from app.errors import problems
        from app.pagination import Page
        from app.projects.repository import ProjectReader, ProjectRepository
        from app.projects.schemas import ProjectCreate, ProjectPublic
        from app.routing import Router
        from app.schemas import PageQuery
    """,
}


@pytest.mark.parametrize("answers", each(each_answer_once()), indirect=True)
def test_the_readme_adds_a_resource(service: Project, answers: dict[str, str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    modules = dict(
        re.findall(r"^# (\w+)\.py\n(.*?)(?=^# \w+\.py|\Z)", shown, re.DOTALL | re.MULTILINE)
    )
    assert set(modules) == set(IMPORTS)
    folder = service.path / "app" / "projects"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""Projects."""\n')
    for name, code in modules.items():
        text = f'"""Projects."""\n\n{textwrap.dedent(IMPORTS[name])}\n{code}'
        (folder / f"{name}.py").write_text(text)
    api = service.path / "app" / "api.py"
    mounted = api.read_text().replace("(tasks,", "(tasks, projects,", 1)
    imported = "from app.projects.router import router as projects\nfrom app.tasks"
    api.write_text(mounted.replace("from app.tasks", imported, 1))

    just(service, "migration", "add projects")
    just(service, "fix")
    just(service, "lint")
    just(service, "test", "tests/kit/test_migrations.py", "-k", "head or drifted")
    with served(service, signal.SIGINT, "uv", "run", "just", "dev") as client:
        let_in(client, answers)
        assert client.post("/v1/projects", json={"name": "x"}).status_code == 201
        taken = client.post("/v1/projects", json={"name": "x"})
        assert (taken.status_code, taken.json()["errors"][0]["field"]) == (409, "name")
        assert [item["name"] for item in client.get("/v1/projects").json()["items"]] == ["x"]
        assert client.post("/v1/projects", json={"name": "y", "z": 1}).status_code == 422


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param(answers, id=label(answers), marks=[pytest.mark.nightly] * bool(number))
        for number, answers in enumerate(each_answer_once())
    ],
)
def test_the_example_can_be_deleted(bake: Bake, chosen: dict[str, str]) -> None:
    with installed(bake(**chosen)) as service:
        assert "To be rid of the example" in service.text("README.md")
        for folder in ("app/tasks", "tests/tasks"):
            shutil.rmtree(service.path / folder)
        api = service.path / "app" / "api.py"
        text = api.read_text().replace("from app.tasks.router import router as tasks\n", "")
        api.write_text(text.replace("(tasks,)", "()").replace("(tasks, ", "("))
        versions = service.path / "migrations" / "versions"
        (revision,) = versions.glob("*_tasks.py")
        key = re.search(r'^revision: str = (".+")$', revision.read_text(), re.MULTILINE)
        below = re.search(r"^down_revision.* = (.+)$", revision.read_text(), re.MULTILINE)
        assert key
        assert below
        revision.unlink()
        for other in versions.glob("*.py"):
            other.write_text(other.read_text().replace(f"= {key[1]}", f"= {below[1]}"))

        just(service, "lint")
        just(service, "test")
