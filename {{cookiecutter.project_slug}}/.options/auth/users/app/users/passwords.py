"""Refuse common passwords, and passwords that contain the user's name or address."""

import re
from pathlib import Path
from typing import Final

from app.kit import project

LEAST_PART: Final = 4
"""Shorter parts of an e-mail address or a name may occur in a password by chance."""


def _read() -> frozenset[str]:
    text = Path(__file__).with_name("common_passwords.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.splitlines() if not line.startswith("#"))


COMMON: Final = _read()
"""Common passwords in lower case, with and without the digits at their end."""
_TRAILING: Final = re.compile(r"[0-9]{1,6}\Z")
"""The most digits that may follow a common password; more may be random."""


def complaint(password: str, *, email: str = "", name: str = "") -> str | None:
    """Return why a normalized password is refused, or None."""
    lowered = password.casefold()
    if lowered in COMMON or _TRAILING.sub("", lowered) in COMMON:
        return "This password is too common"
    if len(set(lowered)) == 1:
        return "A password must not be one repeated character"
    local, _, domain = email.partition("@")
    parts = [local, domain.rpartition(".")[0], name, *name.split()]
    if any(len(part) >= LEAST_PART and part.casefold() in lowered for part in parts):
        return "The password must not contain the e-mail address or the name"
    if len(project.NAME) >= LEAST_PART and project.NAME.casefold() in lowered:
        return "The password must not contain the name of the service"
    return None
