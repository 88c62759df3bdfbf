"""``just refresh``: move the date of exclude-newer, and raise lower bounds and uv's pin to match.

uv is asked what a service needs, for every render whose dependencies differ. Nothing is written
before all of it is known.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from datetime import UTC, date, datetime
from itertools import product
from pathlib import Path
from typing import Final

from cookiecutter.main import cookiecutter

from testing.baking import CHOICES, ROOT, TREE, clean_environment, copy_template

DEPENDENT: Final = ("database", "auth")
"""The questions whose answers change the dependencies."""

# "name[extra]>=1.2.3", as both of the pyproject.toml write it.
_BOUND: Final = re.compile(r'"(?P<name>[\w.-]+)(?P<extra>\[[\w,-]+\])?>=(?P<version>[\d.]+)')


def refreshed(root: Path, day: str) -> dict[Path, str]:
    """Give what the files of a template have to become for the packages of a day (YYYY-MM-DD).

    Raises:
        subprocess.CalledProcessError: something can't be resolved.

    """
    moment = f"{day}T00:00:00Z"
    questions, own = root / "cookiecutter.json", root / "pyproject.toml"
    rendered = root / TREE.name / "pyproject.toml"
    new = {
        questions: _dated(questions, r'("_exclude_newer": )"[^"]*"', moment),
        own: _dated(own, r'(exclude-newer = )"[^"]*"', moment),
    }
    new[questions] = _replaced(
        questions, new[questions], r'("_uv_version": )"[^"]*"', _newest("uv", moment)
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "own").mkdir()
        (folder / "own" / own.name).write_text(new[own], encoding="utf-8")
        new[own] = _bounded(new[own], _locked(folder / "own"))
        template = copy_template(folder / "template", root)
        (template / questions.name).write_text(new[questions], encoding="utf-8")
        versions: dict[str, str] = {}
        for answers in product(*(CHOICES[question] for question in DEPENDENT)):
            path = cookiecutter(
                str(template),
                no_input=True,
                default_config=True,
                extra_context=dict(zip(DEPENDENT, answers, strict=True)),
                output_dir=str(folder / "-".join(answers)),
            )
            versions |= _locked(Path(path))
        new[rendered] = _bounded(rendered.read_text(encoding="utf-8"), versions)
    return new


def _dated(file: Path, pattern: str, moment: str) -> str:
    return _replaced(file, file.read_text(encoding="utf-8"), pattern, moment)


def _replaced(file: Path, text: str, pattern: str, value: str) -> str:
    replaced, count = re.subn(pattern, rf'\g<1>"{value}"', text)
    if count != 1:
        sys.exit(f"{file.name} has {pattern} {count} times, not once")
    return replaced


def _newest(package: str, moment: str) -> str:
    """Give the newest version of a package at a moment."""
    command = ["uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "-"]
    command += ["--exclude-newer", moment]
    done = subprocess.run(
        command,
        input=package,
        env=clean_environment(),
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    return done.stdout.strip().partition("==")[2]


def _locked(folder: Path) -> dict[str, str]:
    """Give the versions that uv chooses."""
    command = ["uv", "lock", "--quiet"]
    subprocess.run(command, cwd=folder, env=clean_environment(), check=True)
    lock = tomllib.loads((folder / "uv.lock").read_text(encoding="utf-8"))
    versions: dict[str, str] = {}
    for package in lock["package"]:  # of several, for other systems or Pythons, the lowest is first
        versions.setdefault(package["name"], package["version"])
    return versions


def _bounded(text: str, versions: dict[str, str]) -> str:
    """Raise the lower bounds, each to as many numbers as it has."""

    def raised(bound: re.Match[str]) -> str:
        name, extra, old = bound["name"], bound["extra"] or "", bound["version"]
        new = versions[name.lower().replace("_", "-")].split(".")[: old.count(".") + 1]
        return f'"{name}{extra}>={".".join(new)}'

    return _BOUND.sub(raised, text)


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(prog="refresh", description=__doc__)
    today = datetime.now(UTC).date().isoformat()
    parser.add_argument("day", nargs="?", default=today, help="YYYY-MM-DD; today by default")
    day: str = parser.parse_args().day
    try:
        date.fromisoformat(day)
    except ValueError:
        day = ""
    if len(day) != len(today):
        parser.error(f"A day is written as {today}")
    try:
        new = refreshed(ROOT, day)
    except subprocess.CalledProcessError as error:
        sys.exit(f"Nothing was changed: {error}")
    for file, text in new.items():
        json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    for file, text in new.items():
        file.write_text(text, encoding="utf-8")
    print(f"exclude-newer is {day}; the lower bounds are what is newest then.")


if __name__ == "__main__":
    main()
