"""Values of fields, valid and invalid, and the tests of a feature that use them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from scripts.scaffold.fields import Field
    from scripts.scaffold.writing import Plan

_VALID: Final = {
    "bigint": "number",
    "bool": "number % 2 == 0",
    "date": "str(date(2030, 1, 1) + timedelta(days=number))",
    "datetime": 'f"{date(2030, 1, 1) + timedelta(days=number)}T12:00:00Z"',
    "decimal": 'f"{number}.50"',
    "float": "number + 0.5",
    "int": "number",
    "json": '{"number": number}',
    "uuid": "str(UUID(int=number))",
}
"""Expressions that grow with `number`."""

_INVALID: Final = {
    "bigint": ("2**63", "True"),
    "bool": ('"yes"',),
    "date": ('"2030-13-01"', '"2030-01-01T00:00:00"'),
    "datetime": ('"2030-01-01"',),
    "decimal": ('"1.234"', "1.5"),
    "enum": ('"no such value"',),
    "float": ('"x"',),
    "int": ("2**31", "True"),
    "json": ('"x"', '{"x": "\\0"}'),
    "ref": ('"x"',),
    "str": ('""', '"x" * 201'),
    "text": ('""', '"x" * 10_001'),
    "uuid": ('"x"',),
}


def factory(field: "Field") -> str:
    """Return the expression of a valid value, made from ``number``."""
    if field.kind in _VALID:
        return _VALID[field.kind]
    if field.kind == "enum":
        values = ", ".join(f'"{value}"' for value in field.values)
        return f"[{values}][number % {len(field.values)}]"
    return f'f"{field.words.capitalize()} {{number:04}}"'


def tests(plan: "Plan") -> Iterator[str]:
    """Return the parts of the module of tests."""
    names = plan.names
    yield (
        f"def path({names.singular}: Json) -> str:\n"
        f"    return f\"/v1/{names.path}/{{{names.singular}['id']}}\"\n"
    )
    yield _created(plan)
    yield _listed(plan)
    yield _filtered(plan)
    yield _changed(plan)
    yield _nullable(plan)
    yield _invalid(plan)
    yield _taken(plan)
    yield _references(plan)
    yield from (_nested_in_itself(plan, each) for each in _own(plan))
    yield _deleted(plan)
    yield _belongs(plan)


def _own(plan: "Plan") -> list["Field"]:
    return [each for each in plan.references if each.target == plan.names.plural]


def _others(plan: "Plan", fields: "list[Field]") -> "list[Field]":
    return [each for each in fields if each not in _own(plan)]


def _url(plan: "Plan", row: str = "first") -> str:
    """Return the expression of the path of the list that has a row."""
    if plan.parent is None:
        return f'"/v1{plan.list_path}"'
    return f"f\"/v1/{plan.parent.names.path}/{{{row}['{plan.parent_key}']}}/{plan.names.path}\""


def _again(plan: "Plan") -> str:
    """Return the expression that creates another row in the list of the first."""
    more = f', {plan.parent_key}=first["{plan.parent_key}"]' if plan.parent else ""
    return f"await create_{plan.names.singular}(client{more})"


def _parent(plan: "Plan") -> str:
    """Return the line that creates a row, where the path of the list needs one."""
    return f"    first = await create_{plan.names.singular}(client)\n" if plan.parent else ""


def _each(name: str, values: list[str]) -> str:
    return f"@pytest.mark.parametrize({name}, [{', '.join(values)}])\n"


def _quoted(fields: "list[Field]") -> list[str]:
    return [f'"{field.column}"' for field in fields]


def _created(plan: "Plan") -> str:
    singular = plan.names.singular
    article = plan.names.a_word.split()[0]
    return (
        f"async def test_{article}_{singular}_is_created(client: AsyncClient) -> None:\n"
        f"    fields = await {singular}_fields(client)\n"
        f"    created = await create_{singular}(client, **fields)\n"
        f"    assert created | fields == created\n"
        f"    assert (await client.get(path(created))).json() == created\n"
    )


def _listed(plan: "Plan") -> str:
    orders, parameter, sort = "", "", '"limit": 2'
    if plan.has_query:
        orders = _each('"sort"', [f'"{column}"' for column in plan.sorts])
        parameter, sort = ", sort: str", '"limit": 2, "sort": order'
    pairs = '((sort, created), (f"-{sort}", created[::-1]))'
    body = (
        f"query: Json = {{{sort}}}\n"
        "page = (await client.get(url, params=query)).json()\n"
        'query["cursor"] = page["next_cursor"]\n'
        "rest = (await client.get(url, params=query)).json()\n"
        f'assert [*page["items"], *rest["items"]] == {"expected" if orders else "created"}\n'
        'assert (len(page["items"]), rest["next_cursor"]) == (2, None)\n'
    )
    start = f"for order, expected in {pairs}:\n" if orders else ""
    indent = "        " if orders else "    "
    return (
        f"{orders}"
        f"async def test_{plan.names.plural}_are_listed_page_by_page("
        f"client: AsyncClient{parameter}) -> None:\n"
        f"    first = await create_{plan.names.singular}(client)\n"
        f"    created = [first, {_again(plan)}, {_again(plan)}]\n"
        f"    url = {_url(plan)}\n"
        + (f"    {start}" if start else "")
        + "".join(f"{indent}{line}\n" for line in body.splitlines())
    )


def _filtered(plan: "Plan") -> str:
    fields = [
        each for each in _others(plan, plan.filters) if each.kind != "enum" or len(each.values) > 1
    ]
    if not fields:
        return ""
    return _each('"name"', _quoted(fields)) + (
        f"async def test_{plan.names.plural}_are_filtered("
        "client: AsyncClient, name: str) -> None:\n"
        f"    first = await create_{plan.names.singular}(client)\n"
        f"    {_again(plan)}\n"
        f"    answer = await client.get({_url(plan)}, params={{name: first[name]}})\n"
        f'    assert answer.json() == {{"items": [first], "next_cursor": None}}\n'
    )


def _changed(plan: "Plan") -> str:
    singular = plan.names.singular
    article = plan.names.a_word.split()[0]
    return (
        f"async def test_{article}_{singular}_is_changed(client: AsyncClient) -> None:\n"
        f"    created = await create_{singular}(client)\n"
        f"    for name, value in (await {singular}_fields(client)).items():\n"
        "        created[name] = value\n"
        "        answer = await client.patch(path(created), json={name: value})\n"
        "        assert (answer.status_code, answer.json()) == (200, created)\n"
        "    assert (await client.get(path(created))).json() == created\n"
    )


def _nullable(plan: "Plan") -> str:
    fields = _others(plan, [each for each in plan.fields if each.nullable])
    if not fields:
        return ""
    singular = plan.names.singular
    return _each('"name"', _quoted(fields)) + (
        "async def test_an_optional_field_may_be_null(client: AsyncClient, name: str) -> None:\n"
        f"    created = await create_{singular}(client, **{{name: None}})\n"
        "    assert created[name] is None\n"
        f"    created = await create_{singular}(client)\n"
        "    answer = await client.patch(path(created), json={name: None})\n"
        "    assert answer.json() == {**created, name: None}\n"
    )


def _invalid(plan: "Plan") -> str:
    cases = []
    for field in plan.fields:
        values = (*_INVALID[field.kind], *(() if field.nullable else ("None",)))
        cases += [f'("{field.column}", {value})' for value in values]
    return _each('("name", "value")', cases) + (
        "async def test_an_invalid_value_is_refused("
        "client: AsyncClient, name: str, value: object) -> None:\n"
        f"{_parent(plan)}"
        f"    fields = {{**await {plan.names.singular}_fields(client), name: value}}\n"
        f"    answer = await client.post({_url(plan)}, json=fields)\n"
        '    (error,) = problem(answer, 422)["errors"]\n'
        '    assert error["field"].startswith(f"body.{name}")\n'
    )


def _taken(plan: "Plan") -> str:
    fields = [each for each in plan.fields if each.unique]
    if not fields:
        return ""
    return _each('"name"', _quoted(fields)) + (
        "async def test_a_unique_value_is_taken_once(client: AsyncClient, name: str) -> None:\n"
        f"    first = await create_{plan.names.singular}(client)\n"
        f"    fields = {{**await {plan.names.singular}_fields(client), name: first[name]}}\n"
        f"    answer = await client.post({_url(plan)}, json=fields)\n"
        '    assert [error["field"] for error in problem(answer, 409)["errors"]]'
        ' == [f"body.{name}"]\n'
    )


def _references(plan: "Plan") -> str:
    if not plan.references:
        return ""
    cases = [
        f'("{each.column}", {404 if each in plan.checked else 409})' for each in plan.references
    ]
    singular = plan.names.singular
    text = _each('("name", "status")', cases) + (
        "async def test_a_reference_needs_its_row("
        "client: AsyncClient, name: str, status: int) -> None:\n"
        f"    first = await create_{singular}(client)\n"
        f"    fields = {{**await {singular}_fields(client), name: str(uuid4())}}\n"
        f"    problem(await client.post({_url(plan)}, json=fields), status)\n"
        "    changes = {name: fields[name]}\n"
        "    problem(await client.patch(path(first), json=changes), status)\n"
    )
    owned = [each for each in _others(plan, plan.references) if plan.targets[each.target].is_owned]
    if not owned:
        return text
    return (
        f"{text}\n\nasync def test_a_reference_names_a_row_of_the_caller("
        "client: AsyncClient, db: Database) -> None:\n"
        f"{_parent(plan)}"
        f"    fields = await {singular}_fields(client)\n"
        "    other = await caller.credentials(db)\n"
        f"    problem(await client.post({_url(plan)}, json=fields, headers=other), 404)\n"
    )


def _nested_in_itself(plan: "Plan", field: "Field") -> str:
    singular = plan.names.singular
    more = f', {plan.parent_key}=first["{plan.parent_key}"]' if plan.parent else ""
    return (
        f"async def test_{field.column}_names_another(client: AsyncClient) -> None:\n"
        f"    first = await create_{singular}(client)\n"
        f'    assert first["{field.column}"] is None\n'
        f'    other = await create_{singular}(client{more}, {field.column}=first["id"])\n'
        f'    assert other["{field.column}"] == first["id"]\n'
    )


def _deleted(plan: "Plan") -> str:
    singular = plan.names.singular
    article = plan.names.a_word.split()[0]
    return (
        f"async def test_{article}_{singular}_is_deleted(client: AsyncClient) -> None:\n"
        f"    created = await create_{singular}(client)\n"
        "    assert (await client.delete(path(created))).status_code == 204\n"
        "    problem(await client.get(path(created)), 404)\n"
        "    problem(await client.delete(path(created)), 404)\n"
    )


def _belongs(plan: "Plan") -> str:
    names = plan.names
    if not plan.is_owned and not plan.is_shared:
        return ""
    title = "belong_to_their_owner" if plan.is_owned else "are_shared_by_all_users"
    text = (
        f"async def test_{names.plural}_{title}(client: AsyncClient, db: Database) -> None:\n"
        f"    first = await create_{names.singular}(client)\n"
        "    other = await caller.credentials(db)\n"
    )
    if plan.is_shared:
        return text + (
            "    assert (await client.get(path(first), headers=other)).json() == first\n"
            "    answer = await client.delete(path(first), headers=other)\n"
            "    assert answer.status_code == 204\n"
        )
    listed = f"await client.get({_url(plan)}, headers=other)"
    text += (
        "    problem(await client.get(path(first), headers=other), 404)\n"
        "    problem(await client.patch(path(first), json={}, headers=other), 404)\n"
        "    problem(await client.delete(path(first), headers=other), 404)\n"
    )
    if plan.parent and plan.parent.is_owned:
        return f"{text}    problem({listed}, 404)\n"
    return f'{text}    assert ({listed}).json()["items"] == []\n'
