"""Workflows and pipelines, checked by their own tools."""

from pathlib import Path

import pytest
import yaml

from testing.baking import CHOICES, ROOT, tool
from testing.usage import CI, CI_COMMANDS, ci_commands
from tests.conftest import Bake

SCHEMAS = {"github": "vendor.github-workflows", "gitlab": "vendor.gitlab-ci"}


@pytest.mark.parametrize("ci", CI)
def test_every_ci_runs_the_same_commands(bake: Bake, ci: str) -> None:
    assert ci_commands(bake(ci=ci)) == CI_COMMANDS


@pytest.mark.parametrize("ci", CI)
def test_a_pipeline_matches_its_schema(bake: Bake, ci: str) -> None:
    file = str(bake(ci=ci).path / CI[ci])
    tool("check-jsonschema", "--builtin-schema", SCHEMAS[ci], file)


@pytest.mark.parametrize("deploy", CHOICES["deploy"])
def test_a_ci_builds_the_image_if_there_is_one(bake: Bake, deploy: str) -> None:
    jobs = yaml.safe_load(bake(ci="github", deploy=deploy).text(CI["github"]))["jobs"]
    steps = jobs["image"]["steps"] if "image" in jobs else []
    built = [step["run"] for step in steps if "run" in step]
    assert built == ([] if deploy == "none" else ["docker build ."])
    pipeline = yaml.safe_load(bake(ci="gitlab", deploy=deploy).text(CI["gitlab"]))
    assert pipeline.get("container", {}).get("script", []) == built


def workflows(bake: Bake) -> list[Path]:
    own = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    return [bake(ci="github").path / CI["github"], *own]


def test_the_workflow_of_the_template_runs_every_check() -> None:
    file = ROOT / ".github" / "workflows" / "ci.yml"
    tool("check-jsonschema", "--builtin-schema", SCHEMAS["github"], str(file))
    jobs = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]
    runs = {
        name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()
    }
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    commands = [line for line in script if line.startswith("uv run")]
    assert commands == ["uv run just lint", "uv run pytest"]
    assert ".ci/run" in runs["check"][-1]  # on Linux, with every tool
    assert runs["other-systems"][1:] == commands
    assert "pytest -m docker" in runs["docker"][-1]
    assert "uv run just prove" in runs["prove"][-1]


def test_zizmor_finds_nothing_in_workflows(bake: Bake) -> None:
    for file in workflows(bake):
        tool("zizmor", "--offline", "--persona", "pedantic", "--quiet", str(file))
