from httpx2 import AsyncClient


async def test_notes_are_kept_in_order(client: AsyncClient) -> None:
    for body in ("one", "two", "three"):
        assert (await client.post("/v1/notes", json={"body": body})).status_code == 201
    page = (await client.get("/v1/notes?limit=2")).json()
    assert [note["body"] for note in page["items"]] == ["one", "two"]
    rest = (await client.get(f"/v1/notes?limit=2&cursor={page['next_cursor']}")).json()
    assert [note["body"] for note in rest["items"]] == ["three"]
