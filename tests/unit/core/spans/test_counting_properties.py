"""What holds for every set of spans: nothing is lost, nothing counts twice, every shape ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.calls.news import SCOPE as GATEWAY
from midwatch.core.spans.counted import Sum, sums
from midwatch.core.spans.counting import Judgement, judge
from midwatch.core.spans.facts import CALLS, MONEY, TOKENS, Fact, Key, says
from midwatch.core.spans.form import CostFrom, Rank, Role
from midwatch.core.spans.lineage import NONE, lineage

ROLES = (Role.OTHER, Role.AGENT, Role.CHAIN, Role.CALL, Role.CALL, Role.EMBEDDING, Role.TOOL)
ANSWERS = (None, None, "chatcmpl-7", "chatcmpl-9a8b7c6d5e4f3a2b1c", "msg_01XaBcDeFgHiJkLmNoPqRs")


def span(number: int, **more: Any) -> Fact:
    known: dict[str, Any] = dict.fromkeys(Fact._fields)
    known |= {
        "agent": "inbox",
        "trace_id": b"\1" * 16,
        "span_id": number.to_bytes(8, "big"),
        "rank": Rank.ENDED.value,
        "start_ns": number * 10**6,
        "duration_ns": 10**6,
        "status": 0,
        "role": Role.OTHER.value,
        "cost_from": CostFrom.PRICED.value,
    }
    return Fact(**(known | more))


def answers(one: Fact) -> set[str]:
    return {told for told in (one.response_id, one.first_response_id) if told is not None}


def name(number: int) -> bytes:
    return number.to_bytes(8, "big")


@st.composite
def forests(draw: st.DrawFn) -> list[Fact]:
    """Any spans: parents that are missing or go in circles, several traces and agents, the gateway among them."""
    count = draw(st.integers(1, 12))
    facts: list[Fact] = []
    for number in range(1, count + 1):
        role = draw(st.sampled_from(ROLES))
        is_ledger = role.value in CALLS and draw(st.integers(0, 3)) == 0
        parent = draw(st.integers(0, count + 1))
        tells = is_ledger or draw(st.booleans())
        facts.append(
            span(
                number,
                agent=draw(st.sampled_from(("inbox", "inbox", "inbox:sub", "other"))),
                trace_id=draw(st.sampled_from((b"\1" * 16, b"\1" * 16, b"\2" * 16))),
                parent_id=name(parent) if parent else None,
                rank=draw(st.sampled_from((Rank.ENDED, Rank.ENDED, Rank.LOST, Rank.OPEN))).value,
                start_ns=draw(st.integers(0, 3)) * 10**9,
                duration_ns=draw(st.integers(0, 3)) * 10**9,
                role=role.value,
                agent_name=draw(st.sampled_from((None, None, "a", "b"))),
                session=draw(st.sampled_from((None, None, "s1", "s2"))),
                run_id=draw(st.sampled_from((None, "r1"))),
                response_id=draw(st.sampled_from(ANSWERS)) if role.value in CALLS else None,
                first_response_id=draw(st.sampled_from(ANSWERS)) if is_ledger else None,
                input_tokens=draw(st.integers(1, 3)) if tells else None,
                output_tokens=draw(st.integers(1, 3)) if tells else None,
                cost_nusd=draw(st.sampled_from((None, 1, 7))) if tells else None,
                scope=GATEWAY if is_ledger else None,
            )
        )
    return facts


def ways_up(judgement: Judgement) -> dict[Key, list[Key]]:
    """Return of each span all that is above it, the nearest first."""
    keys = list(judgement.facts)
    facts = [judgement.facts[key] for key in keys]
    tree = lineage(keys, [one.parent_id for one in facts], [one.start_ns for one in facts])
    found: dict[Key, list[Key]] = {}
    for place, key in enumerate(keys):
        way: list[Key] = []
        while (place := tree.parents[place]) != NONE:
            way.append(keys[place])
        found[key] = way
    return found


@settings(max_examples=120, deadline=None)
@given(forests())
def test_nothing_counts_twice_on_one_way_up(facts: list[Fact]) -> None:
    judgement = judge(facts)
    for key, way in ways_up(judgement).items():
        verdict = judgement.verdicts.get(key)
        if verdict is None or judgement.facts[key].is_ledger:
            continue
        one = judgement.facts[key]
        is_past_tool = False
        for above_key in way:
            above, held = judgement.facts[above_key], judgement.verdicts.get(above_key)
            counts = 0 if held is None else held.counts & verdict.counts & (TOKENS | MONEY)
            is_past_tool |= above.role == Role.TOOL.value
            if above.role in CALLS and not above.is_ledger:
                # a call that runs a tool, and one of another kind, use tokens of their own
                assert not counts or is_past_tool or (one.role in CALLS and one.role != above.role)
            else:
                assert not counts or (above.is_ledger and is_past_tool)


@settings(max_examples=120, deadline=None)
@given(forests())
def test_whatever_tells_tokens_counts_or_is_told_by_something_that_counts(
    facts: list[Fact],
) -> None:
    judgement = judge(facts)
    ways = ways_up(judgement)
    near: dict[Key, set[Key]] = {key: set(way) for key, way in ways.items()}
    for key, way in ways.items():
        for above in way:
            near[above].add(key)
    for key, one in judgement.facts.items():
        for other, two in judgement.facts.items():
            same = not answers(one).isdisjoint(answers(two))
            figures = (one.input_tokens, one.output_tokens)
            alike = figures == (two.input_tokens, two.output_tokens)
            meanwhile = one.run_id is not None and one.run_id == two.run_id
            if same or ((alike or meanwhile) and one.is_ledger != two.is_ledger):
                near[key].add(other)
    for key, one in judgement.facts.items():
        if not says(one) & TOKENS:
            continue
        seen, waiting = {key}, [key]
        while waiting:
            more = near[waiting.pop()] - seen
            seen |= more
            waiting += more
        assert any(
            found.counts & TOKENS
            for other in seen
            if (found := judgement.verdicts.get(other)) is not None
        )


@settings(max_examples=120, deadline=None)
@given(forests())
def test_the_ledger_counts_to_the_nano_dollar_whatever_agents_send(facts: list[Fact]) -> None:
    judgement = judge(facts)
    for key, one in judgement.facts.items():
        if one.is_ledger and one.rank != Rank.OPEN:
            assert judgement.verdicts[key].counts & (TOKENS | MONEY) == says(one) & (TOKENS | MONEY)


@settings(max_examples=120, deadline=None)
@given(forests().flatmap(lambda facts: st.tuples(st.just(facts), st.permutations(facts))))
def test_a_judgement_does_not_depend_on_the_order(both: tuple[list[Fact], Sequence[Fact]]) -> None:
    one, other = judge(both[0]), judge(both[1])
    assert one.verdicts == other.verdicts
    assert sums(one) == sums(other)


MANY = 4_000
CALL = {"role": Role.CALL.value, "input_tokens": 3, "output_tokens": 2, "cost_nusd": 1}


def _shape(kind: str) -> list[Fact]:
    match kind:
        case "a chain":
            return [span(n, parent_id=name(n - 1), **CALL) for n in range(1, MANY + 1)]
        case "a star":
            return [
                span(n, parent_id=name(1) if n > 1 else None, **CALL) for n in range(1, MANY + 1)
            ]
        case "a circle":
            return [span(n, parent_id=name(n - 1 or MANY), **CALL) for n in range(1, MANY + 1)]
        case "one answer":
            return [span(n, response_id="x" * 30, **CALL) for n in range(1, MANY + 1)]
        case _:
            sides = [{"scope": GATEWAY}, {"duration_ns": 10**12}]
            return [
                span(n, trace_id=n.to_bytes(16, "big"), **CALL, **sides[n % 2])
                for n in range(1, MANY + 1)
            ]


@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        ("a chain", 1),
        ("a star", MANY - 1),
        ("a circle", 1),
        ("one answer", MANY),  # so many have it that it is nobody's id
    ],
)
def test_a_trace_of_any_shape_ends(kind: str, calls: int) -> None:
    total = Sum()
    for part in sums(judge(_shape(kind))).values():
        total = total.plus(part)
    assert (total.calls, total.input_tokens, total.cost_nusd) == (calls, 3 * calls, calls)


def test_thousands_of_clients_without_ids_each_find_a_call_of_the_gateway() -> None:
    judgement = judge(_shape("clients and gateway"))
    clients = [v for key, v in judgement.verdicts.items() if not judgement.facts[key].is_ledger]
    assert (len(clients), sum(1 for v in clients if v.counts)) == (MANY // 2, 0)
