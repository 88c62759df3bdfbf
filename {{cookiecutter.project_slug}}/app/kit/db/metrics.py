"""The pools and transactions of databases, as OpenTelemetry metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

from opentelemetry.metrics import CallbackOptions, Observation, get_meter
from sqlalchemy import QueuePool

if TYPE_CHECKING:
    from collections.abc import Iterable

    from app.kit.db.engine import Database

_databases: WeakSet[Database] = WeakSet()


def watch(database: Database) -> None:
    """Report ``database``."""
    _databases.add(database)


def forget(database: Database) -> None:
    """Stop reporting ``database``."""
    _databases.discard(database)


def connections(_: CallbackOptions) -> Iterable[Observation]:
    """Count the connections of each pool, used and idle."""
    for database in _databases:
        for name, engine in database.engines.items():
            if isinstance(pool := engine.pool, QueuePool):
                labels = {"db.client.connection.pool.name": name}
                for state, count in (("used", pool.checkedout()), ("idle", pool.checkedin())):
                    yield Observation(count, {**labels, "db.client.connection.state": state})


def sizes(_: CallbackOptions) -> Iterable[Observation]:
    """Return the largest number of connections of each pool."""
    for database in _databases:
        for name, limiter in database.limiters.items():
            yield Observation(limiter.size, {"db.client.connection.pool.name": name})


def waiting(_: CallbackOptions) -> Iterable[Observation]:
    """Count those that wait for a connection of each pool."""
    for database in _databases:
        for name, limiter in database.limiters.items():
            yield Observation(limiter.waiting, {"db.client.connection.pool.name": name})


def transactions(_: CallbackOptions) -> Iterable[Observation]:
    """Count the transactions that were committed and rolled back."""
    for database in _databases:
        yield Observation(database.committed, {"outcome": "committed"})
        yield Observation(database.rolled_back, {"outcome": "rolled_back"})


def retries(_: CallbackOptions) -> Iterable[Observation]:
    """Count the transactions that were run again after a conflict."""
    for database in _databases:
        yield Observation(database.retried)


_meter = get_meter("app.db")
_meter.create_observable_up_down_counter(
    "db.client.connection.count",
    callbacks=[connections],
    unit="{connection}",
    description="Connections of each pool, used and idle.",
)
_meter.create_observable_up_down_counter(
    "db.client.connection.max",
    callbacks=[sizes],
    unit="{connection}",
    description="Maximum number of connections of each pool.",
)
_meter.create_observable_up_down_counter(
    "db.client.connection.pending_requests",
    callbacks=[waiting],
    unit="{request}",
    description="Sessions that wait for a connection of each pool.",
)
_meter.create_observable_counter(
    "app.db.transactions",
    callbacks=[transactions],
    unit="{transaction}",
    description="Transactions that were committed and rolled back.",
)
_meter.create_observable_counter(
    "app.db.retries",
    callbacks=[retries],
    unit="{transaction}",
    description="Transactions that were run again after a conflict.",
)
