"""What a user does with a rendered service: check it, serve it, sign in."""

import ast
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Final
from uuid import uuid4

import httpx2
import psutil
import yaml

from testing.baking import Project, clean_environment, free_port, succeeded

PACKAGES: Final = ("app", "app.kit", "app.kit.db", "app.kit.idempotency", "app.users")
"""What holds modules and no names."""

CI: Final = {"github": ".github/workflows/ci.yml", "gitlab": ".gitlab-ci.yml"}

CI_COMMANDS: Final = [
    "uv run just check",
    *(f"uv run just {verb}" for verb in ("migrate", "downgrade base", "migrate")),
]
"""The commands by which every CI checks a project."""


def ci_commands(project: Project) -> list[str]:
    """Return the commands by which the CI of a project checks it, one by one."""
    if project.answers["ci"] == "none":
        return CI_COMMANDS
    if project.answers["ci"] == "github":
        jobs = yaml.safe_load(project.text(CI["github"]))["jobs"]
        lines = [
            line for step in jobs["check"]["steps"] for line in step.get("run", "").splitlines()
        ]
    else:
        lines = yaml.safe_load(project.text(CI["gitlab"]))["check"]["script"]
    return [line for line in lines if not line.startswith("pipx install uv==")]


def just(project: Project, *arguments: str) -> str:
    """Run a verb of a project and return its output."""
    # Temporary files in a folder of its own: a pytest elsewhere must not close it, see `installed`.
    own = {"TMPDIR": str(project.path.parent)}
    return succeeded(project.run("uv", "run", "just", *arguments, **own))


def started_by(marker: str) -> list[psutil.Process]:
    """Return every process that inherited a variable, whatever its parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            if marker in process.environ():
                found.append(process)
        except psutil.Error:
            continue
    return found


@contextmanager
def served(
    service: Project,
    stop: signal.Signals,
    *command: str,
    to_group: bool = True,
    port: int | None = None,
    output: int | IO[bytes] | None = None,
) -> Iterator[httpx2.Client]:
    """Start a server, stop it by a signal, and check that it leaves no process behind.

    Args:
        service: the service.
        stop: the signal.
        command: how it is started.
        to_group: whether all processes get the signal, as from a terminal, or the first one.
        port: where it serves; any free one by default.
        output: a file for what it prints.

    """
    number = str(port or free_port())
    marker = f"RENDER_TEST_{number}"
    with subprocess.Popen(
        command,
        cwd=service.path,
        # During development a shutdown has no delay: each restart would wait for it.
        env=clean_environment(PORT=number, SHUTDOWN_DELAY="60", **{marker: "1"}),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    ) as process:
        try:
            with httpx2.Client(
                base_url=f"http://127.0.0.1:{number}", transport=httpx2.HTTPTransport(retries=7)
            ) as client:
                yield client
        finally:
            family = started_by(marker)
            (os.killpg if to_group else os.kill)(process.pid, stop)
            _, alive = psutil.wait_procs(family, timeout=30)
            for straggler in alive:
                straggler.kill()
            assert not alive


def let_in(client: httpx2.Client, answers: Mapping[str, str]) -> None:
    """Register where users exist, and send the API key from then on."""
    if answers["auth"] == "none":
        return
    assert client.get("/v1/tasks").status_code == 401
    account = {"email": f"{uuid4()}@example.com", "password": "correct horse", "name": "Me"}
    registered = client.post("/v1/users?with_api_key=true", json=account)
    assert registered.status_code == 201, registered.text
    client.headers["X-API-Key"] = registered.json()["api_key"]["key"]


def names_of_the_template(module: ast.Module, feature: str) -> set[str]:
    """Return what a module of a feature uses of the rest of the service.

    Where it imports a module, such as ``from app.kit import pagination``, each attribute counts.
    """
    found, modules = set[str](), dict[str, str]()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if node.module in PACKAGES:
                    modules[alias.asname or alias.name] = name
                else:
                    found.add(name)
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and (used := modules.get(ast.unparse(node.value))):
            found.add(f"{used}.{node.attr}")
    return {
        name for name in found if name.startswith("app.") and not name.startswith(f"app.{feature}.")
    }
