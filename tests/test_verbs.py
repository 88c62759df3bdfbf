"""`just seed` and `just console` in a render."""

import re
import shutil
import subprocess
from collections.abc import Mapping

import pytest

from testing.baking import Project, clean_environment, combinations, installed
from testing.usage import just
from tests.conftest import Bake

FEATURES = [
    "customer name:str! email:str?",
    "card code:str! holder:ref(customers)!",
    "invoice number:str! status:enum(open,paid) payer:ref(customers) payee:ref(customers)?",
    "line amount:decimal parent:ref(lines)? --belongs-to invoices",
    "country code:str! --public",
]
OF_USERS = "report title:str author:ref(users)"

READ = """
count = select(func.count())
print("counts", [await session.scalar(count.select_from(each)) for each in (Task, Card, Line)])
names = {each.id: each.name for each in (await session.scalars(select(Customer))).all()}
rows = (await session.scalars(select(Invoice))).all()
print("payers", sorted((each.number, each.status, names[each.payer_id]) for each in rows))
print("titles", len({task.title for task in (await session.scalars(select(Task))).all()}))
"""

TRIED = """
1 / 0
tasks = select(Task).where(Task.deleted_at.is_(None))
task = (await session.scalars(tasks)).first()
async with database.transaction() as writing:
    await TaskRepository(writing, SYSTEM).delete(task.id)

print("left", len((await session.scalars(tasks)).all()))
await session.execute(Task.__table__.delete())
async def two():
    return 2

print("two", await two())
"""


def each_service() -> list[object]:
    """Return the combinations of database and authentication; one of them is enough by day."""
    first = {"database": "sqlite", "auth": "users"}
    return [
        pytest.param(
            answers,
            id="-".join(answers.values()),
            marks=[] if answers == first else [pytest.mark.nightly],
        )
        for answers in combinations("database", "auth")
    ]


def console(service: Project, typed: str) -> tuple[dict[str, str], str]:
    """Type lines into the prompt; return what they print, by its first word, and the errors."""
    done = subprocess.run(
        ["uv", "run", "just", "console"],
        cwd=service.path,
        env=clean_environment(),
        input=typed,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return dict(re.findall(r"^[>. ]+ (\w+) (.*)$", done.stdout, re.MULTILINE)), done.stderr


def seeded(service: Project, number: int) -> dict[str, int]:
    """Fill the database; return the number of new rows by their table."""
    printed = just(service, "seed", str(number))
    assert ("developer@example.com" in printed) == (service.answers["auth"] == "users")
    found = re.findall(r"^(\w+): (\d+) new$", printed, re.MULTILINE)
    return {name: int(new) for name, new in found}


@pytest.mark.slow
@pytest.mark.parametrize("answers", each_service())
def test_a_database_is_filled_and_read(bake: Bake, answers: Mapping[str, str]) -> None:
    with installed(bake(**answers)) as service:
        tables = {"tasks", "customers", "cards", "invoices", "lines", "countries"}
        if answers["auth"] == "users":
            just(service, "new", *OF_USERS.split())
            tables.add("reports")
        for command in FEATURES:
            just(service, "new", *command.split())
        assert seeded(service, 7) == dict.fromkeys(tables, 7)
        found, _ = console(service, READ)
        assert (found["counts"], found["titles"]) == ("[7, 7, 7]", "7")
        assert len(set(re.findall(r"'Name \d+'", found["payers"]))) > 1
        assert seeded(service, 7) == dict.fromkeys(tables, 0)
        assert seeded(service, 9) == dict.fromkeys(tables, 2)

        tried, errors = console(service, TRIED)
        assert (tried["left"], tried["two"]) == ("8", "2")
        assert "A read session can't write" in errors
        assert 'File "<console>", line 1, in <module>\nZeroDivisionError' in errors
        assert "runners.py" not in errors

        for path in (*service.path.glob("app.db*"), service.path / ".postgres"):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        seeded(service, 7)
        again, _ = console(service, READ)
        assert again == found


@pytest.mark.slow
@pytest.mark.parametrize(
    "database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.nightly)]
)
def test_only_a_local_database_is_filled(bake: Bake, database: str) -> None:
    with installed(bake(database=database, auth="users")) as service:
        for number in ("0", "-1", "x", "10001", "1" * 5000):
            done = service.run("uv", "run", "just", "seed", number)
            assert done.returncode == 1
            assert done.stderr == f"'{number}' is not a number from 1 to 10000.\n"
        done = service.run("uv", "run", "just", "seed", ENVIRONMENT="staging")
        assert done.stderr == "ENVIRONMENT is staging: `just seed` fills only a local database.\n"
        (service.path / ".env").write_text("ENVIRONMENT=production\n", encoding="utf-8")
        done = service.run("uv", "run", "just", "seed")
        assert (
            done.stderr == "ENVIRONMENT is production: `just seed` fills only a local database.\n"
        )
        (service.path / ".env").unlink()
        if database == "postgresql":
            for url in ("postgresql://db.example.com/x", "postgresql:///x?host=db.example.com"):
                done = service.run("uv", "run", "just", "seed", DATABASE_URL=url)
                assert done.stderr.startswith("The database is on db.example.com: ")
        else:
            assert not (service.path / "app.db").exists()
