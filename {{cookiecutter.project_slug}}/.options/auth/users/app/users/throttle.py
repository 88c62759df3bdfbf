"""Throttling: how many attempts to sign in, to register or to guess a password are allowed.

Attempts are counted in the database, for all workers together. A refused attempt writes nothing.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address
from logging import WARNING
from typing import Final
from uuid import UUID

from sqlalchemy import case, delete, or_, select, update

from app.kit.db import driver
from app.kit.db.engine import Database
from app.kit.db.models import now
from app.kit.db.repository import Repository
from app.kit.errors import Unavailable
from app.kit.security_log import security_event
from app.users.errors import TooManyRequests
from app.users.models import Attempt, User, UserSession
from app.users.settings import UserSettings

Counts = Mapping[str, tuple[int, datetime]]
"""The count of each subject, and when it starts again at zero."""

_IN_PROGRESS: Final[Counter[str]] = Counter()
"""Attempts in progress, by subject."""

HOST_BITS: Final = 72
"""The bits of an IPv6 address that a customer of a provider chooses: networks are /56 at least."""


@dataclass(frozen=True)
class Limits:
    """The limits that apply to an attempt."""

    window: int
    """Seconds over which attempts are counted."""
    own: Mapping[str, int]
    """Attempts that are allowed for each subject. Success sets them back to zero."""
    shared: Mapping[str, int]
    """The same for the client's address, which several users may share: success subtracts one."""
    names: Mapping[str, str]
    """The name of each limit, for the log."""
    at_once: int
    """Attempts of one subject that a worker has in progress: hashing takes long."""
    email: str = ""
    client: str = ""
    """The network that the attempt comes from."""

    def without_email(self) -> "Limits":
        """Return the limits of a client that the user of the e-mail address is known to have."""
        own = {each: most for each, most in self.own.items() if self.names[each] != "email"}
        return replace(self, own=own)

    def is_email_reached(self, counts: "Counts") -> bool:
        """Return whether the limit of the e-mail address, from wherever, is reached."""
        return any(
            self.names.get(each) == "email" and count >= self.all[each]
            for each, (count, _) in counts.items()
        )

    @property
    def all(self) -> dict[str, int]:
        """Return all limits by subject, sorted: concurrent requests lock rows in one order."""
        return dict(sorted({**self.own, **self.shared}.items()))


def email_limits(settings: UserSettings, email: str, address: str) -> Limits:
    """Return the limits of signing in or up with an e-mail address from a client address."""
    client = client_network(address)
    both, mail = _subject("e-mail and address", email, client), _subject("e-mail", email)
    place = _subject("address", client)
    return Limits(
        settings.throttle_window,
        own={
            both: settings.throttle_per_email_and_address,
            mail: settings.throttle_per_email,
        },
        shared={place: settings.throttle_per_address},
        names={both: "email_and_address", mail: "email", place: "address"},
        at_once=settings.throttle_at_once,
        email=email,
        client=client,
    )


def user_limits(settings: UserSettings, user_id: UUID, address: str, name: str) -> Limits:
    """Return the limits of something that users who are signed in do: ``name`` says what."""
    subject, place = _subject(name, str(user_id)), _subject("address", client_network(address))
    return Limits(
        settings.throttle_window,
        own={subject: settings.throttle_per_email_and_address},
        shared={place: settings.throttle_per_address},
        names={subject: name, place: "address"},
        at_once=settings.throttle_at_once,
    )


def client_network(address: str) -> str:
    """Return the client as it is counted: an IPv4 address, or the /56 of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{IPv6Address(int(parsed) >> HOST_BITS << HOST_BITS)}/{128 - HOST_BITS}"


@asynccontextmanager
async def throttled(
    database: Database, limits: Limits, *, resets: bool = True
) -> AsyncGenerator[None]:
    """Count an attempt before the block, and subtract it again if the block succeeds.

    An attempt without a result, because the service was busy, is subtracted as well.

    Args:
        database: the database that has the counts.
        limits: the limits that apply to the attempt.
        resets: whether success sets the counts to zero.

    Raises:
        TooManyRequests: one of the limits is reached.
    """
    with in_progress(limits):
        async with _counted(database, limits, resets=resets):
            yield


@contextmanager
def in_progress(limits: Limits) -> Generator[None]:
    """Take one of the places that each subject has in this worker.

    Raises:
        TooManyRequests: there is none.
    """
    if any(_IN_PROGRESS[each] >= limits.at_once for each in limits.all):
        security_event("throttled", level=WARNING, limits=["at_once"])
        raise TooManyRequests(1)
    _IN_PROGRESS.update(limits.all.keys())
    try:
        yield
    finally:
        _IN_PROGRESS.subtract(limits.all.keys())
        for each in limits.all:
            if not _IN_PROGRESS[each]:
                del _IN_PROGRESS[each]


@asynccontextmanager
async def _counted(database: Database, limits: Limits, *, resets: bool) -> AsyncGenerator[None]:
    async with database.reading(primary=True) as session:
        attempts = AttemptRepository(session)
        counts = await attempts.counts(limits)
        if limits.is_email_reached(counts) and await attempts.is_known(limits):
            limits = limits.without_email()
        attempts.check(counts, limits)
    async with database.transaction() as session:
        is_first = await AttemptRepository(session).add(limits)
    if is_first:  # once per window is enough
        async with database.transaction() as session:
            await AttemptRepository(session).delete_expired()
    try:
        yield
    except (Unavailable, asyncio.CancelledError):
        await asyncio.shield(_take_back(database, limits))
        raise
    if resets:
        async with database.transaction() as session:
            await AttemptRepository(session).reset(limits)


async def _take_back(database: Database, limits: Limits) -> None:
    async with database.transaction() as session:
        await AttemptRepository(session).reset(limits, keep=True)


def _subject(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class AttemptRepository(Repository[Attempt]):
    """All the SQL of throttling."""

    model = Attempt

    async def counts(self, limits: Limits) -> dict[str, tuple[int, datetime]]:
        """Return the current count of each subject, and the time when it returns to zero."""
        current = select(Attempt.subject, Attempt.count, Attempt.resets_at).where(
            Attempt.subject.in_(limits.all), Attempt.resets_at >= now()
        )
        rows = map(tuple, await self.rows(current))
        return {subject: (count, resets_at) for subject, count, resets_at in rows}

    @staticmethod
    def check(counts: Counts, limits: Limits) -> None:
        """Check that no limit is reached.

        Raises:
            TooManyRequests: one is.
        """
        allowed = limits.all
        waits = {
            limits.names[subject]: (resets_at - now()).total_seconds()
            for subject, (count, resets_at) in counts.items()
            if subject in allowed and count >= allowed[subject]
        }
        if waits:
            security_event("throttled", level=WARNING, limits=sorted(waits))
            raise TooManyRequests(max(waits.values()))

    async def is_known(self, limits: Limits) -> bool:
        """Return whether the user has a session that began in the client's network."""
        sessions = select(UserSession.address).join(User, User.id == UserSession.user_id)
        found = await self.rows(sessions.where(User.email == limits.email))
        return limits.client in {client_network(row.address) for row in found}

    async def add(self, limits: Limits) -> bool:
        """Count an attempt, atomically; return whether it starts the window of a subject.

        Raises:
            TooManyRequests: concurrent attempts have reached a limit. Roll back: nothing is
                counted then.
        """
        moment = now()
        resets_at = moment + timedelta(seconds=limits.window)
        allowed = limits.all
        rows = [{"subject": each, "count": 1, "resets_at": resets_at} for each in allowed]
        over = Attempt.resets_at < moment
        upsert = driver.insert(Attempt).values(rows)
        upsert = upsert.on_conflict_do_update(
            index_elements=[Attempt.subject],
            set_={
                "count": case((over, 1), else_=Attempt.count + 1),
                "resets_at": case((over, resets_at), else_=Attempt.resets_at),
            },
            where=or_(over, Attempt.count < case(allowed, value=Attempt.subject)),
        )
        counted = (await self.session.scalars(upsert.returning(Attempt.resets_at))).all()
        if len(counted) < len(allowed):
            self.check(await self.counts(limits), limits)
            raise TooManyRequests(1)  # the limit was reached, and reset meanwhile
        return resets_at in counted

    async def reset(self, limits: Limits, *, keep: bool = False) -> None:
        """Set the counts to zero after a success, or subtract one attempt."""
        subjects = select(Attempt.subject).where(Attempt.subject.in_(limits.all))
        # Locked in the order of `add`, so that the two can't deadlock.
        ordered = subjects.order_by(Attempt.subject).with_for_update()
        zeroed = () if keep else tuple(limits.own)
        back = case((Attempt.subject.in_(zeroed), 0), else_=Attempt.count - 1)
        await self.session.execute(
            update(Attempt)
            .where(Attempt.subject.in_(ordered), Attempt.count > 0)
            .values(count=back)
            .execution_options(synchronize_session=False)
        )

    async def delete_expired(self) -> None:
        """Delete expired counts, except those that another transaction has locked."""
        expired = select(Attempt.subject).where(Attempt.resets_at < now())
        free = expired.with_for_update(skip_locked=True)
        await self.session.execute(
            delete(Attempt)
            .where(Attempt.subject.in_(free))
            .execution_options(synchronize_session=False)
        )
