"""`midwatch traces`, `trace`, `sessions`, `sql` and `export`: what is asked, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import FakeHub, Midwatch  # noqa: TID252  there is no tests package

TRACE = "5b8efff798038103d269b633813fc60c"
SUMS: dict[str, Any] = {
    "agents": ["inbox"], "spans": 8, "errors": 1, "open": 0, "lost": 0, "calls": 1, "tools": 5, "input_tokens": 100,
    "cached_tokens": 0, "output_tokens": 20, "cost_nusd": 5, "cost_usd": 0.25,
}  # fmt: skip
ITEM = {**SUMS, "trace_id": TRACE, "at": "2026-01-15T01:28:00Z", "duration_s": 4.25, "name": "answer\x1b[31m", "agent": "inbox"}  # fmt: skip
SPAN = {"trace_id": TRACE, "span_id": "01", "agent": "inbox", "at": "2026-01-15T01:28:00Z", "name": "search", "role": "tool", "rank": "ended", "status": "ok", "duration_s": 0.5}  # fmt: skip
LINES = [
    {"depth": 0, "children": 6, "alike": 1, "orphan": False, "offset_s": 0, "until_s": 4.25, "below": SUMS, "span": {**SPAN, "name": "answer", "role": "agent"}},
    {"depth": 1, "children": 0, "alike": 5, "orphan": False, "offset_s": 1, "until_s": 2, "below": {**SUMS, "spans": 5, "errors": 0}, "span": SPAN},
    {"depth": 1, "children": 0, "alike": 1, "orphan": False, "offset_s": 3, "until_s": 4, "below": SUMS, "span": {**SPAN, "status": "error", "status_message": "no\x1b]0;x\x07 address"}},
]  # fmt: skip


@pytest.fixture
def told(hub: FakeHub) -> FakeHub:
    tree = {"trace_id": TRACE, "at": "2026-01-15T01:28:00Z", "duration_s": 4.25, "total": 8, "lines": LINES, "next": None}  # fmt: skip
    session = {**SUMS, "session": "s/1", "agent": "inbox", "at": ITEM["at"], "last_at": ITEM["at"], "traces": 1, "turns": 1}  # fmt: skip
    change = {"path": "memory.name", "how": "changed", "before": {"text": "Ann"}, "after": {"text": "Export CSV"}}  # fmt: skip
    turn = {**SUMS, "turn": "1", "number": 1, "at": ITEM["at"], "duration_s": 1.5, "traces": [TRACE], "changes": [change]}  # fmt: skip
    sight = {"at": ITEM["at"], "turn": 1, "trace_id": TRACE, "span_id": "02", "where": "result", "name": "browser", "how": "entered", "excerpt": "Export\x1b[2J CSV"}  # fmt: skip
    trail = {"value": "Export CSV", "sights": [sight, {**sight, "turn": 0, "how": "left"}], "more": 0, "entered": sight, "stored": None}  # fmt: skip
    hub.routes |= {
        "GET /api/traces": {"items": [ITEM], "next": None},
        f"GET /api/traces/{TRACE}/tree": tree,
        f"GET /api/traces/{TRACE}/spans/01/contents": {"items": [{"kind": "input", "key": "k", "text": "hello\x1b[2J"}], "gone": 1},
        "GET /api/sessions": {"items": [session], "next": None},
        "GET /api/sessions/s%2F1": {**session, "outside": 0, "items": [turn], "trail": trail},
        "POST /api/sql": {"columns": ["agent", "n"], "rows": [["inbox", 3], [None, 1]], "truncated": True},
        "GET /api/export/spans": b"PAR1 and the rest",
    }  # fmt: skip
    return hub


def test_a_list_says_what_sampling_let_go(midwatch: Midwatch, told: FakeHub, data: Path) -> None:
    told.routes["GET /api/traces"] = {"items": [{**ITEM, "weight": 10}], "next": None, "left_out": 1_234}  # fmt: skip
    ended = midwatch("traces", "--data", str(data))
    assert "stands for 10" in ended.out
    assert "1,234 more like that were let go by sampling" in ended.err


def test_traces_are_listed_by_what_is_asked(midwatch: Midwatch, told: FakeHub, data: Path) -> None:
    ended = midwatch("traces", "--agent", "inbox", "--failed", "--text", "x", "--min-usd", "0.1", "--data", str(data))  # fmt: skip
    assert ended.code == 0
    assert "answer (1 errors)" in ended.out
    assert "\x1b" not in ended.out
    route, query, _ = told.asked[-1]
    assert route == "GET /api/traces"
    assert {k: query[k] for k in ("agent", "failed", "text", "min_cost_usd")} == {
        "agent": "inbox", "failed": "true", "text": "x", "min_cost_usd": "0.1",
    }  # fmt: skip
    ended = midwatch("traces", "--json", "--data", str(data))
    assert json.loads(ended.out) == [ITEM]


def test_a_trace_is_drawn_with_its_repeats_in_one_line(
    midwatch: Midwatch, told: FakeHub, data: Path
) -> None:
    ended = midwatch("trace", TRACE, "--data", str(data))
    assert ended.code == 0
    assert "  search (tool, 5 alike, 5 spans in all)" in ended.out
    assert "error: no address" in ended.out
    assert json.loads(midwatch("trace", TRACE, "--json", "--data", str(data)).out)["lines"] == LINES
    said = midwatch("trace", TRACE, "--contents", "01", "--data", str(data))
    assert "hello" in said.out
    assert "\x1b" not in said.out
    assert "1 contents have expired" in said.err


def test_sessions_are_listed_and_shown_with_their_turns(
    midwatch: Midwatch, told: FakeHub, data: Path
) -> None:
    assert "s/1" in midwatch("sessions", "--data", str(data)).out
    shown = midwatch("sessions", "s/1", "--data", str(data)).out
    assert "~ memory.name: Ann → Export CSV" in shown
    followed = midwatch("sessions", "s/1", "--follow", "Export CSV", "--data", str(data)).out
    assert ">  turn 1, result browser, span 02: Export" in followed
    assert "   no turn, result browser (gone), span 02" in followed
    assert "\x1b" not in followed


def test_sql_prints_a_table_or_rows_as_objects(
    midwatch: Midwatch, told: FakeHub, data: Path
) -> None:
    ended = midwatch("sql", "select 1", "--data", str(data))
    assert ended.code == 0
    assert ended.out.split()[:4] == ["agent", "n", "inbox", "3"]
    assert "more than 2 rows" in ended.err
    assert told.asked[-1][2] == {"query": "select 1", "rows": 1000, "timeout_s": 10.0}
    ended = midwatch("sql", "select 1", "--json", "--data", str(data))
    assert json.loads(ended.out) == [{"agent": "inbox", "n": 3}, {"agent": None, "n": 1}]


def test_an_export_is_a_file_and_never_replaces_one(
    midwatch: Midwatch, told: FakeHub, data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "spans.jsonl"
    ended = midwatch("export", "spans", "-o", str(file), "--data", str(data))
    assert ended.code == 0
    assert file.read_bytes() == b"PAR1 and the rest"
    assert told.asked[-1][1]["format"] == "jsonl"
    again = midwatch("export", "spans", "-o", str(file), "--data", str(data))
    assert (again.code, "is there already" in again.err) == (2, True)
    lost = midwatch("export", "logs", "-o", str(tmp_path / "logs.parquet"), "--data", str(data))
    assert lost.code == 2
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["spans.jsonl"]
