"""A question with settings and routes: the files it needs, and the example in CONTRIBUTING.md."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pytest_cookies.plugin import Cookies

from testing.baking import ROOT, TREE, Project, copy_template, installed, succeeded

LOAD: Final = """
from app.main import create_app
from app.settings import load_settings
print(sorted(create_app().openapi()["paths"]), getattr(load_settings(), "cache_size", None))
"""


def choices(template: Path) -> dict[str, list[str]]:
    """Return the questions with fixed answers."""
    questions = json.loads((template / "cookiecutter.json").read_text(encoding="utf-8"))
    return {
        question: answers
        for question, answers in questions.items()
        if isinstance(answers, list) and not question.startswith("_")
    }


def modules_by_answer(template: Path, question: str) -> dict[str, set[str]]:
    """Return the modules of `app` that each answer to a question adds."""
    folder = template / TREE.name / ".options" / question
    return {
        answer: {
            file.relative_to(folder / answer).as_posix()
            for file in (folder / answer / "app").rglob("*.py")
        }
        for answer in choices(template)[question]
    }


def parse(template: Path, file: str) -> ast.Module:
    """Return the syntax tree of a module that every service has."""
    return ast.parse((template / TREE.name / file).read_text(encoding="utf-8"))


def imports(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Return the modules of `app` that may be imported, as files, with their local names."""
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("app"):
            package = (node.module or "").replace(".", "/")
            for name in node.names:
                yield f"{package}/{name.name}.py", name.asname or name.name
            yield f"{package}.py", ""


def common_modules(template: Path, question: str) -> Iterator[tuple[str, list[ast.Module]]]:
    """Return the modules that every answer to a question adds, with each answer's version."""
    answers = modules_by_answer(template, question)
    folder = template / TREE.name / ".options" / question
    for file in sorted(set.intersection(*answers.values())):
        yield (
            file,
            [ast.parse((folder / answer / file).read_text(encoding="utf-8")) for answer in answers],
        )


def check_modules(template: Path, question: str) -> None:
    """Check that a module that every service imports exists for every answer."""
    answers = modules_by_answer(template, question)
    common = [
        file.relative_to(template / TREE.name).as_posix()
        for file in (template / TREE.name / "app").rglob("*.py")
    ]
    for file in common:
        imported = {module for module, _ in imports(parse(template, file))}
        needed = imported & set[str]().union(*answers.values())
        for answer, modules in answers.items():
            missing = needed - modules
            assert not missing, f"{file} imports {missing}: {question}={answer} does not have it"


def check_settings(template: Path, question: str) -> None:
    """Check that the settings of a question are a base of `Settings` or of the kit's settings."""
    bases = {
        base.id
        for file in ("app/settings.py", "app/kit/config.py")
        for node in parse(template, file).body
        if isinstance(node, ast.ClassDef)
        for base in node.bases
        if isinstance(base, ast.Name)
    }
    for file, modules in common_modules(template, question):
        settings = {
            node.name
            for module in modules
            for node in module.body
            if isinstance(node, ast.ClassDef)
            and any(isinstance(base, ast.Name) and base.id == "BaseSettings" for base in node.bases)
        }
        assert settings <= bases, f"{file}: {settings - bases} must be a base in app/settings.py"


def check_routers(template: Path, question: str) -> None:
    """Check that the routers of a question are mounted."""
    api = parse(template, "app/api.py")
    names = dict(imports(api))
    mounted = {
        (node.value.id, node.attr)
        for node in ast.walk(api)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    for file, modules in common_modules(template, question):
        routers = {
            node.target.id
            for module in modules
            for node in module.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        } & {"CLOSED", "PUBLIC"}
        missing = {each for each in routers if (names.get(file), each) not in mounted}
        assert not missing, f"{file}: {missing} must be mounted in app/api.py"


each_question = pytest.mark.parametrize("question", choices(ROOT))


@each_question
def test_each_answer_has_the_module_that_is_imported(question: str) -> None:
    check_modules(ROOT, question)


@each_question
def test_settings_of_each_question_are_read(question: str) -> None:
    check_settings(ROOT, question)


@each_question
def test_routers_of_each_question_are_mounted(question: str) -> None:
    check_routers(ROOT, question)


def example() -> tuple[dict[str, Any], dict[str, str]]:
    """Return the example of CONTRIBUTING.md: the question, and Python code by its file."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (question,) = re.findall(r"^```json\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    modules = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return json.loads(question), dict(modules)


def write_question(template: Path) -> None:
    question, modules = example()
    file = template / "cookiecutter.json"
    questions = json.loads(file.read_text(encoding="utf-8"))
    prompts = questions.pop("__prompts__") | question.pop("__prompts__")
    file.write_text(json.dumps({**question, **questions, "__prompts__": prompts}), encoding="utf-8")
    for path, code in modules.items():
        target = template / TREE.name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        new = code if path.startswith(".options") else changed(target.read_text("utf-8"), code)
        target.write_text(new, encoding="utf-8")


def changed(text: str, code: str) -> str:
    """Return a module with an import added, and statements replaced that begin alike."""
    imported, rest = code.split("\n", 1)
    for statement in re.findall(r"^\w.*\n(?:[ )].*\n)*", rest, re.MULTILINE):
        start = re.match(r"class \w+|\w+: ", statement)
        assert start, statement
        pattern = rf"^{re.escape(start[0])}.*\n"
        if not start[0].startswith("class"):
            pattern += r"(?:[ )].*\n)*"
        (former,) = re.findall(pattern, text, re.MULTILINE)
        text = text.replace(former, statement)
    return text.replace("\nfrom ", f"\n{imported}\nfrom ", 1)


@pytest.fixture
def extended(tmp_path: Path) -> Path:
    """Return a copy of the template with the example's question."""
    template = copy_template(tmp_path / "template")
    write_question(template)
    return template


def test_the_example_question_has_every_part(extended: Path) -> None:
    for check in (check_modules, check_settings, check_routers):
        check(extended, "cache")


def test_a_forgotten_answer_is_reported(extended: Path) -> None:
    (extended / TREE.name / ".options/cache/none/app/kit/cache.py").unlink()
    with pytest.raises(AssertionError, match="cache=none does not have it"):
        check_modules(extended, "cache")


@pytest.mark.parametrize(
    ("file", "check", "message"),
    [
        ("app/settings.py", check_settings, "must be a base in app/settings.py"),
        ("app/api.py", check_routers, "must be mounted in app/api.py"),
    ],
    ids=["settings", "routers"],
)
def test_a_forgotten_part_is_reported(
    extended: Path, file: str, check: Callable[[Path, str], None], message: str
) -> None:
    (extended / TREE.name / file).write_bytes((TREE / file).read_bytes())
    with pytest.raises(AssertionError, match=message):
        check(extended, "cache")


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "size"), [("none", "None"), ("memory", "1000")])
def test_the_example_question_works(
    cookies: Cookies, extended: Path, answer: str, size: str
) -> None:
    result = cookies.bake(extra_context={"cache": answer, "auth": "none"}, template=str(extended))
    assert result.exception is None, result.exception
    with installed(Project(result.project_path, result.context)) as service:
        succeeded(service.run("uv", "run", "just", "fix"))
        succeeded(service.run("uv", "run", "mypy", "app"))
        shown = succeeded(service.run("uv", "run", "python", "-c", LOAD)).strip()
    assert shown.endswith(f"] {size}")
    assert ("'/v1/cache'" in shown) == (answer == "memory")
