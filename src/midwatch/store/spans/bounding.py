"""How many values sums tell apart: of each agent, model, provider and tag a day's first `rollup.MAX_VALUES`, then OTHER.

An agent that says another customer in every call, or a model's name that nobody ever heard, must not make sums grow
with its spans. A value that was told apart stays so for its day, and one that was not does not become so: corrections
go where the value went. A day is the widest step, and old ones leave whole; other days, and other agents, have values
of their own. Nothing is lost: what is folded is counted under OTHER, by every step.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections import Counter
from typing import Final

import duckdb

from midwatch.core.spans.questions import OTHER
from midwatch.core.spans.rollup import DAY_S, MAX_VALUES

VALUES: Final = "settled_values"
"""The table of what is summed now: day, agent, by, name, and `size`, its spans and traces."""

FOLDED: Final = "settled_folded"
"""The table of values among these that become OTHER: day, agent, by, name."""

_DAY: Final = f"start_s // {DAY_S} * {DAY_S}"
_OF: Final = 'day, agent, "by"'


def bound(cursor: duckdb.DuckDBPyConnection, numbers: str, days: str | None) -> bool:
    """Make both tables, and tell whether anything is folded.

    `numbers` is a query of rows with start_s, agent, by, name, spans and traces; `days` one of the sums by day that
    are kept, in parentheses, None when there are none. Of values that are new to a day those with most spans and
    traces come first, of equal ones the first by name: the same generation gives the same once more.
    """
    cursor.execute(
        f'CREATE OR REPLACE TEMP TABLE {VALUES} AS SELECT {_DAY} AS day, agent, "by", name,'
        f" sum(spans) + sum(traces) AS size FROM ({numbers}) AS n GROUP BY ALL"
    )
    named = f"\"by\" <> 'agent' AND name <> '{OTHER}'"
    before = (
        f'SELECT NULL::BIGINT AS day, agent, "by", name FROM {VALUES} WHERE false'
        if days is None
        else f'SELECT DISTINCT start_s AS day, agent, "by", name FROM {days} AS d WHERE {named}'
        f" AND start_s IN (SELECT day FROM {VALUES})"
    )
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE {FOLDED} AS WITH before AS MATERIALIZED ({before}),"
        f" taken AS (SELECT {_OF}, count(*) AS n FROM before GROUP BY ALL),"
        f" fresh AS (SELECT *, row_number() OVER (PARTITION BY {_OF} ORDER BY size DESC, name) AS place"
        f" FROM {VALUES} AS v ANTI JOIN before USING ({_OF}, name) WHERE {named})"
        f" SELECT {_OF}, name FROM fresh LEFT JOIN taken USING ({_OF}) WHERE place > {MAX_VALUES} - coalesce(n, 0)"
    )
    return cursor.execute(f"SELECT 1 FROM {FOLDED} LIMIT 1").fetchone() is not None


def folded(rows: str) -> str:
    """Return rows with start_s, agent, by and name (a query) with OTHER as the name of what is folded."""
    return (
        f"SELECT r.* REPLACE (CASE WHEN f.name IS NULL THEN r.name ELSE '{OTHER}' END AS name) FROM ({rows}) AS r"
        f' LEFT JOIN {FOLDED} AS f ON f.day = r.{_DAY} AND f.agent = r.agent AND f."by" = r."by" AND f.name = r.name'
    )


def counted(cursor: duckdb.DuckDBPyConnection) -> Counter[str]:
    """Return how many values were folded, by what they are of."""
    return Counter(dict(cursor.execute(f'SELECT "by", count(*) FROM {FOLDED} GROUP BY "by"').fetchall()))  # fmt: skip
