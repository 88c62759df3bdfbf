"""What superusers may do, tried by Schemathesis (see tests/kit/test_fuzz.py)."""

from pathlib import Path

import pytest

from app.kit import project
from app.kit.db.engine import Database
from tests import caller
from tests.conftest import settings_for
from tests.kit.serving import serving
from tests.kit.test_fuzz import LIMITS, fuzz
from tests.users.helpers import ADA, BOB, USERS, add_user

# Never oneself, who is needed until the end.
OTHER = """
[[operations]]
include-name = "PATCH /v1/users/{{user_id}}"
parameters = {{ "path.user_id" = "{}" }}
"""


async def test_fuzz_as_superuser(
    live_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in LIMITS.items():
        monkeypatch.setenv(name.upper(), value)
    database = Database(settings_for(live_url))
    await database.open()
    headers = caller.headers(await add_user(database, ADA, is_superuser=True))
    other = await add_user(database, BOB)
    await database.close()
    config = (project.ROOT / "schemathesis.toml").read_text(encoding="utf-8")
    (own := tmp_path / "schemathesis.toml").write_text(config + OTHER.format(other.id))
    async with serving(live_url) as service:
        admin = ("--include-name", f"GET {USERS}", "--include-name", f"PATCH {USERS}/{{user_id}}")
        report = await fuzz(service.url, headers, tmp_path / "report.json", *admin, config=own)
    assert report["exit_code"] == 0
    assert report["operations"]["tested"] == 2
