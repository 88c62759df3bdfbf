"""Any answer, typed or replayed, is refused with one sentence or rendered unchanged."""

import tomllib
from functools import cache
from typing import Any
from unittest.mock import patch

import yaml
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from cookiecutter.utils import create_env_with_context
from hypothesis import example, given, settings
from hypothesis import strategies as st

from testing.baking import CHOICES, ROOT, TREE
from testing.image import read

HOOK = (ROOT / "hooks" / "pre_gen_project.py").read_text(encoding="utf-8")
TEXTS = ("project_name", "description", "author_name")

# Fragments that are special in TOML, YAML, Markdown, a shell, Jinja or Python.
FRAGMENTS = st.sampled_from(
    [
        *("{{", "}}", "{%", "%}", "{#", "#}", "#%", "${", "$(", "`", "%(x)s", "{0}", "\\", "\\\\"),
        *('"', "'", '"""', "'''", ": ", " #", "- ", "---", "&a", "*a", "!!python/name:x", "|", ">"),
        *("\n", "\r\n", "\t", "\0", "\x1b[31m", "\x7f", "\u2028", "\ufeff", "\ud800", "\uffff"),
        *(
            "\u202e\u05d0\u05d1",
            "\U0001f680",
            "e\u0301",
            "[x](y)",
            "<b>",
            "~",
            "null",
            "0o17",
            "=1+1",
        ),
    ]
)
ANSWERS = st.lists(FRAGMENTS | st.text(max_size=30), max_size=12).map("".join)
SLUGS = st.from_regex(r"[a-z][a-z0-9]{0,9}([-_][a-z0-9]{1,9}){0,3}", fullmatch=True)
QUESTIONS = {
    **dict.fromkeys(TEXTS, ANSWERS),
    "project_slug": SLUGS,
    **{question: st.sampled_from(answers) for question, answers in CHOICES.items()},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | ANSWERS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@cache
def templates() -> dict[str, str]:
    """Return the text files that contain answers, by path."""
    files = [
        *(TREE / name for name in ("pyproject.toml", "README.md", ".env.example", "justfile")),
        *(TREE / ".options").glob("license/*/LICENSE"),
        *(TREE / ".options").glob("ci/**/*.yml"),
        *(TREE / ".options").glob("__container/*/*"),
        *(TREE / ".options").glob("*/*/deploy/**/*.yaml"),
    ]
    return {file.relative_to(TREE).as_posix(): file.read_text(encoding="utf-8") for file in files}


def typed(**answers: str) -> dict[str, Any]:
    """Return the context that Cookiecutter makes from typed answers."""

    def read(name: str, default: str, *_: object) -> str:
        return answers.get(name, default)

    def choose(name: str, options: list[str], *_: object) -> str:
        return answers.get(name, options[0])

    with (
        patch("cookiecutter.prompt.read_user_variable", read),
        patch("cookiecutter.prompt.read_user_choice", choose),
    ):
        context = generate_context(str(ROOT / "cookiecutter.json"))
        return {"cookiecutter": dict(prompt_for_config(context))}


def hook(context: dict[str, Any]) -> dict[str, Any]:
    """Return the names of the pre-generation hook, rendered as Cookiecutter renders it."""
    source = create_env_with_context(context).from_string(HOOK).render(**context)
    module: dict[str, Any] = {"__name__": "hook"}
    exec(compile(source, "pre_gen_project.py", "exec"), module)  # noqa: S102 - as Cookiecutter does
    return module


def problem(context: dict[str, Any]) -> str | None:
    """Return the error of the hook for a context, or None."""
    found: str | None = hook(context)["problem"]()
    return found


def facts(context: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that cookiecutter.json derives from the answers."""
    return {name: value for name, value in context["cookiecutter"].items() if name.startswith("__")}


def rendered(context: dict[str, Any]) -> dict[str, str]:
    environment = create_env_with_context(context)
    return {
        name: environment.from_string(text).render(**context) for name, text in templates().items()
    }


@given(st.fixed_dictionaries(dict.fromkeys(TEXTS, ANSWERS)))
@example({"project_name": "{{ 7 * 7 }}", "description": "{% raw %}", "author_name": "#% if x"})
@example(dict.fromkeys(TEXTS, "x" * 200))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_texts_are_refused_or_rendered_as_typed(answers: dict[str, str]) -> None:
    context = typed(project_slug="orders", **answers)
    said = problem(context)
    if said is not None:
        assert said.startswith(TEXTS)
        assert said.isprintable()
        assert said.endswith(".")
        return
    files = rendered(context)
    project = tomllib.loads(files["pyproject.toml"])
    assert project["project"]["description"] == answers["description"]
    assert project["project"]["authors"][0]["name"] == answers["author_name"]
    assert project["tool"]["app"]["title"] == answers["project_name"]
    assert files["README.md"].startswith(
        f"# {answers['project_name']}\n\n{answers['description']}\n"
    )
    for name, text in files.items():
        if name.endswith("LICENSE") and "Apache" not in name:
            assert answers["author_name"] in text
        if name.endswith("Dockerfile"):
            labels = read(text)[-1].labels
            assert labels["org.opencontainers.image.title"] == answers["project_name"]
            assert labels["org.opencontainers.image.description"] == answers["description"]
        if name.endswith((".yml", ".yaml")):
            assert yaml.safe_load(text) == yaml.safe_load(plain()[name])


@cache
def plain() -> dict[str, str]:
    """Return the files of a render with ordinary answers."""
    return rendered(typed(project_slug="orders"))


@given(st.text(max_size=60) | st.from_regex(r"[a-z./\\~:-]{1,12}", fullmatch=True))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_slug_is_refused_or_creates_one_folder(slug: str) -> None:
    context = typed(project_slug=slug)
    if problem(context) is None:
        assert context["cookiecutter"]["project_slug"] == slug
        assert slug.replace("-", "").replace("_", "").isalnum()
        assert slug.isascii()
        assert yaml.safe_load(f"name: {slug}") == {"name": slug}
    folder = context["cookiecutter"]["project_slug"]
    assert folder not in {"", ".", ".."}
    assert not set(folder) & set("/\\:\0\n")


@given(ANSWERS)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_an_email_address_is_refused_or_rendered_as_typed(address: str) -> None:
    context = typed(project_slug="orders", author_email=address)
    if problem(context) is None:
        project = tomllib.loads(rendered(context)["pyproject.toml"])
        assert project["project"]["authors"][0]["email"] == address


@given(st.fixed_dictionaries(QUESTIONS))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_hook_derives_the_facts_of_cookiecutter_json(answers: dict[str, str]) -> None:
    context = typed(**answers)

    assert hook(context)["derive_facts"](context["cookiecutter"]) == facts(context)


@given(st.fixed_dictionaries(QUESTIONS), st.data())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_an_edited_replay_is_refused_or_equals_a_render_of_its_answers(
    answers: dict[str, str], data: st.DataObject
) -> None:
    context = typed(**answers)
    question = data.draw(st.sampled_from(sorted(QUESTIONS)))
    context["cookiecutter"][question] = data.draw(QUESTIONS[question])

    if problem(context) is None:
        edited = {name: context["cookiecutter"][name] for name in QUESTIONS}
        assert context == typed(**edited)


REPLAYED = typed(project_name="Orders", deploy="kubernetes")["cookiecutter"]


@given(st.sampled_from([*facts({"cookiecutter": REPLAYED}), *QUESTIONS, "author_email"]), JSON)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_an_invalid_value_in_a_replay_is_refused(name: str, value: object) -> None:
    said = problem({"cookiecutter": REPLAYED | {name: value}})
    absent = {other: REPLAYED[other] for other in REPLAYED if other != name}

    for sentence in (said, problem({"cookiecutter": absent})):
        assert sentence is not None
        assert sentence.isprintable()
        assert sentence.endswith(".")
