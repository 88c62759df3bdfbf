"""The declarative base, its naming convention, and the columns that models share."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from sqlalchemy import DateTime, Dialect, MetaData, String, Table
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column
from sqlalchemy.types import TypeDecorator
from uuid_utils.compat import uuid7


class UTCDateTime(TypeDecorator[datetime]):
    """A point in time, timezone-aware and in UTC on every database.

    SQLite keeps no offset: times go in as UTC and come out marked as such.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        """The type of its values."""
        return datetime

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Turn an aware time to UTC; refuse a naive one, for nobody knows what it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("A time without an offset can't be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Mark what comes back without an offset as the UTC it is."""
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def now() -> datetime:
    """Give the time in UTC, to the microsecond on every database."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Base of every model."""

    if TYPE_CHECKING:
        __table__: ClassVar[Table]

    # Names that don't depend on the database: migrations and error messages rely on them.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: Any = {datetime: UTCDateTime(), str: String()}  # noqa: RUF012


class UUIDPrimaryKey:
    """A UUIDv7 key: made by the service, in time order, so that the index grows at its end."""

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7, sort_order=-1)


def _as_created(context: DefaultExecutionContext) -> datetime:
    created: datetime = context.get_current_parameters()["created_at"]  # type: ignore[no-untyped-call]
    return created


class TimestampMixin:
    """When a row came to be and when it last changed: the same time, as long as it has not."""

    created_at: Mapped[datetime] = mapped_column(default=now, sort_order=1)
    updated_at: Mapped[datetime] = mapped_column(default=_as_created, onupdate=now, sort_order=1)


class VersionMixin:
    """Optimistic locking: a writer says which version it has seen.

    Flushing a changed row raises the version by itself; an ``UPDATE`` statement sets
    ``version=Model.version + 1``.
    """

    version: Mapped[int] = mapped_column(default=1, sort_order=1)

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805
        """Let a flush check and raise the version."""
        return {"version_id_col": cls.version}


class SoftDeleteMixin:
    """A row that is only marked as deleted, where history matters.

    Each feature's repository filters by it in one place.
    """

    deleted_at: Mapped[datetime | None] = mapped_column(sort_order=1)
