"""All the SQL of tasks, their tags and their comments."""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Row,
    Select,
    String,
    Text,
    bindparam,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.orm import contains_eager, selectinload
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.sql.dml import ReturningUpdate

from app.kit import pagination
from app.kit.db import driver
from app.kit.db.engine import WriteSession
from app.kit.db.models import now
from app.kit.db.repository import Repository, T
from app.kit.errors import PreconditionFailed
from app.kit.pagination import Order, Slice, Start
from app.kit.schemas import PageQuery
from app.tasks.models import Comment, Tag, Task, task_tags
from app.tasks.schemas import CommentCreate, TaskCreate, TaskQuery

EMBEDDED_COMMENTS = 100
"""How many comments come with their task: its answer has a bound, the list of comments has all."""

# Statements that never change are built once, here: building one costs more than running it.
LIVE = Task.deleted_at.is_(None)  # the one place that hides deleted tasks
THIS_TASK = (Task.id == bindparam("task_id"), LIVE)

# In one statement: a task at one version with the tags of another would be a state that never was.
# By outer joins in a row: joinedload nests them, and SQLite then reads every tag of every task.
GET = (
    select(Task)
    .outerjoin(task_tags, task_tags.c.task_id == Task.id)
    .outerjoin(Tag, Tag.id == task_tags.c.tag_id)
    .where(*THIS_TASK)
    .options(contains_eager(Task.tags))
)
EXISTS = select(Task.id).where(*THIS_TASK)
COMMENTS = select(Comment).join(Comment.task).where(*THIS_TASK)
COMMENT_ORDER = Order("created_at", Comment.created_at, Comment.id)
TAG_ORDER = Order("name", Tag.name, Tag.id)
TAGS = select(
    Tag.id,
    Tag.name,
    select(func.count())
    .select_from(task_tags.join(Task))
    .where(task_tags.c.tag_id == Tag.id, LIVE)
    .scalar_subquery()
    .label("task_count"),
)
TASK_ORDERS = {
    order.name: order
    for column in (Task.created_at, Task.due_at, Task.title)
    for order in (
        Order(column.key, column, Task.id),
        Order(f"-{column.key}", column, Task.id, descending=True),
    )
}

INSERT_TASKS = (
    insert(Task)
    .returning(Task, sort_by_parameter_order=True)
    # Else rows with a null go in statements of their own: a thousand, in the worst case.
    .execution_options(render_nulls=True)
)


@cache
def _task_page(sort: str, start: Start, *, by_status: bool, by_tag: bool) -> Select[Task]:
    statement = select(Task).where(LIVE).options(selectinload(Task.tags))
    if by_status:
        statement = statement.where(Task.status == bindparam("status"))
    if by_tag:
        statement = statement.where(Task.tags.any(Tag.name == bindparam("tag")))
    return pagination.keyset(statement, TASK_ORDERS[sort], start)


@cache
def _comment_page(start: Start) -> Select[Comment]:
    return pagination.keyset(COMMENTS, COMMENT_ORDER, start)


@cache
def _tag_page(start: Start) -> Select[UUID, str, int]:
    return pagination.keyset(TAGS, TAG_ORDER, start)


class TaskReader(Repository):
    """What can be asked about tasks."""

    model = Task

    async def get(self, task_id: UUID) -> Task:
        """Give a task with its tags and its first ``EMBEDDED_COMMENTS`` comments at most.

        Raises:
            NotFound: there is no such task.
        """
        task = await self.one(GET, {"task_id": task_id})
        comments = await self.all(
            _comment_page(Start.TOP), {"task_id": task_id, "rows": EMBEDDED_COMMENTS}
        )
        set_committed_value(task, "comments", comments[: pagination.fit(comments)])
        return task

    async def page(self, query: TaskQuery) -> Slice[Task]:
        """List tasks with their tags.

        Raises:
            Unprocessable: the cursor is not one of this list.
        """
        order = TASK_ORDERS[query.sort]
        position = pagination.decode(order, query.cursor)
        statement = _task_page(
            query.sort,
            position.start,
            by_status=query.status is not None,
            by_tag=query.tag is not None,
        )
        filters = {"status": query.status, "tag": query.tag}
        rows = await self.all(statement, pagination.parameters(query.limit, position) | filters)
        return pagination.cut(rows, query.limit, order)

    async def comments(self, task_id: UUID, query: PageQuery) -> Slice[Comment]:
        """List the comments of a task, the oldest first.

        Raises:
            NotFound: there is no such task.
            Unprocessable: the cursor is not one of this list.
        """
        position = pagination.decode(COMMENT_ORDER, query.cursor)
        this_task = {"task_id": task_id}
        rows = await self.all(
            _comment_page(position.start), pagination.parameters(query.limit, position) | this_task
        )
        if not rows:
            await self.one(EXISTS, this_task)
        return pagination.cut(rows, query.limit, COMMENT_ORDER)

    async def tags(self, query: PageQuery) -> Slice[Row[UUID, str, int]]:
        """List tags by name, each with its number of tasks.

        Raises:
            Unprocessable: the cursor is not one of this list.
        """
        position = pagination.decode(TAG_ORDER, query.cursor)
        rows = await self.session.execute(
            _tag_page(position.start), pagination.parameters(query.limit, position)
        )
        return pagination.cut(rows.all(), query.limit, TAG_ORDER)


class TaskRepository(TaskReader):
    """What can be done to tasks, in the caller's transaction."""

    session: WriteSession

    def __init__(self, session: WriteSession) -> None:
        """Work in the transaction of ``session``."""
        super().__init__(session)

    async def create(self, items: Sequence[TaskCreate]) -> Sequence[Task]:
        """Write new tasks, and those of their tags that are new; in four statements at most."""
        tags = await self._tags({name for item in items for name in item.tags})
        tasks = await self.session.scalars(
            INSERT_TASKS, [item.model_dump(exclude={"tags"}) for item in items]
        )
        created = tasks.all()
        links: list[dict[str, UUID]] = []
        for task, item in zip(created, items, strict=True):
            own = [tags[name] for name in set(item.tags)]
            set_committed_value(task, "tags", own)
            links += ({"task_id": task.id, "tag_id": tag.id} for tag in own)
        if links:
            await self.session.execute(insert(task_tags), links)
        return created

    async def update(
        self, task_id: UUID, changes: dict[str, Any], versions: Collection[int] | None = None
    ) -> Task:
        """Change what ``changes`` names, where the task is at one of ``versions``.

        Raises:
            NotFound: there is no such task.
            PreconditionFailed: it is at another version.
        """
        columns = {name: value for name, value in changes.items() if name != "tags"}
        statement: ReturningUpdate[Task] | Select[Task] = select(Task)
        if changes:  # what changes nothing makes no new version
            statement = update(Task).values(**columns, version=Task.version + 1).returning(Task)
        if "tags" not in changes:
            statement = statement.options(selectinload(Task.tags))
        task = await self._update_if_match(statement, task_id, versions)
        if "tags" in changes:
            await self._replace_tags(task, set(changes["tags"]))
        return task

    async def delete(self, task_id: UUID, versions: Collection[int] | None = None) -> None:
        """Hide a task from every read, where it is at one of ``versions``.

        Raises:
            NotFound: there is no such task.
            PreconditionFailed: it is at another version.
        """
        statement = update(Task).values(deleted_at=now(), version=Task.version + 1)
        await self._update_if_match(statement.returning(Task.id), task_id, versions)

    async def comment(self, task_id: UUID, comment: CommentCreate) -> Comment:
        """Write a comment on a task.

        Raises:
            NotFound: there is no such task.
        """
        # From the task, so that a task that is gone gets no comment, in one statement.
        values = select(
            Task.id, literal(comment.author, String), literal(comment.body, Text)
        ).where(Task.id == task_id, LIVE)
        statement = insert(Comment).from_select(["task_id", "author", "body"], values)
        return await self.one(statement.returning(Comment))

    async def _update_if_match(
        self,
        statement: ReturningUpdate[T] | Select[T],
        task_id: UUID,
        versions: Collection[int] | None,
    ) -> T:
        statement = statement.where(Task.id == task_id, LIVE)
        if versions is not None:
            statement = statement.where(Task.version.in_(versions))
        # Nothing else was read in this session that would have to be kept in step.
        row = await self.session.scalar(statement, execution_options={"synchronize_session": False})
        if row is None:
            await self.one(EXISTS, {"task_id": task_id})
            raise PreconditionFailed("The task has changed: read it again.")
        return row

    async def _replace_tags(self, task: Task, names: set[str]) -> None:
        tags = await self._tags(names)
        kept = [tag.id for tag in tags.values()]
        await self.session.execute(
            delete(task_tags).where(task_tags.c.task_id == task.id, task_tags.c.tag_id.not_in(kept))
        )
        if kept:
            await self.session.execute(
                driver.insert(task_tags).on_conflict_do_nothing(),
                [{"task_id": task.id, "tag_id": tag_id} for tag_id in kept],
            )
        set_committed_value(task, "tags", list(tags.values()))

    async def _tags(self, names: Collection[str]) -> dict[str, Tag]:
        """Get or create, race-safe: whoever is second finds the tag of who was first."""
        if not names:
            return {}
        # Sorted: two requests with the same tags then wait for one another, and can't deadlock.
        await self.session.execute(
            driver.insert(Tag).on_conflict_do_nothing(), [{"name": name} for name in sorted(names)]
        )
        tags = await self.all(select(Tag).where(Tag.name.in_(names)))
        return {tag.name: tag for tag in tags}
