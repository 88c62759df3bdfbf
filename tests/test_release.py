"""``just release`` commits and tags, or refuses."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from scripts.release import previous_release, release
from testing.baking import ROOT

DAY = date(2026, 1, 2)
PASSES, FAILS = [[sys.executable, "-c", f"raise SystemExit({code})"] for code in (0, 1)]


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=root, check=True, capture_output=True, encoding="utf-8"
    )
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a repository with one unreleased change."""
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "Ada")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "ada@example.com")
    for scope in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"GIT_CONFIG_{scope}", os.devnull)
    shutil.copy(ROOT / "cookiecutter.json", tmp_path)
    shutil.copytree(ROOT / "hooks", tmp_path / "hooks", ignore=shutil.ignore_patterns("__*__"))
    head = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("## [Unreleased]")[0]
    text = f"{head}## [Unreleased]\n\n### Added\n\n- Something.\n"
    (tmp_path / "CHANGELOG.md").write_text(text, encoding="utf-8")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    commit(tmp_path)
    return tmp_path


def commit(repository: Path) -> None:
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "A change")


def add_change(repository: Path) -> None:
    """Commit one more unreleased change."""
    file = repository / "CHANGELOG.md"
    text = file.read_text(encoding="utf-8")
    text = text.replace("## [Unreleased]\n", "## [Unreleased]\n\n### Fixed\n\n- It.\n")
    file.write_text(text, encoding="utf-8")
    commit(repository)


def test_a_release_is_a_commit_and_a_tag(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release(repository, "9.2.0", DAY, [PASSES])

    assert "git push origin HEAD v9.2.0" in capsys.readouterr().out
    assert git(repository, "describe", "HEAD") == "v9.2.0\n"
    assert git(repository, "log", "-1", "--format=%s") == "Release 9.2.0\n"
    assert git(repository, "status", "--porcelain") == ""
    questions = json.loads((repository / "cookiecutter.json").read_text(encoding="utf-8"))
    assert questions["_template_version"] == "9.2.0"
    hook = (repository / "hooks" / "pre_gen_project.py").read_text(encoding="utf-8")
    assert '"_template_version": "9.2.0"' in hook
    changes = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    assert changes.endswith(
        "\n## [Unreleased]\n\n## [9.2.0] - 2026-01-02\n\n### Added\n\n- Something.\n"
    )

    add_change(repository)
    with pytest.raises(SystemExit, match=r"8\.9\.9 is not newer than 9\.2\.0"):
        release(repository, "8.9.9", DAY, [PASSES])
    release(repository, "9.10.0", DAY, [PASSES])  # newer as a number, but not as text
    release_notes = (repository / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.*)\]", release_notes, re.MULTILINE) == [
        *("Unreleased", "9.10.0", "9.2.0")
    ]
    with pytest.raises(SystemExit, match="no unreleased changes"):
        release(repository, "9.11.0", DAY, [PASSES])


def test_the_previous_release_is_the_last_with_another_template(repository: Path) -> None:
    assert previous_release(repository) is None
    release(repository, "9.0.0", DAY, [PASSES])
    assert previous_release(repository) is None  # HEAD itself
    (repository / "docs.md").touch()
    commit(repository)
    assert previous_release(repository) is None  # the same template
    add_change(repository)
    release(repository, "9.10.0", DAY, [PASSES])
    assert previous_release(repository) == "v9.0.0"
    (repository / "hooks" / "another.py").touch()
    commit(repository)
    assert previous_release(repository) == "v9.10.0"


def test_nothing_is_released_if_a_check_fails(repository: Path) -> None:
    before = git(repository, "rev-parse", "HEAD")

    with pytest.raises(SystemExit, match="Nothing was released"):
        release(repository, "9.0.0", DAY, [PASSES, FAILS])

    assert git(repository, "rev-parse", "HEAD") == before
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "tag") == ""


@pytest.mark.parametrize("version", ["9", "v9.0.0", "9.0.0rc1", "9.00.1", "../x"])
def test_a_version_has_three_numbers(repository: Path, version: str) -> None:
    with pytest.raises(SystemExit, match="is not a version"):
        release(repository, version, DAY, [PASSES])


def test_uncommitted_changes_are_refused(repository: Path) -> None:
    (repository / "left-over").touch()

    with pytest.raises(SystemExit, match="uncommitted changes"):
        release(repository, "9.0.0", DAY, [PASSES])
