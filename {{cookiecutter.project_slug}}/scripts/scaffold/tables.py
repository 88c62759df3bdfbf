"""The migration of a renamed feature: its tables, and columns that have its name in others."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import renderers
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Inspector, inspect

from app.kit import project
from app.kit.db import driver
from app.kit.db.models import Base
from scripts.scaffold.renaming import Renaming

UNKNOWN: Final = "unknown"
"""An option of an index that has a condition or an expression, which is not read."""

Directives = Callable[[MigrationContext, object, list[ops.MigrationScript]], None]


@dataclass(frozen=True)
class Part:
    """A constraint or an index: its name, and the arguments that create it."""

    kind: str
    """As in ``create_foreign_key``."""
    name: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class State:
    """The names in a table, before or after it is renamed."""

    table: str
    columns: tuple[str, ...]
    parts: tuple[Part, ...]


class CodeOp(ops.MigrateOperation):
    """Lines of a revision."""

    def __init__(self, lines: list[str]) -> None:
        """Write these lines."""
        self.lines = lines


@renderers.dispatch_for(CodeOp)
def _render_code(_: AutogenContext, op: CodeOp) -> list[str]:
    return op.lines


def rename_tables(renaming: Renaming) -> Directives:
    """Return what writes the revision of a renamed feature, for ``alembic.command.revision``."""

    def directives(
        context: MigrationContext, _revision: object, scripts: list[ops.MigrationScript]
    ) -> None:
        changes = [
            (state, after)
            for state in _states(cast("Connection", context.connection))  # it is not offline
            if (after := _after(state, renaming)) != state
        ]
        quote = context.dialect.identifier_preparer.quote
        undone = [(after, state) for state, after in reversed(changes)]
        for script in scripts:
            script.upgrade_ops_list[0].ops = [CodeOp(_lines(changes, quote))]
            script.downgrade_ops_list[0].ops = [CodeOp(_lines(undone, quote))]

    return directives


def _states(connection: Connection) -> Iterator[State]:
    """Return the names in every table of the database."""
    inspector = inspect(connection)
    for table in sorted(inspector.get_table_names()):
        columns = tuple(each["name"] for each in inspector.get_columns(table))
        yield State(table, columns, tuple(_parts(inspector, table)))


def _parts(inspector: Inspector, table: str) -> Iterator[Part]:
    key = inspector.get_pk_constraint(table)
    yield Part("primary_key", str(key["name"]), (key["constrained_columns"],), {})
    for unique in inspector.get_unique_constraints(table):
        yield Part("unique_constraint", str(unique["name"]), (unique["column_names"],), {})
    for foreign in inspector.get_foreign_keys(table):
        own, referred = foreign["constrained_columns"], foreign["referred_columns"]
        arguments = (foreign["referred_table"], own, referred)
        yield Part("foreign_key", str(foreign["name"]), arguments, foreign["options"])
    for check in inspector.get_check_constraints(table):
        yield Part("check_constraint", str(check["name"]), (check["sqltext"],), {})
    for index in inspector.get_indexes(table):
        if "duplicates_constraint" not in index:
            options: dict[str, Any] = {"unique": bool(index["unique"])}
            if driver.RENDER_AS_BATCH and (index.get("dialect_options") or "expressions" in index):
                options[UNKNOWN] = True
            yield Part("index", str(index["name"]), (index["column_names"],), options)


def _after(state: State, renaming: Renaming) -> State:
    """Return the names in a table that the models have now."""
    tables = Base.metadata.tables
    table = state.table if state.table in tables else renaming.text(state.table)
    if table not in tables:
        return state
    known = tables[table].columns
    columns = tuple(each if each in known else renaming.text(each) for each in state.columns)
    if (table, columns) == (state.table, state.columns):
        return state  # a name of a part that looks alike is another
    names = dict(zip(state.columns, columns, strict=True))
    parts = tuple(_renamed_part(part, names, renaming) for part in state.parts)
    return State(table, columns, parts)


def _renamed_part(part: Part, names: dict[str, str], renaming: Renaming) -> Part:
    if UNKNOWN in part.options:
        raise NotImplementedError(f"rename the table of the index {part.name} by hand")
    first, *others = part.arguments
    if part.kind == "foreign_key":
        table = first if first in Base.metadata.tables else renaming.text(first)
        own, referred = others
        arguments: tuple[Any, ...] = (table, [names[each] for each in own], referred)
    elif part.kind == "check_constraint":
        arguments = (re.sub(r"\w+", lambda found: names.get(found[0], found[0]), first),)
    else:
        arguments = ([names.get(each, each) for each in first],)
    return replace(part, name=renaming.text(part.name), arguments=arguments)


def _lines(changes: list[tuple[State, State]], quote: Callable[[str], str]) -> list[str]:
    """Return the operations that lead from the first state of each table to the second."""
    lines = []
    for before, after in changes:
        if before.table != after.table:
            old, new = quote(before.table), quote(after.table)
            lines.append(_execute("renaming-table", f"ALTER TABLE {old} RENAME TO {new}"))
    for before, after in changes:
        lines += [
            _execute(
                "renaming-column",
                f"ALTER TABLE {quote(after.table)} RENAME COLUMN {quote(old)} TO {quote(new)}",
            )
            for old, new in zip(before.columns, after.columns, strict=True)
            if old != new
        ]
    for before, after in changes:
        parts = [
            (old, new)
            for old, new in zip(before.parts, after.parts, strict=True)
            if old.name != new.name
        ]
        if parts and driver.RENDER_AS_BATCH:
            lines.append(f"with op.batch_alter_table({after.table!r}) as batch_op:")
            lines += [_drop(old) for old, _ in parts]
            lines += [_create(new) for _, new in parts]
            lines.append("")  # the end of the block: Alembic indents it
        elif parts:
            lines += [
                _execute("renaming-object", _rename(after.table, old, new, quote))
                for old, new in parts
            ]
    return lines


def _execute(allowed: str, sql: str) -> str:
    """Return the line that runs a statement; squawk, if it is there, allows its rule."""
    if (project.ROOT / ".squawk.toml").is_file():
        sql = f"-- squawk-ignore {allowed}\n{sql}"
    return f"op.execute({sql!r})"


def _rename(table: str, old: Part, new: Part, quote: Callable[[str], str]) -> str:
    if old.kind == "index":
        return f"ALTER INDEX {quote(old.name)} RENAME TO {quote(new.name)}"
    names = f"{quote(old.name)} TO {quote(new.name)}"
    return f"ALTER TABLE {quote(table)} RENAME CONSTRAINT {names}"


def _drop(part: Part) -> str:
    if part.kind == "index":
        return f"batch_op.drop_index(batch_op.f({part.name!r}))"
    kind = part.kind.removesuffix("_constraint").removesuffix("_key")
    kind = "foreignkey" if kind == "foreign" else kind
    return f"batch_op.drop_constraint(batch_op.f({part.name!r}), type_={kind!r})"


def _create(part: Part) -> str:
    arguments = [f"batch_op.f({part.name!r})", *map(repr, part.arguments)]
    arguments += [f"{name}={value!r}" for name, value in part.options.items()]
    return f"batch_op.create_{part.kind}({', '.join(arguments)})"
