"""The kit imports no feature, and only the driver names a database dialect."""

import ast
from collections.abc import Iterator
from pathlib import Path

from app.kit import project

APP = project.ROOT / "app"
KIT = APP / "kit"


def imports(module: Path) -> Iterator[str]:
    """Return the names of the modules that a module imports."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_kit_imports_no_feature_and_no_settings() -> None:
    modules = list(KIT.rglob("*.py"))
    assert modules
    for module in modules:
        own = [name for name in imports(module) if name == "app" or name.startswith("app.")]
        assert all(name.startswith("app.kit") for name in own), module


def test_only_the_driver_names_a_dialect() -> None:
    drivers = ("asyncpg", "aiosqlite", "sqlite3", "sqlalchemy.dialects.")
    found = {
        module.relative_to(APP).as_posix()
        for module in APP.rglob("*.py")
        if any(name.startswith(drivers) for name in imports(module))
    }
    assert found <= {"kit/db/driver.py"}
