"""The tables of users, their sessions, refresh tokens and API keys, and of throttling."""

import secrets
from datetime import datetime
from uuid import UUID

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.kit.db.models import Base, TimestampMixin, UUIDPrimaryKey, now


def _salt() -> str:
    return secrets.token_hex(32)


class User(UUIDPrimaryKey, TimestampMixin, Base):
    """A person who may sign in."""

    __tablename__ = "users"
    __table_args__ = (Index(None, "created_at", "id"),)

    email: Mapped[str] = mapped_column(String(254), unique=True)
    """In lower case, so that addresses are unique regardless of case."""
    name: Mapped[str] = mapped_column(String(100))
    password_hash: Mapped[str] = mapped_column(String(255))
    is_active: Mapped[bool] = mapped_column(default=True)
    is_superuser: Mapped[bool] = mapped_column(default=False)
    token_version: Mapped[int] = mapped_column(default=1)
    """Raised to revoke credentials: sessions and API keys of an earlier version are invalid."""


class UserSession(UUIDPrimaryKey, Base):
    """A login. Its access and refresh tokens are valid for as long as the row exists."""

    __tablename__ = "user_sessions"
    __table_args__ = (Index(None, "user_id", "created_at", "id"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    token_version: Mapped[int]
    user_agent: Mapped[str] = mapped_column(String(200))
    address: Mapped[str] = mapped_column(String(45))
    created_at: Mapped[datetime] = mapped_column(default=now)
    last_used_at: Mapped[datetime] = mapped_column(default=now)
    """When its tokens were last refreshed."""
    expires_at: Mapped[datetime] = mapped_column(index=True)
    """When its refresh token expires; each refresh extends it, up to ``ends_at``."""
    ends_at: Mapped[datetime]


class RefreshToken(UUIDPrimaryKey, Base):
    """A refresh token, stored as a hash."""

    __tablename__ = "refresh_tokens"

    session_id: Mapped[UUID] = mapped_column(
        ForeignKey("user_sessions.id", ondelete="CASCADE"), index=True
    )
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    successor_salt: Mapped[str] = mapped_column(String(64), default=_salt)
    """Random: the next token is derived from this and the token; neither token is stored."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    used_at: Mapped[datetime | None]


class APIKey(UUIDPrimaryKey, Base):
    """An API key, stored as a hash."""

    __tablename__ = "api_keys"
    __table_args__ = (Index(None, "user_id", "created_at", "id"),)

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    token_version: Mapped[int]
    session_id: Mapped[UUID | None]
    """The login that created it, which the key may outlive: no foreign key."""
    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(20))
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]


class Attempt(Base):
    """A count of recent attempts by a hashed e-mail or client address, shared by all workers."""

    __tablename__ = "attempts"

    subject: Mapped[str] = mapped_column(String(64), primary_key=True)
    count: Mapped[int]
    resets_at: Mapped[datetime] = mapped_column(index=True)
