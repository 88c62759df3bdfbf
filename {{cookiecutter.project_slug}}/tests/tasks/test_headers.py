"""Every response has the headers that protect clients."""

from httpx2 import AsyncClient

from tests.kit.test_headers import protected


async def test_responses_of_a_resource_have_security_headers(client: AsyncClient) -> None:
    created = await client.post("/v1/tasks", json={"title": "x"})
    location = created.headers["location"]
    protected(created, "private, no-cache")
    got = await client.get(location)
    protected(got, "private, no-cache")
    unchanged = await client.get(location, headers={"If-None-Match": got.headers["etag"]})
    assert unchanged.status_code == 304
    protected(unchanged, "private, no-cache")
    protected(await client.get("/v1/tasks"))
    for method, url, status in (
        ("GET", "/health/live", 200),
        ("GET", "/nowhere", 404),
        ("PUT", "/v1/tasks", 405),
        ("POST", "/v1/tasks", 422),
        ("GET", "/v1/tasks?limit=0", 422),
        ("DELETE", location, 204),
    ):
        response = await client.request(method, url)
        assert response.status_code == status
        protected(response)
    protected(await client.get("/v1/tasks", headers={"x": "y" * 40_000}))
