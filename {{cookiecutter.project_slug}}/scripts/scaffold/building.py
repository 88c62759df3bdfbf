"""Builds a change in a copy of the project, and checks it there."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scripts.scaffold.errors import Refused

COPIED: Final = (".squawk.toml", "app", "migrations", "pyproject.toml", "scripts", "tests")
VERSIONS: Final = "migrations/versions"
CHECKS: Final = {
    "pytest": "its tests",
    "ruff": "the lint of the project",
    "scripts.scaffold.revision": "its start and its migration",
}

_ERROR: Final = re.compile(r"[\w.]*(?:Error|Exception): (.+)")


@dataclass(frozen=True)
class Copy:
    """A copy of the project's code."""

    root: Path

    def write(self, files: Mapping[str, str | None]) -> None:
        """Write files, and delete those that are None."""
        for path, text in files.items():
            file = self.root / path
            if text is None:
                file.unlink()
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8", newline="\n")

    def format(self, paths: list[str]) -> None:
        """Sort the imports of files and format them."""
        _run(self.root, "ruff", "check", "--select", "I", "--fix", "--quiet", *paths)
        _run(self.root, "ruff", "format", "--quiet", *paths)

    def is_formatted(self, path: str) -> bool:
        """Return whether a file is as the formatter would have it."""
        try:
            _run(self.root, "ruff", "check", "--select", "I", "--quiet", path)
            _run(self.root, "ruff", "format", "--check", "--quiet", path)
        except Refused:
            return False
        return True

    def lint(self, paths: list[str]) -> None:
        """Raise ``Refused`` if a file breaks a rule of the project."""
        _run(self.root, "ruff", "check", "--output-format", "concise", *paths)

    def test(self, path: str) -> None:
        """Raise ``Refused`` if a test below a path fails."""
        _run(self.root, "pytest", "-q", "-x", "--no-header", "-p", "no:cacheprovider", path)

    def migrate(self, message: str, *renamed: str) -> str:
        """Write a revision and try it; return its path."""
        before = self._revisions()
        _run(self.root, "scripts.scaffold.revision", message, *renamed)
        (path,) = self._revisions() - before
        text = (self.root / path).read_text(encoding="utf-8")
        if "op." not in text:
            raise Refused("The models have no change to migrate.")
        return path

    def _revisions(self) -> set[str]:
        found = (self.root / VERSIONS).glob("*.py")
        return {path.relative_to(self.root).as_posix() for path in found}

    def content(self, path: str) -> bytes:
        """Return the content of a file."""
        return (self.root / path).read_bytes()


@contextmanager
def copied(root: Path) -> Iterator[Copy]:
    """Copy the code of the project; the copy is removed in the end."""
    with tempfile.TemporaryDirectory(prefix="scaffold-") as folder:
        for name in COPIED:
            source, target = root / name, Path(folder, name)
            if source.is_dir():
                # With what is compiled: the copy starts faster.
                shutil.copytree(source, target, symlinks=True)
            elif source.is_file():
                shutil.copy2(source, target)
        yield Copy(Path(folder))


def _run(root: Path, module: str, *arguments: str) -> None:
    """Run a module in the copy; raise ``Refused`` with what it prints if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root), "RUFF_NO_CACHE": "true"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        printed = (done.stderr.strip() or done.stdout.strip()).replace(f"{root}{os.sep}", "")
        lines = printed.splitlines() or [f"exit code {done.returncode}"]
        errors = [found[1] for line in lines if (found := _ERROR.match(line))]
        # Ruff begins with what is wrong, and a trace ends with it.
        failed = [line for line in lines if line.startswith(("ERROR ", "FAILED "))]
        reason = lines[0] if module == "ruff" else [lines[-1], *errors, *failed[:1]][-1]
        raise Refused(f"The result does not pass {CHECKS[module]}: {reason}")
