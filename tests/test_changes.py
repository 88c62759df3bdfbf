"""Changes of the models, made as docs/migrations.md says, keep the rows and pass the checks.

Slow: a render for each database gets a revision for each change, on tables with rows. The service's
migration tests run after the last one. With `--full`, they run after each, and then every check.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent, indent

import pytest

from testing.baking import CHOICES, Project, installed, succeeded
from testing.usage import just
from tests.conftest import Bake

pytestmark = pytest.mark.slow

DATABASES = CHOICES["database"]

MODELS = "app/tasks/models.py"

ID = "00000000000000000000000000000001"

SEED = """
INSERT INTO tags (id, name) VALUES ('{ID}', 'red');
INSERT INTO tasks (id, title, status, version, created_at, updated_at)
VALUES ('{ID}', 'First', 'todo', 1, '2026-01-01', '2026-01-01');
INSERT INTO comments (id, task_id, author, body, created_at)
VALUES ('{ID}', '{ID}', 'Ada', 'Hello', '2026-01-01')
""".replace("{ID}", ID)

RUN = """
import asyncio, sys
from sqlalchemy import text
from app.kit.db.engine import Database
from app.settings import load_settings

async def main() -> None:
    database = Database(load_settings())
    async with database.transaction() as session:
        for statement in sys.argv[1:]:
            result = await session.execute(text(statement))
            if result.returns_rows:
                print(*(repr(tuple(row)) for row in result), sep="\\n")
    await database.close()

asyncio.run(main())
"""


@dataclass(frozen=True)
class Change:
    """A change of the models, and the edits of its revision that the documentation requires."""

    name: str
    edits: dict[str, str]
    """Replacements in the text of the models."""
    before: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Statements to run first, by database, as the code of an earlier release would."""
    upgrade: dict[str, str] = field(default_factory=dict[str, str])
    """The new body of `upgrade()`, by database; without one, the generated body stays."""
    downgrade: dict[str, str] = field(default_factory=dict[str, str])
    """The same for `downgrade()`."""
    only: str | None = None
    """The only database for which the change is made, or `None` for all."""
    says: str = ""
    """Text that `just migration` prints."""


def to(text: str) -> str:
    return dedent(text).strip()


ORDINARY = Change(
    "ordinary columns",
    {
        "from datetime import datetime\n": "from datetime import date, datetime, time, timedelta\n"
        "from decimal import Decimal\n",
        "from sqlalchemy import Column, ForeignKey, Index, String, Table, Text": to("""
            from sqlalchemy import (
                JSON, BigInteger, CheckConstraint, Column, ForeignKey, Index, Interval,
                LargeBinary, Numeric, String, Table, Text, UniqueConstraint, text,
            )
        """),
        '    DONE = "done"\n': '    DONE = "done"\n    LATE = "late"\n',
        "    due_at: Mapped[datetime | None]\n": indent(
            to("""
                due_at: Mapped[datetime | None]
                weight: Mapped[float | None]
                price: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
                day: Mapped[date | None]
                hour: Mapped[time | None]
                duration: Mapped[timedelta | None] = mapped_column(Interval)
                external_id: Mapped[UUID | None]
                size: Mapped[int | None] = mapped_column(BigInteger)
                picture: Mapped[bytes | None] = mapped_column(LargeBinary)
                extra: Mapped[dict[str, int] | None] = mapped_column(JSON)
                is_urgent: Mapped[bool | None]
                former: Mapped[TaskStatus | None]
                priority: Mapped[int] = mapped_column(server_default=text("3"))
                obsolete: Mapped[int] = mapped_column(server_default=text("4"))
                nickname: Mapped[str | None] = mapped_column(String(50))
                tag_id: Mapped[UUID | None] = mapped_column(ForeignKey("tags.id"))
                parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("tasks.id"))
            """)
            + "\n",
            "    ",
        ),
    },
    says="Detected changed check constraint 'ck_tasks_status'",
)

SPLIT = """
    op.create_table(
        "task_aliases",
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("alias", sa.String(length=50), nullable=False),
        sa.ForeignKeyConstraint(
            ["task_id"],
            ["tasks.id"],
            name=op.f("fk_task_aliases_task_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_task_aliases")),
    )
    op.execute("INSERT INTO task_aliases (task_id, alias) SELECT id, alias FROM tasks")
"""

# The tasks of the example's own tests have these values.
WEIGHT = "    weight: Mapped[float] = mapped_column(default=1.5)\n"
EFFORT = "    effort: Mapped[int] = mapped_column(default=5)\n"

CHANGES = [
    ORDINARY,
    Change(
        "validate",
        {},
        only="postgresql",
        upgrade={
            "postgresql": """
                for constraint in ("ck_tasks_status", "ck_tasks_former", "fk_tasks_tag_id",
                                   "fk_tasks_parent_id"):
                    op.execute(f"ALTER TABLE tasks VALIDATE CONSTRAINT {constraint}")
            """
        },
    ),
    Change(
        "a required column",
        {"    weight: Mapped[float | None]\n": WEIGHT},
        only="sqlite",
        upgrade={
            "sqlite": """
                op.execute("UPDATE tasks SET weight = 1.5")
                with op.batch_alter_table("tasks", schema=None) as batch_op:
                    batch_op.alter_column("weight", existing_type=sa.Double(), nullable=False)
            """
        },
    ),
    Change(
        "another required column",
        {WEIGHT: WEIGHT + EFFORT},
        only="sqlite",
        upgrade={
            "sqlite": """
                with op.batch_alter_table("tasks", schema=None) as batch_op:
                    batch_op.add_column(sa.Column("effort", sa.Integer(), nullable=True))
                op.execute("UPDATE tasks SET effort = length(title)")
                with op.batch_alter_table("tasks", schema=None) as batch_op:
                    batch_op.alter_column("effort", existing_type=sa.Integer(), nullable=False)
            """
        },
    ),
    Change(
        "a column that will be required",
        {
            "    weight: Mapped[float | None]\n": "    weight: Mapped[float | None]\n"
            "    effort: Mapped[int | None]\n",
            '        Index(None, "created_at", "id"),\n        Index(None, "due_at"': (
                '        CheckConstraint("effort IS NOT NULL", name="effort_is_set"),\n'
                '        CheckConstraint("weight IS NOT NULL", name="weight_is_set"),\n'
                '        Index(None, "created_at", "id"),\n        Index(None, "due_at"'
            ),
        },
        only="postgresql",
    ),
    Change(
        "validate it",
        {},
        only="postgresql",
        before={"postgresql": ["UPDATE tasks SET weight = 1.5, effort = length(title)"]},
        upgrade={
            "postgresql": """
                op.execute("ALTER TABLE tasks VALIDATE CONSTRAINT ck_tasks_weight_is_set")
                op.execute("ALTER TABLE tasks VALIDATE CONSTRAINT ck_tasks_effort_is_set")
            """
        },
    ),
    Change(
        "a column that is required",
        {
            "    weight: Mapped[float | None]\n": WEIGHT,
            "    effort: Mapped[int | None]\n": EFFORT,
            '        CheckConstraint("effort IS NOT NULL", name="effort_is_set"),\n': "",
            '        CheckConstraint("weight IS NOT NULL", name="weight_is_set"),\n': "",
        },
        only="postgresql",
        upgrade={
            "postgresql": """
                for column in ("weight", "effort"):
                    op.execute(
                        "-- squawk-ignore adding-not-nullable-field\\n"
                        f"ALTER TABLE tasks ALTER COLUMN {column} SET NOT NULL"
                    )
                    op.execute(
                        "-- squawk-ignore ban-drop-constraint\\n"
                        f"ALTER TABLE tasks DROP CONSTRAINT ck_tasks_{column}_is_set"
                    )
            """
        },
    ),
    Change(
        "a unique constraint",
        {
            "    external_id: Mapped[UUID | None]\n": "    external_id: Mapped[UUID | None] = "
            "mapped_column(unique=True)\n"
        },
        upgrade={
            "postgresql": """
                with op.get_context().autocommit_block():
                    op.create_index(
                        "uq_tasks_external_id",
                        "tasks",
                        ["external_id"],
                        unique=True,
                        if_not_exists=True,
                        postgresql_concurrently=True,
                    )
                op.execute(
                    "ALTER TABLE tasks ADD CONSTRAINT uq_tasks_external_id UNIQUE USING INDEX "
                    "uq_tasks_external_id"
                )
            """
        },
    ),
    Change(
        "an index",
        {'Index(None, "due_at", "id"),': 'Index(None, "due_at", "id"), Index(None, "weight"),'},
        upgrade={
            "postgresql": """
                with op.get_context().autocommit_block():
                    op.create_index(
                        "ix_tasks_weight",
                        "tasks",
                        ["weight"],
                        if_not_exists=True,
                        postgresql_concurrently=True,
                    )
            """
        },
    ),
    Change(
        "a renamed column",
        {"    nickname: Mapped": "    alias: Mapped"},
        before={key: ["UPDATE tasks SET nickname = 'One'"] for key in DATABASES},
        upgrade={
            "sqlite": """
                with op.batch_alter_table("tasks", schema=None) as batch_op:
                    batch_op.alter_column("nickname", new_column_name="alias")
            """,
            "postgresql": """
                op.execute(
                    "-- squawk-ignore renaming-column\\n"
                    "ALTER TABLE tasks RENAME COLUMN nickname TO alias"
                )
            """,
        },
        downgrade={
            "sqlite": """
                with op.batch_alter_table("tasks", schema=None) as batch_op:
                    batch_op.alter_column("alias", new_column_name="nickname")
            """,
            "postgresql": 'op.alter_column("tasks", "alias", new_column_name="nickname")',
        },
        says="tasks.nickname is dropped with its values",
    ),
    Change(
        "a dropped column",
        {'    obsolete: Mapped[int] = mapped_column(server_default=text("4"))\n': ""},
        upgrade={
            "postgresql": """
                op.execute(
                    "-- squawk-ignore ban-drop-column\\nALTER TABLE tasks DROP COLUMN obsolete"
                )
            """
        },
        says="tasks.obsolete is dropped with its values",
    ),
    Change(
        "an index on an expression",
        {
            'Index(None, "due_at", "id"),': 'Index(None, "due_at", "id"), '
            'Index("ix_tasks_due_or_day", text("coalesce(due_at, day)")),'
        },
        only="sqlite",
    ),
    Change(
        "a split table",
        {
            "class Comment(": to('''
                class TaskAlias(Base):
                    """The alias of a task."""

                    __tablename__ = "task_aliases"

                    task_id: Mapped[UUID] = mapped_column(
                        ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True
                    )
                    alias: Mapped[str] = mapped_column(String(50))


                class Comment(
            ''')
        },
        upgrade=dict.fromkeys(DATABASES, SPLIT),
    ),
]

ROWS = {
    "SELECT title, status, priority, weight, effort, alias FROM tasks": (
        "('First', 'todo', 3, 1.5, 5, 'One')"
    ),
    "SELECT alias FROM task_aliases": "('One',)",
    "SELECT author, body FROM comments": "('Ada', 'Hello')",
    "SELECT name FROM tags": "('red',)",
    # The database accepts the new enum member.
    "INSERT INTO tasks (id, title, status, version, created_at, updated_at, weight, effort) VALUES "
    "('00000000000000000000000000000002', 'Late', 'late', 1, '2026-01-01', '2026-01-01', 1, 1) "
    "RETURNING status": "('late',)",
}


class Changed:
    """A render with rows, whose models change."""

    def __init__(self, project: Project) -> None:
        """Migrate the render and write rows."""
        self.project = project
        self.database = project.answers["database"]
        self.tests = [
            path.relative_to(project.path).as_posix()
            for path in sorted(project.path.glob("tests/kit/test_*.py"))
            if path.name in {"test_migrations.py", "test_squawk.py"}
        ]
        just(project, "migrate")
        self.run(*SEED.split(";"))

    def run(self, *statements: str) -> str:
        """Run statements in one transaction and return the rows."""
        prefix = ["-m", "scripts.embedded_postgres", "python"]
        command = ["python", *(prefix if self.database == "postgresql" else []), "-c", RUN]
        return succeeded(self.project.run("uv", "run", *command, *statements))

    def make(self, change: Change) -> None:
        """Edit the models, write the revision and edit it as the documentation says."""
        models = self.project.path / MODELS
        text = models.read_text(encoding="utf-8")
        for old, new in change.edits.items():
            assert text.count(old) == 1, (change.name, old)
            text = text.replace(old, new)
        models.write_text(text, encoding="utf-8")
        if statements := change.before.get(self.database):
            just(self.project, "migrate")
            self.run(*statements)
        versions = self.project.path / "migrations" / "versions"
        known = set(versions.glob("*.py"))
        done = self.project.run("uv", "run", "just", "migration", change.name)
        succeeded(done)
        assert change.says in done.stdout + done.stderr
        (revision,) = set(versions.glob("*.py")) - known
        edit(revision, "upgrade", change.upgrade.get(self.database))
        edit(revision, "downgrade", change.downgrade.get(self.database))

    def check(self) -> None:
        """Run the checks of revisions."""
        just(self.project, "fix")
        just(self.project, "lint")
        just(self.project, "test", *self.tests)


def edit(revision: Path, function: str, body: str | None) -> None:
    """Replace the body of a function of a revision."""
    if body is None:
        return
    text = revision.read_text(encoding="utf-8")
    pattern = rf'(def {function}\(\) -> None:\n    """.*?"""\n)(.*?)(?=\n\n\n|\Z)'
    new = indent(to(body), "    ")
    changed, count = re.subn(
        pattern, lambda found: f"{found[1]}{new}\n", text, count=1, flags=re.DOTALL
    )
    assert count == 1
    revision.write_text(changed, encoding="utf-8")


@pytest.mark.timeout(3600)  # with `--full`, it runs every test of the service
@pytest.mark.parametrize("database", DATABASES)
def test_everyday_changes(bake: Bake, database: str, *, full: bool) -> None:
    with installed(bake(database=database, auth="none")) as project:
        changed = Changed(project)
        for change in CHANGES:
            if change.only in {None, database}:
                changed.make(change)
                if full:
                    changed.check()
        just(project, "migrate")
        if full:
            just(project, "check")
        else:
            changed.check()
        for statement, row in ROWS.items():
            assert row in changed.run(statement).splitlines(), statement
