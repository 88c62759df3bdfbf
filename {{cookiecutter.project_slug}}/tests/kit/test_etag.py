"""Entity tags: a client can't overwrite a version that it has not seen."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient, Response

from app.kit.db.engine import Database
from tests.kit.sample_feature import Entry

Rename = Callable[..., Awaitable[Response]]


@pytest.fixture
async def rename(things_app: FastAPI, things: AsyncClient) -> Rename:
    """Return a function that renames an entry with the given values of ``If-Match``."""
    database: Database = things_app.state.database
    async with database.transaction() as session:
        session.add(entry := Entry(name="a"))

    async def call(name: str, *tags: str) -> Response:
        headers = [("If-Match", tag) for tag in tags]
        path = f"/things/entries/{entry.id}"
        return await things.patch(path, json={"name": name}, headers=headers)

    return call


async def test_the_etag_is_that_of_the_new_version(rename: Rename) -> None:
    for version in (2, 3):
        response = await rename(f"version {version}")
        assert response.status_code == 200
        assert response.headers["ETag"] == f'"{version}"'
        assert response.json()["version"] == version


@pytest.mark.parametrize(
    "tags",
    [
        ['"2"'],
        [' "2" '],
        ["*"],
        [" * "],
        ['"1", "2"'],
        ['"7","2","9"'],
        ['W/"2", "2"'],
        ['W/"1","2"'],
        ['"2", garbage'],
        ['"1"', '"2"'],
        ['"2"', '"1"'],
    ],
    ids=str,
)
async def test_a_matching_version_can_be_changed(rename: Rename, tags: list[str]) -> None:
    await rename("b")
    response = await rename("c", *tags)
    assert response.status_code == 200, response.text
    assert (response.json()["name"], response.json()["version"]) == ("c", 3)


@pytest.mark.parametrize(
    "tags",
    [
        ['"1"'],
        ['"3"'],
        ['"1", "3"'],
        ['"1"', '"3"'],
        ['W/"2"'],
        ['"1", W/"2"'],
        ["2"],
        ["garbage"],
        [""],
        ['""'],
        ['"'],
        ['"2'],
        ['"02"'],
        ['"+2"'],
        ['"-2"'],
        ['"2 "'],
        ['"2.0"'],
        ['"*"'],
        ['"3", *'],
        ['"2147483648"'],
        ['"9223372036854775807"'],
        [f'"{"9" * 18}"'],
        [f'"{"9" * 5000}"'],
        [", ".join(f'"{number}"' for number in range(100, 1100))],
    ],
    ids=lambda tags: f"{str(tags)[:20]} {len(tags[0])}",
)
async def test_a_stale_version_can_not_be_changed(rename: Rename, tags: list[str]) -> None:
    await rename("b")
    response = await rename("c", *tags)
    assert response.status_code == 412, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert "ETag" not in response.headers
    # Nothing was written: the version is the same.
    assert (await rename("d", '"2"')).status_code == 200


async def test_a_missing_row_has_no_version(things: AsyncClient) -> None:
    path = f"/things/entries/{UUID(int=0)}"
    for headers in ({}, {"If-Match": '"1"'}):
        response = await things.patch(path, json={"name": "b"}, headers=headers)
        assert response.status_code == 404
