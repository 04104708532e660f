"""Detectors are found by registration, are pure, and know nothing of each other."""

from __future__ import annotations

import ast
import copy
import dataclasses
from pathlib import Path
from types import ModuleType

import pytest

from midwatch.core import detectors
from midwatch.core.detection import OVERDUE, Facts, by_wake, load, wake_of
from midwatch.core.fleet import Agent
from midwatch.wire.items import Kind

FOLDER = Path(detectors.__path__[0])
FILES = sorted(p for p in FOLDER.glob("*.py") if p.name != "__init__.py")


def test_every_file_holds_one_detector_named_like_the_file() -> None:
    assert sorted(kind.replace("-", "_") for kind in load()) == [p.stem for p in FILES]


def test_the_failures_of_the_first_issue_are_all_there() -> None:
    assert load().keys() >= {
        "silent-exit",
        "oom-kill",
        "crash-loop",
        "auth-crash",
        "hung-loop",
        "runaway-loop",
        "hub-down",
        "supervisor-killed",
        "crash",
    }


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.stem)
def test_a_detector_imports_no_other_detector_and_nothing_that_acts(file: Path) -> None:
    allowed = ("midwatch.core.", "__future__", "typing", "collections.abc", "dataclasses")
    for node in ast.walk(ast.parse(file.read_text())):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
        for name in names:
            assert name.startswith(allowed), f"{file.name} imports {name}"
            assert not name.startswith("midwatch.core.detectors"), f"{file.name} imports {name}"


@pytest.mark.parametrize("kind", sorted(load()))
def test_a_detector_gives_the_same_verdict_twice_and_changes_nothing(kind: str) -> None:
    judge = load()[kind].judge
    for end in (
        "silent",
        "failed",
        "out-of-memory",
        "credentials",
        "hung",
        "wall-clock",
        "finished",
    ):
        for event in ("run.ended", "run.hung", "hub.down", "supervisor.lost"):
            facts = Facts(
                agent="midwatch" if event in ("hub.down", "supervisor.lost") else "inbox",
                item={
                    "id": "i",
                    "agent": "inbox",
                    "at": 100.0,
                    "kind": event,
                    "data": {"end": end, "failures": 3, "next": "restart", "tail": ["a", "b"]},
                },
                now=101.0,
                config=Agent(external=True),
                open_kinds={kind: 90.0},
            )
            before = copy.deepcopy(facts)
            first = judge(facts)
            assert judge(facts) == first
            assert facts == before


def test_facts_cannot_be_changed() -> None:
    facts = Facts(agent="a", item={}, now=0.0, config=Agent(external=True))
    with pytest.raises(dataclasses.FrozenInstanceError):
        facts.now = 1.0  # type: ignore[misc]


def test_a_file_without_a_detector_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="holds no detector"):
        load(_package(tmp_path, monkeypatch, "lame", {"idle.py": ""}))


def test_two_detectors_of_one_kind_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "from midwatch.core.detection import detector\n"
        "@detector('twin', on=('beat',))\ndef twin(facts): return None\n"
    )
    with pytest.raises(ValueError, match="two detectors are called 'twin'"):
        load(_package(tmp_path, monkeypatch, "twins", {"a.py": source, "b.py": source}))


def _package(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, files: dict[str, str]
) -> ModuleType:
    home = folder / f"detectors_{name}"
    home.mkdir()
    for file, text in {"__init__.py": "", **files}.items():
        (home / file).write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    return __import__(home.name)


def test_an_item_wakes_only_the_detectors_it_concerns() -> None:
    wakes = by_wake(load())
    assert [d.kind for d in wakes[OVERDUE]] == ["hung-loop"]
    assert {d.kind for d in wakes["hub.down"]} == {"hub-down"}
    assert "runaway-loop" in {d.kind for d in wakes["beat"]}


@pytest.mark.parametrize("name", ["beat", "sample", "run", OVERDUE, "decision"])
def test_an_agents_own_words_cannot_wake_what_items_wake(name: str) -> None:
    assert wake_of(Kind.EVENT, {"kind": name}) == ""
