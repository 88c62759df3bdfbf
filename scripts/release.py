"""Release the template: ``just release VERSION``.

Writes the version into ``cookiecutter.json``, moves the unreleased changes of ``CHANGELOG.md``
below it, runs the quick checks, commits and tags. Nothing is pushed.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from testing.baking import ROOT, TREE

CHECKS: Final = (("just", "lint"), ("pytest", "-m", "not slow"))
"""The commands that must pass before the release commit. CI has tested the commit before it."""

_VERSION: Final = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")


def release(root: Path, version: str, day: date, checks: Sequence[Sequence[str]] = CHECKS) -> None:
    """Commit and tag a release.

    Raises:
        SystemExit: The release is not possible, for the reason in the message. Nothing is changed.

    """
    if not _VERSION.fullmatch(version):
        sys.exit(f"{version} is not a version: write one such as 1.2.3.")
    if _git(root, "status", "--porcelain"):
        sys.exit("There are uncommitted changes: commit or remove them first.")
    for last in _released(root)[:1]:
        if _numbers(version) <= _numbers(last):
            sys.exit(f"{version} is not newer than {last}, the last release.")
    changelog, questions = root / "CHANGELOG.md", root / "cookiecutter.json"
    hook = root / "hooks" / "pre_gen_project.py"
    head, title, changes = changelog.read_text(encoding="utf-8").partition("## [Unreleased]\n")
    if not title or not changes.partition("\n## [")[0].strip():
        sys.exit("CHANGELOG.md has no unreleased changes.")
    changelog.write_text(f"{head}{title}\n## [{version}] - {day}\n{changes}", encoding="utf-8")
    for file in (questions, hook):
        text = file.read_text(encoding="utf-8")
        text = re.sub(r'("_template_version": )"[^"]*"', rf'\1"{version}"', text)
        file.write_text(text, encoding="utf-8")
    for check in checks:
        if subprocess.run(check, cwd=root, check=False).returncode:
            _git(root, "restore", str(changelog), str(questions), str(hook))
            sys.exit(f"Nothing was released: {' '.join(check)} failed.")
    _git(root, "commit", "--quiet", "--all", "--message", f"Release {version}")
    _git(root, "tag", "--annotate", f"v{version}", "--message", f"Release {version}")
    print(f"Tagged v{version}. Publish it: git push origin HEAD v{version}")


def previous_release(root: Path) -> str | None:
    """Return the tag of the last release whose template differs from the current one, if any."""
    for version in _released(root):
        tag = f"v{version}"
        if _git(root, "diff", "--name-only", tag, "--", "cookiecutter.json", "hooks", TREE.name):
            return tag
    return None


def _released(root: Path) -> list[str]:
    """Return the versions whose tags are ancestors of HEAD, newest first."""
    command = ["git", "tag", "--list", "v*", "--merged", "HEAD"]
    # It fails without a git history, as in an archive.
    tags = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, check=False)
    versions = [tag.removeprefix("v") for tag in tags.stdout.decode().split()]
    return sorted(filter(_VERSION.fullmatch, versions), key=_numbers, reverse=True)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def main() -> None:
    """Release the version in the command line."""
    parser = argparse.ArgumentParser(prog="release", description=__doc__)
    parser.add_argument("version", help="such as 1.2.3")
    release(ROOT, parser.parse_args().version, datetime.now(UTC).date())


if __name__ == "__main__":
    main()
