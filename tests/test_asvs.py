"""The tables of ASVS requirements: each names a test that exists, or a reason."""

import ast
import re
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from testing.baking import ROOT, combinations
from tests.conftest import Bake

OF_THE_TEMPLATE: Final = "template:"
MAX_FAILS = 8


class Row(NamedTuple):
    """A row of the table."""

    item: str
    requirement: str
    result: str
    proof: str


def rows(text: str) -> list[Row]:
    """Return the rows of the table of requirements."""
    found = re.findall(r"^\| (\d+\.\d+\.\d+) \| (.+?) \| (.+?) \| (.+) \|$", text, re.MULTILINE)
    return [Row(*cells) for cells in found]


def functions_in(file: Path) -> set[str]:
    """Return the names of the tests in a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = [
        node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {function.name for function in functions if function.name.startswith("test_")}


def check(table: list[Row], render: Path) -> None:
    """Check that each row names an existing test if it passes, and a reason if it fails."""
    items = [row.item for row in table]
    assert len(set(items)) == len(items)
    assert items == sorted(items, key=lambda item: [int(number) for number in item.split(".")])
    assert {row.result for row in table} == {"pass", "fail"}
    assert sum(row.result == "fail" for row in table) <= MAX_FAILS
    for row in table:
        if row.result == "fail":
            assert not row.proof.startswith("`tests/"), row
            continue
        match = re.fullmatch(
            rf"`({OF_THE_TEMPLATE})?(tests/[\w/]+\.py)(?:::(test_\w+))?`", row.proof
        )
        assert match is not None, row
        of_the_template, file, test = match.groups()
        found = functions_in((ROOT if of_the_template else render) / file)
        assert test in found if test else found, row


def test_every_test_named_in_the_template_exists(bake: Bake) -> None:
    table = rows((ROOT / "docs" / "security.md").read_text(encoding="utf-8"))
    assert len(table) > 40
    check(table, bake(database="postgresql", auth="users").path)


@pytest.mark.parametrize(
    "answers", combinations("database", "auth"), ids=lambda answers: "-".join(answers.values())
)
def test_every_test_named_in_a_render_exists(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers)
    table = rows(project.text("docs/security.md"))
    check(table, project.path)
    of_the_template = rows((ROOT / "docs" / "security.md").read_text(encoding="utf-8"))
    assert set(table) <= set(of_the_template)
    if answers == {"database": "postgresql", "auth": "users"}:
        assert table == of_the_template
