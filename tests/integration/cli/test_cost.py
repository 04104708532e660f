"""`midwatch cost`: sums of the hub, and estimates before a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import FakeHub, Midwatch  # noqa: TID252  there is no tests package

ROWS: list[dict[str, Any]] = [
    {
        "agent": "inbox",
        "cost_usd": 0.42,
        "cost_nusd": 420_000_000,
        "tokens": 12_000,
        "model_calls": 84,
        "cycles": 12,
        "estimated": 2,
        "disputed": 1,
        "saved_usd": 0.05,
        "reported_usd": None,
    },
    {
        "agent": "prices\x1b[31m",
        "cost_usd": None,
        "cost_nusd": None,
        "tokens": None,
        "model_calls": None,
        "cycles": 3,
        "estimated": 0,
        "reported_usd": None,
    },
]


@pytest.fixture
def told(hub: FakeHub) -> FakeHub:
    def cost(query: dict[str, str]) -> dict[str, Any]:
        if query["by"] == "tag":
            row = {"tag": "batch=night", "cost_nusd": 1_500_000_000, "cost_usd": 1.5}
            return {"total_usd": 1.5, "rows": [row]}
        return {"total_usd": 0.42, "total_nusd": 420_000_000, "rows": ROWS}

    hub.routes["GET /api/cost"] = cost
    hub.routes["GET /api/fleet"] = {"fleet": "night-shift", "timezone": "Europe/Paris"}
    hub.routes["GET /api/agents/inbox"]["today"]["items"] = 21
    return hub


def test_cost_is_a_table_with_a_total_and_no_data_is_a_dash(
    midwatch: Midwatch, told: FakeHub, data: Path
) -> None:
    shown = midwatch("cost", "--data", data)
    assert shown.code == 0
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert lines == [
        "AGENT COST CALLS TOKENS",
        "inbox $0.42 84 12,000 2 calls estimated, 1 calls disputed, $0.05 saved by caches",
        "prices - - -",
        "total $0.42",
    ]
    assert told.asked[-1][1] == {"by": "agent"}


def test_cost_as_json_is_the_contracts_document(
    midwatch: Midwatch, told: FakeHub, data: Path
) -> None:
    shown = midwatch("cost", "--by", "model", "--since", "2h", "--json", "--data", data)
    assert shown.json == {"total_usd": 0.42, "rows": ROWS}
    assert told.asked[-1][1]["by"] == "model"
    assert float(told.asked[-1][1]["since"]) > 1_700_000_000


@pytest.mark.parametrize("since", ["yesterday", "", "5 parsecs"])
def test_a_time_that_is_none_is_refused(
    midwatch: Midwatch, told: FakeHub, data: Path, since: str
) -> None:
    shown = midwatch("cost", "--since", since, "--data", data)
    assert shown.code == 2
    assert "expected how long ago" in shown.err
    assert told.asked == []


def test_an_estimate_multiplies_items_calls_and_margin(midwatch: Midwatch, tmp_path: Path) -> None:
    args = ("--items", "100", "--calls-per-item", "4", "--input", "1000000", "--data", tmp_path)
    midwatch("prices", "set", "mine", "input=0.01/M", "output=1/M", "--data", tmp_path)
    shown = midwatch("cost", "estimate", "--model", "mine", *args, "--json")
    assert shown.json["calls"] == 400
    assert shown.json["call_usd"] == 0.01
    assert shown.json["estimate_usd"] == pytest.approx(5.2)
    assert shown.json["progress"] is None


def test_an_estimate_like_an_agent_takes_its_calls_for_each_item(
    midwatch: Midwatch, told: FakeHub, data: Path
) -> None:
    shown = midwatch(
        "cost", "estimate", "--like", "inbox", "--items", "10", "--json", "--data", data
    )
    assert shown.json["calls_per_item"] == 4.0
    assert shown.json["call_usd"] == 0.005
    assert shown.json["estimate_usd"] == pytest.approx(0.26)
    assert {query["by"] for path, query, _ in told.asked if path.endswith("cost")} == {"agent"}


@pytest.mark.parametrize(("done", "code"), [("5", 1), ("10", 0)])
def test_a_batch_that_costs_more_than_estimated_is_told(
    midwatch: Midwatch, told: FakeHub, data: Path, done: str, code: int
) -> None:
    args = ("--items", "10", "--model", "mine", "--input", "1000000", "--tag", "batch=night")
    midwatch("prices", "set", "mine", "input=0.10/M", "output=1/M", "--data", data)
    shown = midwatch("cost", "estimate", *args, "--done", done, "--data", data)
    assert told.asked[-1][1]["by"] == "tag"
    assert shown.code == code
    assert "batch=night has cost $1.50 of" in shown.out
    assert "budgets: [{tag: batch=night, total: $1.30}]" in shown.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "give one of --model MODEL and --like AGENT"),
        (("--model", "a", "--like", "b"), "give one of"),
        (("--model", "gpt-4o"), "--input and --output"),
        (("--model", "gpt-4o", "--input", "5", "--cached", "6"), "part of --input"),
        (("--model", "nobody-knows-it", "--output", "5"), "is not known"),
    ],
)
def test_what_cannot_be_estimated_says_what_is_missing(
    midwatch: Midwatch, tmp_path: Path, args: tuple[str, ...], words: str
) -> None:
    shown = midwatch("cost", "estimate", "--items", "5", *args, "--data", tmp_path)
    assert shown.code in (1, 2)
    assert words in " ".join(shown.err.split())


def test_figures_of_a_file_are_taken_and_what_was_not_is_said(
    midwatch: Midwatch, hub: FakeHub, data: Path, tmp_path: Path
) -> None:
    rows = [{"call": "one", "cost_nusd": 5}, {"call": "two\x1b[31m", "cost_nusd": "x"}]
    answers = [{"call": "one", "result": "settled"}, {"call": "two\x1b[31m", "result": "unread", "why": "expected cost"}]  # fmt: skip
    hub.routes["POST /api/gateway"] = {
        "results": {"settled": 1, "unread": 1},
        "rows": answers,
    }
    for name, text in (
        ("lines", "\n".join(json.dumps(row) for row in rows)),
        ("list", json.dumps(rows)),
    ):
        (tmp_path / name).write_text(text)
        ended = midwatch("cost", "reconcile", "--from", tmp_path / name, "--data", data)
        assert (ended.code, ended.out) == (1, "1 settled, 1 unread\n")
        assert "two" in ended.err
        assert "\x1b" not in ended.err
        assert hub.asked[-1][2]["body"] == {"by": "command line", "rows": rows}
    (tmp_path / "bad").write_text("{")
    assert "neither JSON Lines nor" in midwatch("cost", "reconcile", "--from", tmp_path / "bad", "--data", data).err  # fmt: skip


def test_doubtful_calls_are_looked_up_without_figures(
    midwatch: Midwatch, hub: FakeHub, data: Path
) -> None:
    hub.routes["POST /api/gateway"] = {"results": {"settled": 3, "unknown": 1, "waiting": 1}}
    ended = midwatch("cost", "reconcile", "--data", data)
    assert (ended.code, ended.out) == (0, "3 settled, 1 unknown, 1 waiting\n")
    assert hub.asked[-1][2]["path"] == "/control/reconcile"
    hub.routes["POST /api/gateway"] = {"results": {}}
    assert "no call's cost is in doubt" in midwatch("cost", "reconcile", "--data", data).out
