"""Sums that DuckDB makes are those that are made row by row."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pytest
from tests.spans import call, span, trace_id

from midwatch.core.calls.news import SCOPE as GATEWAY
from midwatch.core.spans.counting import by_default
from midwatch.core.spans.facts import ALL, MONEY, fact
from midwatch.core.spans.form import SPANS, Rank, Role, Row, Type
from midwatch.core.spans.questions import OTHER
from midwatch.core.spans.rollup import (
    DAY_S,
    MAX_VALUES,
    SKETCHES,
    Key,
    Rollup,
    Sum,
    coarser,
    merged,
)
from midwatch.core.spans.summary import summary_of
from midwatch.store.spans import bounding
from midwatch.store.spans import minutes as at
from midwatch.store.spans.sums import counted, minutes, summaries

GROUPS = {"inbox": "support"}
WINDOWS = {"gpt-4o-mini": 100_000, "it's": 50}

_SQL = {
    Type.TRACE_ID: "BLOB", Type.SPAN_ID: "BLOB", Type.INT: "BIGINT", Type.REAL: "DOUBLE", Type.FLAG: "BOOLEAN",
    Type.ENUM: "TINYINT",
}  # fmt: skip


def some(number: int, seed: int) -> list[Row]:
    """Return spans with everything that sums look at, and some of what they should not stumble over."""
    dice = random.Random(seed)
    rows: list[Row] = []
    for n in range(number):
        more: dict[str, Any] = {
            "agent": dice.choice(["inbox", "search", "it's"]),
            "start_s": dice.randrange(200),
            "duration_ns": dice.randrange(10**11),
            "status": dice.choice([0, 1, 2]),
            "rank": dice.choice([Rank.OPEN, Rank.LOST, Rank.ENDED, Rank.ENDED]).value,
            "role": dice.choice([Role.CALL, Role.EMBEDDING, Role.TOOL, Role.AGENT, Role.OTHER]).value,
            "scope": dice.choice([None, "x", GATEWAY]),
            "model": dice.choice([None, "gpt-4o-mini", "it's", "o3"]),
            "provider": dice.choice([None, "openai", "anthropic"]),
            "input_tokens": dice.choice([None, 0, 7, 200_000]),
            "cached_tokens": dice.choice([None, 3]),
            "output_tokens": dice.choice([None, 0, 9]),
            "cost_nusd": dice.choice([None, 0, 5, 10**15]),
            "cost_from": dice.choice([None, 0, 1, 2]),
            "first_token_ns": dice.choice([None, 0, 127, 128, 10**9, 2**62]),
            "outcome": dice.choice([None, "success", "failure"]),
            "goal_met": dice.choice([None, True, False]),
            "escalated": dice.choice([None, True, False]),
            "tags": dice.choice([None, '{"customer":"acme","colour":"red"}', '{"customer":"bolt"}']),
            "session": dice.choice([None, "s1", "s2"]),
            "turn": dice.choice([None, "1", "2", "é"]),
            "user": dice.choice([None, "ann", "bo"]),
            "evaluations": dice.choice([None, None, '[{"name":"thumbs","score":-1.0}]']),
        }  # fmt: skip
        parent = dice.choice([None, f"s{n // 2}"])
        rows.append(span(f"s{n}", f"t{dice.randrange(number // 4 + 1)}", parent=parent, **more))
    return rows


@pytest.fixture
def cursor() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as base:
        columns = ", ".join(f'"{c.name}" {_SQL.get(c.type, "VARCHAR")}' for c in SPANS.row)
        base.execute(f"CREATE TABLE spans ({columns})")
        yield base


def fill(cursor: duckdb.DuckDBPyConnection, rows: Sequence[Row]) -> None:
    marks = ", ".join("?" for _ in SPANS.row)
    cursor.executemany(f"INSERT INTO spans VALUES ({marks})", rows)


def default(row: Row) -> int:
    return by_default(fact(row)).counts


@pytest.mark.parametrize("seed", range(3))
def test_sums_by_minute_are_those_made_row_by_row(
    cursor: duckdb.DuckDBPyConnection, seed: int
) -> None:
    rows = some(150, seed)
    fill(cursor, rows)
    one, other = Rollup(GROUPS, WINDOWS), Rollup(GROUPS, WINDOWS)
    for row in rows:
        one.add(row, default(row))
    minutes(cursor, counted("spans"), other, WINDOWS)
    assert other.sums() == one.sums()


@pytest.mark.parametrize("seed", range(3))
def test_sums_by_trace_are_those_made_row_by_row(
    cursor: duckdb.DuckDBPyConnection, seed: int
) -> None:
    rows = some(150, seed)
    fill(cursor, rows)
    traces: dict[bytes, list[Row]] = {}
    for row in rows:
        traces.setdefault(row[SPANS.at["trace_id"]], []).append(row)
    expected = {trace_id: summary_of(mine, default) for trace_id, mine in traces.items()}
    assert summaries(cursor, counted("spans")) == expected


def test_a_verdict_goes_before_the_default(cursor: duckdb.DuckDBPyConnection) -> None:
    rows = [call("a", "t"), call("b", "t"), call("c", "t")]
    fill(cursor, rows)
    cursor.execute("CREATE TABLE verdicts AS SELECT agent, trace_id, span_id, 0 AS counts FROM spans LIMIT 0")  # fmt: skip
    for row, bits in ((rows[0], 0), (rows[1], MONEY)):
        cursor.execute("INSERT INTO verdicts VALUES (?, ?, ?, ?)", [*row[:3], bits])
    (found,) = summaries(cursor, counted("spans", "verdicts")).values()
    assert (found.spans, found.calls, found.input_tokens, found.cost_nusd) == (3, 1, 100, 10)
    assert default(rows[2]) == ALL


def test_nothing_comes_to_nothing(cursor: duckdb.DuckDBPyConnection) -> None:
    into = Rollup(GROUPS, WINDOWS)
    minutes(cursor, counted("spans"), into, {})
    assert into.sums() == {}
    assert summaries(cursor, counted("spans")) == {}


def kept(
    cursor: duckdb.DuckDBPyConnection, kind: str, more: Mapping[Key, Sum], days: str | None = None
) -> dict[Key, Sum]:
    """Return the sums of a kind as they are written down, and look whether they can be joined."""
    terms = at.Terms(GROUPS, WINDOWS, ("customer",))
    mine = counted("spans")
    at.read_tags(cursor, mine, terms)
    cursor.execute(f"CREATE OR REPLACE TABLE kept AS {at.add_up(cursor, mine, mine, terms, more, 7, days)[kind]}")  # fmt: skip
    found = read(cursor, "kept")
    if kind != at.MINUTES:
        return found
    twice = merged([*found.items(), *found.items()])
    assert read(cursor, f"({at.joined('(FROM kept UNION ALL FROM kept)')})") == twice
    return found


def read(cursor: duckdb.DuckDBPyConnection, table: str) -> dict[Key, Sum]:
    rows = cursor.execute(f"SELECT {at.COLUMNS} FROM {table} AS t").fetchall()
    found = [at.read(row) for row in rows]
    assert len({key for key, _ in found}) == len(found)
    return {key: one for key, one in found if one}


@pytest.mark.parametrize("seed", range(2))
def test_sums_as_they_are_kept_are_those_made_row_by_row(
    cursor: duckdb.DuckDBPyConnection, seed: int
) -> None:
    rows = some(150, seed)
    fill(cursor, rows)
    one, less = Rollup(GROUPS, WINDOWS), Rollup(GROUPS, WINDOWS)
    traces: dict[bytes, list[Row]] = {}
    for row in rows:
        one.add(row, default(row))
        traces.setdefault(row[SPANS.at["trace_id"]], []).append(row)
    for several in traces.values():
        one.add_trace(summary_of(several, default))
    for row in rows[:20]:
        for each in (one, less):
            each.add(row, default(row), -1)
    for kind, step_s in at.STEPS.items():
        assert kept(cursor, kind, less.sums()) == coarser(one.sums().items(), step_s)


def test_traces_that_say_more_than_a_summary_keeps_are_named(
    cursor: duckdb.DuckDBPyConnection,
) -> None:
    rows = [call(f"m{n}", "models", model=f"model-{n}") for n in range(33)]
    rows += [span(f"t{n}", "tags", tags=f'{{"tag-{n}":"x","tag-{n + 40}":"y"}}') for n in range(17)]
    rows += [span(f"s{n}", "same", tags='{"customer":"x"}') for n in range(40)]
    rows += [call(f"f{n}", "few", model=f"model-{n}") for n in range(32)]
    fill(cursor, rows)
    many = at.read_tags(cursor, counted("spans"), at.Terms({}, {}, ("customer",)))
    found = {bytes(row[0]) for row in cursor.execute(many).fetchall()}
    assert found == {trace_id("models"), trace_id("tags")}


def test_sums_that_were_kept_before_sketches_had_columns_have_their_numbers(
    cursor: duckdb.DuckDBPyConnection,
) -> None:
    fill(cursor, [call("a", "t")])
    whole = kept(cursor, at.MINUTES, {})
    gone = ", ".join(name for n in SKETCHES for name in (at.total_of(n), at.buckets_of(n)))
    cursor.execute(f"CREATE TABLE old AS SELECT * EXCLUDE ({gone}), 'x'::BLOB AS trace_latency FROM kept")  # fmt: skip
    found = read(cursor, f"({at.joined(at.known('old'))})")
    assert {key: one.spans for key, one in found.items()} == {key: one.spans for key, one in whole.items()}  # fmt: skip
    assert not any(one.trace_latency for one in found.values())


def test_values_beyond_a_days_bound_are_one_and_nothing_is_lost(
    cursor: duckdb.DuckDBPyConnection,
) -> None:
    rows = [call(f"c{n}", f"t{n}", start_s=n, model=f"m{n:04}") for n in range(MAX_VALUES + 50)]
    rows += [call("more", "t", model="m0240"), call("again", "t", model="other")]
    # another day and another agent have values of their own
    rows += [call("next", "u", start_s=DAY_S, model="x"), call("hers", "v", agent="search", model="y")]  # fmt: skip
    fill(cursor, rows)
    days = named(kept(cursor, at.DAYS, {}))
    assert at_most(days) == MAX_VALUES
    assert bounding.counted(cursor) == {"model": 50}
    assert days["inbox", "m0240"] == 2
    assert days["inbox", OTHER] == 51
    assert (days["inbox", "x"], days["search", "y"]) == (1, 1)
    assert sum(days.values()) == len(rows)
    for kind in (at.MINUTES, at.HOURS):
        assert named(kept(cursor, kind, {})) == days
    # the same day goes on: what was told apart stays so, what is new finds no room, corrections go where values went
    cursor.execute("CREATE TABLE before AS FROM kept WITH NO DATA")
    kept(cursor, at.DAYS, {})
    cursor.execute("INSERT INTO before FROM kept")
    less = Rollup(GROUPS, WINDOWS)
    less.add(next(row for row in rows if row[SPANS.at["model"]] == "m0249"), ALL, -1)
    cursor.execute("DELETE FROM spans")
    fill(cursor, [call("one", "w", model="m0007"), call("two", "w", start_s=1, model="new")])
    after = named(kept(cursor, at.DAYS, less.sums(), "(FROM before)"))
    assert after == {
        ("inbox", "m0007"): 1
    }  # what is new, less what is corrected, is none of the others
    assert bounding.counted(cursor) == {"model": 2}


def named(sums: Mapping[Key, Sum]) -> dict[tuple[str, str], int]:
    """Return calls by agent and model."""
    found: dict[tuple[str, str], int] = {}
    for key, one in sums.items():
        if key.by == "model":
            found[key.agent, key.name] = found.get((key.agent, key.name), 0) + one.calls
    return found


def at_most(days: Mapping[tuple[str, str], int]) -> int:
    return len({name for agent, name in days if agent == "inbox"} - {OTHER, "x"})
