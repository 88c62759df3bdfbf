"""All the SQL of stored responses."""

from datetime import timedelta
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, tuple_

from app.kit.db import driver
from app.kit.db.engine import Database
from app.kit.db.models import now
from app.kit.db.repository import Repository
from app.kit.idempotency.models import IdempotencyKey

DELETED_AT_ONCE = 1000
"""The number of rows that one transaction deletes."""

FIND = select(IdempotencyKey).where(
    IdempotencyKey.caller == bindparam("caller"), IdempotencyKey.key == bindparam("key")
)
_IDENTITY = (IdempotencyKey.caller, IdempotencyKey.key)
DELETE_EXPIRED = (
    delete(IdempotencyKey)
    .where(
        tuple_(*_IDENTITY).in_(
            select(*_IDENTITY)
            .where(IdempotencyKey.created_at < bindparam("before"))
            .limit(DELETED_AT_ONCE)
        )
    )
    .returning(IdempotencyKey.key)
    .execution_options(synchronize_session=False)
)


class IdempotencyRepository(Repository[IdempotencyKey]):
    """Stored responses, in the transaction of the request that they belong to."""

    model = IdempotencyKey

    async def try_lock(self, caller: str, key: str) -> bool:
        """Lock a key until the transaction ends; return False if another request has it."""
        return await driver.try_lock(self.session, f"{caller} {key}")

    async def find(self, caller: str, key: str) -> IdempotencyKey | None:
        """Return the stored response of a key, or None."""
        return await self.session.scalar(FIND, {"caller": caller, "key": key})

    async def save(self, **columns: Any) -> None:
        """Store a response; raise ``Conflict`` if the key has one."""
        await self.session.execute(insert(IdempotencyKey), columns)


async def delete_expired(database: Database, lifetime: float) -> None:
    """Delete responses older than ``lifetime`` seconds, in small transactions."""
    before = now() - timedelta(seconds=lifetime)
    deleted = DELETED_AT_ONCE
    while deleted == DELETED_AT_ONCE:
        async with database.transaction() as session:
            deleted = len((await session.scalars(DELETE_EXPIRED, {"before": before})).all())
