"""Writes the modules of a feature, as the README and docs/recipes.md do."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from scripts.scaffold import samples
from scripts.scaffold.features import Feature
from scripts.scaffold.fields import SORTED, Field
from scripts.scaffold.names import Names, camel

FILTERED: Final = frozenset({"bool", "enum", "ref"})
"""Types by which lists are filtered, beside unique fields."""

_COLUMNS: Final = {
    "bigint": ("int", "BigInteger"),
    "bool": ("bool", ""),
    "date": ("date", ""),
    "datetime": ("datetime", ""),
    "decimal": ("Decimal", "Numeric(12, 2)"),
    "float": ("float", ""),
    "int": ("int", ""),
    "str": ("str", "String(200)"),
    "text": ("str", "Text"),
    "uuid": ("UUID", ""),
}
"""The Python type of a column, and its type in SQL where the first does not tell it."""

_BODIES: Final = {
    "bigint": "Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]",
    "float": "Annotated[float, Field(strict=True)]",
    "bool": "Annotated[bool, Field(strict=True)]",
    "int": "Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)]",
    "str": "Annotated[Text, Field(min_length=1, max_length=200)]",
    "text": "Annotated[Text, Field(min_length=1, max_length=10_000)]",
}
"""Types of request fields that get a name of their own."""

_SIMPLE: Final = {
    "date": "Date",
    "datetime": "UTCTime",
    "decimal": "Amount",
    "json": "JsonObject",
    "ref": "UUID",
    "uuid": "UUID",
}

_SOURCES: Final = {
    "Amount": "app.kit.schemas",
    "Annotated": "typing",
    "Any": "typing",
    "AsyncClient": "httpx2",
    "Base": "app.kit.db.models",
    "BigInteger": "sqlalchemy",
    "Database": "app.kit.db.engine",
    "Date": "app.kit.schemas",
    "Decimal": "decimal",
    "Example": "tests.kit.openapi",
    "Examples": "tests.kit.openapi",
    "Field": "pydantic",
    "ForeignKey": "sqlalchemy",
    "Index": "sqlalchemy",
    "JSON": "sqlalchemy",
    "JsonObject": "app.kit.schemas",
    "KeysetList": "app.kit.pagination",
    "Literal": "typing",
    "MISSING": "pydantic",
    "Mapped": "sqlalchemy.orm",
    "Numeric": "sqlalchemy",
    "OwnerMixin": "app.users.owner",
    "Page": "app.kit.pagination",
    "PageQuery": "app.kit.pagination",
    "Query": "fastapi",
    "Repository": "app.kit.db.repository",
    "RequestModel": "app.kit.schemas",
    "ResponseModel": "app.kit.schemas",
    "Router": "app.kit.routing",
    "StrEnum": "enum",
    "String": "sqlalchemy",
    "TimestampMixin": "app.kit.db.models",
    "UTCTime": "app.kit.schemas",
    "UUID": "uuid",
    "UUIDPrimaryKey": "app.kit.db.models",
    "caller": "tests",
    "count": "itertools",
    "date": "datetime",
    "datetime": "datetime",
    "error_responses": "app.kit.errors",
    "mapped_column": "sqlalchemy.orm",
    "owner_unique": "app.users.owner",
    "problem": "tests.conftest",
    "pytest": "",
    "repository": "app.kit.db.session",
    "select": "sqlalchemy",
    "timedelta": "datetime",
    "uuid4": "uuid",
}


@dataclass(frozen=True)
class Plan:
    """A feature that is to be written."""

    names: Names
    fields: tuple[Field, ...]
    targets: Mapping[str, Feature]
    """The features that its references name, and its parent."""
    parent: Feature | None
    is_owned: bool
    is_shared: bool
    """Whether every user may see and change the rows of the others."""

    @property
    def references(self) -> list[Field]:
        """Return the references to other features."""
        return [field for field in self.fields if field.kind == "ref"]

    @property
    def checked(self) -> list[Field]:
        """Return the references that a foreign key alone does not check."""
        return [each for each in self.references if self.targets[each.target].is_hidden]

    @property
    def sorts(self) -> list[str]:
        """Return the columns that lists can be sorted by."""
        return ["created_at", *(each.column for each in self.fields if _is_sorted(each))]

    @property
    def filters(self) -> list[Field]:
        """Return the fields by which lists can be filtered."""
        return [each for each in self.fields if each.unique or each.kind in FILTERED]

    @property
    def parent_key(self) -> str:
        """Return the name of the parent's key: ``customer_id``."""
        return f"{self.parent.names.singular}_id" if self.parent else ""

    @property
    def has_query(self) -> bool:
        """Return whether lists have parameters of their own."""
        return bool(self.filters or len(self.sorts) > 1)

    @property
    def query(self) -> str:
        """Return the class of the query."""
        return f"{self.names.model}Query" if self.has_query else "PageQuery"

    @property
    def item_path(self) -> str:
        """Return the path of a row, below the version of the API."""
        return f"/{self.names.path}/{{{self.names.singular}_id}}"

    @property
    def list_path(self) -> str:
        """Return the path of the list, below the version of the API."""
        if self.parent is None:
            return f"/{self.names.path}"
        return f"/{self.parent.names.path}/{{{self.parent_key}}}/{self.names.path}"

    def type_of(self, field: Field) -> str:
        """Return the type of a field in a request."""
        if field.kind in _BODIES or field.kind == "enum":
            return self.names.model + camel(field.name)
        return _SIMPLE[field.kind]


def _is_sorted(field: Field) -> bool:
    return field.kind in SORTED or (field.unique and field.kind != "ref")


def files(plan: Plan) -> dict[str, str]:
    """Return the text of each file of a feature by its path, not yet formatted."""
    app, tests = f"app/{plan.names.plural}", f"tests/{plan.names.plural}"
    return {
        f"{app}/__init__.py": f'"""{_capital(plan.names.words)}."""\n',
        f"{app}/models.py": models(plan),
        f"{app}/schemas.py": schemas(plan),
        f"{app}/repository.py": repository(plan),
        f"{app}/router.py": router(plan),
        f"{tests}/__init__.py": "",
        f"{tests}/factory.py": factory(plan),
        f"{tests}/test_{plan.names.plural}.py": tests_of(plan),
    }


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _module(docstring: str, body: str, more: Iterable[tuple[str, str]] = ()) -> str:
    """Return a module with the imports of the names that its body uses."""
    tree_names = set(_names(body))
    imports = [(source, name) for name, source in _SOURCES.items() if name in tree_names]
    imports += [(source, name) for source, name in more if name in tree_names]
    lines = [
        f"from {source} import {name}" if source else f"import {name}" for source, name in imports
    ]
    return f'"""{docstring}"""\n\n' + "\n".join(lines) + f"\n\n{body}"


def _names(body: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(body)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id


# app/<feature>/models.py


def models(plan: Plan) -> str:
    """Return the module of the table."""
    names = plan.names
    enums = [_enum(plan, field) for field in plan.fields if field.kind == "enum"]
    owner = "OwnerMixin, " if plan.is_owned else ""
    shown = ", visible to its owner and to superusers" if plan.is_owned else ""
    columns = [_column(plan, field) for field in plan.fields]
    if plan.parent:
        table = plan.parent.names.plural
        columns.insert(
            0,
            f"{plan.parent_key}: Mapped[UUID] = mapped_column("
            f'ForeignKey("{table}.id", ondelete="CASCADE")'
            f"{', index=True' if plan.is_owned else ''})",
        )
    body = "\n\n\n".join(
        [
            *enums,
            f"class {names.model}({owner}UUIDPrimaryKey, TimestampMixin, Base):\n"
            f'    """{_capital(names.a_word)}{shown}."""\n\n'
            f'    __tablename__ = "{names.plural}"\n'
            f"    __table_args__ = ({', '.join(_table_arguments(plan))},)\n\n"
            + "".join(f"    {column}\n" for column in columns),
        ]
    )
    return _module(f"The table of {names.words}.", body, [("sqlalchemy", "Text")])


def _table_arguments(plan: Plan) -> Iterator[str]:
    if plan.is_owned:
        for field in plan.fields:
            if field.unique:
                yield f'owner_unique("{field.column}")'
    start = ['"owner_id"'] if plan.is_owned else []
    start += [f'"{plan.parent_key}"'] if plan.parent else []
    for column in plan.sorts:
        yield f'Index(None, {", ".join([*start, f"{chr(34)}{column}{chr(34)}"])}, "id")'


def _enum(plan: Plan, field: Field) -> str:
    members = "".join(
        f'    {value.upper().replace("-", "_")} = "{value}"\n' for value in field.values
    )
    name = f"{plan.names.model}{camel(field.name)}"
    return (
        f'class {name}(StrEnum):\n    """The {field.words} of {plan.names.a_word}."""\n\n{members}'
    )


def _column(plan: Plan, field: Field) -> str:
    options = []
    if field.kind == "ref":
        table = plan.targets[field.target].names.plural
        action = "SET NULL" if field.nullable else "CASCADE"
        python = "UUID"
        options.append(f'ForeignKey("{table}.id", ondelete="{action}")')
    elif field.kind == "enum":
        python = plan.type_of(field)
    elif field.kind == "json":
        python = "dict[str, Any]"
        options.append("JSON(none_as_null=True)" if field.nullable else "JSON")
    else:
        python, column_type = _COLUMNS[field.kind]
        options += [column_type] if column_type else []
    if field.unique and not plan.is_owned:
        options.append("unique=True")
    elif field.kind == "ref":
        options.append("index=True")
    optional = " | None" if field.nullable else ""
    value = f" = mapped_column({', '.join(options)})" if options else ""
    return f"{field.column}: Mapped[{python}{optional}]{value}"


# app/<feature>/schemas.py


def schemas(plan: Plan) -> str:
    """Return the module of the request and response bodies."""
    names, model = plan.names, plan.names.model
    aliases = [
        f"{plan.type_of(field)} = {_BODIES[field.kind]}\n"
        for field in plan.fields
        if field.kind in _BODIES
    ]
    create = [_create(plan, field) for field in plan.fields]
    update = [_update(plan, field) for field in plan.fields]
    parts = [
        "".join(aliases),
        _schema(f"{model}Create(RequestModel)", f"A new {names.word}.", create),
        _schema(
            f"{model}Update(RequestModel)",
            f"Changes to {names.a_word}: a field that is not sent stays as it is.",
            update,
        ),
    ]
    if plan.has_query:
        parts.append(_query(plan))
    public = ["id: UUID"]
    public += [f"{plan.parent_key}: UUID"] if plan.parent else []
    public += [_public(plan, field) for field in plan.fields]
    parts.append(
        _schema(
            f"{model}Public(ResponseModel)",
            f"{_capital(names.a_word)}.",
            [*public, "created_at: datetime"],
        )
    )
    own = f"app.{names.plural}.models"
    enums = [(own, plan.type_of(field)) for field in plan.fields if field.kind == "enum"]
    text = [("app.kit.schemas", "Text")]
    return _module(
        f"The request and response bodies of {names.words}.",
        "\n\n".join(part for part in parts if part),
        [*enums, *text],
    )


def _schema(head: str, docstring: str, lines: list[str]) -> str:
    return f'class {head}:\n    """{docstring}"""\n\n' + "".join(f"    {line}\n" for line in lines)


def _create(plan: Plan, field: Field) -> str:
    kind = plan.type_of(field)
    return f"{field.column}: {kind} | None = None" if field.nullable else f"{field.column}: {kind}"


def _update(plan: Plan, field: Field) -> str:
    optional = " | None" if field.nullable else ""
    return f"{field.column}: {plan.type_of(field)} | MISSING{optional} = MISSING"


def _public(plan: Plan, field: Field) -> str:
    if field.kind in _COLUMNS:
        kind = _COLUMNS[field.kind][0]
    else:
        kind = {"json": "dict[str, Any]", "ref": "UUID"}.get(field.kind) or plan.type_of(field)
    return f"{field.column}: {kind}{' | None' if field.nullable else ''}"


def _query(plan: Plan) -> str:
    lines = []
    for field in plan.filters:
        kind = plan.type_of(field)
        if field.kind in {"bool", "int", "bigint"}:  # texts in a query: not strict
            kind = _BODIES[field.kind].replace("strict=True, ", "")
            kind = "bool" if field.kind == "bool" else kind
        lines.append(f"{field.column}: {kind} | None = None")
    sorts = ", ".join(f'"{column}", "-{column}"' for column in plan.sorts)
    lines.append(f'sort: Literal[{sorts}] = "created_at"')
    return _schema(
        f"{plan.names.model}Query(PageQuery)",
        f"Filters and order of the list of {plan.names.words}."
        if plan.filters
        else f"The order of the list of {plan.names.words}.",
        lines,
    )


# app/<feature>/repository.py


def repository(plan: Plan) -> str:
    """Return the module of the SQL."""
    names, model = plan.names, plan.names.model
    columns = [plan.parent_key] if plan.parent else []
    columns += [field.column for field in plan.filters]
    filters = ", ".join(f'"{column}": {model}.{column}' for column in columns)
    sorts = ", ".join(f"{model}.{column}" for column in plan.sorts)
    body = (
        f"{names.constant} = KeysetList(select({model}), sorts=[{sorts}]"
        + (f", filters={{{filters}}}" if filters else "")
        + f")\n\n\nclass {model}Repository(Repository[{model}]):\n"
        f'    """{_capital(names.words)}."""\n\n    model = {model}\n'
    )
    own = [(f"app.{names.plural}.models", model)]
    return _module(f"All the SQL of {names.words}.", body, own)


# app/<feature>/router.py


def router(plan: Plan) -> str:
    """Return the module of the routes."""
    names, model, plural = plan.names, plan.names.model, plan.names.plural
    prefix = "" if plan.parent else f'prefix="/{names.path}", '
    description = f'tags=["{names.path}"], description="{_capital(names.words)}."'
    used = {each.target: plan.targets[each.target] for each in plan.checked}
    used |= {plan.parent.names.plural: plan.parent} if plan.parent else {}
    used = {target: feature for target, feature in used.items() if target != plural}
    repositories = [(names.models, f"{model}Repository")]
    repositories += [(each.names.models, each.repository) for each in used.values()]
    parts = [
        f"router = Router({prefix}{description})\n\n"
        + "".join(
            f"{name} = Annotated[{each}, repository({each})]\n" for name, each in repositories
        ),
        _create_route(plan),
        _list_route(plan),
        _item_routes(plan),
    ]
    own = [
        (f"app.{plural}.models", model),
        (f"app.{plural}.repository", names.constant),
        (f"app.{plural}.repository", f"{model}Repository"),
        *(
            (f"app.{plural}.schemas", f"{model}{each}")
            for each in ("Create", "Public", "Query", "Update")
        ),
        *((f"app.{target}.repository", each.repository) for target, each in used.items()),
    ]
    return _module(f"{_capital(names.word)} routes.", "\n\n".join(parts), own)


def _parameters(plan: Plan, *first: str) -> str:
    """Return the parameters of a route that writes, with the repositories that it needs."""
    names = plan.names
    others = {plan.targets[each.target].names.plural for each in plan.checked}
    others = {each for each in others if each != names.plural}
    return ", ".join(
        [
            *first,
            *(f"{other}: {plan.targets[other].names.models}" for other in sorted(others)),
            f"{names.plural}: {names.models}",
        ]
    )


def _checks(plan: Plan, *, update: bool) -> str:
    lines = ""
    for field in plan.checked:
        conditions = [f"body.{field.column} is not MISSING"] if update else []
        conditions += [f"body.{field.column} is not None"] if field.nullable else []
        get = f"await {field.target}.get(body.{field.column})\n"
        condition = f"    if {' and '.join(conditions)}:\n    " if conditions else ""
        lines += f"{condition}    {get}"
    return lines


def _errors(plan: Plan, *statuses: int) -> str:
    found = set(statuses)
    found |= {404} if plan.checked else set()
    conflicts = plan.references or any(field.unique for field in plan.fields)
    found |= {409} if conflicts else set()
    listed = ", ".join(map(str, sorted(found)))
    return f", responses=error_responses({listed})" if found else ""


def _create_route(plan: Plan) -> str:
    names, parent = plan.names, plan.parent
    first = ["body: " + f"{names.model}Create"]
    if parent is None:
        path, errors, of = '""', _errors(plan), ""
        before, values = "", "body"
    else:
        path, errors = f'"{plan.list_path}"', _errors(plan, 404, 409)
        of = f" of {parent.names.a_word}"
        first.insert(0, f"{plan.parent_key}: UUID")
        first.append(f"{parent.names.plural}: {parent.names.models}")
        get = f"await {parent.names.plural}.get({plan.parent_key})"
        owner = ""
        if plan.is_owned and parent.is_owned:
            get = f"parent = {get}"
            owner = f", **{parent.names.plural}.owner_of(parent)"
        before = f"    {get}\n"
        values = f'{{**body.model_dump(){owner}, "{plan.parent_key}": {plan.parent_key}}}'
    if parent and parent.names.plural in {each.target for each in plan.checked}:
        first.pop()
    return (
        f"@router.post({path}, status_code=201, response_model={names.model}Public{errors})\n"
        f"async def create_{names.singular}({_parameters(plan, *first)}) -> {names.model}:\n"
        f'    """Create {names.a_word}{of}."""\n'
        f"{before}{_checks(plan, update=False)}"
        f"    return await {names.plural}.create({values})\n"
    )


def _list_route(plan: Plan) -> str:
    names, parent = plan.names, plan.parent
    query = f"query: Annotated[{plan.query}, Query()]"
    own = f"{names.plural}: {names.models}"
    if parent is None:
        return (
            f'@router.get("", response_model=Page[{names.model}Public])\n'
            f"async def list_{names.plural}({query}, {own}) -> object:\n"
            f'    """List {names.words}, page by page."""\n'
            f"    return await {names.plural}.page({names.constant}, query)\n"
        )
    key, others = plan.parent_key, parent.names.plural
    return (
        f'@router.get("{plan.list_path}", response_model=Page[{names.model}Public], '
        f"responses=error_responses(404))\n"
        f"async def list_{names.plural}({key}: UUID, {query}, {others}: {parent.names.models}, "
        f"{own}) -> object:\n"
        f'    """List the {names.words} of {parent.names.a_word}, page by page."""\n'
        f"    await {others}.get({key})\n"
        f"    return await {names.plural}.page({names.constant}, query, {key}={key})\n"
    )


def _item_routes(plan: Plan) -> str:
    names = plan.names
    model, key, own = names.model, f"{names.singular}_id", f"{names.plural}: {names.models}"
    path = f'"{plan.item_path}"' if plan.parent else f'"/{{{key}}}"'
    found = "responses=error_responses(404)"
    parameters = _parameters(plan, f"{key}: UUID", f"body: {model}Update")
    return (
        f"@router.get({path}, response_model={model}Public, {found})\n"
        f"async def get_{names.singular}({key}: UUID, {own}) -> {model}:\n"
        f'    """Get {names.a_word}."""\n'
        f"    return await {names.plural}.get({key})\n\n\n"
        f"@router.patch({path}, response_model={model}Public{_errors(plan, 404)})\n"
        f"async def update_{names.singular}({parameters}) -> {model}:\n"
        f'    """Change the fields that are sent."""\n'
        f"{_checks(plan, update=True)}"
        f"    return await {names.plural}.update({key}, body)\n\n\n"
        f"@router.delete({path}, status_code=204, {found})\n"
        f"async def delete_{names.singular}({key}: UUID, {own}) -> None:\n"
        f'    """Delete {names.a_word}."""\n'
        f"    await {names.plural}.delete({key})\n"
    )


# tests/<feature>/


def factory(plan: Plan) -> str:
    """Return the module that makes valid rows for tests."""
    names, parent = plan.names, plan.parent
    singular = names.singular
    others = {each.target: plan.targets[each.target] for each in plan.references}
    others |= {parent.names.plural: parent} if parent else {}
    others.pop(names.plural, None)
    imports = [(f"tests.{target}.factory", each.factory) for target, each in others.items()]
    rows = "".join(
        f'    if "{field.column}" not in fields:\n'
        f'        fields["{field.column}"] = (await {others[field.target].factory}(client))["id"]\n'
        for field in plan.references
        if field.target in others
    )
    values = "".join(
        f'        "{field.column}": {samples.factory(field)},\n'
        for field in plan.fields
        if field.kind != "ref"
    )
    number = "    number = next(_numbers)\n" if "number" in values else ""
    counter = "_numbers = count(1)\n\n\n" if number else ""
    fields = (
        f"async def {singular}_fields(client: AsyncClient, **fields: Any) -> Json:\n"
        f'    """Return the body of a new {names.word}, with these fields; no two are alike."""\n'
        f"{rows}{number}    return {{\n{values}        **fields,\n    }}\n"
    )
    path = f'"/v1/{names.path}"'
    signature, more = "client: AsyncClient, **fields: Any", ""
    if parent:
        key = plan.parent_key
        path = f'f"/v1/{parent.names.path}/{{{key}}}/{names.path}"'
        signature = f"client: AsyncClient, {key}: str | None = None, **fields: Any"
        more = f'    {key} = {key} or (await {parent.factory}(client))["id"]\n'
    create = (
        f"async def create_{singular}({signature}) -> Json:\n"
        f'    """Create {names.a_word}."""\n{more}'
        f"    answer = await client.post({path}, "
        f"json=await {singular}_fields(client, **fields))\n"
        "    assert answer.status_code == 201, answer.text\n"
        "    created: Json = answer.json()\n"
        "    return created\n"
    )
    body = "\n\n".join(["Json = dict[str, Any]\n" + counter, fields, create, *_examples(plan)])
    return _module(
        f"Valid {names.words}: for tests, and for those that try every route.", body, imports
    )


def _examples(plan: Plan) -> Iterator[str]:
    names = plan.names
    lines = {}
    if plan.references or any(field.unique for field in plan.fields):
        yield (
            "async def _body(client: AsyncClient) -> Example:\n"
            f"    return Example(body=await {names.singular}_fields(client))\n"
        )
        lines[f"POST /v1{plan.list_path}"] = "_body"
        if plan.references and not plan.parent:
            lines[f"PATCH /v1{plan.item_path}"] = "_body"
    if plan.parent:
        key = f"{names.singular}_id"
        yield (
            "async def _path(client: AsyncClient) -> Example:\n"
            f'    return Example(path={{"{key}": (await create_{names.singular}(client))["id"]}})\n'
        )
        for method in ("GET", "PATCH", "DELETE"):
            lines[f"{method} /v1{plan.item_path}"] = "_path"
    if lines:
        listed = "".join(f'    "{name}": {function},\n' for name, function in lines.items())
        yield f"EXAMPLES: Examples = {{\n{listed}}}\n"
    if rules := [field for field in plan.fields if field.kind == "json"]:
        listed = ", ".join(f'"body.{field.column}"' for field in rules)
        yield f"RULES = frozenset({{{listed}}})\n"
    paths = []
    if plan.is_shared:
        paths = [f"{method} /v1{plan.item_path}" for method in ("GET", "PATCH", "DELETE")]
    if plan.is_shared or (plan.is_owned and plan.parent and not plan.parent.is_owned):
        paths += [f"{method} /v1{plan.list_path}" for method in ("GET", "POST")]
    if paths:
        listed = ", ".join(f'"{path}"' for path in paths)
        yield f"SHARED = frozenset({{{listed}}})\n"


def tests_of(plan: Plan) -> str:
    """Return the module of tests."""
    names, singular = plan.names, plan.names.singular
    own = [
        (f"tests.{names.plural}.factory", name)
        for name in ("Json", f"create_{singular}", f"{singular}_fields")
    ]
    others = {feature.factory: target for target, feature in plan.targets.items()}
    own += [(f"tests.{target}.factory", name) for name, target in others.items()]
    body = "\n\n".join(part for part in samples.tests(plan) if part)
    return _module(f"Tests of {names.words}.", body, own)
