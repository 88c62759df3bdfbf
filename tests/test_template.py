"""The rules for the template's own files: plain Python, strict Jinja, pure hooks."""

import ast
import fnmatch
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import Environment, StrictUndefined, meta, nodes

from testing.baking import CHOICES, ROOT, TREE
from tests.test_hostile import hook as rendered_hook
from tests.test_hostile import typed

HOOKS = sorted((ROOT / "hooks").glob("*.py"))
each_hook = pytest.mark.parametrize("hook", HOOKS, ids=[hook.stem for hook in HOOKS])

# Enough to read JSON, check text and move files: no clock, network, process or randomness.
PURE_MODULES = {"json", "keyword", "pathlib", "re", "shutil", "sys", "typing", "unicodedata"}
IMPURE_BUILTINS = {"__import__", "compile", "eval", "exec", "getattr", "globals", "input", "open"}

ANSWERS = r"json.loads(r'{{ cookiecutter | tojson }}')"

CONTEXT = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
PROMPTS = CONTEXT.pop("__prompts__")
QUESTIONS = {name: default for name, default in CONTEXT.items() if not name.startswith("_")}
JINJA = Environment(
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - as Cookiecutter renders text files
    **CONTEXT["_jinja2_env_vars"],
)

# Free text, which may be used unescaped only in prose: Markdown and licenses.
FREE = {"project_name", "description", "author_name", "author_email"}
# Escaped for the double quotes of one file, or refused if it contains what would end them.
QUOTED = {
    "author_email": "pyproject.toml",
    **{fact: "pyproject.toml" for fact in CONTEXT if fact.startswith("__toml_")},
    **{fact: "Dockerfile" for fact in CONTEXT if fact.startswith("__docker_")},
}


def test_no_python_file_contains_jinja() -> None:
    modules = list(TREE.rglob("*.py"))

    assert modules
    for module in modules:
        text = module.read_text(encoding="utf-8")
        ast.parse(text, str(module))
        for jinja in ("{%", "{#", "#%", "cookiecutter"):
            assert jinja not in text, module


def templated(template: Path) -> dict[Path, nodes.Template]:
    """Return the syntax tree of every text that Cookiecutter renders, names of files included."""
    tree = template / TREE.name
    files = [file.relative_to(tree) for file in sorted(tree.rglob("*")) if file.is_file()]
    plain = CONTEXT["_copy_without_render"]
    texts = {
        file: (tree / file).read_text(encoding="utf-8")
        for file in files
        if not any(fnmatch.fnmatch(str(file), pattern) for pattern in plain)
    }
    texts[Path("names")] = "\n".join([TREE.name, *map(str, files)])
    return {file: JINJA.parse(text, filename=str(file)) for file, text in texts.items()}


def names(tree: nodes.Node) -> Iterator[str]:
    """Return the X of each `cookiecutter.X`."""
    for node in tree.find_all(nodes.Getattr):
        if isinstance(node.node, nodes.Name) and node.node.name == "cookiecutter":
            yield node.attr


def test_every_templated_file_renders_with_strict_jinja(template: Path) -> None:
    for file, tree in templated(template).items():
        assert meta.find_undeclared_variables(tree) <= {"cookiecutter"}, file
        assert {node.name for node in tree.find_all(nodes.Filter)} <= set(JINJA.filters), file
        assert {node.name for node in tree.find_all(nodes.Test)} <= set(JINJA.tests), file
        whole = [name for name in tree.find_all(nodes.Name) if name.name == "cookiecutter"]
        assert len(whole) == len(list(names(tree))), f"{file}: only `cookiecutter.NAME` is checked"
        assert set(names(tree)) <= set(CONTEXT), file


def test_every_question_and_fact_is_used(template: Path) -> None:
    used = {name for tree in templated(template).values() for name in names(tree)}
    used |= {folder.name for folder in (TREE / ".options").iterdir()}
    derived = {
        name: set(names(JINJA.parse(text)))
        for name, text in CONTEXT.items()
        if name.startswith("__")
    }
    for needed in derived.values():
        used |= needed
    used |= {"__typed_slug", "__safe_folder"}  # the hook checks one, the other sets project_slug
    settings = {"_copy_without_render", "_jinja2_env_vars"}  # read by Cookiecutter

    assert set().union(*derived.values()) <= {*CONTEXT, "update"}
    assert set(CONTEXT) - settings - used == set()


def in_place(file: Path, output: nodes.Output) -> Iterator[str]:
    """Return the answers that may be written at an output statement."""
    texts = [node.data if isinstance(node, nodes.TemplateData) else "" for node in output.nodes]
    for index, node in enumerate(output.nodes):
        if isinstance(node, nodes.Getattr):
            before, after = "".join(texts[:index]), "".join(texts[index + 1 :])
            quoted = before.endswith('"') and after.startswith('"')
            prose = node.attr in FREE and (file.suffix == ".md" or file.name == "LICENSE")
            if prose or (QUOTED.get(node.attr) == file.name and quoted):
                yield node.attr


def test_free_text_is_in_prose_or_escaped_in_quotes(template: Path) -> None:
    for file, tree in templated(template).items():
        used = sorted(name for name in names(tree) if name in FREE or name in QUOTED)
        outputs = tree.find_all(nodes.Output)
        assert used == sorted(name for output in outputs for name in in_place(file, output)), file


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_is_complete(question: str) -> None:
    page = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")
    table = page.partition("## ")[0]
    hook = rendered_hook(typed())
    default, prompt = QUESTIONS[question], PROMPTS[question]
    rows = [row for row in table.splitlines() if row.startswith("| `") and f"`{question}`" in row]

    assert len(rows) == 1, "a row in the table of docs/questions.md"
    if question in CHOICES:
        assert hook["CHOICES"].get(question) == tuple(default), "CHOICES of pre_gen_project.py"
        assert list(prompt) == ["__prompt__", *default], "a prompt for each answer"
        for answer in default:
            assert f"`{answer}`" in rows[0], "each answer in the table of docs/questions.md"
    else:
        assert isinstance(prompt, str)
        judged = {*hook["TEXT_LIMITS"], "project_slug", "author_email"}
        assert question in judged, "a limit in TEXT_LIMITS of pre_gen_project.py"


def test_no_question_is_forgotten_where_it_was_removed() -> None:
    hook = rendered_hook(typed())

    assert list(PROMPTS) == list(QUESTIONS)
    assert {*hook["TEXT_LIMITS"], *hook["CHOICES"]} <= set(QUESTIONS)


def test_the_hook_has_the_version_of_the_template() -> None:
    known = rendered_hook(typed())["TEMPLATE"]

    assert known == {name: CONTEXT[name] for name in ("_template_version", "_exclude_newer")}


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
def test_a_hook_reads_only_the_answers_from_jinja(hook: Path) -> None:
    text = hook.read_text(encoding="utf-8")

    assert text.count(ANSWERS) == 1
    rest = text.replace(ANSWERS, "")
    for jinja in ("{{", "{%", "{#", "#%"):
        assert jinja not in rest


def test_the_proxy_configuration_in_the_guide_is_the_tested_one() -> None:
    configuration = (ROOT / "tests" / "reliability" / "haproxy.cfg").read_text(encoding="utf-8")
    assert configuration in (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
