"""Docs are true: links resolve, tables are what the code says, nothing of the code is missing."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from tests.sources import ROOT, files, source

from midwatch.core.calls.news import News
from midwatch.core.detection import load
from midwatch.core.states import State
from midwatch.drills.catalogue import drills

SRC = ROOT / "src/midwatch"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


# -- links ----------------------------------------------------------------------------------------


def _slug(heading: str) -> str:
    """Return the anchor that forges give to a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def _links(path: Path) -> Iterator[str]:
    text = _without_code(path.read_text(encoding="utf-8"))
    yield from re.findall(r"\]\(([^)\s]+)\)", text)
    yield from re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", text)


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(path: Path) -> None:
    broken: list[str] = []
    for link in _links(path):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        if not file.exists():
            broken.append(link)
        elif anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            if anchor not in {_slug(h) for h in headings}:
                broken.append(link)
    assert broken == []


# -- tables from the code -------------------------------------------------------------------------


def test_the_generated_tables_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/reference.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _in_code(pattern: str) -> set[str]:
    full = re.compile(pattern)
    return {s for path in files("src") for s in source(path).texts if full.fullmatch(s)}


def _first_column(page: str) -> set[str]:
    return set(re.findall(r"^\| `([^`]+)`", _read(page), re.MULTILINE))


EVENT = (
    r"(?:agent|run|hub|gateway|supervisor|fleet|node|schedule|sdk|disk|clock)\.[a-z]+(?:_[a-z]+)*"
)
NOT_EVENTS = {
    "agent.py",
    "agent.html",
    "agent.name",
    "clock.json",
    "fleet.html",
    "fleet.json",
    "gateway.ledger",
    "gateway.listen",
    "hub.forward",
    "hub.keep",
    "hub.listen",
    "hub.otlp_grpc",
    "hub.otlp_http",
    "hub.sample",
    "hub.stores",
    "hub.tags",
}
"""Names of files, of settings and of attributes that look like an event."""


def test_every_event_kind_of_the_code_is_documented_and_the_reverse() -> None:
    kinds = (_in_code(EVENT) - NOT_EVENTS) | {news.value for news in News}
    assert kinds == _first_column("docs/reference/events.md")


@pytest.mark.parametrize("state", list(State))
def test_every_state_stands_in_the_glossary(state: State) -> None:
    assert f"| **{state.value}** |" in _read("docs/glossary.md")


# -- commands -------------------------------------------------------------------------------------


def _shell_lines(path: Path) -> list[str]:
    blocks = re.findall(r"```(?:sh|shell|bash|console)\n(.*?)```", path.read_text(), re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line and not line.startswith("#")]


def _make_verbs() -> set[str]:
    return set(re.findall(r"^([a-z]+):.*##", _read("Makefile"), re.MULTILINE))


@cache
def _commands() -> set[str]:
    """Return the commands that `midwatch` has, from the very object that parses them."""
    from typer.main import get_command

    from midwatch.cli.app import build

    return set(getattr(get_command(build()), "commands", {}))


@pytest.mark.parametrize("path", DOCS, ids=lambda p: p.relative_to(ROOT).as_posix())
@pytest.mark.parametrize(("program", "known"), [("make", _make_verbs), ("midwatch", _commands)])
def test_every_command_that_a_page_shows_exists(
    path: Path, program: str, known: Callable[[], set[str]]
) -> None:
    shown = [
        line.split(program, 1)[1].split()[0]
        for line in _shell_lines(path)
        if re.match(rf"(?:[A-Z_]+=\S+ )*(?:\S*/)?{program} [a-z]", line)
    ]
    assert set(shown) - known() == set() if shown else True


def test_every_verb_of_the_makefile_is_documented() -> None:
    pages = "".join(_read(p) for p in ("README.md", "CONTRIBUTING.md", "docs/quickstart.md"))
    assert {v for v in _make_verbs() - {"help"} if f"make {v}" not in pages} == set()


def test_every_command_is_documented() -> None:
    page = _read("docs/reference/commands.md")
    assert _commands()
    assert {c for c in _commands() if f"## `midwatch {c}" not in page} == set()


def test_the_first_command_under_tests_in_readme_is_what_ci_runs() -> None:
    section = re.split(r"^## ", _read("README.md"), flags=re.MULTILINE)
    tests = next(part for part in section if "test" in part.splitlines()[0].lower())
    block = re.search(r"```\w*\n(.*?)```", tests, re.DOTALL)
    assert block is not None
    assert block[1].split()[:2] == ["make", "test"]


# -- versions, dependencies, detectors ------------------------------------------------------------


def test_the_changelog_speaks_of_this_version() -> None:
    newest = re.search(r"^## \[(.+?)\]", _read("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == PYPROJECT["project"]["version"]


def _required() -> set[str]:
    project = PYPROJECT["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
        *(line for group in PYPROJECT["dependency-groups"].values() for line in group),
    ]
    return {re.split(r"[<>=!~\[; ]", line, maxsplit=1)[0] for line in lines}


def test_each_dependency_has_its_reason_and_no_reason_outlives_its_dependency() -> None:
    page = _read("docs/decisions/dependencies.md").partition("## Not taken")[0]
    assert set(re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)) == _required()


def test_the_sdk_depends_on_nothing() -> None:
    assert PYPROJECT["project"]["dependencies"] == []


@cache
def _unit_tests() -> str:
    return "".join(p.read_text() for p in (ROOT / "tests/unit").rglob("test_*.py"))


@pytest.mark.parametrize("kind", sorted(load()))
def test_each_detector_has_its_file_its_tests_and_its_line_among_the_failures(kind: str) -> None:
    stem = kind.replace("-", "_")
    assert (SRC / f"core/detectors/{stem}.py").is_file()
    tests = _unit_tests()
    assert f'"{kind}"' in tests or f"detectors.{stem}" in tests, "no unit test speaks of it"
    assert kind in _first_column("docs/reference/failures.md")


def test_each_documented_failure_has_its_drill_or_its_detector_and_the_reverse() -> None:
    documented = _first_column("docs/reference/failures.md")
    assert documented == set(drills()) | set(load())


def test_every_variable_of_ours_that_the_code_names_is_documented() -> None:
    page = _read("docs/reference/environment.md")
    named = _in_code(r"MIDWATCH_[A-Z]+(?:_[A-Z]+)*")
    assert {name for name in named if f"`{name}`" not in page} == set()
