"""``SECRET_KEY`` can be changed without signing users out, one instance at a time."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from itertools import cycle

import jwt

from app.main import create_app
from app.users.security import ALGORITHM, access_token, key_id, read_access_token
from tests.caller import session_of
from tests.conftest import calling, settings_for
from tests.users.helpers import ADA, ME, ROOMY, add_user, bearer, login, refresh, stored_user

OLD = "hD2q7Vb0sLx9KfTzRwYn4Jm6Pc8Gu1Ea"
NEW = "Zt5Wn8XcQ1rVj3LpYk6Bs0Mf9Hd2Ga7E"

STEPS = ((OLD, ""), (OLD, NEW), (NEW, OLD), (NEW, ""))
"""``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``, as docs/security.md says."""


async def test_a_rotation_under_load_signs_nobody_out(live_url: str) -> None:
    statuses: Counter[int] = Counter()
    kids: set[str] = set()
    apps = [
        create_app(settings_for(live_url, **ROOMY, secret_key=key, secret_key_fallbacks=fallbacks))
        for key, fallbacks in STEPS
        for _ in range(2)
    ]
    async with AsyncExitStack() as stack:
        for app in apps:
            await stack.enter_async_context(app.router.lifespan_context(app))
        await add_user(apps[0].state.database, ADA)
        instances = [await stack.enter_async_context(calling(app)) for app in apps]
        clients = instances[:2]
        rotated = asyncio.Event()
        refreshed = [asyncio.Semaphore(0) for _ in range(3)]

        async def use(done: asyncio.Semaphore) -> None:
            tokens = await login(clients[0])
            for issuer in cycle((0, 1)):
                for client in tuple(clients):  # each accepts tokens of the other
                    response = await client.get(ME, headers=bearer(tokens))
                    statuses[response.status_code] += 1
                if rotated.is_set():
                    break
                tokens = await refresh(clients[issuer], tokens)
                kids.add(jwt.get_unverified_header(tokens["access_token"])["kid"])
                done.release()

        async def every_token_is_new() -> None:
            for done in refreshed * 2:  # twice: one may have started before the change
                await done.acquire()

        load = [asyncio.create_task(use(done)) for done in refreshed]
        for number, client in enumerate(instances[2:]):
            await every_token_is_new()
            clients[number % 2] = client
        await every_token_is_new()
        rotated.set()
        await asyncio.gather(*load)
    assert set(statuses) == {200}
    assert len(kids) == 2


async def test_a_removed_key_is_no_longer_valid(live_url: str) -> None:
    settings = {
        (key, fallbacks): settings_for(live_url, secret_key=key, secret_key_fallbacks=fallbacks)
        for key, fallbacks in STEPS
    }
    app = create_app(settings[OLD, ""])
    async with app.router.lifespan_context(app):
        user = await add_user(app.state.database, ADA)
        user = await stored_user(app.state.database)
    issued = {step: access_token(session_of(user), each) for step, each in settings.items()}
    assert read_access_token(issued[OLD, ""], settings[NEW, OLD]) is not None
    assert read_access_token(issued[NEW, ""], settings[OLD, NEW]) is not None
    assert read_access_token(issued[OLD, ""], settings[NEW, ""]) is None
    assert read_access_token(issued[NEW, ""], settings[OLD, ""]) is None
    # A valid key id does not make a signature valid.
    claims = jwt.decode(issued[OLD, ""], options={"verify_signature": False})
    kid = key_id(settings[NEW, ""].secret_key)
    forged = jwt.encode(claims, "x" * 32, ALGORITHM, headers={"kid": kid})
    assert read_access_token(forged, settings[OLD, NEW]) is None
