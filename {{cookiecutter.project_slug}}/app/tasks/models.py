"""The tables of tasks, their tags and their comments."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Column, Enum, ForeignKey, Index, String, Table, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.kit.db.models import (
    Base,
    SoftDeleteMixin,
    TimestampMixin,
    UUIDPrimaryKey,
    VersionMixin,
    now,
)


class TaskStatus(StrEnum):
    """How far a task has come."""

    TODO = "todo"
    DOING = "doing"
    DONE = "done"


task_tags = Table(
    "task_tags",
    Base.metadata,
    Column("task_id", ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id", ondelete="CASCADE"), primary_key=True, index=True),
)


class Tag(UUIDPrimaryKey, Base):
    """A word that tasks can be found by."""

    __tablename__ = "tags"

    name: Mapped[str] = mapped_column(String(50), unique=True)


class Comment(UUIDPrimaryKey, Base):
    """What somebody said of a task."""

    __tablename__ = "comments"
    __table_args__ = (Index(None, "task_id", "created_at", "id"),)

    task_id: Mapped[UUID] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    author: Mapped[str] = mapped_column(String(100))
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=now)

    task: Mapped["Task"] = relationship(back_populates="comments", lazy="raise")


class Task(UUIDPrimaryKey, TimestampMixin, VersionMixin, SoftDeleteMixin, Base):
    """Something to do."""

    __tablename__ = "tasks"
    # One index for each order that the list offers; the key behind it makes pages exact.
    __table_args__ = (
        Index(None, "created_at", "id"),
        Index(None, "due_at", "id"),
        Index(None, "title", "id"),
    )

    title: Mapped[str] = mapped_column(String(200))
    description: Mapped[str | None] = mapped_column(Text)
    status: Mapped[TaskStatus] = mapped_column(
        Enum(
            TaskStatus,
            name="status",
            native_enum=False,  # a type of PostgreSQL's own is hard to change in a migration
            create_constraint=True,
            length=20,
            values_callable=lambda statuses: [status.value for status in statuses],
        ),
        default=TaskStatus.TODO,
    )
    due_at: Mapped[datetime | None]

    tags: Mapped[list[Tag]] = relationship(secondary=task_tags, lazy="raise")
    comments: Mapped[list[Comment]] = relationship(
        back_populates="task", order_by=(Comment.created_at, Comment.id), lazy="raise"
    )
