"""All the SQL of users, their sessions, refresh tokens and API keys."""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Result,
    Row,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    select,
    union_all,
    update,
)

from app.kit.db.engine import ReadSession
from app.kit.db.models import now
from app.kit.db.repository import Repository
from app.kit.errors import Conflict, NotFound
from app.kit.idempotency.models import IdempotencyKey
from app.kit.pagination import KeysetList
from app.users.models import APIKey, RefreshToken, User, UserSession
from app.users.security import AccessClaims

MAX_SESSIONS: Final = 50
"""Sessions of a user: a login beyond ends the oldest."""

USERS = KeysetList(select(User), sorts=[User.created_at])
KEYS = KeysetList(select(APIKey), sorts=[APIKey.created_at], filters={"user_id": APIKey.user_id})
SESSIONS = KeysetList(
    select(UserSession),
    sorts=[UserSession.created_at],
    filters={
        "user_id": UserSession.user_id,
        "expires_after": lambda moment: UserSession.expires_at > moment,
    },
)

# Every request sends one of these, so they are built once: that saves about 60 us.
BY_TOKEN = (
    select(User.id, User.name, User.is_superuser, UserSession.created_at.label("signed_in_at"))
    .join(UserSession, UserSession.user_id == User.id)
    .where(
        UserSession.id == bindparam("session_id"),
        User.id == bindparam("user_id"),
        User.token_version == bindparam("token_version"),
        User.is_active,
    )
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
    .where(
        APIKey.key_hash == bindparam("key_hash"),
        APIKey.token_version == User.token_version,
        User.is_active,
    )
)


async def caller_by_token(session: ReadSession, claims: AccessClaims) -> Row[Any] | None:
    """Return the user of an access token, with the time of the login, unless it is revoked."""
    parameters = {
        "user_id": claims.user_id,
        "token_version": claims.token_version,
        "session_id": claims.session_id,
    }
    found: Result[Any] = await session.execute(BY_TOKEN, parameters)
    return found.one_or_none()


async def caller_by_key(session: ReadSession, key_hash: str) -> Row[Any] | None:
    """Return an API key with id, name and is_superuser of its active user, or None."""
    found: Result[Any] = await session.execute(BY_KEY, {"key_hash": key_hash})
    return found.one_or_none()


class UserRepository(Repository[User]):
    """Users, with their sessions, refresh tokens and API keys."""

    model = User

    async def by_email(self, email: str) -> User | None:
        """Return the user with this e-mail address, or None."""
        return next(iter(await self.all(select(User).where(User.email == email))), None)

    async def change_password(
        self, user: User, password_hash: str, changes: dict[str, Any]
    ) -> User | None:
        """Set a new password and revoke every credential; return None if the user has changed."""
        new = {"password_hash": password_hash, "token_version": User.token_version + 1}
        changed = await self.change_email(user, changes | new)
        if changed is not None:
            await self._delete_credentials(user.id)
        return changed

    async def change_email(self, user: User, changes: dict[str, Any]) -> User | None:
        """Change a user; return None if the password or the token version has changed since."""
        unchanged = (
            User.id == user.id,
            User.password_hash == user.password_hash,
            User.token_version == user.token_version,
        )
        return await self.session.scalar(
            update(User).where(*unchanged).values(changes).returning(User)
        )

    async def delete_account(self, user_id: UUID, *, is_superuser: bool) -> None:
        """Delete a user with everything that belongs to them, also stored responses.

        Raises:
            Conflict: it is the last superuser.
        """
        if is_superuser:
            await self._require_another_superuser(user_id)
        await self.delete(user_id)
        # Afterwards: the lock of the user's row has waited for requests that write for the user.
        responses = delete(IdempotencyKey).where(IdempotencyKey.caller == str(user_id))
        await self.session.execute(responses)

    async def _require_another_superuser(self, user_id: UUID) -> None:
        # Lock in one order: if two demote each other, the second one sees the first change.
        found = select(User.id).where(User.is_superuser, User.is_active).order_by(User.id)
        active = {row.id for row in await self.rows(found.with_for_update(key_share=True))}
        if active == {user_id}:
            raise Conflict("This is the last superuser: make another user a superuser first.")

    async def revoke_credentials(self, user_id: UUID) -> None:
        """Revoke every session and API key of a user."""
        # A credential that is added concurrently has the earlier version, so it is invalid, too.
        raised = update(User).values(token_version=User.token_version + 1)
        await self.session.execute(raised.where(User.id == user_id))
        await self._delete_credentials(user_id)

    async def _delete_credentials(self, user_id: UUID) -> None:
        await self.end_sessions(user_id)
        await self.session.execute(delete(APIKey).where(APIKey.user_id == user_id))

    async def change_by_superuser(self, user_id: UUID, changes: dict[str, Any]) -> User:
        """Change any user. Deactivation and a change of role revoke every credential.

        Raises:
            NotFound: there is no such user.
            Conflict: the last superuser would be demoted or deactivated.
        """
        if False in (changes.get("is_active"), changes.get("is_superuser")):
            await self._require_another_superuser(user_id)
        revokes = changes.get("is_active") is False
        if "is_superuser" in changes:
            role = select(User.is_superuser).where(User.id == user_id)
            former = await self.session.scalar(role.with_for_update(key_share=True))
            revokes = revokes or former is not changes["is_superuser"]
        user = await self.update(user_id, changes)
        if revokes:
            await self.revoke_credentials(user_id)
        return user

    async def rehash(self, user: User, password_hash: str) -> None:
        """Store a hash of the same password with the current parameters."""
        await self.session.execute(
            update(User)
            .where(User.id == user.id, User.password_hash == user.password_hash)
            .values(password_hash=password_hash)
        )

    async def create_session(self, user: User, **values: Any) -> UserSession:
        """Write a new session; delete those that have expired, and the oldest of too many."""
        latest = select(UserSession.id).where(UserSession.user_id == user.id)
        latest = latest.order_by(UserSession.created_at.desc(), UserSession.id.desc())
        oldest = latest.offset(MAX_SESSIONS - 1).subquery()
        expired = select(UserSession.id).where(UserSession.expires_at < now())
        # A UNION uses the indexes; an OR would read the sessions of all users.
        over = UserSession.id.in_(union_all(expired, oldest.select()))
        found = select(UserSession.id).where(over).with_for_update(skip_locked=True)
        await self.session.execute(delete(UserSession).where(UserSession.id.in_(found)))
        values |= {"user_id": user.id, "token_version": user.token_version}
        return await self.one(insert(UserSession).values(values).returning(UserSession))

    async def renew_session(self, token_hash: str, lifetime: timedelta) -> UserSession | None:
        """Renew the valid session of a refresh token and return it, or return None.

        The row stays locked, so that requests with tokens of one session wait for each other.
        """
        moment = now()
        renewed = moment + lifetime
        owner = exists().where(
            User.id == UserSession.user_id,
            User.token_version == UserSession.token_version,
            User.is_active,
        )
        return await self.session.scalar(
            update(UserSession)
            .where(
                UserSession.id == _session_of(token_hash), UserSession.expires_at > moment, owner
            )
            .values(
                last_used_at=moment,
                expires_at=case(
                    (UserSession.ends_at < renewed, UserSession.ends_at), else_=renewed
                ),
            )
            .returning(UserSession)
        )

    async def end_session_of(self, token_hash: str) -> UserSession | None:
        """End the session of a refresh token, even of a used one; return it, or None."""
        own = delete(UserSession).where(UserSession.id == _session_of(token_hash))
        return await self.session.scalar(own.returning(UserSession))

    async def end_session(self, user_id: UUID, session_id: UUID) -> None:
        """End a session of a user.

        Raises:
            NotFound: the user has no such session.
        """
        own = delete(UserSession).where(
            UserSession.id == session_id, UserSession.user_id == user_id
        )
        if await self.session.scalar(own.returning(UserSession.id)) is None:
            raise NotFound("There is no such session.")

    async def end_stolen_session(self, login: UserSession) -> None:
        """End a session, and delete the API keys that were created in it."""
        stolen = delete(APIKey).where(
            APIKey.user_id == login.user_id, APIKey.session_id == login.id
        )
        await self.session.execute(stolen)
        await self.end_session(login.user_id, login.id)

    async def end_sessions(self, user_id: UUID, *, keep: UUID | None = None) -> None:
        """End every session of a user except ``keep``."""
        found = select(UserSession.id).where(UserSession.user_id == user_id)
        if keep is not None:
            found = found.where(UserSession.id != keep)
        # Locked in one order, so that two requests that end the same sessions can't deadlock.
        ordered = found.order_by(UserSession.id).with_for_update()
        await self.session.execute(delete(UserSession).where(UserSession.id.in_(ordered)))

    async def add_refresh_token(self, session_id: UUID, token_hash: str) -> None:
        """Store a new refresh token."""
        await self.session.execute(
            insert(RefreshToken).values(session_id=session_id, token_hash=token_hash)
        )

    async def use_refresh_token(self, token_hash: str) -> str | None:
        """Mark a refresh token as used; return its salt, or None if it was used before."""
        return await self.session.scalar(
            update(RefreshToken)
            .where(RefreshToken.token_hash == token_hash, RefreshToken.used_at.is_(None))
            .values(used_at=now())
            .returning(RefreshToken.successor_salt)
        )

    async def salt_used_since(self, token_hash: str, moment: datetime) -> str | None:
        """Return the salt of a refresh token that was first used after a time, or None."""
        return await self.session.scalar(
            select(RefreshToken.successor_salt).where(
                RefreshToken.token_hash == token_hash, RefreshToken.used_at >= moment
            )
        )

    async def is_unused(self, token_hash: str) -> bool:
        """Return whether a refresh token exists and is unused."""
        unused = select(RefreshToken.id).where(
            RefreshToken.token_hash == token_hash, RefreshToken.used_at.is_(None)
        )
        return await self.session.scalar(unused) is not None

    async def delete_used_tokens(self, session_id: UUID, before: datetime) -> None:
        """Delete the refresh tokens of a session that were used before a time."""
        await self.session.execute(
            delete(RefreshToken).where(
                RefreshToken.session_id == session_id, RefreshToken.used_at < before
            )
        )

    async def lock(self, user_id: UUID, token_version: int, session_id: UUID) -> Row[Any] | None:
        """Lock a user and a session until the transaction ends, or return None.

        The row has ``is_superuser``. It is None if the version was raised or the session has ended.
        """
        found = (
            select(User.is_superuser)
            .join(UserSession, UserSession.user_id == User.id)
            .where(
                User.id == user_id,
                User.token_version == token_version,
                User.is_active,
                UserSession.id == session_id,
            )
        )
        # FOR NO KEY UPDATE: rows that refer to the user can still be written meanwhile.
        return next(iter(await self.rows(found.with_for_update(key_share=True))), None)

    async def count_keys(self, user_id: UUID) -> int:
        """Return the number of a user's API keys, including expired ones."""
        return int(
            await self.session.scalar(
                select(func.count()).select_from(APIKey).where(APIKey.user_id == user_id)
            )
            or 0
        )

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


def _session_of(token_hash: str) -> Any:
    found = select(RefreshToken.session_id).where(RefreshToken.token_hash == token_hash)
    return found.scalar_subquery()
