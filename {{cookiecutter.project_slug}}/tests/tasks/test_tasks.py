from httpx2 import AsyncClient


async def test_create(client: AsyncClient) -> None:
    r = await client.post("/v1/tasks", json={"title": "x", "tags": ["b", "a"]})
    print(r.text)
    assert r.status_code == 201
    r = await client.get(r.headers["location"])
    print(r.text)
    assert r.status_code == 200
    r = await client.patch(r.json()["id"] and "/v1/tasks/" + r.json()["id"], json={"status": "done", "tags": ["c"]})
    print(r.text)
    for s in ("created_at", "-created_at", "due_at", "-due_at", "title", "-title"):
        r = await client.get("/v1/tasks", params={"sort": s, "limit": 1})
        print(r.text)
        assert r.status_code == 200
