"""What the model policy says of a call that nobody makes: for `midwatch policy explain`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final, cast

from midwatch.core.calls.account import Payer
from midwatch.core.calls.ask import KIND, Ask, Dialect, Kind
from midwatch.core.calls.chain import NoPlace, Place
from midwatch.core.calls.policy import Outcome
from midwatch.gateway import worth
from midwatch.gateway.carried import facts
from midwatch.gateway.routes import Asked, Json, Wrong, choice
from midwatch.gateway.settings import Settings

_DIALECTS: Final = {
    Kind.OPENAI: Dialect.CHAT,
    Kind.ANTHROPIC: Dialect.MESSAGES,
    Kind.GEMINI: Dialect.GENERATE,
}

_FIELDS: Final = frozenset(
    (
        "agent", "group", "kind", "model", "task", "tags", "prompt", "stream", "tools", "images",
        "input_tokens", "max_output",
    )
)  # fmt: skip


def explain(settings: Settings, asked: Asked, at: float) -> Json:
    """Return, for each place of the call, what each rule says and what they say together. Raises Wrong."""
    payer, ask = _call(settings, asked)
    said = facts(payer, ask)
    try:
        places = settings.chains.places(ask, lambda: said)
    except NoPlace as nowhere:
        return {"model": ask.model, "places": [], "why": str(nowhere)}
    shown = [_place(settings, payer, ask, place, at) for place in places]
    first = shown[0] if shown else None
    if first is not None and first["forced"] is not None:
        moved = settings.chains.place(first["forced"])
        told = _place(settings, payer, ask, moved, at, moved=True)
        shown.append({**told, "because": "moved by the rule"})
    return {"model": ask.model, "agent": payer.agent, "places": shown}


def _place(
    settings: Settings, payer: Payer, ask: Ask, place: Place, at: float, *, moved: bool = False
) -> Json:
    worst = worth.worst(settings, ask, place, at)
    outcome = Outcome(
        place.provider,
        place.model,
        settings.chains.about(place.model),
        worst.nusd if worst.known else None,
        fallback=place.position > 0,
    )
    said = facts(payer, ask)
    moved = moved or outcome.fallback
    verdict = settings.policy.judge(said, outcome, moved=moved)
    return {
        "place": place.name,
        "fallback": outcome.fallback,
        "may_cost_usd": worst.nusd / 1e9 if worst.known else None,
        "rules": [asdict(judged) for judged in settings.policy.explain(said, outcome, moved=moved)],
        "denied": verdict.denied,
        "forced": verdict.forced,
        "rule": verdict.rule,
    }


def _call(settings: Settings, asked: Asked) -> tuple[Payer, Ask]:
    body = asked.body
    unknown = next((name for name in body if name not in _FIELDS), None)
    if unknown is not None:
        raise Wrong(422, f"{unknown[:60]}: expected one of {', '.join(sorted(_FIELDS))}")
    agent = asked.text("agent", "")
    entry = settings.agent(agent) if agent else None
    group = asked.text("group", "") or (entry.group if entry is not None else None)
    kind = Kind(choice(asked.text("kind", "openai"), [kind.value for kind in Kind], "kind"))
    dialect = _DIALECTS[kind]
    assert KIND[dialect] is kind
    ask = Ask(
        kind,
        dialect,
        asked.text("model"),
        stream=body.get("stream") is True,
        input_tokens=int(asked.number("input_tokens", 1_000)),
        max_output=int(asked.number("max_output", 1_000)),
        tools=body.get("tools") is True,
        images=body.get("images") is True,
        task=asked.text("task", "") or None,
        tags=_tags(body.get("tags", {})),
        prompt=asked.text("prompt", "", 10_000),
    )
    return Payer(agent, group=group, tags=ask.tags), ask


def _tags(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Wrong(422, "tags: expected an object of texts")
    tags = cast("dict[str, Any]", value)
    if len(tags) > 20 or not all(isinstance(v, str) for v in tags.values()):
        raise Wrong(422, "tags: expected an object of at most 20 texts")
    return tags
