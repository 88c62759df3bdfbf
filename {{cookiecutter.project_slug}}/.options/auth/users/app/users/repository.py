"""All the SQL of users, their refresh tokens and API keys, and of what is throttled."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Select, bindparam, case, delete, insert, select, update
from sqlalchemy.orm import contains_eager

from app import pagination
from app.db import driver
from app.db.engine import WriteSession
from app.db.models import now
from app.db.repository import Repository
from app.errors import NotFound
from app.pagination import Order, Slice, Start
from app.schemas import PageQuery
from app.users.models import APIKey, Attempt, RefreshToken, User

# Statements that never change are built once, here: every request sends one of the first two.
BY_TOKEN = select(User).where(
    User.id == bindparam("user_id"), User.generation == bindparam("generation"), User.is_active
)
BY_KEY = (
    select(APIKey)
    .join(APIKey.user)
    .where(APIKey.key_hash == bindparam("key_hash"), User.is_active)
    .options(contains_eager(APIKey.user))
)
BY_EMAIL = select(User).where(User.email == bindparam("email"))
USER_ORDER = Order("created_at", User.created_at, User.id)
KEY_ORDER = Order("created_at", APIKey.created_at, APIKey.id)


@cache
def _user_page(start: Start) -> Select[User]:
    return pagination.keyset(select(User), USER_ORDER, start)


@cache
def _key_page(start: Start) -> Select[APIKey]:
    own = select(APIKey).where(APIKey.user_id == bindparam("user_id"))
    return pagination.keyset(own, KEY_ORDER, start)


class UserReader(Repository):
    """What can be asked about users."""

    model = User

    async def by_token(self, user_id: UUID, generation: int) -> User | None:
        """Give the user of an access token, unless its generation is over."""
        return await self.session.scalar(BY_TOKEN, {"user_id": user_id, "generation": generation})

    async def by_key(self, key_hash: str) -> APIKey | None:
        """Give an API key that is good today, with its user."""
        key = await self.session.scalar(BY_KEY, {"key_hash": key_hash})
        good = key is not None and (key.expires_at is None or key.expires_at > now())
        return key if good else None

    async def by_email(self, email: str) -> User | None:
        """Give the user who signs in by this address."""
        return await self.session.scalar(BY_EMAIL, {"email": email})

    async def page(self, query: PageQuery) -> Slice[User]:
        """List users, the oldest first.

        Raises:
            Unprocessable: the cursor is not one of this list.
        """
        position = pagination.decode(USER_ORDER, query.cursor)
        parameters = pagination.parameters(query.limit, position)
        rows = await self.all(_user_page(position.start), parameters)
        return pagination.cut(rows, query.limit, USER_ORDER)

    async def keys(self, user_id: UUID, query: PageQuery) -> Slice[APIKey]:
        """List the API keys of a user, the oldest first.

        Raises:
            Unprocessable: the cursor is not one of this list.
        """
        position = pagination.decode(KEY_ORDER, query.cursor)
        parameters = pagination.parameters(query.limit, position) | {"user_id": user_id}
        rows = await self.all(_key_page(position.start), parameters)
        return pagination.cut(rows, query.limit, KEY_ORDER)


class UserRepository(UserReader):
    """What can be done to users, in the caller's transaction."""

    session: WriteSession

    def __init__(self, session: WriteSession) -> None:
        """Work in the transaction of ``session``."""
        super().__init__(session)

    async def create(self, **values: Any) -> User:
        """Write a new user.

        Raises:
            IntegrityError: the e-mail address is taken; the transaction maps it to 409.
        """
        return await self.one(insert(User).values(**values).returning(User))

    async def update(self, user_id: UUID, changes: dict[str, Any]) -> User:
        """Change a user.

        Raises:
            NotFound: there is no such user.
        """
        found = User.id == user_id
        if not changes:
            return await self.one(select(User).where(found))
        return await self.one(update(User).where(found).values(**changes).returning(User))

    async def change_password(
        self, user: User, password_hash: str, changes: dict[str, Any]
    ) -> User | None:
        """Set a new password and end every token, unless another request was faster."""
        statement = (
            update(User)
            # Hashing took its time, outside of any transaction: is it still the password we knew?
            .where(User.id == user.id, User.password_hash == user.password_hash)
            .values(**changes, password_hash=password_hash, generation=User.generation + 1)
            .returning(User)
        )
        await self.session.execute(delete(RefreshToken).where(RefreshToken.user_id == user.id))
        return await self.session.scalar(statement)

    async def rehash(self, user: User, password_hash: str) -> None:
        """Keep the same password by a hash of today's parameters."""
        await self.session.execute(
            update(User)
            .where(User.id == user.id, User.password_hash == user.password_hash)
            .values(password_hash=password_hash)
        )

    async def delete(self, user_id: UUID) -> None:
        """Remove a user, and with it all its tokens and keys."""
        await self.session.execute(delete(User).where(User.id == user_id))

    async def add_refresh_token(
        self, user: User, family_id: UUID, token_hash: str, lifetime: int
    ) -> None:
        """Keep a new refresh token, and sweep out those that are over."""
        await self.session.execute(delete(RefreshToken).where(RefreshToken.expires_at < now()))
        await self.session.execute(
            insert(RefreshToken).values(
                user_id=user.id,
                family_id=family_id,
                token_hash=token_hash,
                generation=user.generation,
                expires_at=now() + timedelta(seconds=lifetime),
            )
        )

    async def use_refresh_token(self, token_hash: str) -> RefreshToken | None:
        """Use a refresh token up: of two who try at once, one gets it."""
        return await self.session.scalar(
            update(RefreshToken)
            .where(
                RefreshToken.token_hash == token_hash,
                RefreshToken.used_at.is_(None),
                RefreshToken.expires_at > now(),
            )
            .values(used_at=now())
            .returning(RefreshToken)
        )

    async def end_family(self, token_hash: str) -> None:
        """Void every refresh token that comes from the same login as this one."""
        family_id = await self.session.scalar(
            select(RefreshToken.family_id).where(RefreshToken.token_hash == token_hash)
        )
        if family_id is None:
            return
        # Locked in one order, so that two that end the same family can't deadlock.
        found = select(RefreshToken.id).where(RefreshToken.family_id == family_id)
        ordered = found.order_by(RefreshToken.id).with_for_update()
        family = delete(RefreshToken).where(RefreshToken.id.in_(ordered))
        # Whoever trades one of them in right now makes us wait, and then has one that the
        # statement did not see. So again, until there is none.
        while (await self.session.scalars(family.returning(RefreshToken.id))).all():
            pass

    async def create_key(self, user_id: UUID, **values: Any) -> APIKey:
        """Write a new API key."""
        return await self.one(insert(APIKey).values(user_id=user_id, **values).returning(APIKey))

    async def delete_key(self, user_id: UUID, key_id: UUID) -> None:
        """Remove an API key of a user.

        Raises:
            NotFound: the user has no such key.
        """
        own = delete(APIKey).where(APIKey.id == key_id, APIKey.user_id == user_id)
        if await self.session.scalar(own.returning(APIKey.id)) is None:
            raise NotFound("There is no such API key.")

    async def touch_key(self, key_id: UUID) -> None:
        """Note that an API key was used."""
        await self.session.execute(
            update(APIKey).where(APIKey.id == key_id).values(last_used_at=now())
        )

    async def count_attempts(
        self, subjects: Sequence[str], window: int
    ) -> dict[str, tuple[int, datetime]]:
        """Count one more attempt for each subject; give its count and when that starts anew.

        One atomic statement, so that no two workers miss each other.
        """
        moment = now()
        resets_at = moment + timedelta(seconds=window)
        # Sorted: two requests with the same subjects then wait for one another, and can't deadlock.
        rows = [
            {"subject": subject, "count": 1, "resets_at": resets_at} for subject in sorted(subjects)
        ]
        over = Attempt.resets_at < moment
        counted = driver.insert(Attempt).values(rows)
        counted = counted.on_conflict_do_update(
            index_elements=[Attempt.subject],
            set_={
                "count": case((over, 1), else_=Attempt.count + 1),
                "resets_at": case((over, resets_at), else_=Attempt.resets_at),
            },
        )
        found = await self.session.execute(
            counted.returning(Attempt.subject, Attempt.count, Attempt.resets_at)
        )
        return {subject: (count, resets) for subject, count, resets in found}

    async def sweep_attempts(self) -> None:
        """Forget what is over. In a transaction of its own, so that it waits holding nothing."""
        await self.session.execute(delete(Attempt).where(Attempt.resets_at < now()))
