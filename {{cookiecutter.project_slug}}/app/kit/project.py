"""The metadata of the project, from ``pyproject.toml``."""

import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_PYPROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

NAME: Final[str] = _PYPROJECT["project"]["name"]
VERSION: Final[str] = _PYPROJECT["project"]["version"]
DESCRIPTION: Final[str] = _PYPROJECT["project"]["description"]
TITLE: Final[str] = _PYPROJECT["tool"]["app"]["title"]
_AUTHOR: Final[dict[str, str]] = next(iter(_PYPROJECT["project"].get("authors", ())), {})
CONTACT: Final = _AUTHOR or None
_LICENSE: Final[str] = _PYPROJECT["project"].get("license", "")
LICENSE: Final = {"name": _LICENSE, "identifier": _LICENSE} if _LICENSE else None
