"""The documentation: its length, links, figures, the transcript and the code that it shows."""

import json
import re
from pathlib import Path
from typing import Final

import pytest

from testing.baking import ROOT

README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES: Final = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_resolve(page: Path) -> None:
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", text):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, target


def test_the_transcript_has_the_current_questions() -> None:
    questions = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    expected = []
    prompts = questions["__prompts__"]
    for number, (question, prompt) in enumerate(prompts.items(), start=1):
        start = f"  [{number}/{len(prompts)}] "
        if isinstance(prompt, str):
            expected.append(f"{start}{prompt} (")
            continue
        expected.append(start + prompt["__prompt__"])
        answers = questions[question]
        for choice, answer in enumerate(answers, start=1):
            expected.append(f"    {choice} - {prompt[answer]}")
        numbers = "/".join(str(choice + 1) for choice in range(len(answers)))
        expected.append(f"    Choose from [{numbers}] (1):")
    (transcript,) = re.findall(r"^```\n(  \[1/.*?)^```", README, re.DOTALL | re.MULTILINE)
    shown = transcript.splitlines()
    assert len(shown) == len(expected)
    for line, start in zip(shown, expected, strict=True):
        assert line.startswith(start)


def figures(promise: str) -> list[dict[str, str]]:
    """Return the figures of a promise in docs/reliability.md, for each database."""
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    found = re.findall(rf"^\| {re.escape(promise)} \| \w+ \| (.+) \|$", text, re.MULTILINE)
    assert found, promise
    return [dict(re.findall(r"([^:;]+): ([^;]+)(?:; |$)", row)) for row in found]


def test_the_features_have_the_figures_of_the_tests() -> None:
    killed = figures("A killed database loses no acknowledged write")
    ended = figures("A killed service loses no acknowledged write")
    lost = [*killed, *ended]
    (once,) = figures("A request with an Idempotency-Key runs exactly once")
    (update,) = figures("A rolling update loses no request")
    (slow,) = figures("Every route returns 503 in time while the database is frozen")
    (locked,) = figures("A locked table: requests that can't be served return 503 in time")
    generated = {each["cases"] for each in figures("Requests generated from the OpenAPI document")}
    served = {
        tuple(re.findall(r"\d+", each["requests each"])[:2])
        for each in figures("Clients are served equally")
    }
    told = re.sub(r"\s+", " ", README)

    kills = [sum(int(each["kills"]) for each in group) for group in (killed, ended)]
    assert f"the database {kills[0]} times and the service {kills[1]} times" in told
    acknowledged = sum(int(each["acknowledged"]) for each in lost)
    assert f"{acknowledged:,} acknowledged writes, {sum(int(x['lost']) for x in lost)} lost" in told
    assert f"{once['kills']} kills" in told
    assert f"{int(once['requests']):,} requests {int(once['sent']):,} times" in told
    assert (once["twice"], once["missing"]) == ("0", "0")
    assert f"{int(update['requests']):,} requests, {update['failed']} failed" in told
    assert f"each of {slow['routes']} routes returned 503 within" in told
    within = re.findall(r"503 within ([\d.]+) s", told)
    measured = [slow["slowest of 32 at once"], locked["slowest without a connection"]]
    for limit, seconds in zip(within, measured, strict=True):
        assert float(seconds.removesuffix(" s")) <= float(limit)
    (cases,) = generated
    assert f"{int(cases):,} requests generated" in told
    ((least, most),) = served
    assert f"received {least} or {most} responses each" in told


def test_the_cost_of_deep_pages_is_that_of_the_benchmark() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    depths = sorted(
        re.findall(r"^\| depth 100,000 against page 1, .*?([\d.]+) times", text, re.MULTILINE)
    )
    told = re.sub(r"\s+", " ", README)
    assert f"{depths[0]} to {depths[-1]} times as long as the first page" in told


def test_scaling_has_the_figures_of_reliability() -> None:
    scaling = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    for promise in (
        "One process and two, sharing this machine's cores",
        "One process and two, each limited to 20% of a core",
    ):
        (found,) = figures(promise)
        against = found["cpu of a request against one"].replace(", ", "; ")
        against = re.sub(r"(\w+) ([\d.]+)", r"\1: \2", against)
        assert f"| {found['ratio']} times as much | {against} |" in scaling


def test_the_code_in_features_is_tested() -> None:
    features = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```python\n(.*?)^```", features, re.DOTALL | re.MULTILINE)
    notes = ROOT / "tests" / "feature" / "app" / "notes"
    code = "".join((notes / name).read_text("utf-8") for name in ("repository.py", "router.py"))
    for part in filter(None, map(str.strip, shown.split("\n\n\n"))):
        assert part in code
