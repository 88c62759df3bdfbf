"""Notebooks, by the recipes."""

from typing import Any

from httpx2 import AsyncClient

from app.kit.db.engine import Database
from tests import caller


async def test_get_or_create_and_search(client: AsyncClient, db: Database) -> None:
    name = {"name": "Mine"}
    created = (await client.post("/v1/notebooks", json=name)).json()
    assert (await client.post("/v1/notebooks", json=name)).status_code == 409
    assert (await client.put("/v1/notebooks", json=name)).json() == created
    other = await caller.credentials(db)
    theirs = (await client.put("/v1/notebooks", json=name, headers=other)).json()
    assert theirs["id"] != created["id"]
    for text in ("100 %", "100 x", "a_b", "axb"):
        body: dict[str, Any] = {"notebook_id": created["id"], "text": text}
        assert (await client.post("/v1/note-pages", json=body)).status_code == 201
        assert (await client.post("/v1/note-pages", json=body, headers=other)).status_code == 404
    url = f"/v1/notebooks/{created['id']}/pages"
    for q, texts in (("%", ["100 %"]), ("A_B", ["a_b"]), ("100", ["100 %", "100 x"])):
        page = (await client.get(url, params={"q": q})).json()
        assert [item["text"] for item in page["items"]] == texts
    assert (await client.get(url, headers=other)).status_code == 404
    found = (await client.get("/v1/notebooks", params={"name": "Mine"}, headers=other)).json()
    assert found == {"items": [theirs], "total": 1}
