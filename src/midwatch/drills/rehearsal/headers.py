"""The headers of an answer that clients and gateways read: ids, time taken, what is left of the rate.

Every key is allowed the same rate, and nobody is held to it: the headers tell, behaviours refuse.
Source: platform.openai.com/docs/guides/rate-limits and /api-reference/debugging-requests;
docs.anthropic.com/en/api/rate-limits and /errors.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from midwatch.drills.rehearsal.question import Api

REQUESTS_PER_MIN: Final = 10_000
TOKENS_PER_MIN: Final = 2_000_000
MAX_WINDOWS: Final = 1_000
"""Keys whose minute is counted; the one unused for longest starts afresh."""


@dataclass(slots=True)
class _Window:
    minute: int = -1
    requests: int = 0
    tokens: int = 0


class Rates:
    """What each key has used of the minute under way."""

    def __init__(self) -> None:
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def use(self, key: str, used: int, now: float) -> tuple[int, int]:
        """Count a call of so many tokens; return the requests and the tokens that are left."""
        window = self._windows.pop(key, None) or _Window()
        self._windows[key] = window
        if len(self._windows) > MAX_WINDOWS:
            self._windows.popitem(last=False)
        minute = int(now // 60)
        if window.minute != minute:
            window.minute, window.requests, window.tokens = minute, 0, 0
        window.requests += 1
        window.tokens += used
        requests = max(REQUESTS_PER_MIN - window.requests, 0)
        return requests, max(TOKENS_PER_MIN - window.tokens, 0)


def of_answer(
    api: Api, request_id: str, taken_s: float, left: tuple[int, int] | None, now: float
) -> dict[str, str]:
    """Return a dialect's headers; `left` is None for a call that did not come to its key's rate."""
    ms = str(round(taken_s * 1000))
    if api == "generate":  # the provider's id is in the body
        return {"server-timing": f"gfet4t7; dur={ms}", "x-content-type-options": "nosniff"}
    if api == "messages":
        found = {"request-id": request_id, "anthropic-organization-id": "org_rehearsal"}
        return found if left is None else found | _anthropic_rates(left, now)
    found = {
        "x-request-id": request_id,
        "openai-processing-ms": ms,
        "openai-version": "2020-10-01",
        "openai-organization": "rehearsal",
    }
    return found if left is None else found | _openai_rates(left, now)


def _openai_rates(left: tuple[int, int], now: float) -> dict[str, str]:
    reset = f"{60 - now % 60:.3f}s"
    return {
        "x-ratelimit-limit-requests": str(REQUESTS_PER_MIN),
        "x-ratelimit-limit-tokens": str(TOKENS_PER_MIN),
        "x-ratelimit-remaining-requests": str(left[0]),
        "x-ratelimit-remaining-tokens": str(left[1]),
        "x-ratelimit-reset-requests": reset,
        "x-ratelimit-reset-tokens": reset,
    }


def _anthropic_rates(left: tuple[int, int], now: float) -> dict[str, str]:
    reset = datetime.fromtimestamp((now // 60 + 1) * 60, UTC).isoformat().replace("+00:00", "Z")
    found: dict[str, str] = {}
    limits = (
        ("requests", REQUESTS_PER_MIN, left[0]),
        ("tokens", TOKENS_PER_MIN, left[1]),
        ("input-tokens", TOKENS_PER_MIN, left[1]),
        ("output-tokens", TOKENS_PER_MIN, left[1]),
    )
    for name, limit, remaining in limits:
        found[f"anthropic-ratelimit-{name}-limit"] = str(limit)
        found[f"anthropic-ratelimit-{name}-remaining"] = str(remaining)
        found[f"anthropic-ratelimit-{name}-reset"] = reset
    return found
