"""`/metrics` in the Prometheus text format 0.0.4. Label values are escaped and bounded in number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from midwatch.core.counts import BUCKETS_S, Counts
from midwatch.core.states import ALIVE, State

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

MAX_AGENTS: Final = 2_000
"""Agents with series of their own."""

_AGENT_GAUGES: Final = (
    ("agent_up", "1 while the agent's process exists", None),
    ("agent_cost_usd_today", "dollars that the agent's beats reported today", "cost_usd"),
    ("agent_tokens_today", "tokens that the agent's beats reported today", "tokens"),
    ("agent_beats_today", "cycles that the agent completed today", "cycles"),
    ("agent_restarts_today", "restarts of the agent today", "restarts"),
    ("agent_rss_bytes", "resident memory of the agent's processes", "rss_bytes"),
)


def render(
    counts: Counts,
    agents: Iterable[dict[str, Any]],
    gauges: dict[str, tuple[str, float]],
    watch: dict[str, int | float],
) -> str:
    """Return the whole page. `gauges` are the hub's own, by name, with their sentence."""
    lines: list[str] = []
    for name, counter, values in counts.each():
        lines += _head(f"{name}_total", counter.about, "counter")
        if not counter.label:
            lines.append(f"midwatch_{name}_total {sum(values.values())}")
        lines += (
            f"midwatch_{name}_total{{{counter.label}={_quote(label)}}} {count}"
            for label, count in values.items()
            if counter.label
        )
    lines += _histogram(counts)
    for name, (about, value) in gauges.items():
        lines += [*_head(name, about, "gauge"), f"midwatch_{name} {value}"]
    for name, value in watch.items():
        lines += [*_head(f"watch_{name}", f"of the watch: {name.replace('_', ' ')}", "untyped")]
        lines.append(f"midwatch_watch_{name} {value}")
    lines += _agents(list(agents)[:MAX_AGENTS])
    return "\n".join(lines) + "\n"


def _head(name: str, about: str, kind: str) -> list[str]:
    return [f"# HELP midwatch_{name} {about}", f"# TYPE midwatch_{name} {kind}"]


def _histogram(counts: Counts) -> list[str]:
    lines = _head("append_seconds", "from an item's arrival to its answer", "histogram")
    total = 0
    for bound, count in zip((*BUCKETS_S, float("inf")), counts.append_buckets, strict=True):
        total += count
        edge = "+Inf" if bound == float("inf") else f"{bound:g}"
        lines.append(f'midwatch_append_seconds_bucket{{le="{edge}"}} {total}')
    lines.append(f"midwatch_append_seconds_sum {counts.append_sum_s:.6f}")
    lines.append(f"midwatch_append_seconds_count {total}")
    return lines


def _agents(agents: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    alive = {state.value for state in ALIVE}
    for name, about, key in _AGENT_GAUGES:
        lines += _head(name, about, "gauge")
        for agent in agents:
            if key is None:
                left = agent.get("state") == State.SUSPENDED and agent.get("pid") is not None
                value: Any = int(agent.get("state") in alive or left)
            else:
                part: dict[str, Any] = (
                    agent.get("resources" if key == "rss_bytes" else "today") or {}
                )
                value = part.get(key)
            # no data is no series, never 0
            if value is not None:
                lines.append(f"midwatch_{name}{{agent={_quote(agent['agent'])}}} {value}")
    lines += _head("agents", "agents by state", "gauge")
    for state in State:
        count = sum(1 for agent in agents if agent.get("state") == state.value)
        lines.append(f"midwatch_agents{{state={_quote(state.value)}}} {count}")
    return lines


def _quote(value: str) -> str:
    escaped = value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return f'"{escaped}"'
