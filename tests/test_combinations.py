"""Every combination of answers renders a whole project; those that matter prove themselves."""

import ast
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.baking import Project, combinations, installed, pairwise, proven, succeeded
from tests.conftest import Bake
from tests.figures import Measured
from tests.test_files import expected
from tests.test_render import LEFTOVER, LEFTOVER_BUT_BRACES, parse

pytestmark = pytest.mark.slow

RUFF = str(Path(sys.executable).with_name("ruff"))


def dead_settings(project: Project) -> set[str]:
    """Find settings that nothing reads."""
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


def test_every_combination_is_whole(bake: Bake, measured: Measured) -> None:
    projects = []
    for answers in combinations():
        projects.append(project := bake(**answers))
        assert project.files() == expected(answers), answers
        for file in project.files():
            braces = file.endswith((".py", "justfile"))
            pattern = LEFTOVER_BUT_BRACES if braces else LEFTOVER
            assert not pattern.search(project.text(file)), (file, answers)
        parse(project)
        assert dead_settings(project) == set(), answers
    # Each file by the rules of the project that it is in; sorted imports are among them.
    for command in (("check",), ("format", "--check")):
        arguments = [RUFF, *command, "--no-cache", "--quiet", *(each.path for each in projects)]
        done = subprocess.run(arguments, capture_output=True, encoding="utf-8", check=False)
        succeeded(done)
    count = len(projects)
    measured("Combinations of answers", "both", rendered=count, checked=count)


def test_those_that_prove_themselves_are_all_that_differ_in_python() -> None:
    asked = ("database", "auth")
    proved = [{name: answers[name] for name in asked} for answers in proven()]
    assert sorted(map(str, proved)) == sorted(map(str, combinations(*asked)))


def test_any_two_answers_meet_in_a_project_that_is_installed(
    bake: Bake, measured: Measured
) -> None:
    # Their Python is that of those that prove themselves: it is typed and tested there.
    rendered = [bake(**answers) for answers in pairwise() if answers not in proven()]

    def start(render: Project) -> None:
        with installed(render) as project:
            test = ("tests/kit/test_main.py", "-k", "serves_and_ends or garbage")
            succeeded(project.run("uv", "run", "pytest", "-q", *test))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(start, rendered))  # raises what has failed
    measured("Pairs of answers, installed and started", "both", renders=len(rendered))


def other_interpreters() -> dict[str, str]:
    """Find each newer or older Python on this machine that the service is for."""
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


def test_a_render_proves_itself_on_every_python_there_is(bake: Bake, measured: Measured) -> None:
    found = other_interpreters()
    measured("Other interpreters", "both", found=", ".join(found) or "none")
    # Each on one of the renders, in turn: they prove themselves on this one anyway.
    for (version, path), answers in zip(found.items(), itertools.cycle(proven()), strict=False):
        with installed(bake(**answers), UV_PYTHON=path) as project:
            assert f"version_info = {version}." in project.text(".venv/pyvenv.cfg")
            folder = str(project.path.parent)
            for verb in (("lint",), ("test", "tests")):  # what is covered, this one tells
                arguments = ("uv", "run", "just", *verb)
                succeeded(project.run(*arguments, UV_PYTHON=path, TMPDIR=folder))
