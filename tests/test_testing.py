"""The library of the tests: groups of renders, shared environments, required tools, the order."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing import groups, requirements
from testing.baking import (
    ENVIRONMENTS,
    ROOT,
    TREE,
    clean_environment,
    copy_template,
    dependencies,
    installed,
    succeeded,
)
from tests.conftest import Bake

needs_links = pytest.mark.skipif(os.name == "nt", reason="on Windows links take a privilege")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a copy of the tree from which groups are computed."""
    copy = copy_template(tmp_path / "template") / TREE.name
    monkeypatch.setattr(groups, "TREE", copy)
    caches = (groups.groups, groups.proven, groups.decisive)
    for cache in caches:
        cache.cache_clear()
    yield copy
    for cache in caches:
        cache.cache_clear()


def test_python_files_of_a_new_question_are_tested_automatically(tree: Path) -> None:
    before = len(groups.proven())
    module = tree / ".options" / "ci" / "gitlab" / "app" / "gitlab.py"
    module.parent.mkdir()
    module.write_text('"""Python of an answer that had none."""\n', encoding="utf-8")
    for cache in (groups.groups, groups.proven, groups.decisive):
        cache.cache_clear()

    assert len(groups.proven()) == 2 * before
    assert "ci" in groups.decisive()
    assert {answers["ci"] == "gitlab" for answers in groups.each_answer_once()} == {True, False}


def test_dependencies_of_a_new_question_are_tested_automatically(tree: Path) -> None:
    pyproject = tree / "pyproject.toml"
    text = pyproject.read_text(encoding="utf-8")
    more = '#% if cookiecutter.license == "MIT"\n    "more>=1",\n    #% endif\n    "alembic>='
    assert text.count('"alembic>=') == 1
    pyproject.write_text(text.replace('"alembic>=', more), encoding="utf-8")

    assert "license" in groups.decisive()


def test_answers_that_only_describe_a_project_make_no_group(bake: Bake) -> None:
    one, other = bake(license="MIT"), bake(license="Apache-2.0", project_name="Other")

    assert one.text("pyproject.toml") != other.text("pyproject.toml")
    assert groups.group_of(one) == groups.group_of(other)


def test_dependencies_differ_by_database_and_auth(bake: Bake) -> None:
    declared = {dependencies(bake(**answers).text("pyproject.toml")) for answers in groups.proven()}

    assert len(declared) == len(groups.proven())


@needs_links
@pytest.mark.slow
@pytest.mark.xdist_group("service")
def test_renders_with_equal_dependencies_share_an_environment(bake: Bake) -> None:
    answers = {"database": "sqlite", "auth": "none"}
    one = bake(**answers)
    other = bake(**answers, project_name="Another", project_slug="another")
    different = bake(database="sqlite", auth="users")
    with installed(one) as first, installed(other) as second, installed(different) as third:
        environments = [(each.path / ".venv").resolve() for each in (first, second, third)]
        # The lock file that they share fits both.
        locked = [each.run("uv", "lock", "--check") for each in (first, second, third)]

    assert environments[0] == environments[1] != environments[2]
    assert {folder.parent.parent for folder in environments} == {Path(os.environ[ENVIRONMENTS])}
    assert [done.returncode for done in locked] == [0, 0, 0], locked


def test_a_missing_tool_skips_its_test_and_fails_it_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "COMPLETE", False)
    with pytest.raises(pytest.skip.Exception, match="no-such-tool is not available"):
        requirements.require("no-such-tool")

    monkeypatch.setattr(requirements, "COMPLETE", True)
    with pytest.raises(pytest.fail.Exception, match="no-such-tool is not available"):
        requirements.require("no-such-tool")
    with pytest.raises(pytest.fail.Exception, match="wings"):
        requirements.require("wings", found=False)
    assert Path(requirements.require("uv")).is_file()


SUITE = """
import pathlib, time
import pytest

LOG = pathlib.Path({log!r})

@pytest.fixture
def noted(request):
    with LOG.open("a") as log:
        log.write(f"+{{request.node.name}}\\n")
    time.sleep(0.2)
    yield
    with LOG.open("a") as log:
        log.write(f"-{{request.node.name}}\\n")

@pytest.mark.parametrize("number", range(6))
def test_shares(noted, number): pass

@pytest.mark.alone
@pytest.mark.parametrize("number", range(3))
def test_alone(noted, number): pass

@pytest.mark.nightly
def test_nightly(noted): pass

@pytest.mark.docker
def test_docker(noted): pass
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "left_out"),
    [([], {"test_nightly", "test_docker"}), (["--full"], {"test_docker"})],
    ids=["default", "full"],
)
def test_tests_marked_alone_run_alone(
    tmp_path: Path, arguments: list[str], left_out: set[str]
) -> None:
    log = tmp_path / "log"
    (tmp_path / "test_it.py").write_text(SUITE.format(log=str(log)), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n  alone\n  docker\n  nightly\n  slow\n  xdist_group\n"
    )
    own = ["-p", "tests.scheduling", "-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder"]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *own, *arguments],
        cwd=tmp_path,
        env=clean_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )

    passed = 9 + len({"test_nightly", "test_docker"} - left_out)
    assert f" {passed} passed" in succeeded(done)
    running: set[str] = set()
    together = set()
    for line in log.read_text(encoding="utf-8").splitlines():
        (running.add if line[0] == "+" else running.remove)(line[1:])
        together.add(frozenset(running))
    assert all(len(names) == 1 for names in together if any("alone" in name for name in names))
    assert any(len(names) == 2 for names in together)
    assert not {name for names in together for name in names} & left_out
