"""Combinations of answers, grouped by what a render runs: its Python and its `pyproject.toml`.

Renders of one group behave alike, so one of each group is installed and tested.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from cookiecutter.environment import StrictEnvironment

from testing.baking import CHOICES, ROOT, TREE, Project, combinations, pairwise

DESCRIPTIVE: Final = ("authors", "description", "license", "license-files", "name", "readme")
"""The parts of `[project]` that change nothing in what is run."""


def declared(pyproject: str) -> dict[str, Any]:
    """Return the parts of a `pyproject.toml` that change how a project is installed or tested."""
    document = tomllib.loads(pyproject)
    for name in DESCRIPTIVE:
        document["project"].pop(name, None)
    document["tool"].pop("app", None)  # its title
    return document


def group(python: Mapping[str, bytes], pyproject: str) -> str:
    """Return a digest of what a render runs: equal digests mean equal bytes."""
    digest = hashlib.sha256(json.dumps(declared(pyproject), sort_keys=True).encode())
    for name, content in sorted(python.items()):
        digest.update(f"\n{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def group_of(project: Project) -> str:
    """Return the group that a render belongs to."""
    python = {file: (project.path / file).read_bytes() for file in project.python()}
    return group(python, project.text("pyproject.toml"))


def _modules(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*.py")
        if ".options" not in file.relative_to(folder).parts
    }


@cache
def groups() -> dict[str, list[dict[str, str]]]:
    """Return every combination of answers by its group.

    Python holds no Jinja and options are folders, so the groups follow from the tree, without a
    render; `test_combinations` compares them with those of all renders.
    """
    questions = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    environment = StrictEnvironment(
        context={"cookiecutter": questions}, **questions["_jinja2_env_vars"]
    )
    derived = {
        name: environment.from_string(value)
        for name, value in questions.items()
        if isinstance(value, str) and not (name.startswith("_") and name[1] != "_")
    }
    pyproject = environment.from_string((TREE / "pyproject.toml").read_text(encoding="utf-8"))
    common = _modules(TREE)
    options = {
        question.name: {answer.name: _modules(answer) for answer in question.iterdir()}
        for question in (TREE / ".options").iterdir()
        if question.is_dir() and question.name in questions
    }
    found: dict[str, list[dict[str, str]]] = {}
    for answers in combinations():
        context = questions | answers
        for name, template in derived.items():
            context[name] = template.render(cookiecutter=context)
        python = dict(common)
        for question, brought in options.items():
            python |= brought.get(context[question], {})
        key = group(python, pyproject.render(cookiecutter=context))
        found.setdefault(key, []).append(answers)
    return found


@cache
def proven() -> list[dict[str, str]]:
    """Return one combination of each group, which is installed and proves itself.

    Any two answers meet in few combinations; of these the first is taken, so that the other
    questions vary, too.
    """
    preferred = pairwise()
    return [
        next((answers for answers in preferred if answers in members), members[0])
        for members in groups().values()
    ]


@cache
def decisive() -> list[str]:
    """Return the questions whose answers change the group."""
    of = {tuple(answers.items()): key for key, members in groups().items() for answers in members}
    return [
        question
        for question, answers in CHOICES.items()
        if any(
            len({of[tuple({**other, question: answer}.items())] for answer in answers}) > 1
            for other in combinations()
        )
    ]


def each_answer_once() -> list[dict[str, str]]:
    """Return few of the proven combinations, with each answer of each decisive question."""
    questions = decisive()
    chosen: list[dict[str, str]] = []
    missing = {(question, answer) for question in questions for answer in CHOICES[question]}
    while missing:
        chosen.append(max(proven(), key=lambda answers: len(missing & set(answers.items()))))
        missing -= set(chosen[-1].items())
    return chosen


def label(answers: Mapping[str, str]) -> str:
    """Return the answers to the decisive questions, as the name of a test has them."""
    return "-".join(answers[question] for question in decisive())
