"""Build, start, migrate and update a service with a real Docker and a real Kubernetes cluster.

The tests take minutes and download images: `uv run pytest -m docker` runs them, as a job of CI
does.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
import yaml

from testing.baking import CHOICES, Project, clean_environment, free_port, succeeded
from testing.requirements import require
from testing.usage import let_in
from tests.conftest import Bake
from tests.test_deploy import PASSWORDS, release_commands

pytestmark = [pytest.mark.slow, pytest.mark.docker]

NAME = "my-service"
OUTSIDE = "outside"
"""The namespace of the database and of the clients."""

PODS = "10.244.0.0/16"
"""The addresses that kind gives to pods."""

DATABASE = """
apiVersion: v1
kind: Pod
metadata: {name: database, labels: {app: database}}
spec:
  containers:
    - name: database
      image: IMAGE
      env: [{name: POSTGRES_PASSWORD, value: test}]
      ports: [{containerPort: 5432}]
      readinessProbe:
        exec: {command: [pg_isready, --quiet, --host=127.0.0.1, --username=postgres]}
        periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata: {name: database}
spec:
  selector: {app: database}
  ports: [{port: 5432}]
"""

CLIENT = f"""
import json, sys, urllib.request
answers = 0
while True:
    request = urllib.request.Request(
        "http://{NAME}.{NAME}/v1/tasks",
        json.dumps({{"title": "x"}}).encode() if answers % 2 else None,
        {{"Content-Type": "application/json"}},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            response.read()
    except OSError as error:
        print("failed", repr(error), flush=True)
    answers += 1
    if answers % 50 == 0:
        print("answers", answers, flush=True)
"""
"""Writes and reads in turn, and prints failures."""


def run(*command: str, folder: Path, given: str | None = None, **environment: str) -> str:
    """Run a command to its end and return its output."""
    return succeeded(
        subprocess.run(
            command,
            cwd=folder,
            env=clean_environment(**environment),
            input=given,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    )


@pytest.fixture
def copy(bake: Bake, tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    """Return a copy of a render with its lock file, as in a repository."""
    require("docker")
    rendered = bake(**request.param)
    project = Project(shutil.copytree(rendered.path, tmp_path / NAME), rendered.answers)
    succeeded(project.run("uv", "lock"))
    return project


with_users = pytest.mark.parametrize(
    "copy",
    [
        {"database": database, "auth": "users", "deploy": "docker"}
        for database in CHOICES["database"]
    ],
    ids=CHOICES["database"],
    indirect=True,
)


@with_users
def test_compose_builds_migrates_and_serves(copy: Project) -> None:
    environment = {"PORT": str(free_port())}
    just = ("uv", "run", "just")
    try:
        succeeded(copy.run(*just, "up", **environment))
        with httpx2.Client(base_url=f"http://127.0.0.1:{environment['PORT']}") as client:
            assert client.get("/health/ready").status_code == 200
            let_in(client, copy.answers)
            created = client.post("/v1/tasks", json={"title": "x"})
            assert created.status_code == 201, created.text
            assert client.get(created.headers["Location"]).json()["title"] == "x"
    finally:
        succeeded(copy.run(*just, "down", "--volumes", **environment))


@with_users
def test_a_failed_migration_keeps_the_previous_release(copy: Project) -> None:
    port = str(free_port())
    told = dict.fromkeys(("SECRET_KEY", *PASSWORDS), uuid4().hex + uuid4().hex)
    told |= {"PORT": port, "REGISTRATION_OPEN": "true"}
    (copy.path / ".env").write_text("".join(f"{name}={value}\n" for name, value in told.items()))
    (backups := copy.path / "backups").mkdir()
    backups.chmod(0o777)  # as root, the folder would be given to user 10001
    just = ("uv", "run", "just")
    compose = ("docker", "compose")

    def serving() -> str:
        form = "{{.Config.Image}}"
        (container,) = succeeded(copy.run(*compose, "ps", "--quiet", "app")).split()
        return succeeded(copy.run("docker", "inspect", "--format", form, container)).strip()

    try:
        succeeded(copy.run(*just, "deploy", "1.0.0"))
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
            let_in(client, copy.answers)
            assert client.post("/v1/tasks", json={"title": "x"}).status_code == 201
            env = copy.path / "migrations" / "env.py"
            written = env.read_text(encoding="utf-8")
            env.write_text(f"raise SystemExit('broken')\n{written}", encoding="utf-8")
            assert copy.run(*just, "deploy", "1.1.0").returncode
            assert serving() == f"{NAME}:1.0.0"
            assert len(client.get("/v1/tasks").json()["items"]) == 1
            env.write_text(written, encoding="utf-8")
            succeeded(copy.run(*just, "deploy", "1.2.0"))
            assert serving() == f"{NAME}:1.2.0"
            succeeded(copy.run(*just, "rollback", "1.0.0"))
            assert serving() == f"{NAME}:1.0.0"
            assert len(client.get("/v1/tasks").json()["items"]) == 1
        succeeded(copy.run(*compose, "run", "--rm", "backup"))
        assert len(list(backups.iterdir())) == 1
    finally:
        succeeded(copy.run(*compose, "--profile", "*", "down", "--volumes"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the environment in which kubectl uses a new cluster of this test."""
    kind, name = require("kind"), f"template-{uuid4().hex[:8]}"
    require("kubectl")
    environment = {"KUBECONFIG": str(tmp_path / "kubeconfig"), "KIND": kind, "CLUSTER": name}
    run(kind, "create", "cluster", "--name", name, "--wait", "180s", folder=tmp_path, **environment)
    try:
        yield environment
    finally:
        run(kind, "delete", "cluster", "--name", name, folder=tmp_path, **environment)


def release(project: Project, version: str, cluster: dict[str, str]) -> None:
    """Build an image and release it by the commands of the project's README."""
    image = f"{NAME}:{version}"
    run(
        *("docker", "build", "--quiet", "--build-arg", f"VERSION={version}", "--tag", image, "."),
        folder=project.path,
    )
    run(
        *(cluster["KIND"], "load", "docker-image", image, "--name", cluster["CLUSTER"]),
        folder=project.path,
        **cluster,
    )
    file = project.path / "deploy" / "kubernetes" / "production" / "kustomization.yaml"
    text, count = re.subn(r"newTag: \S+", f"newTag: {version}", file.read_text(encoding="utf-8"))
    assert count == 1
    for example, peer in (("ingress-nginx", OUTSIDE), ("192.0.2.1/32", PODS)):
        assert example in text or peer in text
        text = text.replace(example, peer)
    file.write_text(text, encoding="utf-8")
    deployment = project.path / "deploy" / "kubernetes" / "base" / "deployment.yaml"
    text = deployment.read_text(encoding="utf-8")
    deployment.write_text(text.replace('cpu: "1"', "cpu: 100m"), encoding="utf-8")  # one small node
    run("bash", "-euc", release_commands(project), folder=project.path, **cluster)


@pytest.mark.parametrize(
    "copy",
    [{"database": "postgresql", "auth": "none", "deploy": "kubernetes"}],
    ids=["postgresql"],
    indirect=True,
)
def test_kubernetes_migrates_serves_and_rolls_without_a_failed_request(
    copy: Project, cluster: dict[str, str], tmp_path: Path
) -> None:
    def kubectl(*arguments: str, given: str | None = None) -> str:
        return run("kubectl", *arguments, folder=copy.path, given=given, **cluster)

    outside = ("--namespace", OUTSIDE)
    image = yaml.safe_load(copy.text("compose.yaml"))["services"]["database"]["image"]
    for namespace in (NAME, OUTSIDE):
        kubectl("create", "namespace", namespace)
    kubectl(*outside, "apply", "--filename", "-", given=DATABASE.replace("IMAGE", image))
    kubectl(*outside, "wait", "--for=condition=ready", "--timeout=5m", "pod/database")
    (url := tmp_path / "url").write_text(
        f"postgresql://postgres:test@database.{OUTSIDE}:5432/postgres"
    )
    for secret in (NAME, f"{NAME}-migrate"):
        create = ("create", "secret", "generic", secret, f"--from-file=DATABASE_URL={url}")
        kubectl("--namespace", NAME, *create)

    release(copy, "0.1.0", cluster)
    kubectl(
        *(*outside, "run", "client", f"--image={NAME}:0.1.0", "--restart=Never"),
        *("--command", "--", "python", "-c", CLIENT),
    )
    kubectl(*outside, "wait", "--for=condition=ready", "--timeout=1m", "pod/client")
    release(copy, "0.2.0", cluster)
    pods = kubectl("--namespace", NAME, "get", "pods", "--output", "yaml")
    log = kubectl(*outside, "logs", "client")

    serving = {
        container["image"]
        for pod in yaml.safe_load(pods)["items"]
        if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        for container in pod["spec"]["containers"]
    }
    assert serving == {f"{NAME}:0.2.0"}
    assert "answers" in log
    assert "failed" not in log
