"""Combinations of answers render completely; one of each group runs its own checks.

Every combination is rendered with `--full`, and else some, in which any two answers meet.
"""

import ast
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from testing.baking import Project, combinations, installed, pairwise, succeeded
from testing.groups import group_of, groups, proven
from tests.conftest import Bake
from tests.figures import Measured
from tests.test_files import expected
from tests.test_render import LEFTOVER, LEFTOVER_BUT_BRACES, parse

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("combinations")]


def dead_settings(project: Project) -> set[str]:
    """Return the settings that nothing reads."""
    modules = [ast.parse(file.read_text("utf-8")) for file in project.path.glob("app/**/*.py")]
    nodes = [node for module in modules for node in ast.walk(module)]
    settings = {
        field.target.id
        for node in nodes
        if isinstance(node, ast.ClassDef) and node.name.endswith("Settings")
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }
    assert settings
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    named = {node.value for node in nodes if isinstance(node, ast.Constant)}  # in a validator
    return settings - read - named


@pytest.fixture(scope="module")
def chosen(*, full: bool) -> list[dict[str, str]]:
    """Return the combinations to render."""
    few = pairwise() + proven()
    return [answers for answers in combinations() if full or answers in few]


@pytest.fixture(scope="module")
def renders(bake: Bake, chosen: list[dict[str, str]]) -> list[Project]:
    """Return a render of each combination."""
    return [bake(**answers) for answers in chosen]


def test_combinations_render_completely(
    renders: list[Project], chosen: list[dict[str, str]], measured: Measured
) -> None:
    for project, answers in zip(renders, chosen, strict=True):
        assert project.files() == expected(answers), answers
        for file in project.files():
            braces = file.endswith((".py", "justfile"))
            pattern = LEFTOVER_BUT_BRACES if braces else LEFTOVER
            assert not pattern.search(project.text(file)), (file, answers)
        parse(project)
    count = len(renders)
    measured("Combinations of answers", "both", rendered=count, checked=count)


def test_one_render_of_each_group_is_tested(
    renders: list[Project], chosen: list[dict[str, str]], bake: Bake, measured: Measured
) -> None:
    proved = [group_of(bake(**answers)) for answers in proven()]
    found: dict[str, list[dict[str, str]]] = {}
    for project, answers in zip(renders, chosen, strict=True):
        found.setdefault(group_of(project), []).append(answers)

    computed = {  # without a render
        group: [answers for answers in members if answers in chosen]
        for group, members in groups().items()
    }
    assert found == computed
    assert sorted(proved) == sorted(found)
    # In a group, all files that are linted, typed and tested are equal; the settings have to be
    # equal, too.
    measured("Groups of renders with equal Python", "both", groups=len(found), proved=len(proved))


def test_renders_of_a_group_have_the_same_verbs(bake: Bake) -> None:
    of_group = {group_of(project): project for project in (bake(**each) for each in proven())}
    for answers in pairwise():
        project = bake(**answers)
        proved = of_group[group_of(project)]
        for verb in ("check", "migrate", "dev"):
            assert commands_of(project, verb) == commands_of(proved, verb), (verb, answers)


def commands_of(project: Project, verb: str) -> str:
    """Return the commands that a verb runs."""
    just = str(Path(sys.executable).with_name("just"))
    done = project.run(just, "--dry-run", verb)
    succeeded(done)
    return done.stderr


def test_every_setting_is_used(bake: Bake) -> None:
    for answers in proven():
        assert dead_settings(bake(**answers)) == set(), answers


def other_interpreters() -> dict[str, str]:
    """Return each other Python on this machine that the service is for."""
    listed = subprocess.run(
        ["uv", "python", "list", "--only-installed", "--output-format", "json"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    paths = [Path(each["path"]) for each in json.loads(listed.stdout)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    paths += pyenv.glob("versions/*/bin/python3.??")
    found = {path.name.removeprefix("python"): str(path) for path in paths}
    this = f"3.{sys.version_info.minor}"
    return {
        version: found[version]
        for version in ("3.11", "3.12", "3.13", "3.14")
        if version in found and version != this
    }


@pytest.mark.nightly  # and in CI, where each Python runs everything
def test_a_render_passes_its_tests_on_every_python(bake: Bake, measured: Measured) -> None:
    found = other_interpreters()
    measured("Other interpreters", "both", found=", ".join(found) or "none")
    # Each Python on one of the renders, in turn: all of them are tested on this one anyway.
    for (version, path), answers in zip(found.items(), itertools.cycle(proven()), strict=False):
        with installed(bake(**answers), UV_PYTHON=path) as project:
            assert f"version_info = {version}." in project.text(".venv/pyvenv.cfg")
            folder = str(project.path.parent)
            for verb in (("lint",), ("test", "tests")):  # coverage is measured elsewhere
                arguments = ("uv", "run", "just", *verb)
                succeeded(project.run(*arguments, UV_PYTHON=path, TMPDIR=folder))
