"""`just new` and `just remove` in a render: what they refuse, write and take back."""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from testing.baking import TREE, Project, clean_environment, installed
from testing.usage import just, let_in, served
from tests.conftest import Bake
from tests.figures import Measured
from tests.test_verbs import console, each_service, seeded

# Refusals and atomicity: nothing is installed.

TRY = """
import contextlib, io, json, sys
from scripts.scaffold import __main__ as scaffold

found = []
for arguments in json.load(sys.stdin):
    sys.argv = ["scaffold", *arguments]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            scaffold.main()
        found.append(None)
    except SystemExit as error:
        found.append(error.code)
json.dump(found, sys.stdout)
"""


def state(folder: Path) -> dict[str, bytes]:
    """Return the content of every file, but for what Python compiles."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {"__pycache__", ".venv"} & set(path.parts)
    }


def attempt(project: Path, *commands: list[str]) -> list[object]:
    """Run these commands in one process; return the message that each of them exits with."""
    done = subprocess.run(
        [sys.executable, "-c", TRY],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"},
        input=json.dumps(commands),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout.rpartition("\n")[2])
    return found


REFUSED = {
    "new 3d_model x:str": "'3d_model' is no name",
    "new in-voice- x:str": "is no name",
    "new class x:str": "class is a word of Python itself",
    "new type x:str": "type is a word of Python itself",
    "new invoices x:str": "invoices looks like a plural: name one of them, such as invoice.",
    "new sheep x:str": "sheep is its own plural: add --plural",
    "new page x:str": "Page is a name that the code of a feature imports",
    "new setting x:str": "setting is the name of a module of the service",
    "new task x:str": "app/tasks is there already and differs",
    "new tag x:str": "The table tags is there already, in app/tasks.",
    "new key x:str --plural idempotency_keys": "idempotency_keys is there already, in app/kit.",
    "new none x:str": "None is a word of Python itself",
    "new user x:str": "users comes from the template: choose another name.",
    "new thing x:str --plural test_smoke": "tests/test_smoke.py is there already",
    f"new {'x' * 41} x:str": "is too long",
    "new invoice": "Name at least one field",
    "new invoice number": "'number' is no field: write NAME:TYPE",
    "new invoice number:money": "money is no type of a field: use one of bigint, bool",
    "new invoice number:str!!": "write ? (nullable) and ! (unique) at most once",
    "new invoice number:enum": "write the type as enum(open,paid)",
    "new invoice number:enum(a,A)": "two values of the enum have the same name",
    "new invoice number:enum(a,)": "'' can't be a value of an enum",
    "new invoice number:str(20)": "write the type as str",
    "new invoice Number:str": "'Number' is no name of a field",
    "new invoice text:text!": "a field of type text can't be unique",
    "new invoice id:str": "id has a meaning of its own in every feature",
    "new invoice metadata:json": "metadata can't be a field",
    "new invoice model_dump:str": "model_dump can't be a field",
    "new invoice class:str": "class can't be a field",
    "new invoice sort:int": "sort can't be a field",
    "new invoice x:int x:str": "The field x is there twice",
    "new invoice task_id:int task:ref(tasks)": "The field task_id is there twice",
    "new invoice customer:ref(customers)": "There is no feature 'customers' to refer to",
    "new invoice owner:ref(users)": "owner_id has a meaning of its own",
    "new invoice x:str --belongs-to users": "Rows belong to users without --belongs-to",
    "new invoice before:ref(invoices)": "write before:ref(invoices)? instead",
    "new invoice before:ref(Invoice)": "write before:ref(invoices)? instead",
    "new invoice x:str --belongs-to customers": "There is no feature 'customers'",
    "new invoice task:ref(tasks) --belongs-to tasks": "task_id comes from --belongs-to",
    "new invoice x:str --belongs-to tasks --public": "tasks belong to their owners",
    "rename invoice bill": "There is no feature 'invoice'; there are: tasks.",
    "rename users person": "users comes from the template",
    "rename tasks user": "users comes from the template",
    "rename tasks task": "app/tasks is there already",
    "rename tasks comment": "The table comments is there already, in app/tasks.",
    "rename tasks jobs": "jobs looks like a plural: name one of them, such as job.",
    "rename tasks job --plural class": "class is a word of Python itself",
    "remove invoice": "There is no feature 'invoice'; there are: tasks.",
    "remove kit": "kit comes from the template",
    "remove users": "users comes from the template",
}


@pytest.fixture
def project(bake: Bake, tmp_path: Path) -> Path:
    """Return a copy of a render with users."""
    source = bake(database="sqlite", auth="users").path
    return shutil.copytree(source, tmp_path / "project", ignore=shutil.ignore_patterns(".venv"))


def test_what_can_not_be_done_is_one_sentence_and_changes_nothing(project: Path) -> None:
    before = state(project)
    found = attempt(project, *(command.split() for command in REFUSED))
    for (command, expected), message in zip(REFUSED.items(), found, strict=True):
        assert str(message).startswith("Nothing was changed. "), f"{command}: {message}"
        assert expected in str(message), command
        assert "\n" not in str(message), command
    assert state(project) == before


def test_a_feature_that_is_used_stays(project: Path) -> None:
    for path, text in {
        "app/main.py": "from app.tasks.models import Task\n",
        "tests/test_more.py": "import tests.tasks.helpers\n",
        "app/bills/models.py": 'key = ForeignKey("tags.id")\n',
    }.items():
        file = project / path
        file.parent.mkdir(exist_ok=True)
        former = file.read_bytes() if file.exists() else None
        file.write_text(text, encoding="utf-8")
        (message,) = attempt(project, ["remove", "tasks"])
        assert (
            message == f"Nothing was changed. tasks can't be removed, since it is used: {path}:1."
        )
        if former is None:
            file.unlink()
        else:
            file.write_bytes(former)


def test_a_reference_needs_a_factory(project: Path) -> None:
    (project / "tests" / "tasks" / "factory.py").unlink()
    (message,) = attempt(project, ["new", "bill", "task:ref(tasks)"])
    assert "tests/tasks/factory.py has no function create_task(client)" in str(message)


def loaded(name: str) -> ModuleType:
    """Return a module of the scaffold that imports nothing but the standard library."""
    path = TREE / "scripts" / "scaffold" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"scaffold_{name}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FORMER = {"a.txt": b"a", "b/c.txt": b"c", "b/d.txt": b"d"}
CHANGES = {"a.txt": b"A", "b/c.txt": None, "b/d.txt": None, "e/f/g.txt": b"g", "h.txt": b"h"}
LATER = {path: content for path, content in CHANGES.items() if content is not None}

# Every access to a file or folder raises an audit event: the process ends before the one given.
AT_EVENT = """
import importlib.util, os, sys
from pathlib import Path
path, root, number, kind, do = sys.argv[1:]
spec = importlib.util.spec_from_file_location("changes", path)
changes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(changes)
left = int(number)
def hook(event, arguments):
    global left
    if left and (event == "open" or event.startswith(("os.", "shutil."))):
        left -= 1
        if left == 0:
            if kind == "kill":
                os._exit(9)
            raise OSError("No space left on device")
files = eval(os.environ["CHANGES"])
sys.addaudithook(hook)
changes.undo(Path(root)) if do == "undo" else changes.apply(Path(root), files)
if left:
    os._exit(3)
"""


def interrupt(root: Path, number: int, kind: str, do: str = "apply") -> int:
    """Apply the changes in a process that fails or dies at an access; return its exit code."""
    path = TREE / "scripts" / "scaffold" / "changes.py"
    return subprocess.run(
        [sys.executable, "-c", AT_EVENT, str(path), str(root), str(number), kind, do],
        env={**os.environ, "CHANGES": repr(CHANGES), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=False,
    ).returncode


def lay_down(root: Path) -> None:
    """Write the former files."""
    for path, content in FORMER.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


@pytest.mark.parametrize("kind", ["kill", "fail"])
def test_changes_are_all_made_or_none(tmp_path: Path, kind: str) -> None:
    changes = loaded("changes")
    found = []
    for number in range(1, 200):
        root = tmp_path / str(number)
        lay_down(root)
        code = interrupt(root, number, kind)
        if kind == "fail" and code == 1:  # it has undone them itself
            assert state(root) in (FORMER, LATER), number
        changes.undo(root)
        found.append(state(root))
        assert found[-1] in (FORMER, LATER), number
        assert not (root / changes.JOURNAL).exists()
        if code == 3:  # it came to its end before
            break
    assert found[-1] == LATER
    assert found.count(FORMER) > 10
    if kind == "kill":
        assert found == sorted(found, key=lambda each: each == LATER)


def test_an_interrupted_undo_is_repeated(tmp_path: Path) -> None:
    changes = loaded("changes")
    for number in range(1, 100):
        root = tmp_path / str(number)
        lay_down(root)
        assert interrupt(root, 22, "kill") == 9
        assert (root / changes.JOURNAL / "changes.json").exists()
        code = interrupt(root, number, "kill", "undo")
        changes.undo(root)
        assert state(root) == FORMER, number
        if code == 3:
            break
    assert number > 10


@pytest.mark.parametrize("spelling", ["CLOSED: list[Mount] = [", "CLOSED = ["])
def test_a_router_is_mounted_and_taken_back(project: Path, spelling: str) -> None:
    code = f"""
from pathlib import Path
from scripts.scaffold.mounting import mounted, unmounted
text = Path("app/api.py").read_text().replace("CLOSED: list[Mount] = [", {spelling!r})
added = mounted(text, "orders")
print(added)
assert unmounted(added, "orders") == text
assert unmounted(unmounted(mounted(added, "bills"), "orders"), "bills") == text
assert mounted(text.replace("CLOSED", "ROUTERS"), "orders") is None
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "from app.orders.router import router as orders" in lines
    # Before what is unpacked, and with the imports in their order.
    assert lines.index('    ("/v1", orders),') == lines.index("    *users.CLOSED,") - 1
    imports = [line for line in lines if line.startswith("from app.")]
    assert imports == sorted(imports)


FORMS = {
    "class OrderItemCreate: OrderItems": "class BillCreate: Bills",
    "OrderItem.id, OrderItemized": "Bill.id, OrderItemized",
    "ORDER_ITEMS, LAST_ORDER_ITEM, ORDER_ITEMSX": "BILLS, LAST_BILL, ORDER_ITEMSX",
    "order_items.order_item_id": "bills.bill_id",
    "/v1/order-items/{order_item_id}": "/v1/bills/{bill_id}",
    '"""Order items."""  # an order item, Order item': '"""Bills."""  # a bill, Bill',
    "test_an_order_item_is_created": "test_a_bill_is_created",
    "An order item, an order, border_items": "A bill, an order, border_items",
    "asyncio.order_item, orders, order_items_by": "asyncio.order_item, orders, order_items_by",
}


def test_names_are_replaced_in_every_form(project: Path) -> None:
    code = """
import json, sys
from scripts.scaffold.names import names_of
from scripts.scaffold.renaming import Renaming
renaming = Renaming(names_of("order_item"), names_of("bill"))
print(json.dumps([renaming.text(each) for each in json.load(sys.stdin)]))
renaming = Renaming(names_of("task"), names_of("hour"))
print(renaming.text("a task; group.create_task(x); asyncio.Task; create_task(client)"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        input=json.dumps(list(FORMS)),
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert json.loads(first) == list(FORMS.values())
    assert second == "an hour; group.create_task(x); asyncio.Task; create_hour(client)"


# In an installed service.

EVERY_TYPE = (
    "OrderItem2 sku:bigint! count:int note:text total:decimal weight:float? day:date at:datetime? "
    "extra:json code:uuid! done:bool kind:enum(small,extra-large) customer:ref(customers)"
)
FEW = [
    "customer name:str! email:str?",
    EVERY_TYPE,
    "person nickname:str! friend:ref(people)? --public",
    "HTTPKey label:str item:ref(order_item2s)? --belongs-to person",
]
MANY = [
    *FEW,
    "invoice number:str! status:enum(open,paid)? payer:ref(customers) payee:ref(customers)?",
    "line amount:decimal! data:json? day:date!? task:ref(tasks) --belongs-to invoices",
    "category name:str! parent:ref(category)? --public",
    "mouse3 buttons:int!? keeper:ref(people) category:ref(categories)? --public",
    "child name:str --plural children --belongs-to categories",
    "leaf weight:float? --plural leaves --belongs-to customers",
]

OF_USERS = ["report title:str author:ref(user) reader:ref(users)?"]


def folders(service: Project) -> list[str]:
    """Return the names of the features that the project has."""
    return sorted(path.parent.name for path in service.path.glob("app/*/router.py"))


def added(service: Project, command: str) -> str:
    """Add a feature; return its folder."""
    before = set(folders(service))
    just(service, "new", *command.split())
    (folder,) = set(folders(service)) - before
    return folder


def code(service: Project) -> dict[str, bytes]:
    """Return the files of a project, but for its migrations and what tools leave behind."""
    tools = (".mypy_cache", ".pytest_cache", ".ruff_cache", ".coverage", "migrations", "uv.lock")
    return {
        path: content
        for path, content in state(service.path).items()
        if not path.startswith((*tools, ".postgres", "app.db"))
    }


EXAMPLE = re.compile(r"(?<!asyncio\.)\bTasks?\b|app.tasks|tests.tasks|/v1/tasks")
"""A word of the example: other tasks are those of asyncio."""

GENERIC = ("tests/test_smoke.py", "tests/kit/test_migrations.py", "tests/kit/test_layout.py")
THOROUGH = (
    "tests/kit/test_bad_input.py",
    "tests/kit/test_document.py",
    "tests/kit/test_squawk.py",
    "tests/users/test_others.py",
    "tests/users/test_permissions.py",
)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("answers", each_service())
def test_features_come_and_go(
    bake: Bake, answers: Mapping[str, str], *, full: bool, measured: Measured
) -> None:
    with installed(bake(**answers)) as service:
        start, features, seconds = code(service), list[str](), list[float]()
        commands = MANY if full else FEW
        for command in [*commands, *(OF_USERS if answers["auth"] == "users" else [])]:
            begun = time.perf_counter()
            features.append(added(service, command))
            seconds.append(time.perf_counter() - begun)
        measured(
            "A resource by `just new`, with its migration",
            ", ".join(answers.values()),
            resources=len(features),
            slowest_seconds=round(max(seconds), 1),
        )
        with_features = code(service)
        printed = just(service, "new", *FEW[0].split())
        assert "customers is already there: nothing was changed." in printed
        assert code(service) == with_features

        just(service, "lint")
        more = [path for path in THOROUGH if full and (service.path / path).exists()]
        just(service, "test", *GENERIC, *more, *(f"tests/{name}" for name in features))

        for feature in reversed(features):
            just(service, "remove", feature)
        assert code(service) == start

        just(service, "remove", "tasks")
        traces = {
            path: EXAMPLE.findall(content.decode())
            for path, content in code(service).items()
            if path.endswith((".md", ".py", ".toml", "justfile"))
        }
        assert {path: found for path, found in traces.items() if found} == {}
        just(service, "lint")
        just(service, "test", *GENERIC, *more)


RENAMED = [
    "customer name:str!",
    "invoice number:str! status:enum(open,paid) customer:ref(customers) former:ref(invoice)?",
    "line amount:decimal! --belongs-to invoices",
]

NAMES = {
    "sqlite": "SELECT name || coalesce(sql, '') FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'",
    "postgresql": (
        "SELECT conname::text FROM pg_constraint WHERE contype <> 'n' "
        "UNION ALL SELECT relname FROM pg_class UNION ALL "
        "SELECT column_name::text FROM information_schema.columns"
    ),
}
"""The names of tables, columns, constraints and indexes."""


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("answers", each_service())
def test_a_feature_is_renamed_and_back(bake: Bake, answers: Mapping[str, str]) -> None:
    with installed(bake(**answers)) as service:
        for command in RENAMED:
            just(service, "new", *command.split())
        before = code(service)
        just(service, "seed", "3")

        own = service.path / "tests" / "invoices" / "test_own.py"
        own.write_text("def test_own() -> None:\n    assert __file__[-1] == 'x'\n")
        done = service.run("uv", "run", "just", "rename", "invoice", "bill")
        assert "tests: FAILED tests/bills/test_own.py::test_own" in done.stderr
        own.unlink()
        assert code(service) == before

        just(service, "rename", "invoice", "bill")
        renamed = code(service)
        changed = {path for path in renamed if before.get(path) != renamed[path]}
        assert [path for path in changed if b"invoice" in renamed[path].lower()] == []
        just(service, "lint")
        more = [path for path in THOROUGH if (service.path / path).exists()]
        just(service, "test", *GENERIC, *more, "tests/lines")
        just(service, "migrate")
        typed = f"""
names = (await session.scalars(text({NAMES[answers["database"]]!r}))).all()
print("left", [each for each in names if "invoice" in each])
print("new", len([each for each in names if "bill" in each]) > 5)
print("rows", await session.scalar(select(func.count()).select_from(Bill)))
print("lines", await session.scalar(select(func.count()).select_from(Line).join(Bill)))
"""
        found, errors = console(service, typed)
        assert found == {"left": "[]", "new": "True", "rows": "3", "lines": "3"}, errors

        just(service, "rename", "bills", "invoice")
        assert code(service) == before
        just(service, "migrate")
        assert seeded(service, 3)["invoices"] == 0


@pytest.mark.slow
def test_the_readme_leads_to_a_feature(bake: Bake) -> None:
    answers = {"database": "sqlite", "auth": "users"}
    with installed(bake(**answers)) as service:
        commands = re.findall(r"^uv run just (new .+)$", service.text("README.md"), re.MULTILINE)
        assert len(commands) == 2
        for command in commands:
            just(service, *command.replace("'", "").split())
        with served(service, signal.SIGINT, "uv", "run", "just", "dev") as client:
            let_in(client, answers)
            customer = client.post("/v1/customers", json={"name": "Ada"}).json()
            invoice = {"number": "1", "total": "12.50", "customer_id": customer["id"]}
            created = client.post("/v1/invoices", json=invoice)
            assert created.status_code == 201, created.text
            found = client.get("/v1/invoices", params={"customer_id": customer["id"]}).json()
            assert found["items"] == [created.json()]


@pytest.mark.slow
def test_what_fails_or_is_only_tried_changes_nothing(bake: Bake) -> None:
    with installed(bake(database="sqlite", auth="none")) as service:
        before = code(service) | state(service.path / "migrations")
        printed = just(service, "new", "bill", "--dry-run", "number:str!")
        assert "create  app/bills/models.py" in printed
        assert "nothing was changed" in printed
        (service.path / "app" / "broken.py").write_text("import nothing_at_all\n")
        main = service.path / "app" / "main.py"
        former = main.read_text()
        main.write_text(f"{former}\nfrom app import broken\n")
        done = service.run("uv", "run", "just", "new", "bill", "number:str!")
        assert done.returncode == 1
        assert "Nothing was changed." in done.stderr
        assert "No module named 'nothing_at_all'" in done.stderr
        main.write_text(former)
        (service.path / "app" / "broken.py").unlink()

        api = service.path / "app" / "api.py"
        former = api.read_text()
        text = former.replace("CLOSED: ", "ROUTERS: ").replace("=CLOSED", "=ROUTERS")
        api.write_text(text)
        printed = just(service, "new", "bill", "number:str!")
        assert "from app.bills.router import router as bills" in printed
        assert api.read_text() == text
        api.write_text(former)
        just(service, "remove", "bill")
        after = code(service) | state(service.path / "migrations")
        added_revisions = after.keys() - before.keys()
        assert {name.rpartition("_")[2] for name in added_revisions} == {"bills.py"}
        assert all(after[path] == content for path, content in before.items())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals go to a POSIX process group")
def test_ctrl_c_leaves_everything_as_it_was(bake: Bake, tmp_path: Path) -> None:
    with installed(bake(database="sqlite", auth="none")) as service:
        before = code(service) | state(service.path / "migrations")
        with subprocess.Popen(
            ["uv", "run", "just", "new", "bill", "number:str!"],
            cwd=service.path,
            env=clean_environment(TMPDIR=str(tmp_path)),
            start_new_session=True,
            stderr=subprocess.PIPE,
        ) as process:
            deadline = time.monotonic() + 120
            while not any(
                "scripts.scaffold.revision" in command
                for child in psutil.Process(process.pid).children(recursive=True)
                for command in [cmdline(child)]
            ):
                assert time.monotonic() < deadline, "it never began to write the revision"
            os.killpg(process.pid, signal.SIGINT)
            assert process.stderr
            assert b"Nothing was changed." in process.stderr.read()
            assert process.wait() != 0
        assert code(service) | state(service.path / "migrations") == before
        assert list(tmp_path.glob("scaffold-*")) == []


def cmdline(process: psutil.Process) -> list[str]:
    """Return the command line of a process; nothing if it has ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []
