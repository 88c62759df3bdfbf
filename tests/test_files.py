"""The exact files of a render, for each answer."""

import itertools
from collections.abc import Mapping

from testing.baking import CHOICES, DEFAULTS, TREE
from tests.conftest import Bake
from tests.test_render import each_answer

COMMON = """
    .env.example
    .gitignore
    AGENTS.md
    README.md
    SECURITY.md
    app/__init__.py
    app/__main__.py
    app/api.py
    app/kit/__init__.py
    app/kit/app.py
    app/kit/caller.py
    app/kit/db/__init__.py
    app/kit/db/autogenerate.py
    app/kit/db/engine.py
    app/kit/db/loading.py
    app/kit/db/metrics.py
    app/kit/db/models.py
    app/kit/db/repository.py
    app/kit/db/session.py
    app/kit/db/slow.py
    app/kit/db/tracing.py
    app/kit/config.py
    app/kit/docs.py
    app/kit/errors.py
    app/kit/etag.py
    app/kit/headers.py
    app/kit/health.py
    app/kit/idempotency/__init__.py
    app/kit/idempotency/models.py
    app/kit/idempotency/repository.py
    app/kit/idempotency/session.py
    app/main.py
    app/settings.py
    app/kit/logs.py
    app/kit/metrics.py
    app/kit/openapi.py
    app/kit/pagination.py
    app/kit/project.py
    app/kit/routing.py
    app/kit/schemas.py
    app/kit/security_log.py
    app/kit/server.py
    app/tasks/__init__.py
    app/tasks/models.py
    app/tasks/repository.py
    app/tasks/router.py
    app/tasks/schemas.py
    docs/api.md
    docs/database.md
    docs/deployment.md
    docs/development.md
    docs/migrations.md
    docs/operations.md
    docs/recipes.md
    docs/security.md
    docs/settings.md
    justfile
    migrations/env.py
    migrations/script.py.mako
    migrations/versions/2026_11_20_0000_9a3c51e8f0b7_idempotency_keys.py
    migrations/versions/2026_11_20_0001_4d1f0c7e2a95_tasks.py
    pyproject.toml
    schemathesis.toml
    scripts/__init__.py
    scripts/console.py
    scripts/copy_database.py
    scripts/routes.py
    scripts/scaffold/__init__.py
    scripts/scaffold/__main__.py
    scripts/scaffold/building.py
    scripts/scaffold/changes.py
    scripts/scaffold/errors.py
    scripts/scaffold/features.py
    scripts/scaffold/fields.py
    scripts/scaffold/mounting.py
    scripts/scaffold/names.py
    scripts/scaffold/renaming.py
    scripts/scaffold/revision.py
    scripts/scaffold/samples.py
    scripts/scaffold/tables.py
    scripts/scaffold/writing.py
    scripts/seed.py
    scripts/update.py
    tests/__init__.py
    tests/conftest.py
    tests/examples.py
    tests/kit/__init__.py
    tests/kit/conftest.py
    tests/kit/fuzzing.py
    tests/kit/openapi.py
    tests/kit/serving.py
    tests/kit/test_alembic.py
    tests/kit/test_autogenerate.py
    tests/kit/test_bad_input.py
    tests/kit/test_copy_database.py
    tests/kit/test_cost.py
    tests/kit/test_docs.py
    tests/kit/test_document.py
    tests/kit/test_engine.py
    tests/kit/test_errors.py
    tests/kit/test_etag.py
    tests/kit/test_failure_modes.py
    tests/kit/test_fuzz.py
    tests/kit/test_headers.py
    tests/kit/test_health.py
    tests/kit/test_idempotency.py
    tests/kit/test_layout.py
    tests/kit/test_limits.py
    tests/kit/test_logs.py
    tests/kit/test_main.py
    tests/kit/test_metrics.py
    tests/kit/test_migrations.py
    tests/kit/test_models.py
    tests/kit/test_repository.py
    tests/kit/test_routing.py
    tests/kit/test_pagination.py
    tests/kit/test_server.py
    tests/kit/test_routes.py
    tests/kit/test_schemas.py
    tests/kit/test_sessions.py
    tests/kit/test_settings.py
    tests/kit/test_slow_clients.py
    tests/kit/test_slow_statements.py
    tests/kit/test_tracing.py
    tests/kit/test_update.py
    tests/kit/sample_feature.py
    tests/tasks/__init__.py
    tests/tasks/factory.py
    tests/tasks/helpers.py
    tests/tasks/test_batch.py
    tests/tasks/test_comments.py
    tests/tasks/test_concurrency.py
    tests/tasks/test_create.py
    tests/tasks/test_delete.py
    tests/tasks/test_get.py
    tests/tasks/test_headers.py
    tests/tasks/test_list.py
    tests/tasks/test_openapi.py
    tests/tasks/test_operations.py
    tests/tasks/test_public.py
    tests/tasks/test_repository.py
    tests/tasks/test_size.py
    tests/tasks/test_statements.py
    tests/tasks/test_tags.py
    tests/tasks/test_update.py
    tests/test_smoke.py
""".split()

CONTAINER = [".dockerignore", "Dockerfile", "compose.yaml"]

FILES_OF_ANSWERS: dict[str, dict[str, list[str]]] = {
    "database": {
        "sqlite": """
        app/kit/db/driver.py
        scripts/backup.py
        tests/database.py
        tests/kit/test_driver.py
    """.split(),
        "postgresql": """
        .squawk.toml
        app/kit/db/driver.py
        scripts/backup.py
        scripts/embedded_postgres.py
        tests/database.py
        tests/kit/test_driver.py
        tests/kit/test_squawk.py
    """.split(),
    },
    "auth": {
        "users": """
        app/users/__init__.py
        app/users/caller.py
        app/users/common_passwords.txt
        app/users/errors.py
        app/users/hashing.py
        app/users/models.py
        app/users/option.py
        app/users/owner.py
        app/users/passwords.py
        app/users/permissions.py
        app/users/repository.py
        app/users/router.py
        app/users/schemas.py
        app/users/security.py
        app/users/service.py
        app/users/settings.py
        app/users/superuser.py
        app/users/throttle.py
        migrations/versions/2026_11_20_0002_b7c9e02d4f16_users.py
        migrations/versions/2026_11_20_0003_e3d8a5b17c20_task_owners.py
        scripts/developer.py
        tests/caller.py
        tests/tasks/test_owners.py
        tests/users/__init__.py
        tests/users/conftest.py
        tests/users/factory.py
        tests/users/helpers.py
        tests/users/test_access.py
        tests/users/test_admin.py
        tests/users/test_api_keys.py
        tests/users/test_crowd.py
        tests/users/test_idempotency.py
        tests/users/test_login.py
        tests/users/test_me.py
        tests/users/test_others.py
        tests/users/test_openapi.py
        tests/users/test_passwords.py
        tests/users/test_permissions.py
        tests/users/test_refresh.py
        tests/users/test_rotation.py
        tests/users/test_register.py
        tests/users/test_secrets.py
        tests/users/test_security_log.py
        tests/users/test_sessions.py
        tests/users/test_settings.py
        tests/users/test_statements.py
        tests/users/test_superuser.py
        tests/users/test_throttle.py
    """.split(),
        "none": """
        app/users/__init__.py
        app/users/option.py
        app/users/owner.py
        scripts/developer.py
        tests/caller.py
    """.split(),
    },
    "ci": {
        "github": """
        .github/dependabot.yml
        .github/workflows/audit.yml
        .github/workflows/ci.yml
    """.split(),
        "gitlab": [".gitlab-ci.yml"],
        "none": [],
    },
    "deploy": {
        "docker": CONTAINER,
        "kubernetes": [
            *CONTAINER,
            "deploy/kubernetes/base/backups.yaml",
            "deploy/kubernetes/base/kustomization.yaml",
            "deploy/kubernetes/base/network.yaml",
            "deploy/kubernetes/base/service.yaml",
            "deploy/kubernetes/production/ingress.yaml",
            "deploy/kubernetes/production/kustomization.yaml",
        ],
        "none": [],
    },
    "license": {license_: ["LICENSE"] for license_ in CHOICES["license"]},
}
"""The files of each answer to each question."""

FILES_OF_PAIRS: dict[tuple[str, str], list[str]] = {
    ("kubernetes", "postgresql"): """
        deploy/kubernetes/base/autoscaler.yaml
        deploy/kubernetes/base/backup.yaml
        deploy/kubernetes/base/deployment.yaml
        deploy/kubernetes/base/disruption.yaml
        deploy/kubernetes/base/migration.yaml
    """.split(),
    ("kubernetes", "sqlite"): """
        deploy/kubernetes/base/backup.yaml
        deploy/kubernetes/base/statefulset.yaml
    """.split(),
}
"""The files of combinations of two answers."""

FACTS: dict[str, dict[str, list[str]]] = {
    "__container": {"docker": CONTAINER},
    "__kubernetes": {
        database: FILES_OF_PAIRS["kubernetes", database] for database in CHOICES["database"]
    },
}
"""The files of facts that are derived from answers: they are also listed for the answers."""


def expected(answers: Mapping[str, str]) -> set[str]:
    """Return the files that a render of these answers has to hold."""
    added = (FILES_OF_ANSWERS[question][answer] for question, answer in answers.items())
    given = set(answers.values())
    together = (files for pair, files in FILES_OF_PAIRS.items() if given.issuperset(pair))
    return {*COMMON, *itertools.chain(*added, *together)}


@each_answer
def test_a_render_holds_exactly_the_files_of_its_answers(
    bake: Bake, answers: dict[str, str]
) -> None:
    files = bake(**answers).files()
    wanted = expected({**DEFAULTS, **answers})
    assert sorted(files - wanted) == [], "unexpected files"
    assert sorted(wanted - files) == [], "missing files"


def files_in_options() -> dict[str, dict[str, set[str]]]:
    """Return the files of each answer of each question."""
    return {
        question.name: {
            answer.name: {
                file.relative_to(answer).as_posix() for file in answer.rglob("*") if file.is_file()
            }
            for answer in question.iterdir()
        }
        for question in (TREE / ".options").iterdir()
        if question.is_dir() and not question.name.startswith(".")  # created by a tool
    }


def test_every_option_folder_belongs_to_an_answer() -> None:
    assert {question: list(answers) for question, answers in FILES_OF_ANSWERS.items()} == CHOICES
    folders = files_in_options()
    of_facts = {file for files in FACTS.values() for file in itertools.chain(*files.values())}
    wanted = {
        **{
            question: {answer: set(files) - of_facts for answer, files in answers.items()}
            for question, answers in FILES_OF_ANSWERS.items()
        },
        **{fact: {name: set(files) for name, files in of.items()} for fact, of in FACTS.items()},
    }
    assert {
        (question, answer): files
        for question, answers in folders.items()
        for answer, files in answers.items()
        if files
    } == {
        (question, answer): files
        for question, answers in wanted.items()
        for answer, files in answers.items()
        if files
    }


def test_every_fact_with_folders_is_in_every_render(bake: Bake) -> None:
    for deploy in CHOICES["deploy"]:
        answers = bake(deploy=deploy).answers
        assert {fact: answers[fact] for fact in FACTS} == {
            "__container": "none" if deploy == "none" else "docker",
            "__kubernetes": answers["database"] if deploy == "kubernetes" else "none",
        }


def test_no_file_comes_from_two_sources() -> None:
    added = {
        question: set[str]().union(*answers.values())
        for question, answers in files_in_options().items()
    }

    for (one, files), (other, others) in itertools.combinations(added.items(), 2):
        assert not files & others, f"added by {one} and by {other}"
    for question, files in added.items():
        assert not {file for file in files if (TREE / file).exists()}, f"tree and {question}"
