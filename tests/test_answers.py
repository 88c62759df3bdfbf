"""Invalid answers are refused with one sentence; all others are rendered exactly as typed."""

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Protocol

import pytest
from cookiecutter.exceptions import FailedHookException
from cookiecutter.main import cookiecutter

from testing.baking import CHOICES, ROOT, Project
from testing.image import read
from tests.conftest import Bake, CommandLine
from tests.test_render import contents, parse

EMPTY = "is empty: enter at least one visible character."
SPACE = "starts or ends with white space: remove it."
CONTROL = "contains a line break or a control character: enter one line of plain text."
NOT_A_SLUG = (
    "is not a valid slug: start with a letter a-z, use lower-case letters and digits, "
    "separate words by one hyphen or underscore, use at most 50 characters."
)
NOT_AN_EMAIL = "is not an e-mail address: enter one such as you@example.com."


def conflicts(slug: str) -> str:
    return f"conflicts with a Python package or keyword; try my-{slug}."


TEXTS = ("project_name", "description", "author_name")
REFUSED = [
    *((question, "", f"'' {EMPTY}") for question in TEXTS),
    *((question, "a\nb", rf"'a\nb' {CONTROL}") for question in TEXTS),
    ("project_name", "x\n", rf"'x\n' {SPACE}"),
    ("project_name", "\u200b\u2060", rf"'\u200b\u2060' {EMPTY}"),
    ("project_name", " \t ", rf"' \t ' {EMPTY}"),
    ("project_name", " x", f"' x' {SPACE}"),
    ("project_name", "x" * 101, f"'{'x' * 40}...' has 101 characters: use at most 100."),
    ("description", "x" * 201, f"'{'x' * 40}...' has 201 characters: use at most 200."),
    ("author_name", "x" * 101, f"'{'x' * 40}...' has 101 characters: use at most 100."),
    ("description", "nul \0", rf"'nul \x00' {CONTROL}"),
    ("description", "line\u2028end", rf"'line\u2028end' {CONTROL}"),
    ("description", "lone \ud800", rf"'lone \ud800' {CONTROL}"),
    ("description", "none \uffff", rf"'none \uffff' {CONTROL}"),
    ("project_slug", "", f"'' {NOT_A_SLUG}"),
    ("project_slug", "x" * 51, f"'{'x' * 40}...' {NOT_A_SLUG}"),
    ("project_slug", "x" * 300, f"'{'x' * 40}...' {NOT_A_SLUG}"),
    *(
        ("project_slug", slug, f"{slug!a} {NOT_A_SLUG}")
        for slug in (
            *(".", "..", "../up", "a/b", "a/../b", "/abs/olute", "~", "a\\b", "C:\\x", "a:b"),
            *("My-Service", "my service", "1st", "-x", "x-", "a--b", "a__b", "a.b", "caf\u00e9"),
            *("x\n", "\U0001f680", "$(x)", "x;y", "*"),
        )
    ),
    *(
        ("project_slug", slug, f"{slug!r} {conflicts(slug)}")
        for slug in (
            *("app", "test", "tests", "migrations", "scripts"),
            *("class", "none", "match", "json", "email", "asyncio"),
            *("fastapi", "sqlalchemy", "pydantic-settings", "pydantic_settings"),
            *("null", "yes", "no", "on", "off", "y", "n"),
        )
    ),
    *(
        ("project_slug", slug, f"{slug!r} is the name of a device on Windows; try my-{slug}.")
        for slug in ("con", "nul", "com1", "lpt9")
    ),
    *(
        ("author_email", email, f"{email!r} {NOT_AN_EMAIL}")
        for email in ("", "x", "x@", "@x.org", "x@y", "x@y.", "x@.org", "x@y..org", "a@b@c.org")
    ),
    *(
        ("author_email", email, f"{email!r} {NOT_AN_EMAIL}")
        for email in ("a b@c.org", "a@c.org\n", '"@c.org', "\\@c.org", "A <a@c.org>", "\0@c.org")
    ),
    ("author_email", "x" * 250 + "@c.org", f"'{'x' * 40}...' {NOT_AN_EMAIL}"),
]

PAYLOAD = """__import__('os').system('touch pwned')"""
AWKWARD = [
    'Say "hi" to O\'Brien',
    r"C:\new\table \" \\ \u0041 \N{DASH} \x41 \{0}\1",
    "$HOME ${HOME} $(id) `id` %PATH% $$ !x",
    "# not: a - comment",
    "a: b, c #d",
    "<b>bold</b> & &amp; <!-- x -->",
    "\U0001f680 Zo\u00eb \u20ac \u4fa1\u683c",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
    "\u05e9\u05dc\u05d5\u05dd \u0639\u0627\u0644\u0645",
    "no-break\u00a0space",
    "{'a': [1]} } {x} %s %(x)s",
    "[x](y) *z* _w_ | > ~~v~~",
    *("yes", "null", "~", "1.0", "0x10", "---", "- item", "*anchor", "&ref", "!tag", "@home", "%"),
    f'"""+{PAYLOAD}+"""',
    f"'''+{PAYLOAD}+'''",
    f"'); {PAYLOAD}; ('",
    f"\\'); {PAYLOAD}; (\\'",
    "x" * 100,
]
TYPED = [
    "{{ 7 * 7 }}",
    "{% raw %}",
    "{# gone #}",
    "#% if x",
    "{{ cookiecutter.update(project_name='pwned') }}",
]


def shows(project: Project, text: str) -> None:
    """Check that a text used as name, description and author is rendered exactly as typed."""
    pyproject = tomllib.loads(project.text("pyproject.toml"))
    assert pyproject["project"]["description"] == text
    assert pyproject["project"]["authors"] == [{"name": text, "email": "you@example.com"}]
    assert pyproject["tool"]["app"]["title"] == text
    assert project.text("README.md").startswith(f"# {text}\n")
    assert f"Copyright (c) {text}\n" in project.text("LICENSE")
    labels = read(project.text("Dockerfile"))[-1].labels
    assert labels["org.opencontainers.image.title"] == text
    assert labels["org.opencontainers.image.description"] == text
    parse(project)
    assert not list(project.path.parent.rglob("*pwned*"))


class Refuse(Protocol):
    """Render with one invalid answer; return the text on stderr."""

    def __call__(self, question: str, answer: str) -> str: ...


@pytest.fixture
def refuse(template: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Refuse:
    """Return a function that renders, and checks that a refused render leaves no files."""
    output = tmp_path / "output"
    output.mkdir()

    def render(question: str, answer: str) -> str:
        with pytest.raises(FailedHookException):
            cookiecutter(
                str(template),
                no_input=True,
                default_config=True,
                extra_context={question: answer},
                output_dir=str(output),
            )
        assert list(tmp_path.iterdir()) == [output]
        assert not list(output.iterdir())
        return capfd.readouterr().err

    return render


@pytest.mark.parametrize(("question", "answer", "sentence"), REFUSED)
def test_an_invalid_answer_is_refused_with_one_sentence(
    refuse: Refuse, question: str, answer: str, sentence: str
) -> None:
    assert refuse(question, answer) == f"{question} {sentence}\n"


@pytest.mark.parametrize("database", CHOICES["database"])
def test_no_slug_can_be_the_name_of_a_dependency(bake: Bake, refuse: Refuse, database: str) -> None:
    pyproject = tomllib.loads(bake(database=database).text("pyproject.toml"))
    requirements = [
        *pyproject["project"]["dependencies"],
        *(one for group in pyproject["dependency-groups"].values() for one in group),
    ]

    assert requirements
    for requirement in requirements:
        name = re.split(r"[^\w-]", requirement)[0].lower()
        assert refuse("project_slug", name) == f"project_slug {name!r} {conflicts(name)}\n"


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("project_name=", f"project_name '' {EMPTY}\n"),
        ("project_name=Test", f"project_slug 'test' {conflicts('test')}\n"),
        ("project_name=\U0001f680", f"project_slug '' {NOT_A_SLUG}\n"),
        ("project_slug=a/b", f"project_slug 'a/b' {NOT_A_SLUG}\n"),
        ("project_slug=../up", f"project_slug '../up' {NOT_A_SLUG}\n"),
        ("author_email=me", f"author_email 'me' {NOT_AN_EMAIL}\n"),
    ],
)
def test_the_command_line_prints_the_error_and_fails(
    command_line: CommandLine, tmp_path: Path, argument: str, sentence: str
) -> None:
    output = tmp_path / "output"
    output.mkdir()

    done = command_line(output, "--no-input", argument)

    assert done.returncode == 1
    assert done.stderr == sentence
    assert list(tmp_path.iterdir()) == [output]
    assert not list(output.iterdir())


@pytest.mark.parametrize("argument", ["database=mysql", "auth=ldap", "license=WTFPL"])
def test_cookiecutter_refuses_an_unknown_choice(
    command_line: CommandLine, tmp_path: Path, argument: str
) -> None:
    done = command_line(tmp_path, "--no-input", argument)

    assert done.returncode == 1
    assert "but the choices are [" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


OTHER_VERSION = (
    "belongs to another version of the template: keep your answers in a --config-file "
    "instead of a replay file, or check out that version."
)
EDITED = (
    "does not follow from the other answers: "
    "keep your answers in a --config-file instead of editing a replay file."
)


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        *(
            ({question: "other"}, f"'other' is not a choice: use one of {', '.join(choices)}.")
            for question, choices in CHOICES.items()
        ),
        ({"description": None}, "None is missing or not text: enter one line of text."),
        ({"project_name": "Orders"}, f"__toml_name 'Billing' {EDITED}"),
        ({"project_slug": "orders"}, f"project_slug 'orders' {EDITED}"),
        ({"database": "sqlite"}, f"__kubernetes 'postgresql' {EDITED}"),
        ({"deploy": "docker"}, f"__kubernetes 'postgresql' {EDITED}"),
        ({"__container": "none"}, f"__container 'none' {EDITED}"),
        ({"_template_version": "0.0.1"}, f"_template_version '0.0.1' {OTHER_VERSION}"),
        ({"_exclude_newer": "2026-01-01"}, f"_exclude_newer '2026-01-01' {OTHER_VERSION}"),
    ],
    ids=str,
)
def test_an_edited_or_outdated_replay_is_refused(
    bake: Bake,
    command_line: CommandLine,
    tmp_path: Path,
    edits: dict[str, object],
    sentence: str,
) -> None:
    rendered = bake(project_name="Billing", database="postgresql", deploy="kubernetes")
    replay = tmp_path / "replay.json"
    answers = {**rendered.answers, **edits}
    replay.write_text(json.dumps({"cookiecutter": answers}), encoding="utf-8")

    done = command_line(tmp_path, "--replay-file", str(replay))

    if not sentence.startswith(("_", "project_slug")):
        sentence = f"{next(iter(edits))} {sentence}"
    assert done.returncode == 1
    assert done.stderr == f"{sentence}\n"
    assert list(tmp_path.iterdir()) == [replay]


@pytest.mark.parametrize("line", ["project_name:", "project_name: yes"])
def test_a_value_that_is_not_a_string_in_a_config_file_is_refused(
    command_line: CommandLine, tmp_path: Path, line: str
) -> None:
    (tmp_path / "team.yaml").write_text(f"default_context:\n  {line}\n", encoding="utf-8")
    output = tmp_path / "output"
    output.mkdir()

    done = command_line(output, "--config-file", "../team.yaml", "--no-input")

    assert done.returncode == 1
    assert re.fullmatch(r"project_name (None|True) is missing or not text: .*\n", done.stderr)
    assert not list(output.iterdir())


def test_an_existing_folder_is_not_changed(
    bake: Bake, command_line: CommandLine, tmp_path: Path
) -> None:
    shutil.copytree(bake().path, tmp_path / "my-service")
    (tmp_path / "my-service" / "README.md").write_text("mine\n", encoding="utf-8")
    before = contents(tmp_path)

    done = command_line(tmp_path, "--no-input", "database=postgresql")

    assert done.returncode == 1
    assert done.stdout == 'Error: "my-service" directory already exists\n'
    assert contents(tmp_path) == before


def test_a_refused_answer_does_not_delete_an_existing_folder(
    command_line: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "my-service").mkdir()
    (tmp_path / "my-service" / "mine").touch()

    done = command_line(tmp_path, "--no-input", "--overwrite-if-exists", "author_email=me")

    assert done.returncode == 1
    assert [file.name for file in (tmp_path / "my-service").iterdir()] == ["mine"]


@pytest.mark.parametrize("text", AWKWARD)
def test_special_characters_are_rendered_as_typed(bake: Bake, text: str) -> None:
    shows(bake(project_name=text, project_slug="orders", description=text, author_name=text), text)


@pytest.mark.parametrize("text", TYPED)
def test_jinja_in_an_answer_is_not_evaluated(
    command_line: CommandLine, tmp_path: Path, text: str
) -> None:
    answers = [text, "orders", text, text, "", *("" for _ in CHOICES)]

    done = command_line(tmp_path, typed="\n".join(answers) + "\n")

    assert done.returncode == 0, done.stdout + done.stderr
    shows(Project(tmp_path / "orders", {}), text)


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My Service", "my-service"),
        ("Lucía's API 2.0", "lucia-s-api-2-0"),
        ("under_score", "under-score"),
        ("x" * 30 + " " + "y" * 30, "x" * 30),
    ],
)
def test_the_slug_is_derived_from_the_name(bake: Bake, name: str, slug: str) -> None:
    assert bake(project_name=name).path.name == slug


@pytest.mark.parametrize("slug", ["a", "a1", "my_service-2", "x" * 50])
def test_a_valid_slug_is_not_changed(bake: Bake, slug: str) -> None:
    project = bake(project_slug=slug)

    assert project.path.name == slug
    assert tomllib.loads(project.text("pyproject.toml"))["project"]["name"] == slug


def test_answers_can_come_from_a_config_file(
    command_line: CommandLine, tmp_path: Path, template: Path
) -> None:
    page = (ROOT / "docs" / "teams.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^# team.yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "team.yaml").write_text(
        f"{shown}replay_dir: {json.dumps(str(tmp_path / 'replay'))}\n", encoding="utf-8"
    )

    given = ("--config-file", "team.yaml", "--no-input", "project_name=Billing")
    done = command_line(tmp_path, *given)

    assert done.returncode == 0, done.stdout + done.stderr
    project = Project(tmp_path / "billing", {})
    pyproject = tomllib.loads(project.text("pyproject.toml"))
    team = {"name": "Platform Team", "email": "platform@example.com"}
    assert pyproject["project"]["authors"] == [team]
    assert "asyncpg" in project.text("pyproject.toml")

    again = tmp_path / "again"
    again.mkdir()
    replay = str(tmp_path / "replay" / f"{template.name}.json")
    done = command_line(again, "--replay-file", replay)
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(again / "billing") == contents(project.path)
