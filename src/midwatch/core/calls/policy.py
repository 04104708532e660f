"""Model policy: which model may do which work, by the fleet file's rules.

Rules are read in order. A rule that denies ends it; `force` moves the call, once, and all rules judge the
model it was moved to; a rule in shadow only says what it would do. At each fallback the rules are
asked again about the model there, so that no fallback becomes a way around them. A rule that cannot
be decided counts as one that holds: policy fails closed.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from midwatch.core.conditions import BadCondition, Condition
from midwatch.core.models import About, PolicyRule
from midwatch.core.units import show_money

NAMES: Final = {
    "agent": "", "group": "", "model": "", "provider": "", "task": "", "tags": dict[str, str](), "prompt": "",
    "stream": False, "tools": False, "images": False, "input_tokens": 0, "max_output": 0, "price": 0.0,
    "fallback": False, "unbounded": list[str](),
}  # fmt: skip
"""What conditions of rules may speak of, with values of their types."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The model that is judged, and what is known of it."""

    provider: str
    model: str
    about: About
    price_nusd: int | None
    """The most that this call may cost there; None: unknown."""
    fallback: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """What one rule says."""

    rule: str
    holds: bool
    effect: str
    """In words: `denied: …`, `moved to …`, `no objection`, `does not apply`."""
    denies: str | None = None
    forces: str | None = None
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say together."""

    denied: str | None = None
    """Why the call is refused, for its client to read."""
    forced: str | None = None
    """PROVIDER/MODEL that the call goes to instead."""
    rule: str = ""
    """The rule that decided."""
    shadows: tuple[Judged, ...] = ()
    """What rules in shadow would have done."""


@dataclass(slots=True)
class Policy:
    """The rules of one fleet file, compiled. Raises BadCondition for a condition that is none."""

    rules: Sequence[PolicyRule]
    _conditions: list[Condition] = field(init=False)

    def __post_init__(self) -> None:
        self._conditions = [Condition(rule.when) for rule in self.rules]

    def judge(self, facts: Mapping[str, Any], outcome: Outcome, *, moved: bool = False) -> Verdict:
        """Return what the rules say of a call; `facts` holds what `NAMES` lists, but model, provider, price
        and fallback, which come from `outcome`. `moved`: a rule, the chain or a budget has led the call here, so
        that no rule moves it on: those behind one that would are asked, too."""
        shadows: list[Judged] = []
        for judged in self.explain(facts, outcome, moved=moved):
            if judged.shadow:
                if judged.denies or judged.forces:
                    shadows.append(judged)
            elif judged.denies is not None:
                return Verdict(judged.denies, None, judged.rule, tuple(shadows))
            elif judged.forces is not None:
                return Verdict(None, judged.forces, judged.rule, tuple(shadows))
        return Verdict(shadows=tuple(shadows))

    def explain(
        self, facts: Mapping[str, Any], outcome: Outcome, *, moved: bool = False
    ) -> list[Judged]:
        """Return what each rule says, up to the first that decides; those in shadow decide nothing."""
        names = {
            **facts,
            "model": outcome.model,
            "provider": outcome.provider,
            "price": (outcome.price_nusd or 0) / 1e9,
            "fallback": outcome.fallback,
        }
        said: list[Judged] = []
        for number, (rule, condition) in enumerate(zip(self.rules, self._conditions, strict=True)):
            called = rule.name or f"rule {number + 1}"
            judged = _judge(rule, called, condition, names, outcome, moved=moved)
            said.append(judged)
            if not judged.shadow and (judged.denies is not None or judged.forces is not None):
                break
        return said


def _judge(
    rule: PolicyRule,
    name: str,
    condition: Condition,
    names: Mapping[str, Any],
    outcome: Outcome,
    *,
    moved: bool,
) -> Judged:
    try:
        holds = condition.holds(names)
    except BadCondition as error:
        why = f"the rule {name!r} cannot be decided: {error}"
        return Judged(name, True, f"denied: {why}", why, None, rule.shadow)
    if not holds:
        return Judged(name, False, "does not apply", shadow=rule.shadow)
    why = rule.deny if rule.deny is not None else _objection(rule, outcome)
    if why is not None:
        return Judged(name, True, f"denied: {why}", why, None, rule.shadow)
    target = f"{outcome.provider}/{outcome.model}"
    if rule.force is not None and rule.force != target and moved:
        return Judged(name, True, "moves nothing: the call was moved already", shadow=rule.shadow)
    if rule.force is not None and rule.force != target:
        return Judged(name, True, f"moved to {rule.force}", None, rule.force, rule.shadow)
    return Judged(name, True, "no objection", shadow=rule.shadow)


def _objection(rule: PolicyRule, outcome: Outcome) -> str | None:
    """Return why the model may not, or None. What is unknown of it does not speak for it."""
    target, about = f"{outcome.provider}/{outcome.model}", outcome.about
    if rule.allow is not None and not any(
        fnmatch.fnmatchcase(outcome.model, p) or fnmatch.fnmatchcase(target, p) for p in rule.allow
    ):
        return f"{target} is not among {', '.join(rule.allow)}"
    missing = [tag for tag in rule.require if tag not in about.tags]
    if missing:
        return f"{target} is not known for {', '.join(missing)} (models.about)"
    if rule.min_rank is not None and (about.rank is None or about.rank < rule.min_rank):
        rank = "none" if about.rank is None else about.rank
        return f"{target} has rank {rank}, and {rule.min_rank} is asked for (models.about)"
    if rule.max_price is not None:
        if outcome.price_nusd is None:
            return f"the price of {target} is unknown, and a call may cost {show_money(rule.max_price)} at most"
        if outcome.price_nusd > rule.max_price:
            return f"it may cost {show_money(outcome.price_nusd)} there, and {show_money(rule.max_price)} at most"
    return None
