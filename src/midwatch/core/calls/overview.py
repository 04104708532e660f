"""How the gateway is, in one line for a person, and in a few when something is wrong. Pure.

Read from its own answers (`/control/state`, `/control/health`), by another process: what is missing or odd is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from midwatch.core.units import show_duration

MAX_LINES: Final = 20

LOW_S: Final = 7_200.0
"""A pool that is forecast to be empty sooner is told."""

_WHERE: Final = (
    "export OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY before midwatch up, or name providers under"
    " models.providers"
)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Overview:
    """What there is to say."""

    headline: str
    well: bool
    troubles: tuple[str, ...] = ()
    """What is wrong, each with what it means or what to do."""
    past: tuple[str, ...] = ()
    """Whose calls go past the gateway."""


def overview(state: Mapping[str, Any], health: Mapping[str, Any]) -> Overview:
    """Return how the gateway is."""
    providers = sorted(_record(state.get("providers")))
    unserved = _count(state.get("unserved"))
    troubles = [
        *_unready(state),
        *_breakers(health),
        *_pools(health),
        *_texts(state.get("problems")),
    ]
    if not providers and unserved:
        calls = "a call was" if unserved == 1 else f"{unserved} calls were"
        troubles.append(f"{calls} refused because it has no provider: {_WHERE}")
    named = ", ".join(providers[:8]) + (" and others" if len(providers) > 8 else "")
    calls = state.get("calls_under_way")
    busy = f", {calls} calls under way" if isinstance(calls, int) and calls > 1 else ""
    held = len(_records(state.get("holds")))
    holds = f", {held} held" if held else ""
    well = "well" if not troubles else f"{len(troubles)} to look at"
    if not providers and not troubles:  # nobody misses any: a fleet may do without models
        well = f"well, and nobody has asked for a model; for calls {_WHERE}"
    return Overview(
        f"{named or 'no provider'}: {well}{busy}{holds}",
        not troubles,
        tuple(troubles[:MAX_LINES]),
        tuple(_texts(state.get("past"))[:MAX_LINES]),
    )


def _unready(state: Mapping[str, Any]) -> list[str]:
    if state.get("ready") is not False:
        return []
    return [f"it refuses calls: {state.get('why_not') or 'it is not ready'}"]


def _breakers(health: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for breaker in _records(health.get("breakers")):
        if breaker.get("state") in (None, "closed"):
            continue
        place = f"{breaker.get('provider')}/{breaker.get('model')}"
        again = _seconds(breaker.get("asked_again_in_s"))
        when = f"; asked again in {show_duration(again)}" if again else ""
        why = f" ({breaker.get('reason')})" if breaker.get("reason") else ""
        found.append(f"{place} is passed over, it failed too often{why}{when}")
    return found


def _pools(health: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for pool in _records(health.get("pools")):
        name = pool.get("provider")
        for key in _records(pool.get("keys")):
            for model, left in _record(key.get("models")).items():
                if _seconds(left):
                    for_s = show_duration(_seconds(left))
                    found.append(
                        f"key {key.get('name')} of {name} rests for {model} alone, {for_s}"
                    )
            if key.get("state") in (None, "active", "missing"):
                continue  # missing ones are told among the problems
            rests = _seconds(key.get("rests_for_s"))
            until = f" for {show_duration(rests)}" if rests else ""
            why = f": {key.get('reason')}" if key.get("reason") else ""
            found.append(f"key {key.get('name')} of {name} is {key.get('state')}{until}{why}")
        empty = _seconds(_record(pool.get("forecast")).get("empty_in_s"))
        if 0 < empty < LOW_S:
            found.append(f"all keys of {name} will be used up in {show_duration(empty)}")
    return found


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _seconds(value: object) -> float:
    """Return a number of seconds to come, or 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return max(0.0, float(value))


def _record(value: object) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def _records(value: object) -> list[Json]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("Json", item) for item in items if isinstance(item, dict)]


def _texts(value: object) -> list[str]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [item for item in items if isinstance(item, str)]
