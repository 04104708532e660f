"""Which traces stay once they are over: rules of the fleet file, the first that holds decides, shares kept exactly.

Of a rule's traces every agent keeps its share: of 30% the 4th, the 7th, the 10th … (the whole part of a count times the
share grows), in an order that has nothing to do with time. What is kept stands for those that were let go since the
last one: the weights of all that was kept, and what is pending, are what came. Sums need no weight: they were made
of everything, before.

A condition that cannot be decided keeps its trace, and is counted. Without any rule that holds a trace stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, cast

from midwatch.core.conditions import BadCondition, Condition
from midwatch.core.spans.summary import Said, Summary
from midwatch.core.telemetry import SAMPLED_BY, SampleRule
from midwatch.wire.limits import NUSD_PER_USD

MILLION: Final = 1_000_000

MAX_TALLIES: Final = 10_000
"""Rules times agents whose counts are held; an agent beyond shares one with all others beyond."""

BAD: Final = frozenset(
    {"bad", "negative", "thumbs_down", "thumbs-down", "down", "dislike", "wrong", "incorrect", "unhelpful", "fail", "failed", "failure"}
)  # fmt: skip
"""Labels of feedback that is bad, whoever gives it."""

_FEEDBACK: Final = ("feedback", "thumb", "rating", "satisf", "like")
_PEOPLE: Final = frozenset({"human", "user", "person", "annotator"})


@dataclass(frozen=True, slots=True)
class Extra:
    """What a condition may ask of a trace that its summary does not say."""

    side_effects: int = 0
    refusals: int = 0
    tool_names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one trace."""

    keep: bool
    rule: str
    """Which rule decided; empty: none did."""
    weight: int
    """How many traces it stands for; 0 when it goes."""
    counted: bool = False
    """Whether its rule keeps a share, so that its weight is to be remembered."""
    failed: str | None = None
    """Why a condition could not be decided."""


@dataclass(slots=True)
class Tally:
    """What came of one rule and one agent."""

    seen: int = 0
    pending: int = 0
    """Since the last one that was kept."""


class Sampler:
    """The rules, and what came so far. Ask for traces in any order; `ordered` gives one that is fair."""

    def __init__(
        self,
        rules: Sequence[SampleRule],
        tallies: Mapping[tuple[str, str], Tally] | None = None,
    ) -> None:
        """Raises BadCondition for a rule that does not compile; the fleet file's reader has told of it before."""
        self.tallies: dict[tuple[str, str], Tally] = dict(tallies or {})
        self._rules = [
            (rule.name or str(at + 1), Condition(rule.when), round(rule.keep * MILLION))
            for at, rule in enumerate(rules)
        ]

    @property
    def idle(self) -> bool:
        """Tell whether there is nothing to decide."""
        return not self._rules

    def decide(self, names: Mapping[str, Any]) -> Decision:
        """Return what becomes of a trace with these names (`names_of`)."""
        for rule, condition, share in self._rules:
            try:
                if not condition.holds(names):
                    continue
            except BadCondition as error:
                return Decision(True, rule, 1, failed=str(error))
            if share >= MILLION:
                return Decision(True, rule, 1)
            tally = self._tally(rule, names["agent"])
            before = tally.seen * share // MILLION
            tally.seen += 1
            tally.pending += 1
            if tally.seen * share // MILLION == before:
                return Decision(False, rule, 0, counted=True)
            weight, tally.pending = tally.pending, 0
            return Decision(True, rule, weight, counted=True)
        return Decision(True, "", 1)

    def _tally(self, rule: str, agent: str) -> Tally:
        key = (rule, agent)
        if key not in self.tallies and len(self.tallies) >= MAX_TALLIES:
            key = (rule, "")
        return self.tallies.setdefault(key, Tally())


def ordered(traces: Sequence[bytes]) -> list[bytes]:
    """Return traces in an order that neither time nor whoever chose their ids decides."""
    return sorted(traces, key=lambda one: blake2b(one, digest_size=8, key=b"sampling").digest())


def names_of(found: Summary, extra: Extra, group: Callable[[str], str | None]) -> dict[str, Any]:
    """Return the names of a condition for one trace: `telemetry.SAMPLED_BY` says which, and of what type."""
    agent = found.agent or ""
    names = {
        "agent": agent,
        "group": group(agent) or "",
        "name": found.root[3] if found.root is not None else "",
        "session": _word(found.session),
        "duration_s": (found.duration_ns or 0) / 1e9,
        "turns": found.turns.count,
        "cost_usd": found.cost_nusd / NUSD_PER_USD,
        "outcome": _word(found.outcome),
        "goal_missed": found.goal_met is not None and found.goal_met.value is False,
        "escalated": bool(found.escalated),
        "bad_feedback": any(is_bad(one) for one in found.feedback),
        "flagged": bool(found.flags),
        "models": sorted(found.models),
        "tool_names": sorted(extra.tool_names),
        "tags": found.said_tags,
        "side_effects": extra.side_effects,
        "refusals": extra.refusals,
    }
    for name in SAMPLED_BY.keys() - names.keys():
        names[name] = getattr(found, name)
    return names


def is_bad(evaluation: Mapping[str, Any]) -> bool:
    """Tell whether an evaluation is bad feedback: by its label, or a person's score of nought or less."""
    label = str(evaluation.get("label") or "").strip().lower().replace(" ", "_")
    name = str(evaluation.get("name") or "").lower()
    by_people = str(evaluation.get("by") or "").lower() in _PEOPLE or any(word in name for word in _FEEDBACK)  # fmt: skip
    if label in BAD:
        return True
    score = evaluation.get("score")
    return (
        by_people and isinstance(score, int | float) and not isinstance(score, bool) and score <= 0
    )


def _word(said: Said | None) -> str:
    return "" if said is None else str(said.value)


@dataclass(slots=True)
class Carried:
    """What of the counts is remembered between two lives of a hub."""

    tallies: dict[tuple[str, str], Tally] = field(default_factory=dict[tuple[str, str], Tally])

    def to_text(self) -> str:
        """Return it as JSON."""
        return json.dumps(
            [[rule, agent, t.seen, t.pending] for (rule, agent), t in self.tallies.items()]
        )

    @classmethod
    def from_text(cls, text: str) -> Carried:
        """Return what `to_text` wrote. Raises ValueError for anything else."""
        found: dict[tuple[str, str], Tally] = {}
        for entry in cast("list[list[Any]]", json.loads(text)):
            rule, agent, seen, pending = entry
            found[str(rule), str(agent)] = Tally(int(seen), int(pending))
        return cls(found)
