"""The content of a render: no Jinja, no stray lines, reproducible bytes."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import pytest
import yaml
from pytest_cookies.plugin import Cookies

from testing.baking import CHOICES, ROOT, TREE, Project, clean_environment, copy_template, succeeded
from tests.conftest import Bake, CommandLine

# A render may name the template.
LEFTOVER = re.compile(r"\{%|\{#|#%|(?<!\$)\{\{|cookiecutter(?!-fastapi-sqlalchemy)", re.IGNORECASE)
# `{{` is also just's own syntax and that of f-strings, as `${{` is that of workflows.
LEFTOVER_BUT_BRACES = re.compile(r"\{%|\{#|#%|cookiecutter(?!-fastapi-sqlalchemy)", re.IGNORECASE)

ANSWERS = [{question: answer} for question, answers in CHOICES.items() for answer in answers]
each_answer = pytest.mark.parametrize(
    "answers", ANSWERS, ids=[answer for answers in ANSWERS for answer in answers.values()]
)


def parse(project: Project) -> dict[str, object]:
    """Parse every TOML, YAML and JSON file."""
    parsers: dict[str, Callable[[str], object]] = {
        ".json": json.loads,
        ".toml": tomllib.loads,
        ".yaml": lambda text: list(yaml.safe_load_all(text)),
        ".yml": lambda text: list(yaml.safe_load_all(text)),
    }
    return {
        file: parsers[suffix](project.text(file))
        for file in project.files()
        if (suffix := Path(file).suffix) in parsers
    }


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return the bytes and the permissions of every file."""
    return {
        file.relative_to(folder).as_posix(): (file.read_bytes(), file.stat().st_mode)
        for file in folder.rglob("*")
        if file.is_file()
    }


@each_answer
def test_no_jinja_is_left_in_a_render(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers)

    assert not (project.path / ".options").exists()
    for file in project.files():
        pattern = LEFTOVER_BUT_BRACES if file.endswith((".py", "justfile")) else LEFTOVER
        assert not pattern.search(project.text(file)), file


@each_answer
def test_no_unexpected_blank_line_or_space(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers)

    for file in project.files():
        text = project.text(file)
        if text:
            assert not text.startswith("\n"), file
            assert text.endswith("\n"), file
            assert not text.endswith("\n\n"), file
        assert "\r" not in text, file
        assert not re.search(r"[ \t]$", text, re.MULTILINE), file
        if file.endswith(".md"):
            assert not re.search(r"[^\n]\n#{1,4} ", text), f"{file}: a heading without space above"
        # Only definitions of a Python module are separated by two blank lines.
        blank = r"\n{4}" if file.endswith((".py", ".py.mako")) else r"\n{3}"
        assert not re.search(blank, text), file


@each_answer
def test_every_toml_yaml_and_json_parses(bake: Bake, answers: dict[str, str]) -> None:
    assert "pyproject.toml" in parse(bake(**answers))


def test_python_and_mako_are_copied_as_they_are(cookies_session: Cookies, tmp_path: Path) -> None:
    template = copy_template(tmp_path / "clone")
    text = "{{ cookiecutter.project_name }}\n#% if x\n\n\n"
    for name in ("plain.py", "plain.mako"):
        (template / TREE.name / name).write_text(text, encoding="utf-8")

    result = cookies_session.bake(template=str(template))

    for name in ("plain.py", "plain.mako"):
        assert Project(result.project_path, {}).text(name) == text


def test_a_cache_folder_in_the_options_is_ignored(
    cookies_session: Cookies, bake: Bake, tmp_path: Path
) -> None:
    template = copy_template(tmp_path / "clone")
    cache = template / TREE.name / ".options" / ".ruff_cache"
    cache.mkdir()
    (cache / "CACHEDIR.TAG").touch()

    result = cookies_session.bake(template=str(template))

    assert result.exception is None
    assert contents(result.project_path) == contents(bake().path)


def test_the_same_answers_give_the_same_bytes_anywhere(
    bake: Bake, command_line: CommandLine, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()

    for folder, umask, environment in (
        (tmp_path, 0o022, {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}),
        (elsewhere, 0o077, {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"}),
    ):
        done = command_line(folder, "--no-input", "database=postgresql", umask=umask, **environment)
        assert done.returncode == 0, done.stdout + done.stderr

    first = contents(tmp_path / "my-service")
    assert first == contents(elsewhere / "my-service")
    assert first == contents(bake(database="postgresql").path)


def supported_cookiecutters() -> list[str]:
    """Return the oldest and the newest supported version, as README.md states them."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    ((oldest, newest),) = re.findall(r"Cookiecutter (\d+\.\d+) to (\d+\.\d+)", readme)
    return [oldest, newest]


class OtherCookiecutter(Protocol):
    """Run the template with another version of Cookiecutter."""

    def __call__(self, requirement: str, *answers: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def other_cookiecutter(template: Path, tmp_path: Path) -> OtherCookiecutter:
    """Return a function that installs and runs a version, and renders into `tmp_path`."""
    config = tmp_path / "config.yaml"
    config.write_text(f"replay_dir: {json.dumps(str(tmp_path / 'replay'))}\n", encoding="utf-8")
    day = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))["_exclude_newer"]

    def run(requirement: str, *answers: str) -> subprocess.CompletedProcess[str]:
        uvx = ("uv", "tool", "run", "--python", sys.executable, "--exclude-newer", day)
        folders = ("--config-file", str(config), "--output-dir", str(tmp_path / "output"))
        command = (*uvx, "--from", requirement, "cookiecutter", str(template), "--no-input")
        return subprocess.run(
            [*command, *folders, *answers],
            env=clean_environment(),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    return run


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, -1], ids=["oldest", "newest"])
def test_the_oldest_and_newest_cookiecutter_give_the_same_bytes(
    bake: Bake, other_cookiecutter: OtherCookiecutter, tmp_path: Path, index: int
) -> None:
    answers = {
        "project_name": 'Say "hi" to $HOME \\ caf\u00e9',
        "database": "postgresql",
        "deploy": "kubernetes",
    }

    done = other_cookiecutter(
        f"cookiecutter=={supported_cookiecutters()[index]}.*",
        *(f"{name}={answer}" for name, answer in answers.items()),
    )

    succeeded(done)
    project = bake(**answers)
    assert contents(tmp_path / "output" / project.path.name) == contents(project.path)


@pytest.mark.slow
def test_a_cookiecutter_that_is_too_old_is_refused(
    other_cookiecutter: OtherCookiecutter, tmp_path: Path
) -> None:
    done = other_cookiecutter("cookiecutter<2.1")

    assert done.returncode == 1
    assert "This template requires Cookiecutter 2.1 or later" in done.stderr
    assert not list((tmp_path / "output").iterdir())


def test_the_newest_supported_cookiecutter_is_the_installed_one() -> None:
    installed = version("cookiecutter").split(".")
    assert supported_cookiecutters()[1].split(".") == installed[:2]


def test_the_printed_next_steps_are_verbs_of_the_service(
    bake: Bake, command_line: CommandLine, tmp_path: Path
) -> None:
    done = command_line(tmp_path, "--no-input", "project_slug=orders", PYTHONIOENCODING="ascii")

    assert done.stdout.isascii()
    assert "cd orders\n" in done.stdout
    verbs = re.findall(r"uv run just (\w+)", done.stdout)
    assert verbs == ["dev", "test", "check"]
    recipes = re.findall(r"^(\w+)[^:=\n]*:(?!=)", bake().text("justfile"), re.MULTILINE)
    assert set(verbs) <= set(recipes)


def test_the_prompts_are_readable_and_enter_accepts_the_defaults(
    bake: Bake, command_line: CommandLine, tmp_path: Path
) -> None:
    texts = 5
    done = command_line(tmp_path, typed="\n" * (texts + len(CHOICES)))

    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(tmp_path / "my-service") == contents(bake().path)
    assert "Project name" in done.stdout
    assert not re.search(r"project_name|project_slug|author_|Select ", done.stdout)
