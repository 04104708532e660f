"""The seam to the dialects: what is found, and what stays when nothing is understood."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from midwatch.core.spans import form
from midwatch.core.spans.dialect import AsItCame, Event, Understanding, attribute, load
from midwatch.core.spans.form import LOGS, NO_SPAN, Batch
from midwatch.core.spans.values import load_all


def test_without_understanding_every_attribute_stays_one() -> None:
    reading: Understanding = AsItCame()
    row, batch = NO_SPAN[:], Batch()
    given = [attribute("a", 1), attribute("b", b"\0"), attribute("a", 2)]
    reading.scope("x", "1", {}).span(row, given, [Event("said", 7, given)], batch)
    assert load_all(row[form.ATTRIBUTES]) == {"a": 2, "b": b"\0"}
    assert row[form.EVENTS] == (
        '[{"name":"said","time_ns":7,"attributes":{"a":2,"b":{"$bytes":"AA=="}}}]'
    )
    assert (row[form.DIALECT], row[form.ROLE]) == ("none", form.Role.OTHER)
    assert len(batch) == 0


def test_a_log_record_keeps_its_attributes() -> None:
    row = LOGS.blank()
    AsItCame().scope("x", "1", {}).log(row, [attribute("a", [1.5])], Batch())
    assert row[LOGS.at["attributes"]] == '{"a":[1.5]}'


def test_a_span_without_attributes_says_nothing() -> None:
    row = NO_SPAN[:]
    AsItCame().span(row, [], [], Batch())
    assert (row[form.ATTRIBUTES], row[form.EVENTS]) == (None, None)


@pytest.fixture(name="package")
def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    package = ModuleType("spoken")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "spoken", package)
    for name in ("spoken.one", "spoken.two"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return package


def test_dialects_are_found_by_their_modules(package: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("class D:\n    name = 'one'\ndialect = D()\n")
    (tmp_path / "two.py").write_text("class D:\n    name = 'two'\ndialect = D()\n")
    assert list(load(package)) == ["one", "two"]


def test_two_dialects_of_one_name_are_refused(package: ModuleType, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text("class D:\n    name = 'same'\ndialect = D()\n")
    with pytest.raises(ValueError, match="two dialects are called 'same'"):
        load(package)


def test_a_module_without_a_dialect_is_refused(package: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("")
    with pytest.raises(ValueError, match=r"spoken\.one holds no dialect"):
        load(package)


def test_the_house_dialects_load() -> None:
    assert all(name == one.name for name, one in load().items())
