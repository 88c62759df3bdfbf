"""All the SQL of tasks, their tags and their comments."""

from collections.abc import Collection, Sequence
from uuid import UUID

from sqlalchemy import String, Text, delete, func, insert, literal, select
from sqlalchemy.orm import contains_eager, selectinload
from sqlalchemy.orm.attributes import set_committed_value

from app.kit.db.repository import Repository
from app.kit.pagination import KeysetList
from app.tasks.models import Comment, Tag, Task, task_tags
from app.tasks.schemas import CommentCreate, TaskCreate, TaskUpdate

TASKS = KeysetList(
    select(Task).options(selectinload(Task.tags)),
    sorts=[Task.created_at, Task.due_at, Task.title],
    filters={"status": Task.status, "tag": lambda name: Task.tags.any(Tag.name == name)},
)
COMMENTS = KeysetList(
    select(Comment).join(Comment.task),
    sorts=[Comment.created_at],
    filters={"task_id": Comment.task_id},
    scope=Task,
)
TAGS = KeysetList(
    select(
        Tag.id,
        Tag.name,
        select(func.count())
        .select_from(task_tags.join(Task))
        .where(task_tags.c.tag_id == Tag.id, Task.deleted_at.is_(None))
        .scalar_subquery()
        .label("task_count"),
    ),
    sorts=[Tag.name],
)


class TaskRepository(Repository[Task]):
    """Tasks, with their tags and comments."""

    model = Task
    # One statement, so that version and tags come from one snapshot. joinedload nests the joins,
    # and SQLite then reads every tag of every task.
    detail = (
        select(Task)
        .outerjoin(task_tags, task_tags.c.task_id == Task.id)
        .outerjoin(Tag, Tag.id == task_tags.c.tag_id)
        .options(contains_eager(Task.tags))
    )

    async def add(self, items: Sequence[TaskCreate]) -> Sequence[Task]:
        """Create tasks in three statements, or in five if some of their tags are new."""
        names = {name for item in items for name in item.tags}
        tags = await self._tags(names)
        created = await self.create_all(item.model_dump(exclude={"tags"}) for item in items)
        links: list[dict[str, UUID]] = []
        for task, item in zip(created, items, strict=True):
            own = [tags[name] for name in set(item.tags)]
            set_committed_value(task, "tags", own)
            links += ({"task_id": task.id, "tag_id": tag.id} for tag in own)
        if links:
            await self.session.execute(insert(task_tags), links)
        return created

    async def change(
        self, task_id: UUID, body: TaskUpdate, versions: Collection[int] | None
    ) -> Task:
        """Change the fields that were sent; raises the errors of ``update``."""
        changes = body.model_dump(exclude_unset=True)
        names: list[str] | None = changes.pop("tags", None)
        task = await self.update(task_id, changes, versions, touch=names is not None)
        if names is None:
            statement = select(Tag).join(task_tags).where(task_tags.c.task_id == task_id)
            tags = await self.all(statement)
        else:
            tags = await self._replace_tags(task, set(names))
        set_committed_value(task, "tags", list(tags))
        return task

    async def comment(self, task_id: UUID, comment: CommentCreate) -> Comment:
        """Write a comment on a task, or raise ``NotFound``."""
        # INSERT ... SELECT from the task, so that one statement also checks that it exists.
        author = literal(comment.author_name(self.caller), String)
        columns = self.select(Task.id, author, literal(comment.body, Text))
        statement = insert(Comment).from_select(
            ["task_id", "author", "body"], columns.where(Task.id == task_id)
        )
        return await self.one(statement.returning(Comment))

    async def _replace_tags(self, task: Task, names: set[str]) -> Sequence[Tag]:
        tags = (await self._tags(names, task)).values()
        kept = [tag.id for tag in tags]
        await self.session.execute(
            delete(task_tags).where(task_tags.c.task_id == task.id, task_tags.c.tag_id.not_in(kept))
        )
        if kept:
            links = [{"task_id": task.id, "tag_id": tag_id} for tag_id in kept]
            await self.insert_missing(task_tags, links)
        return list(tags)

    async def _tags(self, names: set[str], task: Task | None = None) -> dict[str, Tag]:
        """Return the tags of the owner of ``task``, or of the caller; create missing ones."""
        owner = self.owner_of(task)
        statement = select(Tag).where(Tag.name.in_(names)).filter_by(**owner)
        found = {tag.name: tag for tag in await self.all(statement)} if names else {}
        if missing := sorted(names - found.keys()):
            await self.insert_missing(Tag, [{"name": name} | owner for name in missing])
            found = {tag.name: tag for tag in await self.all(statement)}
        return found
