"""The tables of users, their refresh tokens and API keys, and of throttling."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.kit.db.models import Base, TimestampMixin, UUIDPrimaryKey, now


class User(UUIDPrimaryKey, TimestampMixin, Base):
    """Somebody who may sign in."""

    __tablename__ = "users"
    __table_args__ = (Index(None, "created_at", "id"),)

    email: Mapped[str] = mapped_column(String(254), unique=True)
    """In lower case, so that addresses are unique regardless of case."""
    name: Mapped[str] = mapped_column(String(100))
    password_hash: Mapped[str] = mapped_column(String(255))
    is_active: Mapped[bool] = mapped_column(default=True)
    is_superuser: Mapped[bool] = mapped_column(default=False)
    token_version: Mapped[int] = mapped_column(default=1)
    """Raised by each new password: tokens of an earlier version are invalid."""


class RefreshToken(UUIDPrimaryKey, Base):
    """A refresh token, stored as a hash."""

    __tablename__ = "refresh_tokens"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    family_id: Mapped[UUID] = mapped_column(index=True)
    """The login that the token comes from, directly or by refreshing."""
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    token_version: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]


class APIKey(UUIDPrimaryKey, Base):
    """An API key, stored as a hash."""

    __tablename__ = "api_keys"
    __table_args__ = (Index(None, "user_id", "created_at", "id"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(20))
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class Attempt(Base):
    """A count of recent attempts by a hashed e-mail or client address, shared by all workers."""

    __tablename__ = "attempts"

    subject: Mapped[str] = mapped_column(String(64), primary_key=True)
    count: Mapped[int]
    resets_at: Mapped[datetime] = mapped_column(index=True)
