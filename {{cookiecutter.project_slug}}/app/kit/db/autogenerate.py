"""Extend Alembic's autogenerate: changed CHECK constraints, indexes, safe steps, warnings."""

import logging
import re
from collections.abc import Callable
from typing import Any, Final

from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import renderers
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from alembic.runtime.plugins import Plugin
from alembic.util import CommandError, DispatchPriority, PriorityDispatchResult, sqla_compat
from sqlalchemy import CheckConstraint, Connection, Enum, String, Table, inspect, text
from sqlalchemy.exc import DBAPIError

from app.kit.db import driver

logger = logging.getLogger("alembic.autogenerate.checks")

PLUGINS: Final = (
    "alembic.autogenerate.*",
    "alembic.ext.checkconstraint_byname",
    "app.checkconstraint_bytext",
    "app.expression_indexes",
)
"""Compare CHECK constraints by name and text, which Alembic's autogenerate does not."""

_COPY: Final = "kit_checks"

_NOT_VALID: Final = (
    "NOT VALID checks new rows only. Validate the others in the next revision: docs/migrations.md"
)


class CommentOp(ops.MigrateOperation):
    """A comment in a revision."""

    def __init__(self, comment: str) -> None:
        """Write ``comment`` above the next operation."""
        self.comment = comment

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return the comment for comparison, as other operations do."""
        return ("comment", self.comment)


@renderers.dispatch_for(CommentOp)
def _render_comment(_: AutogenContext, op: CommentOp) -> list[str]:
    return [f"# {op.comment}"]


def _compare_texts(  # noqa: PLR0917 - called by Alembic
    context: AutogenContext,
    operations: ops.ModifyTableOps,
    schema: str | None,
    table_name: str,
    reflected: Table | None,
    declared: Table | None,
) -> PriorityDispatchResult:
    """Replace each CHECK constraint whose text has changed, such as that of an ``Enum``."""
    connection = context.connection
    if declared is not None:
        _refuse_native_enums(declared)
    if reflected is not None and declared is not None and connection is not None:
        former = {
            constraint["name"]: constraint["sqltext"]
            for constraint in inspect(connection).get_check_constraints(table_name, schema)
        }
        for constraint, new in _texts(connection, declared):
            name = ops.AddConstraintOp.from_constraint(constraint).to_constraint().name
            old = former.get(str(name))
            if old is None or _plain(old) == _plain(new):
                continue
            dropped = CheckConstraint(text(old), name=name, table=reflected)
            operations.ops += [
                ops.DropConstraintOp.from_constraint(dropped),
                ops.AddConstraintOp.from_constraint(constraint),
            ]
            logger.info("Detected changed check constraint %r on table %r", name, table_name)
    return PriorityDispatchResult.CONTINUE


def _refuse_native_enums(table: Table) -> None:
    for column in table.columns:
        if isinstance(column.type, Enum) and column.type.native_enum:
            raise CommandError(
                f"{table.name}.{column.name} is a native enum, whose changes no revision would "
                "have: annotate it as Mapped[...] without a type, see docs/migrations.md"
            )


def _add_expression_indexes(
    context: AutogenContext, upgrade: ops.UpgradeOps, _schemas: set[str | None]
) -> PriorityDispatchResult:
    """Create each index on an expression that is missing: Alembic skips those of SQLite.

    Apart from the other operations of its table, because a copy of the table would lose it.
    """
    connection = context.connection
    for table in context.sorted_tables:
        found = driver.index_names(connection, table.name) if connection is not None else None
        for index in sorted(table.indexes, key=lambda index: str(index.name)):
            if found is None or index.name in found or not sqla_compat.is_expression_index(index):
                continue
            created = ops.CreateIndexOp.from_index(index)
            upgrade.ops.append(ops.ModifyTableOps(table.name, [created]))
            logger.info("Detected added index %r on expressions of %r", index.name, table.name)
    return PriorityDispatchResult.CONTINUE


def _texts(connection: Connection, table: Table) -> list[tuple[CheckConstraint, str]]:
    """Return the CHECK constraints of a table, each with its text as the database stores it.

    A database rewrites the text, so they are added to a temporary table and read back.
    """
    checks = [each for each in table.constraints if isinstance(each, CheckConstraint)]
    if not checks:
        return []
    dialect = connection.dialect
    types, quote = dialect.type_compiler_instance, dialect.identifier_preparer.quote
    options = {"include_table": False, "literal_binds": True}
    parts = [
        *(f"{quote(column.name)} {types.process(column.type)}" for column in table.columns),
        *(
            f"CONSTRAINT c{number} CHECK "
            f"({check.sqltext.compile(dialect=dialect, compile_kwargs=options)})"
            for number, check in enumerate(checks)
        ),
    ]
    try:
        with connection.begin_nested() as savepoint:
            connection.exec_driver_sql(f"CREATE TEMPORARY TABLE {_COPY} ({', '.join(parts)})")
            found = inspect(connection).get_check_constraints(_COPY)
            savepoint.rollback()
    except DBAPIError as error:
        logger.warning("The CHECK constraints of %s were not compared: %s", table.name, error.orig)
        return []
    texts = {str(each["name"]): each["sqltext"] for each in found}
    return [(check, texts[f"c{number}"]) for number, check in enumerate(checks)]


def _plain(condition: str) -> str:
    # Texts in single quotes stay as they are.
    return re.sub(r"""('(?:[^']|'')*')|[\s"]""", r"\1", condition).strip("()")


def rewrite(
    context: MigrationContext, _revision: object, scripts: list[ops.MigrationScript]
) -> None:
    """Change the operations of a new revision: ``process_revision_directives`` of ``env.py``."""
    quote = context.dialect.identifier_preparer.quote
    for script in scripts:
        for upgrade in script.upgrade_ops_list:
            upgrade.ops = [each for op in upgrade.ops for each in _upgrade(op)]
            for table in _changed_tables(upgrade):
                table.ops = [each for op in table.ops for each in _upgrade(op)]
                if driver.NOT_VALID:
                    table.ops = _without_long_locks(table.ops, quote)
        for downgrade in script.downgrade_ops_list:
            for table in _changed_tables(downgrade):
                for op in table.ops:
                    _downgrade(op)


def _changed_tables(container: ops.OpContainer) -> list[ops.ModifyTableOps]:
    return [op for op in container.ops if isinstance(op, ops.ModifyTableOps)]


def _upgrade(op: ops.MigrateOperation) -> list[ops.MigrateOperation]:
    _plain_type(op)
    if isinstance(op, ops.DropColumnOp):
        lost = f"{op.table_name}.{op.column_name} is dropped with its values"
    elif isinstance(op, ops.DropTableOp):
        lost = f"{op.table_name} is dropped with its rows"
    else:
        return [op]
    warning = f"{lost}. If it was renamed, keep them: docs/migrations.md"
    logger.warning("%s", warning)
    return [CommentOp(warning), op]


def _without_long_locks(
    operations: list[ops.MigrateOperation], quote: Callable[[str], str]
) -> list[ops.MigrateOperation]:
    """Add constraints as NOT VALID, and let squawk allow a DROP CONSTRAINT that one replaces."""
    added = [
        op
        for op in operations
        if isinstance(op, (ops.CreateCheckConstraintOp, ops.CreateForeignKeyOp))
    ]
    for constraint in added:
        constraint.kw.update(driver.NOT_VALID)
    names = {str(constraint.constraint_name) for constraint in added}
    changed: list[ops.MigrateOperation] = []
    for op in operations:
        if added and op is added[0]:
            changed.append(CommentOp(_NOT_VALID))
        if isinstance(op, ops.DropConstraintOp) and (name := str(op.constraint_name)) in names:
            sql = f"ALTER TABLE {quote(op.table_name)} DROP CONSTRAINT {quote(name)}"
            changed.append(ops.ExecuteSQLOp(f"-- squawk-ignore ban-drop-constraint\n{sql}"))
        else:
            changed.append(op)
    return changed


def _downgrade(op: ops.MigrateOperation) -> None:
    _plain_type(op)
    if isinstance(op, ops.AddColumnOp) and op.column.server_default is None:
        op.column.nullable = True  # the old values are lost


def _plain_type(op: ops.MigrateOperation) -> None:
    # The CHECK constraint of an Enum is a separate operation.
    if not isinstance(op, ops.AddColumnOp) or not isinstance(kind := op.column.type, Enum):
        return
    if not kind.native_enum:
        op.column.type = String(kind.length)


Plugin("app.checkconstraint_bytext").add_autogenerate_comparator(
    _compare_texts, "table", "checkconstraint_texts"
)
Plugin("app.expression_indexes").add_autogenerate_comparator(
    _add_expression_indexes, "schema", "expression_indexes", priority=DispatchPriority.LAST
)
