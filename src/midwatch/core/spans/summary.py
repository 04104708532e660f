"""What a trace or a session comes to, from any number of its spans: parts are added in any order and give the same.

A trace arrives in pieces, and is sealed in pieces: each generation of spans keeps what its part comes to, and
readers add the parts. Of what several spans say (the outcome, a tag) the word of the latest start counts, of whether
it went to a person that it once did. Sets are bounded without a word about which part came first.

A span must be in one part alone. One that was sealed as lost and ended after all is a reason to make its part anew.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, TypeVar, cast

from midwatch.core.contamination import NAME as CONTAMINATION
from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import (
    AGENT,
    CACHED_TOKENS,
    COST_NUSD,
    DURATION_NS,
    ESCALATED,
    EVALUATIONS,
    GOAL_MET,
    INPUT_TOKENS,
    MODEL,
    NAME,
    OUTCOME,
    OUTPUT_TOKENS,
    PARENT_ID,
    PROVIDER,
    RANK,
    ROLE,
    SESSION,
    SPAN_ID,
    START_NS,
    STATUS,
    TAGS,
    TRACE_ID,
    TURN,
    USER,
    Rank,
    Role,
    Row,
)  # fmt: skip
from midwatch.wire.limits import NUSD_PER_USD

MAX_NAMES: Final = 32
"""Agents, models and tags of one summary: those first by the alphabet, whatever the order of arrival."""

MAX_EVALUATIONS: Final = 64
"""Evaluations and feedback of one summary: the latest."""

MAX_DISTINCT: Final = 256
"""Traces or turns up to which their number is exact; beyond it is right to about six in a hundred."""

FLAGGED: Final = f'"name":"{CONTAMINATION}"'
"""What stands in the column of evaluations where a span is flagged, and nowhere else."""

Counts = Callable[[Row], int]
"""What a span counts for: the bits of its verdict (`facts.CALL`, `TOKENS`, `MONEY`)."""

When = tuple[int, bytes]
"""Start and id of the span that says something: which of two is the later, whoever is asked."""

_V = TypeVar("_V")
_ERROR: Final = 2
_OPEN, _LOST, _TOOL = Rank.OPEN.value, Rank.LOST.value, Role.TOOL.value


@dataclass(slots=True)
class Distinct:
    """How many different things there were: the least hashes, which are the same whatever came first.

    Source: Bar-Yossef et al., "Counting distinct elements in a data stream", 2002 (the k-th minimum value).
    """

    least: set[int] = field(default_factory=set[int])

    def add(self, thing: bytes) -> None:
        """Count a thing, once."""
        self.least.add(int.from_bytes(blake2b(thing, digest_size=8).digest()))
        if len(self.least) > 2 * MAX_DISTINCT:
            self._cut()

    def merge(self, other: Distinct) -> None:
        self.least |= other.least
        self._cut()

    def _cut(self) -> None:
        if len(self.least) > MAX_DISTINCT:
            self.least = set(heapq.nsmallest(MAX_DISTINCT, self.least))

    @property
    def count(self) -> int:
        """The number, exact below MAX_DISTINCT."""
        self._cut()
        if len(self.least) < MAX_DISTINCT:
            return len(self.least)
        return round((MAX_DISTINCT - 1) * 2**64 / max(self.least))

    def to_bytes(self) -> bytes:
        self._cut()
        return b"".join(value.to_bytes(8) for value in sorted(self.least))

    @classmethod
    def from_bytes(cls, data: bytes) -> Distinct:
        """Return what `to_bytes` wrote. Raises ValueError for anything else."""
        if len(data) % 8 or len(data) > MAX_DISTINCT * 8:
            raise ValueError(f"expected at most {MAX_DISTINCT} hashes of 8 bytes, got {len(data)}")
        return cls({int.from_bytes(data[at : at + 8]) for at in range(0, len(data), 8)})


@dataclass(slots=True)
class Said:
    """What the latest span said of something."""

    when: When
    value: Any


@dataclass(slots=True)
class Share:
    """What one model had of it."""

    provider: str | None = None
    cost_nusd: int = 0
    tokens: int = 0


@dataclass(slots=True)
class Summary:
    """See the module. An empty one is that of no spans: `first_ns` is then None."""

    first_ns: int | None = None
    last_ns: int = 0
    """The last end that is known; of an open span its start."""
    spans: int = 0
    errors: int = 0
    open: int = 0
    lost: int = 0
    calls: int = 0
    """Spans that count as a call."""
    tools: int = 0
    tool_errors: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost_nusd: int = 0
    priced: int = 0
    """Spans whose cost counts."""
    root: tuple[bool, int, bytes, str, str] | None = None
    """Whether it has a parent, start, id, name, agent: the least is what the whole is called by."""
    agents: set[str] = field(default_factory=set[str])
    models: dict[str, Share] = field(default_factory=dict[str, Share])
    tags: dict[str, Said] = field(default_factory=dict[str, Said])
    session: Said | None = None
    user: Said | None = None
    outcome: Said | None = None
    goal_met: Said | None = None
    escalated: bool | None = None
    evaluations: dict[When, str] = field(default_factory=dict[When, str])
    traces: Distinct = field(default_factory=Distinct)
    turns: Distinct = field(default_factory=Distinct)
    flags: set[str] = field(default_factory=set[str])
    """Why results of tools in it are flagged (`contamination.Kind`)."""

    # -- adding ------------------------------------------------------------------------------

    def add(self, row: Row, counts: int) -> None:
        """Take in one span, and what it counts for (`Counts`)."""
        start_ns, span_id = row[START_NS], row[SPAN_ID]
        end_ns = start_ns + (row[DURATION_NS] or 0)
        self.first_ns = start_ns if self.first_ns is None else min(self.first_ns, start_ns)
        self.last_ns = max(self.last_ns, end_ns)
        self.spans += 1
        failed = row[STATUS] == _ERROR
        self.errors += failed
        self.open += row[RANK] == _OPEN
        self.lost += row[RANK] == _LOST
        if row[ROLE] == _TOOL:
            self.tools += 1
            self.tool_errors += failed
        if counts:
            self.use(row, counts)
        named = (row[PARENT_ID] is not None, start_ns, span_id, row[NAME], row[AGENT])
        if self.root is None or named < self.root:
            self.root = named
        self.name((row[AGENT],))
        self.traces.add(row[TRACE_ID])
        if row[TURN] is not None:
            self.turns.add(row[TURN].encode(errors="replace"))
        self._hear(row, (start_ns, span_id))

    def use(self, row: Row, counts: int, weight: int = 1) -> None:
        """Count a span's usage alone: of one that counts here and stands elsewhere, or, with weight -1 for the verdict
        that was and 1 for the one that is, of one that is judged anew."""
        cost = tokens = 0
        self.calls += weight * bool(counts & CALL)
        if counts & TOKENS:
            tokens = (row[INPUT_TOKENS] or 0) + (row[OUTPUT_TOKENS] or 0)
            self.input_tokens += weight * (row[INPUT_TOKENS] or 0)
            self.cached_tokens += weight * (row[CACHED_TOKENS] or 0)
            self.output_tokens += weight * (row[OUTPUT_TOKENS] or 0)
        if counts & MONEY and row[COST_NUSD] is not None:
            cost = row[COST_NUSD]
            self.cost_nusd += weight * cost
            self.priced += weight
        if row[MODEL] is not None and counts:
            self.share(row[MODEL], Share(row[PROVIDER], weight * cost, weight * tokens))

    def _hear(self, row: Row, when: When) -> None:
        if row[SESSION] is not None:
            self.session = _later(self.session, when, row[SESSION])
        if row[USER] is not None:
            self.user = _later(self.user, when, row[USER])
        if row[OUTCOME] is not None:
            self.outcome = _later(self.outcome, when, row[OUTCOME])
        if row[GOAL_MET] is not None:
            self.goal_met = _later(self.goal_met, when, row[GOAL_MET])
        if row[ESCALATED] is not None:
            self.escalated = bool(self.escalated or row[ESCALATED])
        if row[TAGS] is not None:
            self.tag(row[TAGS], when)
        if row[EVALUATIONS] is not None:
            self.judge(when, row[EVALUATIONS])

    def tag(self, text: str, when: When) -> None:
        """Hear tags, as the column holds them."""
        for name, value in tags_of(text).items():
            self.tags[name] = _later(self.tags.get(name), when, value)
        _trim(self.tags)

    def judge(self, when: When, text: str) -> None:
        """Hear evaluations, as the column holds them. Flags stand apart: many of them leave feedback its place."""
        if FLAGGED in text:
            said = cast("list[dict[str, Any]]", json.loads(text))
            self.flag(
                str(one.get("label", "other")) for one in said if one.get("name") == CONTAMINATION
            )
            said = [one for one in said if one.get("name") != CONTAMINATION]
            if not said:
                return
            text = json.dumps(said, separators=(",", ":"))
        self.evaluations[when] = text
        self._keep_latest()

    def flag(self, kinds: Iterable[str]) -> None:
        """Hear why something in it is flagged."""
        self.flags.update(kinds)
        while len(self.flags) > MAX_NAMES:
            self.flags.remove(max(self.flags))

    def share(self, model: str, more: Share) -> None:
        """Add what a model had of it."""
        mine = self.models.setdefault(model, Share())
        mine.cost_nusd += more.cost_nusd
        mine.tokens += more.tokens
        mine.provider = _least(mine.provider, more.provider)
        _trim(self.models)

    def name(self, agents: Iterable[str]) -> None:
        """Hear whose spans are in it."""
        self.agents.update(agents)
        while len(self.agents) > MAX_NAMES:
            self.agents.remove(max(self.agents))

    def merge(self, other: Summary) -> None:
        """Take in another part of the same."""
        if other.first_ns is None:
            return
        self.first_ns = min(
            other.first_ns, other.first_ns if self.first_ns is None else self.first_ns
        )
        self.last_ns = max(self.last_ns, other.last_ns)
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if self.root is None or (other.root is not None and other.root < self.root):
            self.root = other.root
        self.name(other.agents)
        for model, theirs in other.models.items():
            self.share(model, theirs)
        for name, said in other.tags.items():
            self.tags[name] = _latest(self.tags.get(name), said) or said
        _trim(self.tags)
        self.session = _latest(self.session, other.session)
        self.user = _latest(self.user, other.user)
        self.outcome = _latest(self.outcome, other.outcome)
        self.goal_met = _latest(self.goal_met, other.goal_met)
        if other.escalated is not None:
            self.escalated = bool(self.escalated or other.escalated)
        self.evaluations |= other.evaluations
        self._keep_latest()
        self.traces.merge(other.traces)
        self.turns.merge(other.turns)
        self.flag(other.flags)

    def _keep_latest(self) -> None:
        while len(self.evaluations) > MAX_EVALUATIONS:
            del self.evaluations[min(self.evaluations)]

    # -- reading -----------------------------------------------------------------------------

    @property
    def duration_ns(self) -> int | None:
        """From the first start to the last end; None while something is open."""
        if self.first_ns is None or self.open:
            return None
        return max(0, self.last_ns - self.first_ns)

    @property
    def agent(self) -> str | None:
        """Whose it is: the agent of the first span without a parent."""
        return None if self.root is None else self.root[4]

    @property
    def model(self) -> str | None:
        """The model that cost most in it, or had most tokens where nothing has a price."""
        if not self.models:
            return None
        return max(
            sorted(self.models), key=lambda m: (self.models[m].cost_nusd, self.models[m].tokens)
        )

    @property
    def said_tags(self) -> dict[str, str]:
        return {name: self.tags[name].value for name in sorted(self.tags)}

    @property
    def feedback(self) -> list[dict[str, Any]]:
        """Evaluations and feedback, as they were said, the earliest first."""
        found: list[dict[str, Any]] = []
        for when in sorted(self.evaluations):
            found += json.loads(self.evaluations[when])
        return found[-MAX_EVALUATIONS:]

    def item(self) -> dict[str, Any]:
        """Return what lists of traces and of sessions both show; what nobody said is not in it."""
        said = {
            "agents": sorted(self.agents),
            "user": _value(self.user),
            "spans": self.spans, "errors": self.errors, "open": self.open, "calls": self.calls, "tools": self.tools,
            "input_tokens": self.input_tokens, "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "cost_nusd": self.cost_nusd, "cost_usd": self.cost_nusd / NUSD_PER_USD,
            "outcome": _value(self.outcome), "goal_met": _value(self.goal_met), "escalated": self.escalated,
            "tags": self.said_tags or None, "feedback": self.feedback or None, "flags": sorted(self.flags) or None,
        }  # fmt: skip
        return {name: value for name, value in said.items() if value is not None}


SUMS: Final = (
    "spans", "errors", "open", "lost", "calls", "tools", "tool_errors", "input_tokens", "cached_tokens",
    "output_tokens", "cost_nusd", "priced",
)  # fmt: skip
"""The numbers of a summary that are added."""


def summary_of(rows: Iterable[Row], counts: Counts) -> Summary:
    """Return what these spans come to."""
    found = Summary()
    for row in rows:
        found.add(row, counts(row))
    return found


def trace_item(trace_id: bytes, found: Summary) -> dict[str, Any]:
    """Return a trace as `Questions.traces` shows it. Raises ValueError for a summary of nothing."""
    if found.first_ns is None or found.root is None:
        raise ValueError("there is no span in this summary")
    item = {
        "trace_id": trace_id.hex(),
        "at": found.first_ns / 1e9,
        "duration_s": None if found.duration_ns is None else found.duration_ns / 1e9,
        "name": found.root[3],
        "agent": found.root[4],
        "session": _value(found.session),
        "lost": found.lost,
        **found.item(),
    }
    return {name: value for name, value in item.items() if value is not None}


def session_item(session: str, found: Summary) -> dict[str, Any]:
    """Return a session as `Questions.sessions` shows it. Raises ValueError for a summary of nothing."""
    if found.first_ns is None or found.root is None:
        raise ValueError("there is no span in this summary")
    return {
        "session": session,
        "agent": found.root[4],
        "at": found.first_ns / 1e9,
        "last_at": found.last_ns / 1e9,
        "traces": found.traces.count,
        "turns": found.turns.count,
        **found.item(),
    }


def tags_of(text: str) -> Mapping[str, str]:
    """Return the tags that the column holds as JSON: names and texts."""
    read = json.loads(text)
    if not isinstance(read, dict):
        return {}
    return {name: str(value) for name, value in cast("dict[str, Any]", read).items()}


def _later(before: Said | None, when: When, value: Any) -> Said:
    return before if before is not None and before.when > when else Said(when, value)


def _latest(one: Said | None, other: Said | None) -> Said | None:
    if one is None or other is None:
        return one or other
    return max(one, other, key=lambda said: (said.when, str(said.value)))


def _value(said: Said | None) -> Any:
    return None if said is None else said.value


def _least(one: str | None, other: str | None) -> str | None:
    return min((each for each in (one, other) if each is not None), default=None)


def _trim(names: dict[str, _V]) -> None:
    while len(names) > MAX_NAMES:
        del names[max(names)]
