"""What the watch is told of spans: sums for each agent and commit, and single spans only where they matter.

Judging every span as an item would take more than a core at 20,000 spans a second; this takes about one microsecond
a span. Usage is counted by the default rule (`form.COUNTED`): what a verdict later changes concerns traces, not
alarms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from midwatch.core.spans.form import (
    AGENT,
    CACHED_TOKENS,
    COST_NUSD,
    COUNTED,
    ESCALATED,
    EVALUATIONS,
    FINISH,
    INPUT_TOKENS,
    OUTCOME,
    OUTPUT_TOKENS,
    RANK,
    ROLE,
    START_NS,
    STATUS,
    Rank,
    Role,
    Row,
)

MAX_NOTED: Final = 200
"""Single spans of one agent in one digest; the rest of them is counted in `more`."""

REFUSED: Final = frozenset({"refusal", "content_filter", "safety"})
"""Why an answer ended when the model would not give one."""

_ERROR: Final = 2
_COUNTED: Final = frozenset(role.value for role in COUNTED)
_TOOL: Final = Role.TOOL.value
_ENDED: Final = Rank.ENDED.value


@dataclass(slots=True)
class Seen:
    """What one agent's spans of one commit come to. Counts are of spans that ended, unless they say otherwise."""

    spans: int = 0
    opened: int = 0
    """Spans that were announced, not counted in `spans`."""
    errors: int = 0
    calls: int = 0
    tools: int = 0
    tool_errors: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_nusd: int = 0
    newest_ns: int = 0
    """The latest start."""
    noted: list[Row] = field(default_factory=list[Row])
    """Rows of tools, errors, refusals, outcomes, evaluations, and of what went to a person; not to be changed."""
    more: int = 0
    """Such rows beyond MAX_NOTED."""


Digest = Mapping[str, Seen]
"""By agent."""


def digest_of(spans: Iterable[Row]) -> Digest:
    """Return what these rows, new or replaced in the store, come to."""
    found: dict[str, Seen] = {}
    for row in spans:
        seen = found.get(row[AGENT])
        if seen is None:
            seen = found[row[AGENT]] = Seen()
        seen.newest_ns = max(seen.newest_ns, row[START_NS])
        if row[RANK] != _ENDED:
            seen.opened += 1
            continue
        seen.spans += 1
        role = row[ROLE]
        failed = row[STATUS] == _ERROR
        if failed:
            seen.errors += 1
        if role in _COUNTED:
            seen.calls += 1
            seen.input_tokens += row[INPUT_TOKENS] or 0
            seen.cached_tokens += row[CACHED_TOKENS] or 0
            seen.output_tokens += row[OUTPUT_TOKENS] or 0
            seen.cost_nusd += row[COST_NUSD] or 0
        elif role == _TOOL:
            seen.tools += 1
            seen.tool_errors += failed
        if failed or role == _TOOL or _tells(row):
            if len(seen.noted) < MAX_NOTED:
                seen.noted.append(row)
            else:
                seen.more += 1
    return found


def _tells(row: Row) -> bool:
    return (
        row[OUTCOME] is not None
        or row[ESCALATED] is not None
        or row[EVALUATIONS] is not None
        or row[FINISH] in REFUSED
    )


class SpanObserver(Protocol):
    """Who wants to know of committed spans: the watch. Told after the commit, before the answer."""

    async def see(self, digest: Digest) -> None: ...
