"""Counting once: which spans' usage counts, and for whom.

What was used is told many times over: by the gateway, by the client that called, by a client around that client, by
the agent that adds its calls up. The rules, of which the earlier one wins:

1. What the gateway carried, its ledger tells, and nobody else.
2. Of calls within one another the innermost counts: those around it repeat it, often blind for caches. What a tool
   that was called within a call does is no repetition.
3. Of calls that tell of one answer (`answers`) the one that knows most counts.
4. Whatever else tells usage (agents, turns, cycles, tools) counts where nothing below it does and no call is
   around it: then it is the only one who knows.

Calls, tokens and money are judged apart: an agent that alone knows what its calls cost counts for money, its calls
for tokens. What counts belongs to the nearest agent above, and to the nearest session.

A verdict follows from the set of spans, never from the order in which they came: whoever learns of more spans judges
anew and adds the difference (`counted.settle`). Time is linear in the spans.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from midwatch.core.spans.answers import Answers, Telling
from midwatch.core.spans.facts import ALL, CALLS, USAGE, Fact, Key, says
from midwatch.core.spans.form import Role
from midwatch.core.spans.lineage import NONE, lineage


class Why(StrEnum):
    """Why a span counts, or why it does not."""

    LEDGER = "ledger"
    """The gateway carried the call."""
    CALL = "call"
    """A call that no other span tells of better."""
    ALONE = "alone"
    """No call, but nothing below it counts."""
    CARRIED = "carried"
    """Not counted: the gateway tells of the same."""
    AROUND = "around"
    """Not counted: a call within it tells the same."""
    TWIN = "twin"
    """Not counted: another span tells of the same answer."""
    REPEATS = "repeats"
    """Not counted: it adds up what counts below it."""
    WITHIN = "within"
    """Not counted: a call around it tells the same."""
    SILENT = "silent"
    """It says nothing of usage, or nothing yet."""


class Verdict(NamedTuple):
    """What a span counts for. Where there is none, `by_default` holds."""

    counts: int
    """CALL, TOKENS, MONEY, or several of them; 0 for nothing."""
    why: Why
    owner: str
    """The nearest agent above, by the name that it gives itself; the span's own agent where none has a name."""
    session: str | None
    trace_id: bytes
    """Where it counts: another trace than its own when the gateway's span counts in its caller's place."""


_AGENT: Final = Role.AGENT.value
_TOOL: Final = Role.TOOL.value

_LANE: Final = {role: place for place, role in enumerate(sorted(CALLS))}
"""A call repeats calls of its own kind alone."""
_SHIFT: Final = {role: 3 * lane for role, lane in _LANE.items()}
"""Where the bits of each kind of call stand in one number."""
_NO_CALLS: Final = (NONE,) * len(_LANE)


_CARRIED: Final = 8
"""Below a span of the ledger. Only while judging."""


def by_default(one: Fact) -> Verdict:
    """Return what holds for a span as long as no verdict says otherwise: calls count, and nothing else does."""
    said, counts = says(one), 0
    why = Why.REPEATS if said else Why.SILENT
    if one.role in CALLS:
        counts, why = said, Why.LEDGER if one.is_ledger else Why.CALL
    return Verdict(counts, why, one.agent_name or one.agent, one.session, one.trace_id)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found of a set of spans."""

    facts: Mapping[Key, Fact]
    verdicts: Mapping[Key, Verdict]
    """Of every span that says something, and of no other."""


def judge(spans: Iterable[Fact]) -> Judgement:
    """Return the verdicts on a set of spans: whole traces, and what tells of the same answers elsewhere.

    Of two rows of one span the one that tells more of its end holds, of two alike the first, as in a store.
    """
    known: dict[Key, Fact] = {}
    for one in spans:
        before = known.get(one.key)
        if before is None or before.rank < one.rank:
            known[one.key] = one
    return Judgement(known, _Court(list(known.values())).verdicts())


class _Court:
    """Judges one set of spans; what it works out of each stands in lists, by the span's place.

    1. downwards: whose it is, and which calls are above;
    2. beside: which spans tell of one answer, and what is told of it by any of them (`told`);
    3. upwards: what is told below; downwards: what is told by calls above;
    4. the verdicts.
    """

    def __init__(self, facts: list[Fact]) -> None:
        # by age, so that what is settled by order is settled alike, whatever came first
        facts.sort(key=lambda one: (one.start_ns, one.agent, one.trace_id, one.span_id))
        size = len(facts)
        self._facts = facts
        self._tree = lineage(facts)
        self._said = [says(one) for one in facts]
        self._owner: list[str | None] = [None] * size
        self._named: list[str | None] = [None] * size
        self._session: list[str | None] = [None] * size
        self._call_above: list[tuple[int, ...]] = [_NO_CALLS] * size
        """The nearest call above of each kind, up to the next tool."""
        for place in self._tree.order:
            self._inherit(place, self._tree.parents[place])
        self._within = self._count_within()
        self._told = self._said[:]
        self._groups = Answers(self._tellings()).groups()
        for group in self._groups:
            told = ALL if any(one.is_ledger for one in group) else 0
            for one in group:
                told |= self._said[one.place]
            for one in group:
                self._told[one.place] = told
        self._calls_below = [0] * size
        """Bits of the calls below, by kind, up to the next tool."""
        self._below = [0] * size
        self._around = [0] * size
        """What calls above tell, up to the next tool."""
        self._spread()

    def verdicts(self) -> dict[Key, Verdict]:
        """Return the verdicts of all that says something."""
        only = _only_sessions(self._facts)
        found: dict[int, Verdict] = {}
        for place, one in enumerate(self._facts):
            if not self._said[place]:
                continue
            counts, why = self._alone(place)
            owner = self._owner[place] or self._named[place] or one.agent
            session = self._session[place] or only.get(one.trace_id)
            found[place] = Verdict(counts, why, owner, session, one.trace_id)
        for group in self._groups:
            self._settle(group, found)
        return {
            self._facts[place].key: verdict if verdict.counts else self._nothing(place, verdict)
            for place, verdict in found.items()
        }

    def _nothing(self, place: int, verdict: Verdict) -> Verdict:
        """Return a verdict on what counts for nothing: nobody owns that, and most of them hold by default."""
        return by_default(self._facts[place])._replace(counts=0, why=verdict.why)

    # -- looking -----------------------------------------------------------------------------

    def _inherit(self, place: int, parent: int) -> None:
        one = self._facts[place]
        owner, named, session = None, one.agent_name, one.session
        if one.role == _AGENT:
            owner = named
        if parent != NONE:
            owner = owner or self._owner[parent]
            named = named or self._named[parent]
            session = session or self._session[parent]
            role = self._facts[parent].role
            if role in CALLS:
                nearest = list(self._call_above[parent])
                nearest[_LANE[role]] = parent
                self._call_above[place] = tuple(nearest)
            elif role != _TOOL:
                self._call_above[place] = self._call_above[parent]
        self._owner[place], self._named[place], self._session[place] = owner, named, session

    def _count_within(self) -> list[int]:
        """Return how many calls of its own kind each call has next below."""
        within = [0] * len(self._facts)
        for place, one in enumerate(self._facts):
            if one.role in CALLS and self._said[place]:
                above = self._call_above[place][_LANE[one.role]]
                if above != NONE:
                    within[above] += 1
        return within

    def _tellings(self) -> list[Telling]:
        """Return what tells of answers: of calls within one another the innermost, with the ids of those that
        are around it alone."""
        told: list[Telling] = []
        for place, one in enumerate(self._facts):
            if one.role not in CALLS or not self._said[place]:
                continue
            if self._within[place] and not one.is_ledger:
                continue
            lane = _LANE[one.role]
            above = self._call_above[place][lane]
            is_nested = above != NONE and not self._facts[above].is_ledger
            calls, responses = {one.call_id}, {one.response_id}
            while above != NONE and self._within[above] == 1:
                calls.add(self._facts[above].call_id)
                responses.add(self._facts[above].response_id)
                above = self._call_above[above][lane]
            told.append(_telling(place, one, calls, responses, is_nested=is_nested))
        return told

    def _spread(self) -> None:
        facts, parents, told = self._facts, self._tree.parents, self._told
        calls, below, around = self._calls_below, self._below, self._around
        for place in reversed(self._tree.order):
            parent = parents[place]
            if parent == NONE:
                continue
            below[parent] |= below[place] | told[place]
            role = facts[place].role
            if role in CALLS:
                calls[parent] |= calls[place] | told[place] << _SHIFT[role]
            elif role != _TOOL:
                calls[parent] |= calls[place]
        for place in self._tree.order:
            parent = parents[place]
            if parent == NONE or facts[parent].role == _TOOL:
                continue
            around[place] = around[parent]
            if facts[parent].role in CALLS:
                around[place] |= told[parent] & USAGE
                if facts[parent].is_ledger:
                    around[place] |= _CARRIED

    # -- judging -----------------------------------------------------------------------------

    def _alone(self, place: int) -> tuple[int, Why]:
        """Return what the forest says of a span."""
        one, said = self._facts[place], self._said[place]
        if one.is_ledger:
            return said, Why.LEDGER
        if one.role in CALLS:
            if self._around[place] & _CARRIED:
                return 0, Why.CARRIED
            counts = said & ~(self._calls_below[place] >> _SHIFT[one.role])
            return counts, Why.CALL if counts else Why.AROUND
        counts = said & ~self._below[place] & ~self._around[place]
        if counts:
            return counts, Why.ALONE
        return 0, Why.REPEATS if said & self._below[place] else Why.WITHIN

    def _settle(self, group: Sequence[Telling], found: dict[int, Verdict]) -> None:
        """Let one span count of those that tell of the same answer: the gateway's, or who knows most."""
        ledgers = [one for one in group if one.is_ledger]
        clients = [one for one in group if not one.is_ledger]
        if not ledgers:
            taken = 0
            for one in sorted(
                clients, key=lambda c: _knowledge(self._facts[c.place]), reverse=True
            ):
                verdict = found[one.place]
                counts = verdict.counts & ~taken
                taken |= counts
                why = verdict.why if counts or not verdict.counts else Why.TWIN
                found[one.place] = verdict._replace(counts=counts, why=why)
        elif clients:
            caller = found[clients[0].place]
            for one in clients:
                found[one.place] = found[one.place]._replace(counts=0, why=Why.CARRIED)
            for one in ledgers:
                if not one.is_nested:
                    own = found[one.place]
                    found[one.place] = own._replace(
                        owner=caller.owner,
                        session=self._facts[one.place].session or caller.session,
                        trace_id=caller.trace_id,
                    )


def _only_sessions(facts: Sequence[Fact]) -> dict[bytes, str]:
    """Return the session of each trace that names only one: it is also that of spans above and beside."""
    named: dict[bytes, str | None] = {}
    for one in facts:
        if one.session is not None and named.setdefault(one.trace_id, one.session) != one.session:
            named[one.trace_id] = None
    return {trace: session for trace, session in named.items() if session is not None}


def _knowledge(one: Fact) -> tuple[int, int, int, int]:
    """Return how much a client's span knows of its call; the greater, the more."""
    figures = (one.cached_tokens, one.cache_write_tokens, one.reasoning_tokens)
    whole = (one.input_tokens or 0) + (one.output_tokens or 0)
    return says(one), sum(figure is not None for figure in figures), one.cost_from or 0, whole


def _telling(
    place: int, one: Fact, calls: set[str | None], responses: set[str | None], *, is_nested: bool
) -> Telling:
    given, made = one.input_tokens, one.output_tokens
    return Telling(
        place,
        one.agent,
        one.is_ledger,
        one.start_ns,
        one.start_ns + (one.duration_ns or 0),
        frozenset(i for i in calls if i),
        frozenset(i for i in responses if i),
        (given, made) if given and made else None,
        one.run_id,
        is_nested,
    )
