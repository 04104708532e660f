"""Which spans tell of the same answer of a model, wherever they stand: the client's in one trace, the gateway's in
another, a second instrumentation's beside them.

They are matched by the gateway's id of the call (`x-midwatch-call`) and by the provider's id of the answer, within
one agent and its sub-agents. Some local servers draw ids from a few hundred numbers, and some give every answer the
same one: between clients alone an id is believed for spans that overlap in time, or that tell the same figures (an
answer from a cache); a short one only while they overlap. A span without any id is matched with the gateway's by
what only the same call has: it encloses it in time, and its tokens are the same in and out. An agent that only
tells its sum is matched with what the gateway carried of its run meanwhile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from midwatch.core.detection import MIDWATCH
from midwatch.core.spans.facts import Fact

SHORT_ID: Final = 20
"""Characters of an id that may come again by chance. The great providers' have 22 and more."""

SLACK_NS: Final = 1_000_000_000
"""What clocks of client and gateway may differ where times decide."""

MAX_SHARED: Final = 64
"""Clients' spans that may tell of one answer; an id that more of them have is none."""

MAX_TRIED: Final = 32
"""Spans with the same figures that are looked at for one that has no id."""


_CALL: Final = "call"
_RESPONSE: Final = "response"


class Telling(NamedTuple):
    """One span that tells of a call."""

    place: int
    age: tuple[int, str, bytes]
    """When it began, and its key: decides what has to be settled by order."""
    agent: str
    is_ledger: bool
    start_ns: int
    end_ns: int
    call_ids: frozenset[str]
    response_ids: frozenset[str]
    tokens: tuple[int, int] | None
    """In and out; None where it does not tell both."""
    run_id: str | None
    is_nested: bool
    """Stands below a client's span of the same call."""


def family(agent: str) -> str:
    """Return the agent at the head of a family: sub-agents call with its key, and are called `parent:child`."""
    return agent.partition(":")[0]


class Answers:
    """Groups of spans that tell of the same answer, those of several alone."""

    def __init__(self, tellings: Sequence[Telling]) -> None:
        self._told = tellings
        self._heads = list(range(len(tellings)))
        self._join_by_ids()
        self._join_by_figures()

    def groups(self) -> list[list[Telling]]:
        """Return the groups of two and more, the oldest telling of each first."""
        found: dict[int, list[Telling]] = defaultdict(list)
        for number, one in enumerate(self._told):
            found[self._head(number)].append(one)
        return [
            sorted(group, key=lambda one: one.age) for group in found.values() if len(group) > 1
        ]

    def _head(self, number: int) -> int:
        heads = self._heads
        while heads[number] != number:
            heads[number] = heads[heads[number]]
            number = heads[number]
        return number

    def _join(self, one: int, other: int) -> None:
        a, b = self._head(one), self._head(other)
        if a != b:
            self._heads[max(a, b)] = min(a, b)

    # -- by ids ------------------------------------------------------------------------------

    def _join_by_ids(self) -> None:
        holders: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        ownerless: list[tuple[str, str, int]] = []
        families: dict[tuple[str, str], set[str]] = defaultdict(set)
        for number, one in enumerate(self._told):
            mine = family(one.agent)
            for kind, name in _ids(one):
                if one.is_ledger and mine == MIDWATCH:
                    ownerless.append((kind, name, number))
                else:
                    holders[kind, name, mine].append(number)
                    families[kind, name].add(mine)
        for kind, name, number in ownerless:
            # a call without an agent's key is whose client tells of it, where only one does
            whose = families.get((kind, name), {MIDWATCH})
            holders[kind, name, next(iter(whose)) if len(whose) == 1 else MIDWATCH].append(number)
        for (kind, name, _), numbers in holders.items():
            if len(numbers) < 2:
                continue
            is_short = len(name) < SHORT_ID
            if any(self._told[number].is_ledger for number in numbers):
                self._join_carried(numbers, by_time=is_short and kind == _RESPONSE)
            elif len(numbers) <= MAX_SHARED:
                self._join_twins(numbers, is_short=is_short)

    def _join_carried(self, numbers: list[int], *, by_time: bool) -> None:
        """Join what has one id with the gateway's; `by_time`: only what lies together in time."""
        numbers.sort(key=self._age)
        until_ns = self._told[numbers[0]].end_ns
        for before, number in pairwise(numbers):
            one = self._told[number]
            if not by_time or one.start_ns <= until_ns + SLACK_NS:
                self._join(before, number)
                until_ns = max(until_ns, one.end_ns)
            else:
                until_ns = one.end_ns

    def _join_twins(self, numbers: list[int], *, is_short: bool) -> None:
        """Join clients' spans with one id of an answer, as far as it can be the same answer."""
        numbers.sort(key=self._age)
        first = self._told[numbers[0]]
        until_ns = first.end_ns
        for before, number in pairwise(numbers):
            one = self._told[number]
            is_alike = one.tokens is not None and one.tokens == first.tokens
            if (one.start_ns < until_ns and (is_alike or not is_short)) or (
                is_alike and not is_short
            ):
                self._join(before, number)
                until_ns = max(until_ns, one.end_ns)
            else:
                first, until_ns = one, one.end_ns

    # -- by figures --------------------------------------------------------------------------

    def _join_by_figures(self) -> None:
        """Join each client's span that nobody carries with the first ledger's span that it can mean."""
        carried = {self._head(n) for n, one in enumerate(self._told) if one.is_ledger}
        claimed = {self._head(n) for n, one in enumerate(self._told) if not one.is_ledger}
        open_: dict[tuple[str, tuple[int, int]], list[int]] = defaultdict(list)
        clients: list[int] = []
        for number, one in enumerate(self._told):
            if one.tokens is None:
                continue
            if not one.is_ledger:
                if self._head(number) not in carried:
                    clients.append(number)
            elif not one.is_nested and self._head(number) not in claimed:
                open_[family(one.agent), one.tokens].append(number)
        if not open_:
            return
        for numbers in open_.values():
            numbers.sort(key=self._age, reverse=True)
        for number in sorted(clients, key=self._age):
            one = self._told[number]
            waiting = open_.get((family(one.agent), one.tokens or (0, 0)))
            if waiting:
                self._take_first(number, waiting)

    def _take_first(self, number: int, waiting: list[int]) -> None:
        """Join with the earliest that fits; what began long before this one fits none that follows."""
        one = self._told[number]
        while waiting and self._told[waiting[-1]].start_ns < one.start_ns - SLACK_NS:
            waiting.pop()
        for back in range(1, min(len(waiting), MAX_TRIED) + 1):
            other = waiting[-back]
            if _may_mean(one, self._told[other]):
                self._join(number, other)
                del waiting[-back]
                return

    def _age(self, number: int) -> tuple[int, str, bytes]:
        return self._told[number].age


def _ids(one: Telling) -> Iterable[tuple[str, str]]:
    yield from ((_CALL, name) for name in one.call_ids)
    yield from ((_RESPONSE, name) for name in one.response_ids)


def _may_mean(client: Telling, ledger: Telling) -> bool:
    """Tell whether a client's span can be the gateway's call: no id and no run speaks against it, and it is around it."""
    if client.call_ids and ledger.call_ids:
        return False
    if client.response_ids and ledger.response_ids:
        return False
    if client.run_id is not None and ledger.run_id is not None and client.run_id != ledger.run_id:
        return False
    return (
        client.start_ns - SLACK_NS <= ledger.start_ns and ledger.end_ns <= client.end_ns + SLACK_NS
    )


def carried_sums(
    facts: Sequence[Fact], holders: Sequence[int], ledgers: Sequence[int]
) -> list[tuple[int, list[int]]]:
    """Return holders of sums with the gateway's spans that went into them, by their places in `facts`.

    A span of the gateway's goes to the holder of its run that was at work meanwhile, of several to the one that
    began last.
    """
    by_run: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place in holders:
        one = facts[place]
        if one.run_id is not None:
            by_run[family(one.agent), one.run_id].append(place)

    def age(place: int) -> tuple[int, str, bytes, bytes]:
        one = facts[place]
        return one.start_ns, one.agent, one.trace_id, one.span_id

    asked: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place in ledgers:
        one = facts[place]
        if one.run_id is not None and (family(one.agent), one.run_id) in by_run:
            asked[family(one.agent), one.run_id].append(place)
    found: dict[int, list[int]] = defaultdict(list)
    for run, places in asked.items():
        waiting = sorted(by_run[run], key=age, reverse=True)
        at_work: list[int] = []
        for place in sorted(places, key=age):
            one = facts[place]
            while waiting and facts[waiting[-1]].start_ns <= one.start_ns + SLACK_NS:
                at_work.append(waiting.pop())
            while at_work and _end_ns(facts[at_work[-1]]) + SLACK_NS < one.start_ns:
                at_work.pop()
            for holder in reversed(at_work[-MAX_TRIED:]):
                if _end_ns(one) <= _end_ns(facts[holder]) + SLACK_NS:
                    found[holder].append(place)
                    break
    return list(found.items())


def _end_ns(one: Fact) -> int:
    return one.start_ns + (one.duration_ns or 0)
