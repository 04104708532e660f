"""What counting needs to know of a span, and what a span has to say of usage."""

from __future__ import annotations

from operator import itemgetter
from typing import Final, NamedTuple

from midwatch.core.calls.news import SCOPE as GATEWAY
from midwatch.core.spans import form
from midwatch.core.spans.form import COUNTED, CostFrom, Rank, Row

CALLS: Final = frozenset(role.value for role in COUNTED)
"""Roles of calls."""
_OPEN: Final = Rank.OPEN.value
_ERROR: Final = 2
_REPORTED: Final = CostFrom.REPORTED.value

CALL: Final = 1
"""Counts as a call."""
TOKENS: Final = 2
"""Counts for its tokens."""
MONEY: Final = 4
"""Counts for its cost."""
USAGE: Final = TOKENS | MONEY
ALL: Final = CALL | USAGE

Key = tuple[str, bytes]
"""Agent, and trace id and span id in one, as `form.key`."""


class Fact(NamedTuple):
    """What counting needs to know of a span: its columns of these names."""

    agent: str
    trace_id: bytes
    span_id: bytes
    parent_id: bytes | None
    rank: int
    start_ns: int
    duration_ns: int | None
    status: int
    role: int
    agent_name: str | None
    run_id: str | None
    session: str | None
    response_id: str | None
    first_response_id: str | None
    """Of a stream that was gone on with: the id that its client saw when it began."""
    call_id: str | None
    input_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    cost_nusd: int | None
    cost_from: int | None
    scope: str | None

    @property
    def key(self) -> Key:
        """What makes the span one."""
        return self.agent, self.trace_id + self.span_id

    @property
    def is_ledger(self) -> bool:
        """Tell whether the gateway's ledger speaks. Ingest lets nobody else use its scope."""
        return self.scope == GATEWAY and self.role in CALLS


_of_row = itemgetter(*(form.SPANS.at[name] for name in Fact._fields))


def fact(row: Row) -> Fact:
    """Return what counting needs of a row of `form.SPANS`."""
    return Fact._make(_of_row(row))


def says(one: Fact) -> int:
    """Return what a span has to say, as the bits of a verdict. What is open has yet to say it."""
    if one.rank == _OPEN:
        return 0
    found = 0
    if one.role in CALLS:
        found = CALL
        if one.scope == GATEWAY and one.status != _ERROR:
            # of an answer from its cache it says that nothing was spent
            return ALL
    if one.input_tokens or one.output_tokens:
        found |= TOKENS
    if one.cost_nusd is not None and (one.cost_nusd or one.cost_from != _REPORTED):
        # emitters that know no price report 0
        found |= MONEY
    return found
