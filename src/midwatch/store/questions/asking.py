"""Texts of the questions that go by spans themselves: those of a trace, where a text stands, what was spent."""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from typing import Final

from midwatch.core.spans.columns import CONTENT_KINDS
from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.questions import Window
from midwatch.core.spans.turns import MAX_CHARACTERS, Sought
from midwatch.store.questions.dialect import Dialect, Values

AROUND: Final = 60
"""Characters of an excerpt on each side of what was found."""

STEMS: Final = (
    "span_id, parent_id, start_ns, duration_ns, rank, status, role, name,"
    " input_tokens, cached_tokens, output_tokens, cost_nusd, counts"
)
"""The columns of `tree.Stem`."""

DAY_NS: Final = 86_400 * 10**9

COST_COLUMNS: Final = {
    "agent": "agent",
    "group": "agent",
    "model": "model",
    "provider": "provider",
    "tool": "tool",
    "session": "session",
    "fleet": "'fleet'",
}
"""What cost is grouped by: column or text; a group's agents are put together by whoever asks."""


def during(window: Window, value: Values) -> str:
    """Return the condition for rows that began in a window."""
    return f"start_ns >= {value(window.since_ns)} AND start_ns < {value(window.until_ns)}"


def spans(rows: str, columns: str, trace_id: bytes, value: Values, after: tuple[int, bytes, str] | None, limit: int) -> str:  # fmt: skip
    """Return the text that gives a trace's spans by their start, one more than the limit when there are more."""
    where = f"trace_id = {value(trace_id)}"
    if after is not None:
        at, span, agent = value(after[0]), value(after[1]), value(after[2])
        where += (
            f" AND (start_ns > {at} OR (start_ns = {at} AND (span_id > {span}"
            f" OR (span_id = {span} AND agent > {agent}))))"
        )
    return (
        f"SELECT {columns} FROM {rows} AS s WHERE {where}"
        f" ORDER BY start_ns, span_id, agent LIMIT {limit + 1}"
    )


def stems(counted: str, trace_id: bytes, value: Values) -> str:
    """Return the text that gives what `tree.Forest` needs of a trace."""
    return (
        f"SELECT {STEMS} FROM {counted} AS s WHERE trace_id = {value(trace_id)}"
        " ORDER BY start_ns, span_id, agent"
    )


def told(contents: str, sought: Sought, say: Dialect, value: Values, where: str = "") -> str:
    """Return the text that gives contents of a session as `turns.Content`. `where` is a further condition."""
    kinds = ", ".join(map(str, sought.kinds))
    if sought.word is not None:
        where += f" AND {say.holds('text', value(sought.word))}"
    order = "DESC" if sought.latest else "ASC"
    return (
        f"SELECT trace_id, span_id, kind, substr(text, 1, {MAX_CHARACTERS}) FROM {contents} AS c"
        f" WHERE kind IN ({kinds}){where} ORDER BY start_ns {order}, span_id, place LIMIT {sought.limit}"
    )


def holding(rows: str, contents: str, text: str, since_ns: int, say: Dialect, value: Values) -> str:
    """Return the text that gives the ids of traces in which a text stands, of spans that began from then on."""
    sought, since = value(text.lower()), value(since_ns)
    return (
        f"SELECT trace_id FROM {rows} AS s WHERE start_ns >= {since}"
        f" AND ({say.holds('name', sought)} OR {say.holds('status_message', sought)})"
        f" UNION ALL SELECT trace_id FROM {contents} AS c WHERE start_ns >= {since} AND {say.holds('text', sought)}"
    )


def find(rows: str, contents: str, text: str, window: Window, say: Dialect, value: Values, after: tuple[int, bytes, bytes, str, int] | None, limit: int) -> str:  # fmt: skip
    """Return the text that gives `start_ns, trace_id, span_id, where, place, agent, name, excerpt`, newest first, one
    more than the limit when there are more."""
    sought = value(text.lower())
    began = during(window, value)
    length = 2 * AROUND + len(text)

    def excerpt(column: str) -> str:
        return say.around(column, sought, AROUND, length)

    own = " UNION ALL ".join(
        f"SELECT start_ns, trace_id, span_id, '{column}' AS spot, 0 AS place, agent, name, {excerpt(column)} AS excerpt"
        f" FROM {rows} AS s WHERE {began} AND {say.holds(column, sought)}"
        for column in ("name", "status_message")
    )
    kinds = " ".join(f"WHEN {n} THEN '{word}'" for n, word in enumerate(CONTENT_KINDS))
    # only spans beside which such a content stands are looked at for their names
    held = f"SELECT agent, trace_id, span_id, kind, place, {excerpt('text')} AS excerpt FROM {contents} AS c WHERE {say.holds('text', sought)}"
    inside = (
        f"SELECT s.start_ns, s.trace_id, s.span_id, CASE h.kind {kinds} END AS spot, h.place + 1 AS place, s.agent,"
        f" s.name, h.excerpt FROM (SELECT agent, trace_id, span_id, start_ns, name FROM {rows} AS r WHERE {began}) AS s"
        f" JOIN ({held}) AS h ON h.trace_id = s.trace_id AND h.span_id = s.span_id AND h.agent = s.agent"
    )
    where = ""
    if after is not None:
        at, trace, span, spot, place = (value(one) for one in after)
        same = f"start_ns = {at} AND trace_id = {trace}"
        where = (
            f" WHERE start_ns < {at} OR (start_ns = {at} AND trace_id < {trace})"
            f" OR ({same} AND span_id < {span}) OR ({same} AND span_id = {span} AND spot < {spot})"
            f" OR ({same} AND span_id = {span} AND spot = {spot} AND place < {place})"
        )
    return (
        f"SELECT start_ns, trace_id, span_id, spot, place, agent, name, excerpt FROM ({own} UNION ALL {inside}) AS f{where}"
        f" ORDER BY start_ns DESC, trace_id DESC, span_id DESC, spot DESC, place DESC LIMIT {limit + 1}"
    )


def cost_key(by: str, say: Dialect, value: Values) -> str:
    """Return what cost is grouped by: of COST_COLUMNS, `day` (days since 1970) or `tag:NAME`."""
    if by.startswith("tag:"):
        return say.tag("tags", value(by[4:]))
    return say.whole("start_ns", DAY_NS) if by == "day" else COST_COLUMNS[by]


def cost(
    counted: str, by: str, window: Window, agents: list[str], say: Dialect, value: Values
) -> str:
    """Return the text that gives `key, cost_nusd, calls, input, cached and output tokens, unpriced` of what counts.

    `by` is of COST_COLUMNS, `day` (days since 1970) or `tag:NAME`.
    """
    key = cost_key(by, say, value)
    where = f"counts <> 0 AND {during(window, value)}"
    if agents:
        where += f" AND {say.among('agent', value(agents))}"
    told, called, paid = (say.has("counts", bit) for bit in (TOKENS, CALL, MONEY))
    return (
        f"SELECT {key} AS what, sum(CASE WHEN {paid} THEN coalesce(cost_nusd, 0) ELSE 0 END),"
        f" sum(CASE WHEN {called} THEN 1 ELSE 0 END),"
        + "".join(
            f" sum(CASE WHEN {told} THEN coalesce({name}, 0) ELSE 0 END),"
            for name in ("input_tokens", "cached_tokens", "output_tokens")
        )
        + f" sum(CASE WHEN {called} AND {told} AND cost_nusd IS NULL THEN 1 ELSE 0 END)"
        f" FROM {counted} AS s WHERE {where} GROUP BY what"
    )
