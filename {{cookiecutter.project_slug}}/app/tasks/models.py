"""The tables of tasks, their tags and their comments."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Column, ForeignKey, Index, String, Table, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.kit.db.models import (
    Base,
    CreatedAtMixin,
    SoftDeleteMixin,
    TimestampMixin,
    UUIDPrimaryKey,
    VersionMixin,
)
from app.users.owner import OwnerMixin, owner_indexes, owner_unique


class TaskStatus(StrEnum):
    """The progress of a task."""

    TODO = "todo"
    DOING = "doing"
    DONE = "done"


task_tags = Table(
    "task_tags",
    Base.metadata,
    Column[UUID]("task_id", ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    Column[UUID]("tag_id", ForeignKey("tags.id", ondelete="CASCADE"), primary_key=True, index=True),
)


class Tag(OwnerMixin, UUIDPrimaryKey, Base):
    """A label for tasks."""

    __tablename__ = "tags"
    __table_args__ = (owner_unique("name"),)

    name: Mapped[str] = mapped_column(String(50))


class Task(OwnerMixin, UUIDPrimaryKey, TimestampMixin, VersionMixin, SoftDeleteMixin, Base):
    """Something to do."""

    __tablename__ = "tasks"
    # An index for each order of the list; the key at its end makes pages exact.
    __table_args__ = (
        Index(None, "created_at", "id"),
        Index(None, "due_at", "id"),
        Index(None, "title", "id"),
        *owner_indexes("created_at", "due_at", "title"),
    )

    title: Mapped[str] = mapped_column(String(200))
    description: Mapped[str | None] = mapped_column(Text)
    status: Mapped[TaskStatus] = mapped_column(default=TaskStatus.TODO)
    due_at: Mapped[datetime | None]

    tags: Mapped[list[Tag]] = relationship(secondary=task_tags, lazy="raise")


class Comment(UUIDPrimaryKey, CreatedAtMixin, Base):
    """A comment on a task. It belongs to the owner of the task."""

    __tablename__ = "comments"
    __table_args__ = (Index(None, "task_id", "created_at", "id"),)

    task_id: Mapped[UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    author: Mapped[str] = mapped_column(String(100))
    body: Mapped[str] = mapped_column(Text)

    task: Mapped[Task] = relationship(lazy="raise")
