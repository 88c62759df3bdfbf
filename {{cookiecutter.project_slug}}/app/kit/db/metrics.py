"""The state of the connection pools, as OpenTelemetry metrics for database clients."""

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
    """Report the pools of ``database``."""
    _databases.add(database)


def forget(database: Database) -> None:
    """Stop reporting the pools of ``database``."""
    _databases.discard(database)


def connections(_: CallbackOptions) -> Iterable[Observation]:
    """Count the connections of each pool, used and idle."""
    for database in _databases:
        for name, engine in database.engines.items():
            if isinstance(pool := engine.pool, QueuePool):
                labels = {"db.client.connection.pool.name": name}
                for state, count in (("used", pool.checkedout()), ("idle", pool.checkedin())):
                    yield Observation(count, {**labels, "db.client.connection.state": state})


get_meter("app.db").create_observable_up_down_counter(
    "db.client.connection.count",
    callbacks=[connections],
    unit="{connection}",
    description="Connections of each pool, used and idle.",
)
