"""The OpenAPI document of a render, as linters and generators of clients read it."""

import json
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.baking import ROOT, Project, installed, succeeded
from testing.node import node_packages, run_node
from testing.serving import migrated
from testing.usage import served
from tests.conftest import Bake

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("contract")]

FLOWS = ROOT / "tests" / "clients"

WRITE_DOCUMENT = """
import json, sys
from app.main import create_app
json.dump(create_app().openapi(), sys.stdout)
"""

ENVIRONMENT = {"ENVIRONMENT": "local"}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the programs for Node.js."""
    return node_packages(tmp_path_factory.getbasetemp())


def write_document(service: Project, folder: Path) -> Path:
    """Write the OpenAPI document of a render to a file."""
    command = ("uv", "run", "--no-sync", "python", "-c", WRITE_DOCUMENT)
    printed = succeeded(service.run(*command, DATABASE_URL="sqlite:///x.db", **ENVIRONMENT))
    document = folder / "openapi.json"
    document.write_text(printed, encoding="utf-8")
    return document


@pytest.mark.parametrize("auth", ["users", pytest.param("none", marks=pytest.mark.nightly)])
def test_linters_find_nothing(bake: Bake, programs: Path, tmp_path: Path, auth: str) -> None:
    with installed(bake(database="sqlite", auth=auth)) as service:
        document = write_document(service, tmp_path)
    arguments = ["lint", "--extends", "recommended", "--format", "json", str(document)]
    printed = run_node(programs / "redocly", *arguments, folder=tmp_path)
    found = json.loads(printed[printed.index('{\n  "totals"') : printed.rindex("}") + 1])
    assert found["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}, found["problems"]

    (tmp_path / "spectral.yaml").write_text('extends: ["spectral:oas"]\n', encoding="utf-8")
    arguments = ["lint", "--ruleset", "spectral.yaml", "--fail-severity", "hint", str(document)]
    printed = run_node(programs / "spectral", *arguments, folder=tmp_path)
    assert "No results" in printed


@pytest.fixture(scope="module")
def service(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Return the document and the URL of a running service."""
    folder = tmp_path_factory.mktemp("document")
    with installed(bake(database="sqlite", auth="users")) as project:
        document = write_document(project, folder)
        url = f"sqlite:///{folder / 'app.db'}"
        migrated(project, url)
        command = ("env", f"DATABASE_URL={url}", "ENVIRONMENT=local", "SHUTDOWN_DELAY=0")
        with served(
            project, signal.SIGTERM, *command, "uv", "run", "--no-sync", "python", "-m", "app"
        ) as client:
            assert client.get("/health/ready").status_code == 200
            yield document, str(client.base_url)


def test_the_python_client(service: tuple[Path, str], bake: Bake, tmp_path: Path) -> None:
    document, url = service
    project = bake(database="sqlite", auth="users")
    (tmp_path / "config.yaml").write_text(
        "package_name_override: service_client\npost_hooks: []\n", encoding="utf-8"
    )
    day = re.findall(r'exclude-newer = "(\S+)"', project.text("pyproject.toml"))[0]
    tool = ("uv", "tool", "run", "--exclude-newer", day)

    printed = succeeded(
        project.run(
            *(*tool, "openapi-python-client", "generate", "--fail-on-warning", "--meta", "none"),
            *("--path", str(document), "--config", str(tmp_path / "config.yaml")),
            *("--output-path", str(tmp_path / "service_client")),
        )
    )
    assert "warning" not in printed.lower()

    (tmp_path / "service_client" / "py.typed").touch()
    flow = shutil.copy(FLOWS / "flow.py", tmp_path)
    packages = ("--with", "attrs", "--with", "httpx")
    environment = {"MYPYPATH": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    succeeded(
        project.run(
            *tool, *packages, "mypy", "--config-file=", "--strict", str(flow), **environment
        )
    )
    command = ("uv", "run", "--no-project", "--exclude-newer", day, *packages, "python")
    succeeded(project.run(*command, str(flow), url, **environment))


GENERATED = {
    "fetch": ("openapi-typescript", "openapi.json", "--output", "schema.ts"),
    "sdk": ("openapi-ts", "--input", "openapi.json", "--output", "sdk", "--silent"),
}
STRICT = {
    "strict": True,
    "noUncheckedIndexedAccess": True,
    "skipLibCheck": True,  # of packages; the generated code has no declaration files
    "target": "es2023",
    "module": "nodenext",
    "lib": ["es2023", "dom", "dom.iterable"],
    "types": ["node"],
}


@pytest.mark.parametrize("flow", ["fetch", pytest.param("sdk", marks=pytest.mark.nightly)])
def test_typescript_clients(
    service: tuple[Path, str], programs: Path, tmp_path: Path, flow: str
) -> None:
    document, url = service
    (tmp_path / "node_modules").symlink_to(programs.parent)
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    shutil.copy(document, tmp_path)
    shutil.copy(FLOWS / f"{flow}.ts", tmp_path)
    settings = {"compilerOptions": STRICT, "files": [f"{flow}.ts"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    generator, *arguments = GENERATED[flow]

    run_node(programs / generator, *arguments, folder=tmp_path)
    run_node(programs / "tsc", folder=tmp_path)
    run_node(Path("node"), f"{flow}.js", url, folder=tmp_path)
