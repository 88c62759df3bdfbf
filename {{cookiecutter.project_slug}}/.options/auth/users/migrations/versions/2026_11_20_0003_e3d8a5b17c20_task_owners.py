"""Owners of tasks and tags.

Revision ID: e3d8a5b17c20
Revises: b7c9e02d4f16
Create Date: 2026-11-20 00:03:00+00:00
"""

from collections.abc import Sequence
from uuid import UUID

import sqlalchemy as sa
from alembic import op

revision: str = "e3d8a5b17c20"
down_revision: str | Sequence[str] | None = "b7c9e02d4f16"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Rows that were written before there were users belong to this account, which can't sign in.
FORMER_OWNER = UUID(int=0)

EXCUSED = (
    "adding-foreign-key-constraint",
    "adding-not-nullable-field",
    "ban-drop-constraint",
    "constraint-missing-not-valid",
    "disallowed-unique-constraint",
    "require-concurrent-index-creation",
)

USERS = sa.table(
    "users",
    sa.column("id", sa.Uuid()),
    sa.column("email", sa.String()),
    sa.column("name", sa.String()),
    sa.column("password_hash", sa.String()),
    sa.column("is_active", sa.Boolean()),
    sa.column("is_superuser", sa.Boolean()),
    sa.column("token_version", sa.Integer()),
    sa.column("created_at", sa.DateTime(timezone=True)),
    sa.column("updated_at", sa.DateTime(timezone=True)),
)
TASKS = sa.table("tasks", sa.column("id", sa.Uuid()), sa.column("owner_id", sa.Uuid()))
TAGS = sa.table(
    "tags",
    sa.column("id", sa.Uuid()),
    sa.column("name", sa.String()),
    sa.column("owner_id", sa.Uuid()),
)
LINKS = sa.table("task_tags", sa.column("task_id", sa.Uuid()), sa.column("tag_id", sa.Uuid()))


def upgrade() -> None:
    """Upgrade the schema."""
    # The tables are empty, unless a service without users gets them: stop it meanwhile.
    op.execute(f"-- squawk-ignore-file {', '.join(EXCUSED)}\nSELECT 1")
    for table in ("tasks", "tags"):
        op.add_column(table, sa.Column("owner_id", sa.Uuid(), nullable=True))
    former = sa.select(
        sa.literal(FORMER_OWNER, sa.Uuid()),
        sa.literal("former-owner@localhost"),
        sa.literal("Former owner"),
        sa.literal("none"),
        sa.false(),
        sa.false(),
        sa.literal(1),
        sa.func.current_timestamp(),
        sa.func.current_timestamp(),
    ).where(
        sa.or_(sa.exists(sa.select(TASKS.c.id)), sa.exists(sa.select(TAGS.c.id))),
        ~sa.exists(sa.select(USERS.c.id).where(USERS.c.id == FORMER_OWNER)),
    )
    op.execute(sa.insert(USERS).from_select([column.name for column in USERS.c], former))
    op.execute(sa.update(TASKS).values(owner_id=FORMER_OWNER))
    op.execute(sa.update(TAGS).values(owner_id=FORMER_OWNER))
    with op.batch_alter_table("tasks") as tasks:
        tasks.alter_column("owner_id", existing_type=sa.Uuid(), nullable=False)
        tasks.create_foreign_key(
            op.f("fk_tasks_owner_id"), "users", ["owner_id"], ["id"], ondelete="CASCADE"
        )
    with op.batch_alter_table("tags") as tags:
        tags.alter_column("owner_id", existing_type=sa.Uuid(), nullable=False)
        tags.create_foreign_key(
            op.f("fk_tags_owner_id"), "users", ["owner_id"], ["id"], ondelete="CASCADE"
        )
        tags.drop_constraint(op.f("uq_tags_name"), type_="unique")
        tags.create_unique_constraint(op.f("uq_tags_owner_id_name"), ["owner_id", "name"])
    for column in ("created_at", "due_at", "title"):
        op.create_index(op.f(f"ix_tasks_owner_id_{column}_id"), "tasks", ["owner_id", column, "id"])


def downgrade() -> None:
    """Undo the upgrade. Tags of the same name become one."""
    for column in ("created_at", "due_at", "title"):
        op.drop_index(op.f(f"ix_tasks_owner_id_{column}_id"), "tasks")
    first, other = TAGS.alias("first"), TAGS.alias("other")
    smaller = sa.exists(
        sa.select(other.c.id).where(other.c.name == first.c.name, other.c.id < first.c.id)
    )
    tag = TAGS.alias("tag")
    moved = (
        sa.select(LINKS.c.task_id, first.c.id)
        .join_from(LINKS, tag, tag.c.id == LINKS.c.tag_id)
        .join(first, first.c.name == tag.c.name)
        .where(first.c.id != tag.c.id, ~smaller)
    )
    op.execute(sa.insert(LINKS).from_select(["task_id", "tag_id"], moved))
    duplicate = sa.exists(
        sa.select(other.c.id).where(other.c.name == TAGS.c.name, other.c.id < TAGS.c.id)
    )
    duplicates = sa.select(TAGS.c.id).where(duplicate)
    op.execute(sa.delete(LINKS).where(LINKS.c.tag_id.in_(duplicates)))
    op.execute(sa.delete(TAGS).where(duplicate))
    with op.batch_alter_table("tags") as tags:
        tags.drop_constraint(op.f("uq_tags_owner_id_name"), type_="unique")
        tags.create_unique_constraint(op.f("uq_tags_name"), ["name"])
        tags.drop_constraint(op.f("fk_tags_owner_id"), type_="foreignkey")
        tags.drop_column("owner_id")
    with op.batch_alter_table("tasks") as tasks:
        tasks.drop_constraint(op.f("fk_tasks_owner_id"), type_="foreignkey")
        tasks.drop_column("owner_id")
