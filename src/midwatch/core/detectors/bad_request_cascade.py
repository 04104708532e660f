"""bad-request-cascade: an agent asks again and again what every provider answers with 400."""

from __future__ import annotations

from typing import Any, Final

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import told
from midwatch.core.incident import Clear, Finding
from midwatch.core.plain import whole_of

KIND = "bad-request-cascade"

MANY: Final = 5
SHARE: Final = 0.8
"""Calls of one sum that were refused as malformed: so many, and this share of all. One is a mistake."""


@detector(KIND, on=("call.ended",))
def bad_request_cascade(facts: Facts) -> Verdict:
    """Find rows of malformed requests; over when calls are answered again."""
    outcomes: Any = facts.data.get("outcomes")
    counts: dict[str, Any] = outcomes if isinstance(outcomes, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    bad = whole_of(counts, "bad_request") or 0
    calls = whole_of(facts.data, "calls") or 0
    if bad >= MANY and bad >= SHARE * calls:
        return Finding(
            kind=KIND,
            agent=facts.agent,
            severity="warning",
            sentence=told(
                facts,
                f"{bad:,} of its last {calls:,} calls were malformed and refused by the provider",
                "no provider was rested because of that",
            ),
            reason="class bad_request: the request's fault, permanent",
            evidence_at=facts.item["at"],
            evidence={"calls": calls, "bad_request": bad},
        )
    if KIND in facts.open_kinds and bad == 0 and (whole_of(facts.data, "served") or 0) > 0:
        return Clear(KIND, facts.agent, "its calls are answered again", facts.item["at"])
    return None
