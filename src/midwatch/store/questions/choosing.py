"""Which traces and which sessions: one text for every store that speaks SQL.

What is asked of a trace becomes a column of each source's rows, the same columns of each: rows of spans say it one
by one, parts of traces (`parts`) for all spans of a generation. Then the rows of a trace are put together, and what
holds of any of them holds of the trace. So only what is asked for is read.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from midwatch.core.spans.facts import MONEY
from midwatch.core.spans.form import Rank
from midwatch.core.spans.questions import Choice
from midwatch.core.spans.summary import FLAGGED
from midwatch.store.questions.dialect import Dialect, Values

_ERROR: Final = 2


@dataclass(frozen=True, slots=True)
class Sources:
    """Where traces are told of: `spans`, rows with the columns of `form.SPANS` and `counts`; `parts`, rows of
    `parts.COLUMNS`, or None. Each span is told of by one of the two. Both are queries in parentheses."""

    spans: str
    parts: str | None = None
    each: str = "unnest"
    """What makes a row of each value of a list."""


class _Asked(NamedTuple):
    """One thing that is asked: how a span says it, how a part does, and what must hold of all of them."""

    of_span: str
    of_part: str
    holds: str
    """With `{}` for the column."""


_LISTS: Final = (
    ("agents", "agent", "agents"),
    ("sessions", "session", "sessions"),
    ("users", '"user"', "users"),
    ("runs", "run_id", "runs"),
    ("models", "model", "models"),
    ("tools", "tool", "tool_names"),
    ("outcomes", "outcome", "outcomes"),
)
"""Of a choice, of spans, of parts."""


def _asked(choice: Choice, say: Dialect, value: Values) -> Iterator[_Asked]:
    for name, column, several in _LISTS:
        wanted: tuple[str, ...] = getattr(choice, name)
        if wanted:
            place = value(list(wanted))
            yield _Asked(say.among(column, place), say.any_among(several, place), "max({})")
    for name, tag in choice.tags.items():
        key, word = value(name), value(tag)
        yield _Asked(
            f"{say.tag('tags', key)} = {word}",
            say.some("tag_texts", f"{say.tag('x', key)} = {word}"),
            "max({})",
        )
    for so, of_span, of_part in (
        (choice.failed, f"status = {_ERROR}", "errors"),
        (choice.open, f"rank = {Rank.OPEN.value}", "open"),
        (choice.lost, f"rank = {Rank.LOST.value}", "lost"),
    ):
        if so is not None:
            yield _Asked(_number(of_span), of_part, "sum({}) > 0" if so else "sum({}) = 0")
    if choice.flagged is not None:
        mark = value(FLAGGED)
        yield _Asked(
            _number(say.holds("evaluations", mark)),
            _number(say.some("said_evaluations", say.holds("x.v", mark))),
            "sum({}) > 0" if choice.flagged else "sum({}) = 0",
        )
    if choice.min_duration_s:
        yield _Asked(_number(f"rank = {Rank.OPEN.value}"), "open", "sum({}) = 0")
        least = value(round(choice.min_duration_s * 1e9))
        yield _Asked("NULL", "NULL", f"max(last_ns) - min(first_ns) >= {least}")
    if choice.min_cost_nusd is not None:
        spent = f"CASE WHEN {say.has('counts', MONEY)} THEN coalesce(cost_nusd, 0) ELSE 0 END"
        yield _Asked(spent, "cost_nusd", f"sum({{}}) >= {value(choice.min_cost_nusd)}")


def picking(choice: Choice, sources: Sources, say: Dialect, value: Values) -> str | None:
    """Return a query of trace ids outside of which no trace is chosen, by the one thing that few say; None when
    nothing is asked that one of its rows must say."""
    for asked in _picked(choice, say, value):
        rows = [(asked.of_span, sources.spans)]
        if sources.parts is not None:
            rows.append((asked.of_part, sources.parts))
        return " UNION ALL ".join(
            f"SELECT trace_id FROM {of} AS p WHERE {_says(says, asked)}" for says, of in rows
        )
    return None


def picked(choice: Choice, say: Dialect, value: Values) -> str | None:
    """Return the same as a condition on rows of parts, whatever they are parts of."""
    return next((_says(one.of_part, one) for one in _picked(choice, say, value)), None)


def _says(column: str, asked: _Asked) -> str:
    return f"({column})" if asked.holds == "max({})" else f"({column}) > 0"


def _picked(choice: Choice, say: Dialect, value: Values) -> Iterator[_Asked]:
    """Yield at most one thing that is asked, which one row must say: the first of what few say."""
    alone = [
        Choice(sessions=choice.sessions),
        Choice(users=choice.users),
        Choice(runs=choice.runs),
        *(Choice(tags={name: text}) for name, text in choice.tags.items()),
        Choice(flagged=choice.flagged or None),
        Choice(lost=choice.lost or None),
        Choice(open=choice.open or None),
        Choice(failed=choice.failed or None),
        Choice(outcomes=choice.outcomes),
        Choice(tools=choice.tools),
        Choice(agents=choice.agents),
        Choice(models=choice.models),
    ]
    for one in alone:
        for asked in _asked(one, say, value):
            yield asked
            return


def _number(condition: str) -> str:
    return f"CASE WHEN {condition} THEN 1 ELSE 0 END"


def _told(sources: Sources, asked: Sequence[_Asked]) -> str:
    """Return what all sources tell, with a column for each thing asked."""
    of_spans = [f"{one.of_span} AS f{n}" for n, one in enumerate(asked)]
    of_parts = [f"{one.of_part} AS f{n}" for n, one in enumerate(asked)]
    times = "start_ns AS first_ns, start_ns + coalesce(duration_ns, 0) AS last_ns"
    told = f"SELECT {', '.join(['trace_id', times, *of_spans])} FROM {sources.spans} AS s"
    if sources.parts is not None:
        told += f" UNION ALL SELECT {', '.join(['trace_id, first_ns, last_ns', *of_parts])} FROM {sources.parts} AS p"
    return told


def times(sources: Sources) -> str:
    """Return the text that gives `trace_id, first_ns, last_ns` of all that is told of every trace."""
    return _told(sources, ())


def _holding(choice: Choice, asked: Sequence[_Asked], value: Values) -> list[str]:
    window = choice.window
    holding = [one.holds.replace("{}", f"f{n}") for n, one in enumerate(asked)]
    if window.since_ns > 0:
        holding.append(f"min(first_ns) >= {value(window.since_ns)}")
    if window.until_ns < 2**63 - 1:
        holding.append(f"min(first_ns) < {value(window.until_ns)}")
    return holding


def _within(found: str | None, told: str) -> str:
    return told if found is None else f"SELECT * FROM ({told}) AS t WHERE trace_id IN ({found})"


def traces(
    choice: Choice,
    sources: Sources,
    say: Dialect,
    value: Values,
    found: str | None = None,
    after: tuple[int, bytes] | None = None,
    limit: int = 100,
) -> str:
    """Return the text that gives `trace_id, first_ns, last_ns` of the traces chosen, newest start first, one more
    than the limit when there are more. `found` is a query of trace ids to which it is bound."""
    asked = list(_asked(choice, say, value))
    holding = _holding(choice, asked, value)
    if after is not None:
        at, last = value(after[0]), value(after[1])
        holding.append(f"(min(first_ns) < {at} OR (min(first_ns) = {at} AND trace_id < {last}))")
    having = f" HAVING {' AND '.join(holding)}" if holding else ""
    return (
        f"SELECT trace_id, min(first_ns), max(last_ns) FROM ({_within(found, _told(sources, asked))}) AS t"
        f" GROUP BY trace_id{having} ORDER BY 2 DESC, trace_id DESC LIMIT {limit + 1}"
    )


def of_one(choice: Choice, say: Dialect, value: Values) -> str:
    """Return the condition for parts that are all there is of their trace: nothing has to be put together."""
    holding = ["true"]
    for one in _asked(choice, say, value):
        # the greatest, the least and the sum of one row are what it says
        alone = one.holds.replace("max(", "(").replace("min(", "(").replace("sum(", "(")
        holding.append(alone.replace("{}", one.of_part))
    window = choice.window
    holding.append(f"first_ns >= {value(window.since_ns)} AND first_ns < {value(window.until_ns)}")
    return " AND ".join(holding)


def named(sources: Sources) -> str:
    """Return the text that gives `trace_id, session, last_ns` of every row that tells of a session."""
    last = "start_ns + coalesce(duration_ns, 0) AS last_ns"
    told = f"SELECT trace_id, session, {last} FROM {sources.spans} AS s WHERE session IS NOT NULL"
    if sources.parts is not None:
        told += f" UNION ALL SELECT trace_id, {sources.each}(sessions) AS session, last_ns FROM {sources.parts} AS p"
    return told


def of_session(sources: Sources, session: str, value: Values) -> str:
    """Return the text that gives `trace_id` of the traces that tell of a session."""
    return f"SELECT DISTINCT trace_id FROM ({named(sources)}) AS n WHERE session = {value(session)}"


def sessions(
    choice: Choice,
    sources: Sources,
    say: Dialect,
    value: Values,
    found: str | None = None,
    after: tuple[int, str] | None = None,
    limit: int = 100,
    pairs: str | None = None,
    gone: str | None = None,
) -> str:
    """Return the text that gives `session, last_ns` of the sessions chosen, newest end first, one more than the limit
    when there are more. A session is all traces that tell of it. `pairs` is a query of `trace_id, session`, each once,
    of the only sessions that can be chosen; `gone` tells of sessions what no source does, in rows with the columns of
    parts and `session` (a query in parentheses)."""
    if pairs is None:
        pairs = f"SELECT DISTINCT trace_id, session FROM ({named(sources)}) AS n"
    asked = list(_asked(choice, say, value))
    holding = _holding(choice, asked, value)
    if choice.sessions:
        holding.append(say.among("session", value(list(choice.sessions))))
    if after is not None:
        at, last = value(after[0]), value(after[1])
        holding.append(f"(max(last_ns) < {at} OR (max(last_ns) = {at} AND session < {last}))")
    if found is not None:
        # any trace of it may hold the text
        holding.append(f"max(CASE WHEN t.trace_id IN ({found}) THEN 1 ELSE 0 END) = 1")
    having = f" HAVING {' AND '.join(holding)}" if holding else ""
    told = f"({_told(sources, asked)}) AS t JOIN ({pairs}) AS n ON n.trace_id = t.trace_id"
    if gone is not None:
        said = "".join(f"{one.of_part} AS f{n}, " for n, one in enumerate(asked))
        told = (
            f"(SELECT t.*, n.session FROM {told}"
            f" UNION ALL SELECT NULL, first_ns, last_ns, {said}session FROM {gone} AS g) AS t"
        )
    return (
        f"SELECT session, max(last_ns) FROM {told}"
        f" GROUP BY session{having} ORDER BY 2 DESC, session DESC LIMIT {limit + 1}"
    )
