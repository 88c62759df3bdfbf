"""What holds for the template's own files: plain Python, and pure hooks."""

import ast
import json
from pathlib import Path

import pytest

from testing.baking import CHOICES, ROOT, TREE

HOOKS = sorted((ROOT / "hooks").glob("*.py"))
each_hook = pytest.mark.parametrize("hook", HOOKS, ids=[hook.stem for hook in HOOKS])

# Enough to read JSON, judge text and move files: no clock, network, process or randomness.
PURE_MODULES = {"json", "keyword", "pathlib", "re", "shutil", "sys", "typing", "unicodedata"}
IMPURE_BUILTINS = {"__import__", "compile", "eval", "exec", "getattr", "globals", "input", "open"}

ANSWERS = r"json.loads(r'{{ cookiecutter | tojson }}')"


def test_no_python_of_the_tree_holds_jinja() -> None:
    modules = list(TREE.rglob("*.py"))

    assert modules
    for module in modules:
        text = module.read_text(encoding="utf-8")
        ast.parse(text, str(module))
        for jinja in ("{%", "{#", "#%", "cookiecutter"):
            assert jinja not in text, module


def test_the_questions_are_these_and_each_has_a_prompt() -> None:
    questions = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    prompts = questions.pop("__prompts__")
    asked = {name: default for name, default in questions.items() if name[0] != "_"}

    assert list(asked) == [
        *("project_name", "project_slug", "description", "author_name", "author_email"),
        *("database", "auth", "ci", "deploy", "license"),
    ]
    assert {question: asked[question] for question in CHOICES} == CHOICES
    assert list(prompts) == list(asked)
    for question, default in asked.items():
        if isinstance(default, list):
            assert list(prompts[question]) == ["__prompt__", *default]


@each_hook
def test_a_hook_is_pure(hook: Path) -> None:
    nodes = list(ast.walk(ast.parse(hook.read_text(encoding="utf-8"))))
    imported = {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    } | {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    names = {node.id for node in nodes if isinstance(node, ast.Name)}

    assert imported <= PURE_MODULES
    assert not names & IMPURE_BUILTINS


@each_hook
def test_a_hook_takes_the_answers_as_json_and_nothing_else_from_jinja(hook: Path) -> None:
    text = hook.read_text(encoding="utf-8")

    assert text.count(ANSWERS) == 1
    rest = text.replace(ANSWERS, "")
    for jinja in ("{{", "{%", "{#", "#%"):
        assert jinja not in rest


def test_the_proxy_of_the_guide_is_the_one_that_is_tested() -> None:
    configuration = (ROOT / "tests" / "reliability" / "haproxy.cfg").read_text(encoding="utf-8")
    assert configuration in (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
