"""Keep what the template installs current: ``just refresh``.

Moves ``exclude-newer`` to a day, uv to its newest version on that day, and rewrites the names that
the pre-generation hook reserves. uv resolves every render whose dependencies differ; nothing is
written unless all of them resolve. Lower bounds state what the code requires: only that of
``--package`` is raised.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Final

from cookiecutter.main import cookiecutter

from testing.baking import CHOICES, ROOT, TREE, clean_environment, copy_template

DEPENDENT: Final = ("database", "auth")
"""The questions whose answers change the dependencies."""

SETTLED: Final = timedelta(days=7)
"""The minimum age of the day in days, so that every earlier upload is visible."""

OLDEST: Final = timedelta(days=120)
"""The maximum age of the day in days, for ``--check``."""

# "name[extra]>=1.2.3", as both of the pyproject.toml write it.
BOUND: Final = re.compile(r'"(?P<name>[\w.-]+)(?P<extra>\[[\w,-]+\])?>=(?P<version>[\d.]+)')


@dataclass(frozen=True)
class Request:
    """The arguments of the command line."""

    day: date | None
    """The day to move to; None to check the age of the current one."""
    package: str | None = None
    """The dependency whose lower bound is raised."""


def pinned_day(root: Path) -> date:
    """Return the day of ``exclude-newer``."""
    questions = json.loads((root / "cookiecutter.json").read_text(encoding="utf-8"))
    return datetime.fromisoformat(questions["_exclude_newer"]).date()


def parsed(arguments: Sequence[str], today: date, pinned: date) -> Request:
    """Read the command line.

    Raises:
        SystemExit: it is invalid, or the day is too recent.

    """
    parser = argparse.ArgumentParser(prog="refresh", description=__doc__)
    parser.add_argument("day", nargs="?", help="YYYY-MM-DD; a week ago by default")
    parser.add_argument("--package", help="raise this lower bound; without DAY, the day stays")
    parser.add_argument("--urgent", action="store_true", help="allow a day of the last week")
    parser.add_argument("--check", action="store_true", help="fail if the day is too old")
    given = parser.parse_args(arguments)
    if given.check:
        if len(arguments) > 1:
            parser.error("--check takes no other arguments")
        return Request(None)
    newest = today if given.urgent else today - SETTLED
    if given.day is None:
        return Request(pinned if given.package and not given.urgent else newest, given.package)
    try:
        day = datetime.strptime(given.day, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        parser.error(f"{given.day} is not a day: write one such as {newest}")
    if day > newest:
        parser.error(
            f"{day} is in the future: {newest} is the latest possible day"
            if given.urgent
            else f"{day} is less than {SETTLED.days} days ago, so its versions may still "
            "change: use an earlier day, or --urgent"
        )
    return Request(day, given.package)


def refreshed(root: Path, day: date, package: str | None = None) -> dict[Path, str]:
    """Return the new text of each file of a template that depends on the day.

    Args:
        root: The template's folder.
        day: The new ``exclude-newer``.
        package: The direct dependency whose lower bound is raised to its newest version.

    Raises:
        subprocess.CalledProcessError: The dependencies can't be resolved.
        SystemExit: ``package`` has no lower bound.

    """
    moment = f"{day}T00:00:00Z"
    questions, own = root / "cookiecutter.json", root / "pyproject.toml"
    rendered = root / TREE.name / "pyproject.toml"
    hook = root / "hooks" / "pre_gen_project.py"
    new = {file: file.read_text(encoding="utf-8") for file in (questions, own, rendered, hook)}
    bounds = {bound["name"] for file in (own, rendered) for bound in BOUND.finditer(new[file])}
    if package and package not in bounds:
        sys.exit(f"Nothing was changed: {package} has no lower bound.")
    for file in (questions, hook):
        new[file] = _replaced(new[file], r'("_exclude_newer": )"[^"]*"', f'"{moment}"')
    new[own] = _replaced(new[own], r'(exclude-newer = )"[^"]*"', f'"{moment}"')
    uv = _newest("uv", moment)
    new[questions] = _replaced(new[questions], r'("_uv_version": )"[^"]*"', f'"{uv}"')
    for workflow in sorted((root / ".github" / "workflows").glob("*.yml")):
        text = workflow.read_text(encoding="utf-8")
        new[workflow] = re.sub(r"(pipx install uv==)[\d.]+", rf"\g<1>{uv}", text)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "own").mkdir()
        (folder / "own" / own.name).write_text(new[own], encoding="utf-8")
        tools = _locked(folder / "own")
        template = copy_template(folder / "template", root)
        for file in (questions, hook):
            (template / file.relative_to(root)).write_text(new[file], encoding="utf-8")
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
    names = textwrap.fill(" ".join(sorted(versions)), 96, break_on_hyphens=False)
    block = textwrap.indent(names, "    ")
    new[hook] = _replaced(
        new[hook], r'(PACKAGES: Final = frozenset\(\n    """\n)[^"]*', f"{block}\n    "
    )
    if package:
        new[own] = _raised(new[own], package, tools)
        new[rendered] = _raised(new[rendered], package, versions)
    return new


def _raised(text: str, package: str, versions: dict[str, str]) -> str:
    """Raise one lower bound to the resolved version, with as many numbers as it has."""

    def raised(bound: re.Match[str]) -> str:
        name, extra, old = bound["name"], bound["extra"] or "", bound["version"]
        if name != package:
            return bound[0]
        new = versions[name].split(".")[: old.count(".") + 1]
        return f'"{name}{extra}>={".".join(new)}'

    return BOUND.sub(raised, text)


def _replaced(text: str, pattern: str, value: str) -> str:
    replaced, count = re.subn(pattern, lambda found: found[1] + value, text)
    if count != 1:
        sys.exit(f"Nothing was changed: {pattern} was found {count} times, not once")
    return replaced


def _newest(package: str, moment: str) -> str:
    """Return the newest version of a package at a point in time."""
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
    """Return the versions that uv selects, without the project itself."""
    command = ["uv", "lock", "--quiet"]
    subprocess.run(command, cwd=folder, env=clean_environment(), check=True)
    lock = tomllib.loads((folder / "uv.lock").read_text(encoding="utf-8"))
    versions: dict[str, str] = {}
    for package in lock["package"]:  # if several are locked, the lowest is first
        if "virtual" not in package["source"]:
            versions.setdefault(package["name"], package["version"])
    return versions


def check(pinned: date, today: date) -> None:
    """Raise SystemExit if the day is too old."""
    age = today - pinned
    if age > OLDEST:
        sys.exit(f"exclude-newer is {age.days} days old, {OLDEST.days} at most: run just refresh.")
    print(f"exclude-newer is {age.days} days old.")


def main() -> None:
    """Read the command line and write the files."""
    today, pinned = datetime.now(UTC).date(), pinned_day(ROOT)
    request = parsed(sys.argv[1:], today, pinned)
    if request.day is None:
        check(pinned, today)
        return
    try:
        new = refreshed(ROOT, request.day, request.package)
    except subprocess.CalledProcessError as error:
        sys.exit(f"Nothing was changed: {error}")
    for file, text in new.items():
        file.write_text(text, encoding="utf-8")
    print(f"exclude-newer is {request.day}.")


if __name__ == "__main__":
    main()
