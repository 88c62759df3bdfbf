"""A rendered service is installed, checked, migrated and served as its README says.

Slow; `uv run pytest -m "not slow"` skips it.
"""

import ast
import json
import re
import shlex
import shutil
import signal
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.baking import ROOT, Project, installed, succeeded
from testing.groups import each_answer_once, label, proven
from testing.usage import ci_commands, just, let_in, names_of_the_template, served
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
    """Return an installed render for this module."""
    with installed(bake(**answers)) as project:
        yield project


CHECK = "uv run just check"
WITHOUT_COVERAGE = ["uv run just lint", "uv run just test tests"]
"""Run `check` without coverage, which is measured once for each answer."""


@pytest.mark.timeout(1800)  # a whole suite with coverage: minutes, more on a busy machine
def test_the_commands_of_its_ci_pass(
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


of_each_answer = pytest.mark.parametrize("answers", each(each_answer_once()), indirect=True)
"""Runs a test with each answer that changes the Python of a render, not with each combination."""


FUZZED = [answers for answers in proven() if answers["auth"] == "users"]
"""A render with users has all the tests of one without, and more."""


@pytest.mark.parametrize("chosen", FUZZED, ids=label)
def test_generated_requests_find_no_defect(
    bake: Bake, chosen: dict[str, str], *, full: bool, measured: Measured
) -> None:
    most = 400 if full else 100  # of a kind
    with installed(bake(**chosen)) as service:
        printed = just(service, "fuzz", str(most))

    cases = sum(int(count) for count in re.findall(r"(\d+) generated", printed))
    measured(
        "Requests generated from the OpenAPI document", LABELS[chosen["database"]], cases=cases
    )
    assert cases >= 25 * most


def test_no_slug_can_be_the_name_of_an_installed_package(service: Project) -> None:
    hook = (ROOT / "hooks" / "pre_gen_project.py").read_text(encoding="utf-8")
    reserved = set(re.findall(r"[\w-]+", hook.partition("PACKAGES")[2].partition(".split")[0]))
    lock = tomllib.loads(service.text("uv.lock"))
    installed = {package["name"] for package in lock["package"]} - {service.path.name}
    assert sorted(installed - reserved) == []


@of_each_answer
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://user:secret@host/name"),
        ("DATABASE_URL", "other"),
        ("DATABASE_POOL_TIMEOUT", "abc"),
        ("PORT", "abc"),
    ],
)
def test_an_invalid_setting_is_reported_in_one_line(
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


@of_each_answer
def test_a_new_migration_has_a_timestamp_in_its_name(service: Project) -> None:
    succeeded(service.run("uv", "run", "just", "migrate"))
    versions = service.path / "migrations" / "versions"
    before = set(versions.glob("*.py"))

    done = service.run("uv", "run", "just", "migration", "add a $(thing)")
    assert "plugin" not in succeeded(done) + done.stderr

    (revision,) = set(versions.glob("*.py")) - before
    assert re.fullmatch(r"\d{4}_\d\d_\d\d_\d{4}_[0-9a-f]+_add_a_thing\.py", revision.name)
    succeeded(service.run("uv", "run", "just", "migrate"))


@of_each_answer
@pytest.mark.skipif(sys.platform == "win32", reason="signals go to a POSIX process group")
@pytest.mark.parametrize(
    ("stop", "to_group"),
    [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGTERM, False)],
    ids=["Ctrl-C", "SIGTERM", "SIGTERM to the first process"],
)
def test_dev_serves_and_stops_all_its_processes(
    service: Project,
    answers: dict[str, str],
    stop: signal.Signals,
    tmp_path: Path,
    *,
    to_group: bool,
) -> None:
    with (
        (tmp_path / "printed").open("wb") as output,
        served(
            service, stop, "uv", "run", "just", "dev", to_group=to_group, output=output
        ) as client,
    ):
        assert client.get("/docs").status_code == 200
        let_in(client, answers)
        created = client.post("/v1/tasks", json={"title": "x"})
        assert created.status_code == 201, created.text
        assert client.get(created.headers["Location"]).json()["title"] == "x"
        port = str(client.base_url.port)
        second = service.run("uv", "run", "just", "dev", PORT=port)
        assert second.returncode != 0
        assert f"PORT: {port} on 127.0.0.1 can't be used: " in second.stderr
        assert "Traceback" not in second.stderr
    printed = (tmp_path / "printed").read_text(encoding="utf-8")
    assert "error" not in printed.lower(), printed


def test_fix_formats_files_that_it_can_not_repair(service: Project) -> None:
    file = service.path / "scripts" / "unfinished.py"
    try:
        file.write_text('"""A script."""\nx = {  "a":1}\nprint(missing)\n', encoding="utf-8")
        done = service.run("uv", "run", "just", "fix")
        assert done.returncode != 0
        assert "F821" in done.stdout + done.stderr
        assert 'x = {"a": 1}' in file.read_text(encoding="utf-8")
    finally:
        file.unlink()


def test_the_packages_of_production_are_listed_as_an_sbom(service: Project) -> None:
    just(service, "sbom")
    listed = json.loads((service.path / "sbom.json").read_text(encoding="utf-8"))
    names = {component["name"] for component in listed["components"]}
    assert listed["bomFormat"] == "CycloneDX"
    assert {"fastapi", "sqlalchemy", "uvicorn"} <= names
    assert not names & {"mypy", "pytest", "ruff"}


def test_the_verbs_are_listed_in_groups(service: Project) -> None:
    printed = just(service)
    groups = re.findall(r"^ +\[(\w+)\]$", printed, re.MULTILINE)
    assert groups[:2] == ["develop", "database"]
    verbs = re.findall(r"^    ([a-z]\S+)", printed, re.MULTILINE)
    assert verbs[:3] == ["dev", "test", "check"]


MAX_LINES = 80
"""Maximum non-blank lines of the README's resource."""
MAX_NAMES = 14
"""Maximum names of the template that it uses."""


def shown_files(readme: str) -> dict[str, str]:
    """Return the files of the README's resource: each begins with a docstring that names it."""
    (shown,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    parts = re.split(r'^(""".*?""")  # (app/\S+\.py)$', shown, flags=re.MULTILINE)
    assert parts[0] == ""
    docstrings, paths, codes = parts[1::3], parts[2::3], parts[3::3]
    return {
        path: f"{docstring}\n{code}"
        for docstring, path, code in zip(docstrings, paths, codes, strict=True)
    }


@of_each_answer
def test_the_readme_adds_a_resource(
    service: Project, answers: dict[str, str], measured: Measured
) -> None:
    readme = service.text("README.md")
    files = shown_files(readme)
    modules = {path: ast.parse(code) for path, code in files.items()}
    names = {name for each in modules.values() for name in names_of_the_template(each, "notes")}
    code = "".join(text for path, text in files.items() if not path.endswith("__init__.py"))
    lines = sum(bool(line.strip()) for line in code.splitlines())
    label = LABELS[answers["database"]]
    measured("The small resource of the README", label, lines=lines, names=len(names))
    assert lines <= MAX_LINES
    assert len(names) <= MAX_NAMES, sorted(names)

    for path, text in files.items():
        (service.path / path).parent.mkdir(exist_ok=True)
        (service.path / path).write_text(text)
    (imported,) = re.findall(r"the import `(from .+?)`", readme)
    (mounted,) = re.findall(r"in `CLOSED`, the line\s`(.+?)`", readme)
    api = service.path / "app" / "api.py"
    start = "CLOSED: list[Mount] = [\n"
    text = api.read_text().replace(start, f"{start}    {mounted}\n", 1)
    api.write_text(text.replace("from app.tasks", f"{imported}\nfrom app.tasks", 1))
    just(service, "fix")
    just(service, "migration", "add notes")

    just(service, "lint")
    just(service, "test", "tests", "-k", "head or drifted")
    with served(service, signal.SIGINT, "uv", "run", "just", "dev") as client:
        let_in(client, answers)
        created = client.post("/v1/notes", json={"text": "first"})
        assert created.status_code == 201, created.text
        note = created.json()
        url = f"/v1/notes/{note['id']}"
        assert client.get(url).json() == note
        assert client.get("/v1/notes").json() == {"items": [note], "next_cursor": None}
        assert client.patch(url, json={}).json() == note
        changed = client.patch(url, json={"text": "second"})
        assert (changed.status_code, changed.json()) == (200, {**note, "text": "second"})
        assert client.get(url).json() == changed.json()
        assert client.post("/v1/notes", json={"text": "x", "y": 1}).status_code == 422
        if answers["auth"] == "users":
            key = client.headers.pop("X-API-Key")
            let_in(client, answers)  # another user
            assert client.get(url).status_code == 404
            assert client.get("/v1/notes").json()["items"] == []
            client.headers["X-API-Key"] = key
        assert client.delete(url).status_code == 204
        assert [call(url).status_code for call in (client.get, client.delete)] == [404, 404]
        assert client.get("/v1/notes").json()["items"] == []
    if (answers["database"], answers["auth"]) == ("sqlite", "users"):
        add_recipes(service)


def add_recipes(service: Project) -> None:
    """Add a feature by docs/recipes.md, and run the checks as its author would."""
    for folder in ("app", "tests"):
        source = ROOT / "tests" / "recipes" / folder
        shutil.copytree(source, service.path / folder, dirs_exist_ok=True)
    api = service.path / "app" / "api.py"
    start = "CLOSED: list[Mount] = [\n"
    text = api.read_text().replace(start, f'{start}    ("/v1", notebooks),\n', 1)
    imported = "from app.notebooks.router import router as notebooks\n"
    api.write_text(text.replace("from app.notes", f"{imported}from app.notes", 1))
    just(service, "migration", "add notebooks")

    just(service, "lint")
    kit = ("tests/kit/test_bad_input.py", "tests/kit/test_migrations.py")
    just(service, "test", *kit, "tests/users/test_others.py", "tests/notebooks")
