"""The benchmark runner reads each program's document, refuses a wrong one, and prints both sides."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(name="runner")
def _runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_run", ROOT / "bench/run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "bench_run", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "HERE", tmp_path)
    monkeypatch.setattr(module, "OUT", tmp_path / "out")
    return module


def _bench(folder: Path, name: str, ok: bool = True, last: str | None = None) -> None:
    row = {"what": "exit to running", "ours": 12.5, "peer": 1020, "peer_name": "supervisord",
           "unit": "ms", "target": "<= 20 ms", "ok": ok}  # fmt: skip
    text = last if last is not None else json.dumps({"bench": name, "machine": "m", "rows": [row]})
    (folder / f"{name}.py").write_text(f"print('warming up')\nprint({text!r})\n")


def test_both_sides_are_printed_and_kept(
    runner: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _bench(tmp_path, "restart")
    assert runner.main([]) == 0
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed.split("  ") == [
        "exit to running", "12.5 ms", "1020 ms", "supervisord", "<= 20 ms", "ok"]  # fmt: skip
    assert json.loads((tmp_path / "out/restart.json").read_text())["bench"] == "restart"


def test_a_missed_target_fails_the_run(
    runner: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _bench(tmp_path, "restart", ok=False)
    assert runner.main([]) == 1
    assert "MISSED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("last", "why"),
    [
        ("not json", "not JSON"),
        ("{}", "no rows"),
        ('{"rows": []}', "no rows"),
        ('{"rows": [{"what": "x"}]}', "lacks ours, unit, ok"),
    ],
)
def test_a_wrong_document_is_a_failure_with_a_reason(
    runner: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], last: str, why: str
) -> None:
    _bench(tmp_path, "odd", last=last)
    assert runner.main([]) == 1
    assert why in capsys.readouterr().out


def test_an_unknown_name_is_a_usage_error(
    runner: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _bench(tmp_path, "restart")
    assert runner.main(["restrat"]) == 2
    assert "there are: restart" in capsys.readouterr().err
