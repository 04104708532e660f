"""Counting once: which spans' usage counts, and for whom.

What was used is told many times over: by the gateway, by the client that called, by a client around that client, by
the agent that adds its calls up. The rules, of which the earlier one wins:

1. What the gateway carried, its ledger tells, and nobody else. That holds for an agent's own sum, too, when its run's
   calls went through the gateway while it worked, and nobody recorded them below it.
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

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import Final, NamedTuple

from midwatch.core.spans.answers import Answers, Telling, carried_sums
from midwatch.core.spans.facts import ALL, CALL, CALLS, USAGE, Fact, Key, says
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


_IS_AGENT: Final = Role.AGENT.value
_IS_TOOL: Final = Role.TOOL.value


_LANE: Final = {role: place for place, role in enumerate(sorted(CALLS))}
"""A call repeats calls of its own kind alone."""
_SHIFT: Final = {role: 3 * lane for role, lane in _LANE.items()}
"""Where the bits of each kind of call stand in one number."""
_NO_CALLS: Final[tuple[int, ...]] = (NONE,) * len(_LANE)


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
    facts = list(spans)
    keys = [(one.agent, one.trace_id + one.span_id) for one in facts]
    known = dict(zip(keys, facts, strict=True))
    if len(known) < len(facts):
        known.clear()
        for key, one in zip(keys, facts, strict=True):
            before = known.get(key)
            if before is None or before.rank < one.rank:
                known[key] = one
        keys, facts = list(known), list(known.values())
    return Judgement(known, _Court(keys, facts).verdicts())


class _Court:
    """Judges one set of spans; what it works out of each stands in lists, by the span's place.

    1. downwards: whose it is, and which calls are above;
    2. beside: which spans tell of one answer, and what is told of it by any of them (`told`);
    3. upwards: what is told below; downwards: what is told by calls above;
    4. the verdicts.
    """

    def __init__(self, keys: Sequence[Key], facts: Sequence[Fact]) -> None:
        size = len(facts)
        self._keys, self._facts = keys, facts
        self._roles = [one.role for one in facts]
        self._tree = lineage(
            keys, [one.parent_id for one in facts], [one.start_ns for one in facts]
        )
        self._said = [
            says(one)
            if one.role in CALLS
            or one.cost_nusd is not None
            or one.input_tokens
            or one.output_tokens
            else 0
            for one in facts
        ]
        self._named = [one.agent_name for one in facts]
        self._owner = [one.agent_name if one.role == _IS_AGENT else None for one in facts]
        self._session = [one.session for one in facts]
        self._call_above: list[tuple[int, ...]] = [_NO_CALLS] * size
        """The nearest call above of each kind that says something, up to the next tool."""
        self._inherit()
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
        only = self._only_sessions()
        found: dict[int, Verdict] = {}
        for place, said in enumerate(self._said):
            if not said:
                continue
            one = self._facts[place]
            counts, why = self._alone(place, one)
            if counts:
                owner = self._owner[place] or self._named[place] or one.agent
                session = self._session[place] or only.get(one.trace_id)
                found[place] = Verdict(counts, why, owner, session, one.trace_id)
            else:
                found[place] = _nothing(one, why)
        for group in self._groups:
            self._settle(group, found)
        self._settle_sums(found)
        return {self._keys[place]: verdict for place, verdict in found.items()}

    # -- looking -----------------------------------------------------------------------------

    def _inherit(self) -> None:
        roles, parents = self._roles, self._tree.parents
        owner, named, session, above = self._owner, self._named, self._session, self._call_above
        said = self._said
        for place in self._tree.order:
            parent = parents[place]
            if parent == NONE:
                continue
            owner[place] = owner[place] or owner[parent]
            named[place] = named[place] or named[parent]
            session[place] = session[place] or session[parent]
            role = roles[parent]
            if role in CALLS and said[parent]:
                nearest = list(above[parent])
                nearest[_LANE[role]] = parent
                above[place] = (*nearest,)
            elif role != _IS_TOOL:
                above[place] = above[parent]

    def _count_within(self) -> dict[int, int]:
        """Return how many calls of its own kind each call has next below; none is left out."""
        within: dict[int, int] = {}
        for place, above in enumerate(self._call_above):
            if above is _NO_CALLS or not self._said[place] or self._roles[place] not in CALLS:
                continue
            nearest = above[_LANE[self._roles[place]]]
            if nearest != NONE:
                within[nearest] = within.get(nearest, 0) + 1
        return within

    def _innermost(self) -> Iterator[tuple[int, Fact, list[str], list[str]]]:
        """Yield calls that have none of their kind below, and the gateway's: place, fact, ids of the call and of
        the answer, with those of calls that are around it alone."""
        for place, one in enumerate(self._facts):
            if one.role not in CALLS or not self._said[place]:
                continue
            if place in self._within and not one.is_ledger:
                continue
            calls = [one.call_id] if one.call_id else []
            answers = _answers(one)
            if (above := self._call_above[place]) is not _NO_CALLS:
                lane = _LANE[one.role]
                around = above[lane]
                while around != NONE and self._within[around] == 1:
                    outer = self._facts[around]
                    calls += [outer.call_id] if outer.call_id else []
                    answers += _answers(outer)
                    around = self._call_above[around][lane]
            yield place, one, calls, answers

    def _tellings(self) -> list[Telling]:
        """Return what may tell of one answer with something else: its id comes again, or the gateway's span has its
        figures."""
        innermost = list(self._innermost())
        times = Counter(chain.from_iterable(calls + answers for _, _, calls, answers in innermost))
        figures = {
            (one.input_tokens, one.output_tokens)
            for place, one, _, _ in innermost
            if one.is_ledger and self._call_above[place] is _NO_CALLS
        }
        return [
            self._telling(place, one, calls, answers)
            for place, one, calls, answers in innermost
            if (figures and (one.input_tokens, one.output_tokens) in figures)
            or any(times[name] > 1 for name in (*calls, *answers))
        ]

    def _telling(self, place: int, one: Fact, calls: list[str], answers: list[str]) -> Telling:
        above = self._call_above[place][_LANE[one.role]]
        given, made = one.input_tokens, one.output_tokens
        return Telling(
            place,
            (one.start_ns, *self._keys[place]),
            one.agent,
            one.is_ledger,
            one.start_ns,
            one.start_ns + (one.duration_ns or 0),
            frozenset(calls),
            frozenset(answers),
            (given, made) if given and made else None,
            one.run_id,
            above != NONE and not self._facts[above].is_ledger,
        )

    def _spread(self) -> None:
        roles, parents, told = self._roles, self._tree.parents, self._told
        calls, below, around = self._calls_below, self._below, self._around
        for place in reversed(self._tree.order):
            parent = parents[place]
            if parent == NONE:
                continue
            below[parent] |= below[place] | told[place]
            role = roles[place]
            if role in CALLS:
                calls[parent] |= calls[place] | told[place] << _SHIFT[role]
            elif role != _IS_TOOL:
                calls[parent] |= calls[place]
        for place in self._tree.order:
            parent = parents[place]
            if parent == NONE or roles[parent] == _IS_TOOL:
                continue
            around[place] = around[parent]
            if roles[parent] in CALLS:
                around[place] |= told[parent] & USAGE
                if told[parent] & USAGE and self._facts[parent].is_ledger:
                    around[place] |= _CARRIED

    def _only_sessions(self) -> dict[bytes, str]:
        """Return the session of each trace that names only one: it is also that of spans above and beside."""
        named: dict[bytes, str | None] = {}
        for one in self._facts:
            session, trace = one.session, one.trace_id
            if session is not None and named.setdefault(trace, session) != session:
                named[trace] = None
        return {trace: session for trace, session in named.items() if session is not None}

    # -- judging -----------------------------------------------------------------------------

    def _alone(self, place: int, one: Fact) -> tuple[int, Why]:
        """Return what the forest says of a span."""
        said = self._said[place]
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
            for one in sorted(clients, key=self._knowledge, reverse=True):
                verdict = found[one.place]
                counts = verdict.counts & ~taken
                taken |= counts
                if counts:
                    found[one.place] = verdict._replace(counts=counts)
                elif verdict.counts:
                    found[one.place] = _nothing(self._facts[one.place], Why.TWIN)
        elif clients:
            for one in clients:
                found[one.place] = _nothing(self._facts[one.place], Why.CARRIED)
            for one in ledgers:
                if not one.is_nested:
                    self._move(one.place, clients[0].place, found)

    def _settle_sums(self, found: dict[int, Verdict]) -> None:
        """Let the gateway's spans that stand alone count for the agents that only tell their sum."""
        apart = [
            place
            for place, verdict in found.items()
            if self._facts[place].is_ledger
            and self._tree.parents[place] == NONE
            and verdict.trace_id == self._facts[place].trace_id
        ]
        if not apart:
            return
        holders = [
            place
            for place, verdict in found.items()
            if verdict.why is Why.ALONE and not self._below[place] & CALL
        ]
        for holder, ledgers in carried_sums(self._facts, holders, apart):
            for place in ledgers:
                self._move(place, holder, found)
            found[holder] = _nothing(self._facts[holder], Why.CARRIED)

    def _move(self, ledger: int, caller: int, found: dict[int, Verdict]) -> None:
        """Let a span of the gateway's that stands apart count where its caller stands."""
        first = self._facts[caller]
        found[ledger] = found[ledger]._replace(
            owner=self._owner[caller] or self._named[caller] or first.agent,
            session=self._facts[ledger].session or self._session[caller],
            trace_id=first.trace_id,
        )

    def _knowledge(self, one: Telling) -> tuple[int, int, int, int, tuple[int, str, bytes]]:
        """Return how much a client's span knows of its call; the greater, the more. Of two that know the same
        the shorter one is nearer to the provider."""
        fact = self._facts[one.place]
        figures = (fact.cached_tokens, fact.cache_write_tokens, fact.reasoning_tokens)
        known = sum(figure is not None for figure in figures)
        shortness = one.start_ns - one.end_ns
        return self._said[one.place], known, fact.cost_from or 0, shortness, one.age


def _answers(one: Fact) -> list[str]:
    """Return the ids of the answer that a span tells of: two, where another attempt ended it than began it. Some
    clients keep the first that they hear, some the last."""
    found = [one.response_id] if one.response_id else []
    if one.first_response_id and one.first_response_id != one.response_id:
        found.append(one.first_response_id)
    return found


def _nothing(one: Fact, why: Why) -> Verdict:
    """Return a verdict on what counts for nothing: nobody owns that, and most of them hold by default."""
    return by_default(one)._replace(counts=0, why=why)
