"""The tables of users, their refresh tokens and API keys, and of what is throttled."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.kit.db.models import Base, TimestampMixin, UUIDPrimaryKey, now


class User(UUIDPrimaryKey, TimestampMixin, Base):
    """Somebody who may sign in."""

    __tablename__ = "users"
    __table_args__ = (Index(None, "created_at", "id"),)

    email: Mapped[str] = mapped_column(String(254), unique=True)
    """In lower case: two that differ in case alone are one."""
    name: Mapped[str] = mapped_column(String(100))
    password_hash: Mapped[str] = mapped_column(String(255))
    is_active: Mapped[bool] = mapped_column(default=True)
    is_superuser: Mapped[bool] = mapped_column(default=False)
    generation: Mapped[int] = mapped_column(default=1)
    """Raised with each new password: tokens of an earlier generation are void."""


class RefreshToken(UUIDPrimaryKey, Base):
    """A refresh token, of which only the hash is kept."""

    __tablename__ = "refresh_tokens"

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    family_id: Mapped[UUID] = mapped_column(index=True)
    """All the tokens that come from one login, each from the one before."""
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    generation: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    used_at: Mapped[datetime | None]


class APIKey(UUIDPrimaryKey, Base):
    """An API key, of which only the hash is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (Index(None, "user_id", "created_at", "id"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(20))
    """The start of the key, by which its owner tells it from others."""
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]

    user: Mapped[User] = relationship(lazy="raise")


class Attempt(Base):
    """How often something was tried of late: shared by all workers, kept by no server besides."""

    __tablename__ = "attempts"

    subject: Mapped[str] = mapped_column(String(64), primary_key=True)
    """A hash of what is counted: no e-mail or client address is kept here."""
    count: Mapped[int]
    resets_at: Mapped[datetime] = mapped_column(index=True)
