"""The size of the example, and the number of concepts that a newcomer has to learn."""

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.baking import Project
from testing.usage import names_of_the_template
from tests.conftest import Bake
from tests.figures import Measured

MAX_KIT_NAMES = 20
"""Maximum names of the kit that the example imports."""
MAX_USERS_NAMES = 4
"""Maximum names that it imports from `app/users/`, which exist with and without users."""
MAX_LINES = 400
"""Maximum non-blank lines of the example."""
MAX_ENTRIES = 8
"""Maximum files and folders at the top of `app/`."""
MAX_PROSE = 0.15
"""Maximum share of comments and docstrings in the non-blank lines."""


@pytest.fixture(
    scope="module",
    params=[
        (database, auth) for database in ("sqlite", "postgresql") for auth in ("none", "users")
    ],
    ids="-".join,
)
def answers(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return a combination of database and authentication."""
    return dict(zip(("database", "auth"), request.param, strict=True))


@pytest.fixture(scope="module")
def render(bake: Bake, answers: dict[str, str]) -> Project:
    """Return a render that is not installed."""
    return bake(**answers)


@pytest.fixture
def modules(render: Project) -> dict[Path, str]:
    """Return the modules of `app`, by their paths in it."""
    app = render.path / "app"
    return {path.relative_to(app): path.read_text("utf-8") for path in sorted(app.rglob("*.py"))}


def lines_of_prose(code: str) -> set[int]:
    """Return the lines of docstrings, and comments on their own lines."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=int(last)):
                found |= set(range(first, last + 1))
            case _:
                pass
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
            found.add(token.start[0])
    return found


def filled_lines(code: str) -> set[int]:
    """Return the numbers of the lines that are not blank."""
    return {number for number, line in enumerate(code.splitlines(), 1) if line.strip()}


def classes(modules: dict[Path, str]) -> Iterator[tuple[str, list[str]]]:
    """Return the classes of the service, with the names of their bases."""
    for code in modules.values():
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ClassDef):
                yield node.name, [ast.unparse(base).partition("[")[0] for base in node.bases]


def test_every_kind_of_import_is_counted() -> None:
    module = ast.parse(
        "import app.kit.errors\n"
        "from app.kit import pagination as pages\n"
        "from app.kit.etag import IfMatch\n"
        "from app.notes.models import Note\n"
        "pages.Page, pages.PageQuery, app.kit.errors.NotFound, Note.id, IfMatch.x\n"
    )
    assert names_of_the_template(module, "notes") == {
        "app.kit.errors.NotFound",
        "app.kit.etag.IfMatch",
        "app.kit.pagination.Page",
        "app.kit.pagination.PageQuery",
    }


def test_the_example_is_small(
    modules: dict[Path, str], answers: dict[str, str], measured: Measured
) -> None:
    tasks = {path: code for path, code in modules.items() if path.parts[0] == "tasks"}
    names = {
        name for code in tasks.values() for name in names_of_the_template(ast.parse(code), "tasks")
    }
    kit = {name for name in names if name.startswith("app.kit.")}
    lines = sum(len(filled_lines(code)) for code in tasks.values())
    measured(
        "The example",
        ", ".join(answers.values()),
        kit_names=len(kit),
        users_names=len(names - kit),
        lines=lines,
    )
    assert len(kit) <= MAX_KIT_NAMES, sorted(kit)
    assert len(names - kit) <= MAX_USERS_NAMES, sorted(names - kit)
    assert lines <= MAX_LINES


def test_the_service_has_few_concepts(
    render: Project, modules: dict[Path, str], answers: dict[str, str], measured: Measured
) -> None:
    entries = [path for path in (render.path / "app").iterdir() if path.name != "__pycache__"]
    dependencies = {
        target.id
        for code in modules.values()
        for node in ast.parse(code).body
        if isinstance(node, ast.Assign) and "Session, Depends(" in ast.unparse(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    bases = [name for name, _ in classes(modules) if name.endswith("Repository")]
    roots = [
        name
        for name, parents in classes(modules)
        if name.endswith("Repository") and not set(parents) & set(bases)
    ]
    measured(
        "The top of `app/`",
        ", ".join(answers.values()),
        entries=len(entries),
        session_dependencies=len(dependencies),
        repository_bases=len(roots),
    )
    assert len(entries) <= MAX_ENTRIES, sorted(path.name for path in entries)
    assert dependencies == {"ReadSessionDep", "SessionDep"}
    assert roots == ["Repository"]


def test_comments_are_within_their_limit(
    modules: dict[Path, str], answers: dict[str, str], measured: Measured
) -> None:
    filled = prose = 0
    for code in modules.values():
        lines = filled_lines(code)
        filled += len(lines)
        prose += len(lines & lines_of_prose(code))
    percent = f"{100 * prose / filled:.1f} %"
    measured("Comments and docstrings", ", ".join(answers.values()), share=percent)
    assert prose / filled <= MAX_PROSE, percent
