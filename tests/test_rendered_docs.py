"""The documents of a render: their length, their links, and that the example can be removed."""

import re
from pathlib import PurePosixPath

import pytest

from testing.baking import Project, combinations
from tests.conftest import Bake

MAX_README = 160
MAX_AGENTS = 99

EXAMPLE = re.compile(r"\bTask|\btasks?\b|task_", re.MULTILINE)
"""A word of the example. Documents say "job" for other tasks."""

REMOVAL = re.compile(r"^## Remove the example\n.*?(?=^## )", re.MULTILINE | re.DOTALL)

each_variant = pytest.mark.parametrize(
    "answers",
    combinations("database", "auth", "deploy"),
    ids=lambda answers: "-".join(answers.values()),
)


def documents(project: Project) -> dict[str, str]:
    """Return the text of every Markdown file."""
    return {file: project.text(file) for file in project.files() if file.endswith(".md")}


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a document, as GitHub and GitLab name them."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def links(file: str, text: str) -> set[tuple[str, str]]:
    """Return the file and the anchor of each relative link of a document."""
    found = set()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" not in target:
            parts: list[str] = []
            for part in PurePosixPath(file).parent.joinpath(path).parts:
                parts = parts[:-1] if part == ".." else [*parts, part]
            found.add(("/".join(parts) if path else file, anchor))
    return found


@each_variant
def test_the_readme_and_agents_are_short(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers)
    assert len(project.text("README.md").splitlines()) <= MAX_README
    assert len(project.text("AGENTS.md").splitlines()) <= MAX_AGENTS


@each_variant
def test_every_link_has_a_target_and_every_page_a_link(bake: Bake, answers: dict[str, str]) -> None:
    found = documents(bake(**answers))
    for file, text in found.items():
        for path, anchor in links(file, text):
            assert path in found, f"{file}: {path}"
            assert not anchor or anchor in anchors(found[path]), f"{file}: {path}#{anchor}"
    pages = {file for file in found if file.startswith("docs/")}
    assert pages <= {path for path, _ in links("README.md", found["README.md"])}


@each_variant
def test_one_section_mentions_the_example(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers)
    readme = project.text("README.md")
    assert len(REMOVAL.findall(readme)) == 1
    texts = documents(project) | {"README.md": REMOVAL.sub("", readme)}
    texts |= {file: project.text(file) for file in (".env.example", "justfile")}
    assert {file: EXAMPLE.findall(text) for file, text in texts.items()} == {
        file: [] for file in texts
    }
