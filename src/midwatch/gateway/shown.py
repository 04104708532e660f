"""What the ledger and the health of places say, as JSON: the same words for the supervisor, the hub and agents.

Amounts stand twice: `…_usd` for people, `…_nusd` exact.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from midwatch.core.calls.budget import Left, Limit
from midwatch.core.calls.charge import Call, Cost
from midwatch.core.calls.pool import KeyHealth, forecast
from midwatch.core.calls.route import Health

Json = dict[str, Any]


def usd(name: str, nusd: int) -> Json:
    """Return an amount in both units."""
    return {f"{name}_usd": nusd / 1e9, f"{name}_nusd": nusd}


def limit(one: Limit) -> Json:
    """Return a limit of which nothing can be used up: on one call."""
    return {
        "account": one.account,
        "whose": one.whose,
        "window": one.window.value,
        **usd("limit", one.limit_nusd),
        "on_exhausted": one.on_exhausted,
    }


def left(one: Left) -> Json:
    """Return how a limit stands."""
    renews = one.renews_at
    return {
        **limit(one.limit),
        **usd("spent", one.spent_nusd),
        **usd("reserved", one.reserved_nusd),
        **usd("left", one.left_nusd),
        "warn_at": one.limit.warn_at,
        "renews_at": None if renews is None else datetime.fromtimestamp(renews, UTC).isoformat(),
    }


def call(one: Call) -> Json:
    """Return a call as the ledger has it."""
    shown = asdict(one)
    shown["state"] = one.state.value
    shown["tags"], shown["usage"], shown["costs"] = dict(one.tags), dict(one.usage), dict(one.costs)
    shown["attempts"] = [dict(attempt) for attempt in one.attempts]
    return {**shown, "cost_usd": one.cost_nusd / 1e9, "reserved_usd": one.reserved_nusd / 1e9}


def cost(one: Cost) -> Json:
    """Return one row of a sum."""
    return {**asdict(one), "cost_usd": one.cost_nusd / 1e9, "saved_usd": one.saved_nusd / 1e9}


def _allowance(key: KeyHealth) -> Json:
    """Return what a key may spend in a month, and has spent, where somebody said."""
    if key.budget_nusd is None:
        return {}
    return {**usd("budget", key.budget_nusd), **usd("spent", key.spent_nusd)}


def health(known: Health, now: float) -> Json:
    """Return the state of all breakers and keys; `now` is monotonic, times are told from now on."""
    breakers = [
        {
            "provider": provider,
            "model": model,
            "state": breaker.state(now).value,
            "opened": breaker.opened,
            "reason": breaker.reason,
            "asked_again_in_s": round(max(0.0, breaker.free_at(now) - now), 3),
        }
        for (provider, model), breaker in sorted(known.breakers.items())
    ]
    pools: list[Json] = []
    for provider, keys in sorted(known.pools.items()):
        told = forecast(keys, now)
        pools.append(
            {
                "provider": provider,
                "keys": [
                    {
                        "name": key.name,
                        "state": key.state.value if key.rests(now) else "active",
                        "reason": key.reason if key.rests(now) else "",
                        "rests_for_s": round(max(0.0, key.until - now), 3),
                        "models": {
                            model: round(until - now, 3)
                            for model, until in key.resting(now).items()
                        },
                        "weight": key.weight,
                        "reserve": key.reserve,
                        "calls": key.calls,
                        **_allowance(key),
                    }
                    for key in keys
                ],
                "forecast": None if told is None or not keys else asdict(told),
            }
        )
    return {"breakers": breakers, "pools": pools}
