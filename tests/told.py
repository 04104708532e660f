"""A gateway's news without a gateway: calls that have ended, and what is told of them."""

from __future__ import annotations

from typing import Any

from midwatch.core.calls.account import Payer
from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.calls.chain import Place
from midwatch.core.calls.charge import Charge
from midwatch.core.fleet import Fleet
from midwatch.gateway import dialects
from midwatch.gateway import settings as made
from midwatch.gateway.carried import Attempted, Carried
from midwatch.gateway.sending import Recorder
from midwatch.gateway.telling import Telling
from midwatch.wire.ids import new_id

WALL = 1_750_000_000.0
SETTINGS = made.build(Fleet(fleet="night", agents={}), {"OPENAI_API_KEY": "sk-one"})
CHAT = dialects.find("POST", "/v1/chat/completions", "", {})


class Clock:
    def __init__(self) -> None:
        self.at = 100.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return WALL + self.at - 100.0


class Scene:
    def __init__(self) -> None:
        self.clock = Clock()
        self.sent = Recorder()
        self.telling = Telling(self.sent, now=self.clock.now, wall=self.clock.wall)

    def later(self, seconds: float) -> None:
        self.clock.at += seconds
        self.telling.tick()


def charge(cost: int = 1_000, **given: Any) -> Charge:
    facts: dict[str, Any] = {
        "usage": {"v": 1, "input_text": 90, "cache_read": 10, "output_text": 20},
        "input_tokens": 100,
        "output_tokens": 20,
        "price_version": "lists 1",
    }
    return Charge(cost, WALL, **{**facts, **given})


def tried(
    model: str = "gpt-4o-mini", outcome: str = "ok", position: int = 0, **given: Any
) -> Attempted:
    facts: dict[str, Any] = {
        "began": 100.0,
        "ended": 100.5,
        "status": 200,
        "worst_nusd": 5_000,
        "window": 128_000,
        "served": model,
        "outcome": outcome,
    }
    attempt = Attempted(Place("openai", Kind.OPENAI, model, position), "main", **{**facts, **given})
    if outcome == "ok" and attempt.charge is None:
        attempt.charge = charge()
    attempt.cost_nusd = 0 if attempt.charge is None else attempt.charge.cost_nusd
    return attempt


def carried(*attempts: Attempted, agent: str = "inbox", **given: Any) -> Carried:
    assert isinstance(CHAT, dialects.Route)
    ask = given.pop(
        "ask",
        Ask(
            Kind.OPENAI,
            Dialect.CHAT,
            "gpt-4o-mini",
            input_tokens=120,
            system_tokens=50,
            tool_tokens=30,
        ),
    )
    facts: dict[str, Any] = {
        "id": new_id(),
        "route": CHAT,
        "body": b"secret words",
        "headers": [],
        "query": "",
        "payer": Payer(agent, run="run-1", session="s-1", tags={"customer": "acme"}),
        "limits": (),
        "settings": SETTINGS,
        "calls": SETTINGS.calls(agent),
        "at": WALL,
        "began": 100.0,
    }
    return Carried(ask=ask, attempts=list(attempts), **{**facts, **given})


def facts_of(span: dict[str, Any]) -> dict[str, Any]:
    """Return a span's attributes as plain values."""
    return {
        a["key"]: int(a["value"]["intValue"])
        if "intValue" in a["value"]
        else next(iter(a["value"].values()))
        for a in span["attributes"]
    }
