"""Charts as SVG, drawn on the server. Geometry in attributes, colour from the style sheet.

A strip holds up to 60 cycles, the newest at the right. Height is tokens (or duration when no
tokens were reported) on a robust scale: two and a half medians fill the strip, so that
one runaway cycle does not flatten the rest; what is taller is cut and marked. A failed cycle sinks
below the line: result is told by shape, not by colour alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, Literal

from markupsafe import Markup, escape

from midwatch.web import words

SLOTS: Final = 60
STEP: Final = 4
BAR: Final = 3
LINE: Final = 26
"""Height over the base line."""
SINK: Final = 6
"""Depth below it, where failed cycles reach."""
HEADROOM: Final = 2.5
"""The strip's top, in medians."""

Cycle = Mapping[str, Any]
Result = Literal["ok", "failed", "other"]

_OK: Final = frozenset({"ok", "success", "done"})
_FAILED: Final = frozenset({"failed", "error", "fail", "failure", "timeout"})


def result_of(cycle: Cycle) -> Result:
    """Classify a cycle; a word of the agent's own, or none, is neither ok nor failed."""
    word = cycle.get("result")
    if word in _OK:
        return "ok"
    return "failed" if word in _FAILED else "other"


@dataclass(frozen=True, slots=True)
class Scale:
    """Which value the bars show, and where the top is. `name` is None when nothing can be shown."""

    name: Literal["tokens", "duration_s"] | None
    top: float
    middle: float

    @property
    def words(self) -> str:
        if self.name is None:
            return "no size reported"
        shown = words.count(self.middle) if self.name == "tokens" else words.span(self.middle)
        return f"median {shown}" + (" tokens" if self.name == "tokens" else "")


def scale(cycles: Sequence[Cycle], prefer: Literal["tokens", "duration_s"] = "tokens") -> Scale:
    """Choose what the height means: the preferred value when any cycle reports it, else the other."""
    order: tuple[Literal["tokens", "duration_s"], ...] = (
        ("tokens", "duration_s") if prefer == "tokens" else ("duration_s", "tokens")
    )
    for name in order:
        values = [v for c in cycles if (v := words.number(c.get(name))) is not None and v > 0]
        if values:
            middle = median(values)
            return Scale(name, min(max(values), middle * HEADROOM), middle)
    return Scale(None, 1.0, 0.0)


def tell(cycle: Cycle, when: Callable[[object], str]) -> str:
    """Return one cycle in words: `02:14:09, ok, 12.4 s, 1,204 tokens, $0.0040`."""
    parts = [when(cycle.get("at")), words.plain(cycle.get("result") or "no result", 40)]
    if words.number(cycle.get("duration_s")) is not None:
        parts.append(words.span(cycle["duration_s"]))
    for name, noun in (("tokens", "token"), ("tool_calls", "tool call"), ("items", "item")):
        value = words.number(cycle.get(name))
        if value:
            parts.append(words.plural(int(value), noun))
    if words.number(cycle.get("cost_usd")):
        parts.append(words.money(cycle["cost_usd"]))
    return ", ".join(parts)


def about(cycles: Sequence[Cycle], chosen: Scale) -> str:
    """Return the strip in one sentence, for those who do not see it."""
    failed = sum(result_of(c) == "failed" for c in cycles)
    sunk = f", {failed} failed" if failed else ", none failed"
    return f"Last {words.plural(len(cycles), 'cycle')}{sunk}, {chosen.words}"


def _bar(x: int, cycle: Cycle, chosen: Scale) -> tuple[str, str]:
    """Return the class and the outline of one bar."""
    value = words.number(cycle.get(chosen.name)) if chosen.name else None
    result = result_of(cycle)
    depth = SINK if result == "failed" else 0
    if not value:
        # nothing reported: a low bar, no claim about size
        return result, f"M{x} {LINE - 2}h{BAR}v{2 + depth}h-{BAR}z"
    height = max(2.0, min(1.0, value / chosen.top) * LINE)
    outline = f"M{x} {LINE - height:.4g}h{BAR}v{height + depth:.4g}h-{BAR}z"
    if value > chosen.top * 1.001:
        # cut: a gap near the top says that it goes on
        outline = f"M{x} 0h{BAR}v3h-{BAR}zM{x} 5h{BAR}v{LINE - 5 + depth}h-{BAR}z"
        return f"{result} over", outline
    return result, outline


def strip(
    cycles: Sequence[Cycle],
    when: Callable[[object], str],
    *,
    titles: bool = True,
    prefer: Literal["tokens", "duration_s"] = "tokens",
) -> Markup | None:
    """Draw recent cycles, or return None when there are none.

    With `titles` each bar tells its cycle; without, bars of one kind share a path, which keeps
    a page of 200 agents small.
    """
    shown = list(cycles)[-SLOTS:]
    if not shown:
        return None
    chosen = scale(shown, prefer)
    first = SLOTS - len(shown)
    bars = [(_bar((first + i) * STEP, c, chosen), c) for i, c in enumerate(shown)]
    drawn: list[str] = []
    if titles:
        drawn = [
            f'<path class="{kind}" d="{outline}"><title>{escape(tell(cycle, when))}</title></path>'
            for (kind, outline), cycle in bars
        ]
    else:
        by_kind: dict[str, list[str]] = {}
        for (kind, outline), _ in bars:
            by_kind.setdefault(kind, []).append(outline)
        drawn = [f'<path class="{k}" d="{"".join(o)}"/>' for k, o in by_kind.items()]
    width = SLOTS * STEP - (STEP - BAR)
    return Markup(  # noqa: S704 - built from numbers and escaped titles above
        f'<svg class="strip" viewBox="0 0 {width} {LINE + SINK}" preserveAspectRatio="none"'
        f' role="img" aria-label="{escape(about(shown, chosen))}">'
        f'<path class="base" d="M0 {LINE}h{width}"/>{"".join(drawn)}</svg>'
    )


@dataclass(frozen=True, slots=True)
class Meter:
    """Today's cost against its budget. `bar` is None when there is no budget to fill."""

    text: str
    of: str
    level: Literal["calm", "warn", "over"]
    bar: Markup | None


def meter(cost_usd: object, budget_usd: object, warn_at: float = 0.8) -> Meter:
    """Draw spent against budget; no budget is said, and no data is not shown as $0."""
    cost, budget = words.number(cost_usd), words.number(budget_usd)
    if budget is None:
        return Meter(words.money(cost), "no budget", "calm", None)
    if budget <= 0:
        return Meter(words.money(cost), "of $0", "over" if cost else "calm", None)
    share = (cost or 0.0) / budget
    level: Literal["calm", "warn", "over"] = (
        "over" if share >= 1 else "warn" if share >= warn_at else "calm"
    )
    width = max(0.0, min(100.0, share * 100))
    bar = Markup(  # noqa: S704 - numbers only
        '<svg class="meter" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="room" width="100" height="4"/>'
        f'<rect class="{level}" width="{width:.4g}" height="4"/></svg>'
    )
    return Meter(words.money(cost), f"of {words.money(budget)}", level, bar)
