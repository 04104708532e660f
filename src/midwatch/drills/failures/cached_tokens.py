"""`cached-tokens` (control): cache reads within or beside the input tokens: each trace costs what the invoice says."""

from __future__ import annotations

from typing import Any

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance

INVOICE_NUSD = 100 * 1_000 + 800 * 100 + 100 * 1_250 + 50 * 5_000
"""100 fresh tokens at $1 a million, 800 from the cache at $0.10, 100 written to it at $1.25, 50 out at $5."""


def _each_costs_what_is_billed(instance: Instance) -> str | None:
    traces: dict[str, str] = instance.told("traces")
    for name, trace_id in traces.items():
        found = instance.wait(lambda wanted=trace_id: _trace(instance, wanted), 20)
        if not isinstance(found, dict):
            return f"the trace of {name} is not there"
        said = (
            found.get("cost_nusd"),
            found["input_tokens"],
            found["cached_tokens"],
            found["output_tokens"],
        )
        if said != (INVOICE_NUSD, 1_000, 800, 50):
            return f"{name}: {said} (nano-dollars, tokens in, cached, out), the invoice says {INVOICE_NUSD}"
    return None


def _trace(instance: Instance, trace_id: str) -> dict[str, Any] | None:
    try:
        items = instance.get("/api/traces?limit=100")["items"]
    except OSError:
        return None
    return next((item for item in items if item["trace_id"] == trace_id), None)


DRILL = Drill(
    name="cached-tokens",
    about="cache reads within or beside the input tokens, by provider",
    program="cached_tokens.py",
    limit_s=0.0,
    control=True,
    watch_s=30.0,
    fleet={
        "models": {
            "prices": {
                "drill-1": {
                    "input": "$1/M",
                    "cached_input": "$0.10/M",
                    "cache_write": "$1.25/M",
                    "output": "$5/M",
                }
            }
        }
    },
    check=_each_costs_what_is_billed,
)
