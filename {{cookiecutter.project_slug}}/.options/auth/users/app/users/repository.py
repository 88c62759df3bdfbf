"""All the SQL of users, their refresh tokens and API keys."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, bindparam, delete, insert, select, update

from app.kit.db.models import now
from app.kit.db.repository import Repository
from app.kit.errors import NotFound
from app.kit.pagination import KeysetList
from app.users.models import APIKey, RefreshToken, User

USERS = KeysetList(select(User), sorts=[User.created_at])
KEYS = KeysetList(select(APIKey), sorts=[APIKey.created_at], filters={"user_id": APIKey.user_id})

# Every request sends one of these, so they are built once: that saves about 60 us.
BY_TOKEN = select(User.id, User.name, User.is_superuser).where(
    User.id == bindparam("user_id"),
    User.token_version == bindparam("token_version"),
    User.is_active,
)
BY_KEY = (
    select(
        User.id,
        User.name,
        User.is_superuser,
        APIKey.id.label("key_id"),
        APIKey.scopes,
        APIKey.expires_at,
        APIKey.last_used_at,
    )
    .join(APIKey, APIKey.user_id == User.id)
    .where(APIKey.key_hash == bindparam("key_hash"), User.is_active)
)


class UserRepository(Repository[User]):
    """Users, with their refresh tokens and API keys."""

    model = User

    async def caller_by_token(self, user_id: UUID, token_version: int) -> Row[Any] | None:
        """Return id, name and is_superuser of an access token's user, unless it is revoked."""
        parameters = {"user_id": user_id, "token_version": token_version}
        return next(iter(await self.rows(BY_TOKEN, parameters)), None)

    async def caller_by_key(self, key_hash: str) -> Row[Any] | None:
        """Return an API key with id, name and is_superuser of its active user, or None."""
        return next(iter(await self.rows(BY_KEY, {"key_hash": key_hash})), None)

    async def by_token(self, user_id: UUID, token_version: int) -> User | None:
        """Return the user of a refresh token, unless its tokens were revoked since."""
        found = await self.all(
            select(User).where(
                User.id == user_id, User.token_version == token_version, User.is_active
            )
        )
        return next(iter(found), None)

    async def by_email(self, email: str) -> User | None:
        """Return the user with this e-mail address, or None."""
        return next(iter(await self.all(select(User).where(User.email == email))), None)

    async def change_password(
        self, user: User, password_hash: str, changes: dict[str, Any]
    ) -> User | None:
        """Set a new password and revoke every token; return None if the password has changed."""
        statement = (
            update(User)
            # Hashing took its time, outside of a transaction.
            .where(User.id == user.id, User.password_hash == user.password_hash)
            .values(**changes, password_hash=password_hash, token_version=User.token_version + 1)
            .returning(User)
        )
        await self.session.execute(delete(RefreshToken).where(RefreshToken.user_id == user.id))
        return await self.session.scalar(statement)

    async def rehash(self, user: User, password_hash: str) -> None:
        """Store a hash of the same password with the current parameters."""
        await self.session.execute(
            update(User)
            .where(User.id == user.id, User.password_hash == user.password_hash)
            .values(password_hash=password_hash)
        )

    async def add_refresh_token(
        self, user: User, family_id: UUID, token_hash: str, lifetime: int
    ) -> None:
        """Store a new refresh token, and delete those that have expired."""
        await self.session.execute(delete(RefreshToken).where(RefreshToken.expires_at < now()))
        await self.session.execute(
            insert(RefreshToken).values(
                user_id=user.id,
                family_id=family_id,
                token_hash=token_hash,
                token_version=user.token_version,
                expires_at=now() + timedelta(seconds=lifetime),
            )
        )

    async def use_refresh_token(self, token_hash: str) -> RefreshToken | None:
        """Mark a valid refresh token as used and return it: of concurrent requests, one gets it."""
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

    async def revoke_family(self, token_hash: str) -> bool:
        """Delete every refresh token of this one's login; return whether there was one."""
        family_id = await self.session.scalar(
            select(RefreshToken.family_id).where(RefreshToken.token_hash == token_hash)
        )
        if family_id is None:
            return False
        # Locked in one order, so that two requests that revoke the same family can't deadlock.
        found = select(RefreshToken.id).where(RefreshToken.family_id == family_id)
        ordered = found.order_by(RefreshToken.id).with_for_update()
        family = delete(RefreshToken).where(RefreshToken.id.in_(ordered))
        # A concurrent refresh may add a token that the statement did not see: repeat until none.
        while (await self.session.scalars(family.returning(RefreshToken.id))).all():
            pass
        return True

    async def create_key(self, user_id: UUID, **values: Any) -> APIKey:
        """Write a new API key."""
        return await self.one(insert(APIKey).values(user_id=user_id, **values).returning(APIKey))

    async def delete_key(self, user_id: UUID, key_id: UUID) -> None:
        """Delete an API key of a user.

        Raises:
            NotFound: the user has no such key.
        """
        own = delete(APIKey).where(APIKey.id == key_id, APIKey.user_id == user_id)
        if await self.session.scalar(own.returning(APIKey.id)) is None:
            raise NotFound("There is no such API key.")

    async def touch_key(self, key_id: UUID) -> None:
        """Store that an API key was used now."""
        await self.session.execute(
            update(APIKey).where(APIKey.id == key_id).values(last_used_at=now())
        )
