"""Whatever is typed is refused in one sentence, or stands in the project as it was typed."""

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

from testing.baking import ROOT, TREE
from testing.image import read

HOOK = (ROOT / "hooks" / "pre_gen_project.py").read_text(encoding="utf-8")
TEXTS = ("project_name", "description", "author_name")

# What means something to TOML, YAML, Markdown, a shell, Jinja or Python, beside any character.
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


@cache
def templates() -> dict[str, str]:
    """Give the text files that answers go into."""
    files = [
        *(TREE / name for name in ("pyproject.toml", "README.md", ".env.example", "justfile")),
        *(TREE / ".options").glob("license/*/LICENSE"),
        *(TREE / ".options").glob("ci/**/*.yml"),
        *(TREE / ".options").glob("__container/*/*"),
        *(TREE / ".options").glob("*/*/deploy/**/*.yaml"),
    ]
    return {file.relative_to(TREE).as_posix(): file.read_text(encoding="utf-8") for file in files}


def typed(**answers: str) -> dict[str, Any]:
    """Give the context of a render, as Cookiecutter makes it of what is typed at its prompts."""

    def read(name: str, default: str, *_: object) -> str:
        return answers.get(name, default)

    def choose(_: str, options: list[str], *__: object) -> str:
        return options[0]

    with (
        patch("cookiecutter.prompt.read_user_variable", read),
        patch("cookiecutter.prompt.read_user_choice", choose),
    ):
        context = generate_context(str(ROOT / "cookiecutter.json"))
        return {"cookiecutter": dict(prompt_for_config(context))}


def problem(context: dict[str, Any]) -> str | None:
    """Ask the hook, rendered as Cookiecutter renders it."""
    source = create_env_with_context(context).from_string(HOOK).render(**context)
    module: dict[str, Any] = {"__name__": "hook"}
    exec(compile(source, "pre_gen_project.py", "exec"), module)  # noqa: S102 - as Cookiecutter does
    found: str | None = module["problem"]()
    return found


def rendered(context: dict[str, Any]) -> dict[str, str]:
    environment = create_env_with_context(context)
    return {
        name: environment.from_string(text).render(**context) for name, text in templates().items()
    }


@given(st.fixed_dictionaries(dict.fromkeys(TEXTS, ANSWERS)))
@example({"project_name": "{{ 7 * 7 }}", "description": "{% raw %}", "author_name": "#% if x"})
@example(dict.fromkeys(TEXTS, "x" * 200))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_texts_are_refused_or_stand_as_typed(answers: dict[str, str]) -> None:
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
    """Give the files of a render with ordinary answers."""
    return rendered(typed(project_slug="orders"))


@given(st.text(max_size=60) | st.from_regex(r"[a-z./\\~:-]{1,12}", fullmatch=True))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_slug_is_refused_or_one_harmless_folder(slug: str) -> None:
    context = typed(project_slug=slug)
    if problem(context) is None:
        assert context["cookiecutter"]["project_slug"] == slug
        assert slug.replace("-", "").replace("_", "").isalnum()
        assert slug.isascii()
    folder = context["cookiecutter"]["project_slug"]
    assert folder not in {"", ".", ".."}
    assert not set(folder) & set("/\\:\0\n")


@given(ANSWERS)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_an_address_is_refused_or_stands_as_typed(address: str) -> None:
    context = typed(project_slug="orders", author_email=address)
    if problem(context) is None:
        project = tomllib.loads(rendered(context)["pyproject.toml"])
        assert project["project"]["authors"][0]["email"] == address
