"""Renders spans as OTLP/JSON, so that any collector can take them.

Used by the worker only. A span waits in queue and spool as one OTLP span object plus the
run it belongs to (`_run`), because a later run may deliver it, and the agent (`_agent`) where
one sender speaks for many; `wrap` puts resource and scope around a batch. No message content is ever in a span,
only names, counts and costs; but what the agent hands over with `mw.state()` and `mw.feedback()`.
Source: opentelemetry-proto 1.x, JSON mapping; semantic conventions for generative AI.
"""

from __future__ import annotations

from itertools import groupby

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

SCOPE = "midwatch.sdk"


def attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return OTLP key-values; what is None is left out."""
    return [
        {"key": key, "value": _value(value)} for key, value in values.items() if value is not None
    ]


def wrap(
    spans: Sequence[dict[str, Any]], resource: Mapping[str, str], scope: str = SCOPE
) -> dict[str, Any]:
    """Return the body of one POST to /v1/traces. The spans are left as they are."""
    blocks: list[dict[str, Any]] = []
    for (run_id, agent), group in groupby(spans, key=_owner):
        described = {**resource, "midwatch.run_id": run_id}
        if agent is not None:
            described["midwatch.agent"] = agent
        bare = [
            {name: value for name, value in span.items() if name not in _OWNER} for span in group
        ]
        blocks.append(
            {
                "resource": {"attributes": attributes(described)},
                "scopeSpans": [{"scope": {"name": scope}, "spans": bare}],
            }
        )
    return {"resourceSpans": blocks}


_OWNER = ("_run", "_agent")


def _owner(span: dict[str, Any]) -> tuple[Any, Any]:
    return span.get("_run"), span.get("_agent")


def _value(value: Any) -> dict[str, Any]:
    if value.__class__ is bool:
        return {"boolValue": value}
    if value.__class__ is int:
        return {"intValue": str(value)}  # 64-bit integers are text in OTLP/JSON
    if value.__class__ is float and value - value == 0:
        return {"doubleValue": value}
    if isinstance(value, dict):
        import json

        return {"stringValue": json.dumps(value, ensure_ascii=False)}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_value(entry) for entry in value]}}  # pyright: ignore[reportUnknownVariableType]
    return {"stringValue": str(value)}
