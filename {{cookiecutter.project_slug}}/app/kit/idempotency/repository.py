"""All the SQL of kept answers."""

from datetime import timedelta
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, tuple_

from app.kit.db import driver
from app.kit.db.engine import Database, WriteSession
from app.kit.db.models import now
from app.kit.db.repository import Repository
from app.kit.idempotency.models import IdempotencyKey

SWEPT_AT_ONCE = 1000

FIND = select(IdempotencyKey).where(
    IdempotencyKey.caller == bindparam("caller"), IdempotencyKey.key == bindparam("key")
)
KEEP = insert(IdempotencyKey)
_IDENTITY = (IdempotencyKey.caller, IdempotencyKey.key)
SWEEP = (
    delete(IdempotencyKey)
    .where(
        tuple_(*_IDENTITY).in_(
            select(*_IDENTITY)
            .where(IdempotencyKey.created_at < bindparam("before"))
            .limit(SWEPT_AT_ONCE)
        )
    )
    .returning(IdempotencyKey.key)
    .execution_options(synchronize_session=False)
)


class IdempotencyRepository(Repository):
    """The answers that are kept, in the transaction of the request that they belong to."""

    model = IdempotencyKey
    session: WriteSession

    def __init__(self, session: WriteSession) -> None:
        """Work in the transaction of ``session``."""
        super().__init__(session)

    async def claim(self, caller: str, key: str) -> bool:
        """Reserve a key until the transaction ends; say no if another one has it reserved."""
        return await driver.try_lock(self.session, f"{caller} {key}")

    async def find(self, caller: str, key: str) -> IdempotencyKey | None:
        """Give what was answered to this key, if anything was."""
        return await self.session.scalar(FIND, {"caller": caller, "key": key})

    async def keep(self, **columns: Any) -> None:
        """Keep an answer.

        Raises:
            Conflict: there is one already.
        """
        await self.session.execute(KEEP, columns)


async def sweep(database: Database, lifetime: float) -> None:
    """Remove the answers that are older than ``lifetime`` seconds, some in each transaction."""
    before = now() - timedelta(seconds=lifetime)
    swept = SWEPT_AT_ONCE
    while swept == SWEPT_AT_ONCE:
        async with database.transaction() as session:
            swept = len((await session.scalars(SWEEP, {"before": before})).all())
