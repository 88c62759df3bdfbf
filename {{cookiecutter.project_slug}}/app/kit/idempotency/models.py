"""The table of stored responses."""

from datetime import datetime

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from app.kit.db.models import Base, now


class IdempotencyKey(Base):
    """The response to a request with an ``Idempotency-Key``."""

    __tablename__ = "idempotency_keys"

    caller: Mapped[str] = mapped_column(String(36), primary_key=True)
    """The user who sent the request; empty without authentication."""
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[bytes]
    """A hash of the request: the key is valid for no other."""
    status: Mapped[int]
    headers: Mapped[dict[str, str]] = mapped_column(JSON)
    body: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
