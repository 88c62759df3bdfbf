"""The files in .github, here and in a render, checked by their own tools."""

from pathlib import Path

import pytest
import yaml

from testing.baking import CHOICES, ROOT, tool
from tests.conftest import Bake

OWN = ROOT / ".github"

SCHEMAS = {
    "ISSUE_TEMPLATE/config.yml": "vendor.github-issue-config",
    "ISSUE_TEMPLATE/bug.yml": "vendor.github-issue-forms",
    "ISSUE_TEMPLATE/feature.yml": "vendor.github-issue-forms",
    "dependabot.yml": "vendor.dependabot",
}


def ecosystems(folder: Path) -> list[str]:
    """Return the ecosystems that Dependabot updates."""
    document = yaml.safe_load((folder / "dependabot.yml").read_text(encoding="utf-8"))
    return [update["package-ecosystem"] for update in document["updates"]]


def check_valid(file: Path, schema: str) -> None:
    tool("check-jsonschema", "--builtin-schema", schema, str(file))


def check_secure(folder: Path) -> None:
    tool("zizmor", "--offline", "--persona", "pedantic", "--quiet", str(folder))


def test_every_file_of_the_template_is_valid_and_secure() -> None:
    workflows = {f"workflows/{file.name}" for file in (OWN / "workflows").iterdir()}
    schemas = SCHEMAS | dict.fromkeys(workflows, "vendor.github-workflows")
    files = {file.relative_to(OWN).as_posix() for file in OWN.rglob("*.yml")}
    assert files == set(schemas)
    for file, schema in schemas.items():
        check_valid(OWN / file, schema)
    check_secure(OWN)
    assert ecosystems(OWN) == ["github-actions"]


@pytest.mark.parametrize("deploy", CHOICES["deploy"])
def test_dependabot_of_a_render_covers_every_ecosystem(bake: Bake, deploy: str) -> None:
    folder = bake(ci="github", deploy=deploy).path / ".github"
    check_valid(folder / "dependabot.yml", SCHEMAS["dependabot.yml"])
    check_secure(folder)
    images = [] if deploy == "none" else ["docker", "docker-compose"]
    assert ecosystems(folder) == ["github-actions", "uv", *images]
