"""The answers that are kept for clients who ask again."""

from datetime import datetime

from sqlalchemy import JSON, String
from sqlalchemy.orm import Mapped, mapped_column

from app.kit.db.models import Base, now


class IdempotencyKey(Base):
    """The answer to a request that carried an ``Idempotency-Key``."""

    __tablename__ = "idempotency_keys"

    caller: Mapped[str] = mapped_column(String(36), primary_key=True)
    """Who sent it; empty where nobody has to say so."""
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[bytes]
    """A hash of the request: the key is good for no other."""
    status: Mapped[int]
    headers: Mapped[dict[str, str]] = mapped_column(JSON)
    body: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
