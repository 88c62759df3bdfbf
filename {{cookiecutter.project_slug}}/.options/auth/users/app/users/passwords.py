"""Which passwords are refused: common ones, and those that contain the user's e-mail or name."""

from pathlib import Path
from typing import Final

LEAST_PART: Final = 4
"""Characters of an e-mail or a name that a password must not contain; fewer occur by chance."""


def _read() -> frozenset[str]:
    text = Path(__file__).with_name("common_passwords.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if not line.startswith("#"))


COMMON: Final = _read()


def complaint(password: str, *, email: str = "", name: str = "") -> str | None:
    """Return why a normalized password is refused, or None."""
    lowered = password.casefold()
    if lowered in COMMON:
        return "This password is too common"
    parts = [email.partition("@")[0], name, *name.split()]
    if any(len(part) >= LEAST_PART and part.casefold() in lowered for part in parts):
        return "The password must not contain the e-mail address or the name"
    return None
