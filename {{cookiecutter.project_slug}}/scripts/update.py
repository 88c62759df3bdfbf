"""Move ``exclude-newer`` in pyproject.toml: ``just update``, or ``just update 2026-11-20``."""

import re
import sys
from datetime import UTC, date, datetime, timedelta
from typing import Final

from app.kit import project

SETTLED: Final = timedelta(days=7)
"""The age of the newest packages by default: most malicious uploads are found within days."""

_LINE: Final = re.compile(r'(?m)^(exclude-newer = )"([^"]*)"$')


def moved(text: str, day: date) -> str:
    """Return a pyproject.toml with another ``exclude-newer``.

    Raises:
        SystemExit: it has none.
    """
    changed, count = _LINE.subn(rf'\g<1>"{day}T00:00:00Z"', text)
    if count != 1:
        sys.exit("pyproject.toml has no exclude-newer: `uv lock --upgrade` installs the newest.")
    return changed


def chosen_day(arguments: list[str], today: date) -> date:
    """Return the day in the command line; a week ago by default.

    Raises:
        SystemExit: it is not a day, or in the future.
    """
    if not arguments:
        return today - SETTLED
    try:
        day = date.fromisoformat(arguments[0])
    except ValueError:
        sys.exit(f"{arguments[0]} is not a day: write one such as {today - SETTLED}.")
    if day > today:
        sys.exit(f"{day} is in the future.")
    return day


def main() -> None:
    """Read the command line and change pyproject.toml."""
    file = project.ROOT / "pyproject.toml"
    day = chosen_day(sys.argv[1:], datetime.now(UTC).date())
    file.write_text(moved(file.read_text(encoding="utf-8"), day), encoding="utf-8")
    print(f"exclude-newer is {day}.")


if __name__ == "__main__":
    main()
