"""`/metrics` of the gateway in the Prometheus text format 0.0.4. What it names is the table below, and
docs/reference/metrics.md shows it. Labels are words of ours, of the fleet file, or bounded in number; no model and no
agent that only a client names gets a series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from midwatch.core.calls.breaker import BreakerState
from midwatch.core.calls.pool import KeyState
from midwatch.core.calls.route import Health
from midwatch.gateway.http.limits import LOSSES
from midwatch.gateway.ledger.asked import COUNTERS

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

MAX_SERIES: Final = 1_000
"""Breakers, and keys, with series of their own; those that are not well come first."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its label, what it counts, whether that is a loss."""

    label: str
    about: str
    loss: bool = False
    kind: str = "counter"


COUNTED: Final[Mapping[str, Family]] = {
    "refused": Family("type", "requests refused by the gateway itself"),
    "not_admitted": Family("reason", "attempts that did not fit into a budget"),
    "budget": Family("how", "calls that waited for money in flight, or went to a cheaper model"),
    "cache": Family("how", "answers given again from the cache, kept for it, or not readable"),
    "loop": Family("how", "models that were told that they repeat themselves"),
    "translation": Family("how", "places passed over because a call cannot be put into their dialect"),
    "models": Family("how", "times that a provider was asked what it serves"),
    "attempt": Family("class", "attempts that failed, by the class of their failure"),
    "closed": Family("what", "requests for what is known and not carried"),
    "client": Family("when", "clients that left before their answer was whole", loss=True),
    "stream": Family("how", "streams that broke: cut, mended, not read to the end", loss=True),
    "call": Family("how", "calls that were ended by a person, a budget or a revoked key", loss=True),
    "reservation": Family("how", "reservations that nobody settled, counted at their worst case", loss=True),
    "reconcile": Family("result", "calls of unknown cost that were put right, or could not be looked up"),
    "names": Family("kind", "names of agents, sessions and tags beyond a day's share, charged as ~other", loss=True),
    "ledger": Family("how", "old calls of the ledger that became daily sums"),
    "record": Family("how", "bodies of calls that were kept, or not for want of room or disk"),
    "reload": Family("result", "times that settings were read anew"),
    "fault": Family("where", "faults of the gateway itself", loss=True),
    "told": Family("kind", "news that were counted and told to nobody"),
    "other": Family("what", "what has no metric of its own"),
}  # fmt: skip
"""First word of a name in `House.counts` → its metric, `midwatch_gateway_…_total`."""

NAMES: Final[Mapping[str, str]] = {
    "refused": "refused",
    "not_admitted": "not_admitted",
    "budget": "budget",
    "cache": "cached_answers",
    "loop": "nudges",
    "translation": "translations",
    "models": "models_asked",
    "attempt": "failed_attempts",
    "closed": "not_carried",
    "client": "clients_left",
    "stream": "streams_broken",
    "call": "calls_ended",
    "reservation": "reservations",
    "reconcile": "reconciled",
    "names": "names_beyond",
    "ledger": "ledger_calls",
    "record": "bodies",
    "reload": "reloads",
    "fault": "faults",
    "told": "news",
    "other": "other",
}

LEDGER_LOSSES: Final = frozenset(
    ("unavailable", "failed", "unwritable", "lost", "abandoned", "unanswered")
)

GAUGES: Final[Mapping[str, Family]] = {
    "up_seconds": Family("", "since the gateway started", kind="gauge"),
    "ready": Family("", "1 while calls can be taken: the ledger answers", kind="gauge"),
    "connections": Family("", "open connections of clients", kind="gauge"),
    "requests_under_way": Family("", "requests that are not answered to the end", kind="gauge"),
    "calls_under_way": Family("", "model calls under way", kind="gauge"),
    "held_bytes": Family("", "bodies of requests in memory", kind="gauge"),
    "reservations_open": Family("", "calls reserved here that have not ended", kind="gauge"),
    "held_agents": Family("kind", "agents whose calls are refused", kind="gauge"),
    "keys": Family("state", "long-lived keys", kind="gauge"),
    "documents_unsaved": Family("", "documents whose last change is not on disk", loss=True, kind="gauge"),
    "breaker_state": Family("provider, model, key", "0 closed, 1 half open, 2 open; with a key: of that key alone, while others of its pool are answered", kind="gauge"),
    "breaker_opened_total": Family("provider, model, key", "times that a breaker opened"),
    "key_rests": Family("provider, key, state", "1 for keys of providers that rest or are missing", kind="gauge"),
    "key_calls_total": Family("provider, key", "calls that a key of a provider served"),
    "hub_in_contact": Family("", "1 when the hub took what it was told last", kind="gauge"),
    "untold_total": Family("reason", "news and spans that did not reach the hub, nor its spool", loss=True),
    "requests_total": Family("", "requests since the start"),
    "upstream_dialled_total": Family("", "connections made to providers"),
    "upstream_repeated_total": Family("", "requests sent again because a kept connection was closed"),
}  # fmt: skip
"""What is not in `COUNTED`, by name below `midwatch_gateway_`."""

_BREAKER: Final = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}

Sample = tuple[Mapping[str, str], float]


def table() -> list[tuple[str, str, str, bool]]:
    """Return every metric: name, labels, what it means, whether it is a loss."""
    rows = [
        (f"{_name(NAMES[word])}_total", family.label, family.about, family.loss)
        for word, family in COUNTED.items()
    ]
    rows.append((f"{_name('http_lost')}_total", "reason", "what the HTTP server refused or broke off", True))  # fmt: skip
    rows += [
        (f"{_name('ledger_' + name)}_total", "label", f"ledger: {about}", name in LEDGER_LOSSES)
        for name, about in COUNTERS.items()
    ]
    return rows + [(_name(name), f.label, f.about, f.loss) for name, f in GAUGES.items()]


def render(
    counts: Mapping[str, int],
    ledger: Mapping[tuple[str, str], int],
    lost: Mapping[str, int],
    gauges: Mapping[str, float | Sequence[Sample]],
) -> str:
    """Return the page. `gauges`: by name of `GAUGES`, a number or samples with their labels."""
    lines: list[str] = []
    by_word: dict[str, list[Sample]] = {word: [] for word in COUNTED}
    for name, count in sorted(counts.items()):
        word, _, label = name.partition(".")
        if word not in COUNTED:
            word, label = "other", name
        by_word[word].append(({COUNTED[word].label: label}, count))
    for word, family in COUNTED.items():
        lines += _family(f"{NAMES[word]}_total", family, by_word[word])
    about = Family("reason", "what the HTTP server refused or broke off", loss=True)
    lines += _family("http_lost_total", about, [({"reason": r}, lost.get(r, 0)) for r in LOSSES])
    for name, said in COUNTERS.items():
        found = [
            ({"label": label}, n) for (what, label), n in sorted(ledger.items()) if what == name
        ]
        lines += _family(f"ledger_{name}_total", Family("label", f"ledger: {said}"), found)
    for name, family in GAUGES.items():
        value = gauges.get(name)
        if value is not None:
            samples: Sequence[Sample] = [({}, value)] if isinstance(value, int | float) else value
            lines += _family(name, family, samples)
    return "\n".join(lines) + "\n"


def places(health: Health, now: float) -> dict[str, list[Sample]]:
    """Return the gauges of breakers and keys."""
    known = [((provider, model, ""), one) for (provider, model), one in health.breakers.items()]
    for provider, pool in health.pools.items():
        for key in pool:
            known += [((provider, model, key.name), one) for model, one in key.failing.items()]
    known.sort(key=lambda b: (-_BREAKER[b[1].state(now)], b[0]))
    states: list[Sample] = []
    opened: list[Sample] = []
    for (provider, model, key_name), breaker in known[:MAX_SERIES]:
        where = {"provider": provider, "model": model[:200], "key": key_name}
        states.append((where, _BREAKER[breaker.state(now)]))
        opened.append((where, breaker.opened))
    rests: list[Sample] = []
    calls: list[Sample] = []
    keys = [(provider, key) for provider, pool in health.pools.items() for key in pool]
    for provider, key in keys[:MAX_SERIES]:
        if key.rests(now):
            state = key.state if key.state is not KeyState.ACTIVE else KeyState.COOLING
            rests.append(({"provider": provider, "key": key.name, "state": state.value}, 1))
        calls.append(({"provider": provider, "key": key.name}, key.calls))
    return {
        "breaker_state": states,
        "breaker_opened_total": opened,
        "key_rests": rests,
        "key_calls_total": calls,
    }


def _family(name: str, family: Family, samples: Sequence[Sample]) -> Iterator[str]:
    full = _name(name)
    yield f"# HELP {full} {family.about}"
    yield f"# TYPE {full} {'counter' if name.endswith('_total') else family.kind}"
    for labels, value in samples:
        inside = ",".join(f"{label}={_quote(text)}" for label, text in labels.items() if text)
        yield f"{full}{{{inside}}} {value}" if inside else f"{full} {value}"


def _name(name: str) -> str:
    return f"midwatch_gateway_{name}"


def _quote(value: str) -> str:
    escaped = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return f'"{escaped}"'
