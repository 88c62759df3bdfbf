"""Notes.

Revision ID: 0d5e7c1ab394
Revises: 4d1f0c7e2a95
Create Date: 2026-11-21 00:00:00+00:00
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0d5e7c1ab394"
down_revision: str | Sequence[str] | None = "4d1f0c7e2a95"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Upgrade the schema."""
    op.create_table(
        "notes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notes")),
    )
    op.create_index(op.f("ix_notes_created_at_id"), "notes", ["created_at", "id"])


def downgrade() -> None:
    """Undo the upgrade."""
    op.drop_table("notes")
