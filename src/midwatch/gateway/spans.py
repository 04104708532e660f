"""Spans of calls, with the names of OpenTelemetry's conventions for generative AI.

One call is one span, whatever it took: a child of its caller's span when the request has a `traceparent`. With
more than one attempt each of them is a child of the call, with what it cost and used itself; cost and tokens of the
call are the sums of all of them, as the ledger has them. No content is in a span, and no key: names, counts,
cost. Made by the transport's worker from what `Told` kept; the event loop pays for the keeping alone.

The ids follow from the call's own id, so that a span that is sent twice is one span.
Source: semantic conventions for generative AI; W3C Trace Context for `traceparent`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from midwatch.core.calls.account import Payer
from midwatch.core.calls.ask import Ask, Dialect
from midwatch.core.detection import MIDWATCH
from midwatch.core.plain import clean
from midwatch.gateway.carried import Attempted
from midwatch.gateway.http.port import Headers
from midwatch.sdk import otlp

CLIENT: Final = 3
_OK, _ERROR = 1, 2

MAX_CHILDREN: Final = 20
"""Attempts of one call that have spans of their own."""

MAX_REASON: Final = 500

OPERATIONS: Final = {
    Dialect.CHAT: "chat",
    Dialect.RESPONSES: "chat",
    Dialect.MESSAGES: "chat",
    Dialect.GENERATE: "generate_content",
    Dialect.EMBEDDINGS: "embeddings",
    Dialect.COUNT: "count_tokens",
    Dialect.MODELS: "list_models",
}

PROVIDERS: Final = {"gemini": "gcp.gemini", "azure": "azure.ai.openai", "bedrock": "aws.bedrock"}
"""Where the conventions have a name of their own for what is usually called otherwise."""

_PARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")

Span = dict[str, Any]


@dataclass(slots=True)
class Told:
    """What is kept of a call for its spans: none of its content. Never changed; not frozen, which would cost a
    microsecond in the path of each call."""

    call_id: str
    at: float
    """Unix seconds."""
    took_s: float
    began: float
    """Monotonic, as the attempts' times are."""
    ask: Ask
    payer: Payer
    attempts: Sequence[Attempted]
    refused: str
    parent: str | None
    """`traceparent` as it came."""
    cached: bool = False
    saved_nusd: int = 0

    def spans(self) -> list[Span]:
        """Return the call's span, and those of its attempts when there are several."""
        trace, parent = caller(self.parent)
        trace, own = trace or self.call_id.replace("-", ""), span_id(self.call_id)
        span = self._span(trace, parent, own)
        if len(self.attempts) < 2:
            return [span]
        kept = self.attempts[:MAX_CHILDREN]
        return [span, *(self._child(n, a, trace, own) for n, a in enumerate(kept, 1))]

    def _span(self, trace: str, parent: str | None, own: str) -> Span:
        last = self.attempts[-1] if self.attempts else None
        error = self.error
        reason = "" if last is None or error is None else last.reason
        operation = OPERATIONS[self.ask.dialect]
        found: Span = {
            "traceId": trace,
            "spanId": own,
            "name": f"{operation} {clean(self.ask.model)}",
            "kind": CLIENT,
            "startTimeUnixNano": str(began := int(self.at * 1e9)),
            "endTimeUnixNano": str(began + int(self.took_s * 1e9)),
            "attributes": attributes(self._facts(operation, last, error)),
            "status": _status(error, reason),
            "_run": self.payer.run,
            "_agent": self.payer.agent or MIDWATCH,
        }
        if parent is not None:
            found["parentSpanId"] = parent
        return found

    @property
    def error(self) -> str | None:
        """Return why the call was not answered: the type of our refusal, or the class of the last failure."""
        if self.refused:
            return self.refused
        if not self.attempts:
            return None if self.cached else "not_sent"
        outcome = self.attempts[-1].outcome
        return None if outcome == "ok" else outcome or "not_answered"

    def _facts(self, operation: str, last: Attempted | None, error: str | None) -> dict[str, Any]:
        ask, payer = self.ask, self.payer
        facts: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.request.model": ask.model,
            "gen_ai.request.max_tokens": ask.max_output,
            "gen_ai.conversation.id": payer.session,
            "midwatch.call_id": self.call_id,
            "midwatch.stream": ask.stream or None,
            "midwatch.task": ask.task,
            "midwatch.virtual_key": payer.key,
            "midwatch.system_tokens": ask.system_tokens or None,
            "error.type": error,
        }
        if self.cached:
            facts |= {"midwatch.cached": True, "midwatch.saved_nusd": self.saved_nusd}
        if payer.tags:
            facts["midwatch.tags"] = [f"{name}={value}" for name, value in payer.tags.items()]
        if last is not None:
            facts |= _served(last, self.attempts)
        elif self.cached:
            facts["midwatch.cost_nusd"] = 0
        return facts

    def _child(self, number: int, attempt: Attempted, trace: str, parent: str) -> Span:
        began = int(self.at * 1e9) + int((attempt.began - self.began) * 1e9)
        bad = attempt.outcome != "ok"
        facts = {
            "midwatch.call_id": self.call_id,
            "midwatch.attempt": number,
            "gen_ai.provider.name": provider(attempt.place.provider),
            "midwatch.provider": attempt.place.provider,
            "midwatch.model": attempt.place.name,
            "midwatch.key": attempt.key or None,
            "http.response.status_code": attempt.status or None,
            "gen_ai.response.id": attempt.response_id or None,
            "midwatch.attempt.cost_nusd": attempt.cost_nusd,
            **_used("midwatch.attempt.", [attempt]),
            "midwatch.seam": "unproven" if attempt.unproven else None,
            "gen_ai.response.time_to_first_chunk": attempt.first_s,
            "error.type": attempt.outcome if bad else None,
            "error.code": attempt.code if bad and attempt.code else None,
        }
        return {
            "traceId": trace,
            "spanId": span_id(f"{self.call_id}.{number}"),
            "parentSpanId": parent,
            "name": f"attempt {clean(attempt.place.name)}",
            "kind": CLIENT,
            "startTimeUnixNano": str(began),
            "endTimeUnixNano": str(began + int(max(0.0, attempt.ended - attempt.began) * 1e9)),
            "attributes": attributes(facts),
            "status": _status(attempt.outcome if bad else None, attempt.reason),
            "_run": self.payer.run,
            "_agent": self.payer.agent or MIDWATCH,
        }


_OURS: Final = os.urandom(32)


def span_id(of: str) -> str:
    """Return the id of a span. Callers know the ids of calls before our spans are told: could they work these out,
    too, they could take them for spans of their own, and the hub, which keeps the first, would never see ours."""
    return blake2b(of.encode(), digest_size=8, key=_OURS).hexdigest()


def _served(last: Attempted, attempts: Sequence[Attempted]) -> dict[str, Any]:
    """Return what is known of who answered, or of who was asked last, and of the cost and usage of all attempts."""
    place = last.place
    facts: dict[str, Any] = {
        "gen_ai.provider.name": provider(place.provider),
        "gen_ai.response.model": last.served or None,
        "gen_ai.response.id": last.response_id or None,
        "midwatch.first_response_id": _first_id(last, attempts),
        "gen_ai.response.finish_reasons": [last.finish] if last.finish else None,
        "gen_ai.response.time_to_first_chunk": None
        if last.first_s is None
        else round(last.first_s, 6),
        "http.response.status_code": last.status if last.status >= 300 else None,
        "midwatch.provider": place.provider,
        "midwatch.model": place.name,
        "midwatch.key": last.key or None,
        "midwatch.attempts": len(attempts) if len(attempts) > 1 else None,
        "midwatch.fallback": place.position or None,
        "midwatch.seam": "unproven" if any(a.unproven for a in attempts) else None,
        "midwatch.cost_nusd": sum([a.cost_nusd for a in attempts]),
    }
    facts |= _used("gen_ai.usage.", attempts)
    charges = [a.charge for a in attempts if a.charge is not None]
    if charges:
        facts |= {
            "midwatch.price_version": charges[-1].price_version or None,
            "midwatch.estimated": any(c.estimated for c in charges) or None,
            "midwatch.disputed": any(c.disputed for c in charges) or None,
            "midwatch.cache_saved_nusd": _sum([a.cache_saved_nusd for a in attempts]),
        }
    return facts


def _used(prefix: str, attempts: Sequence[Attempted]) -> dict[str, Any]:
    """Return the tokens that attempts were charged for, together; nothing where nothing was."""
    charges = [a.charge for a in attempts if a.charge is not None]
    if not charges:
        return {}
    usages = [c.usage for c in charges]
    return {
        f"{prefix}input_tokens": sum([c.input_tokens for c in charges]),
        f"{prefix}output_tokens": sum([c.output_tokens for c in charges]),
        f"{prefix}cache_read.input_tokens": _sum([u.get("cache_read") for u in usages]),
        f"{prefix}cache_creation.input_tokens": _sum([_written(u) for u in usages]),
        f"{prefix}reasoning.output_tokens": _sum([u.get("reasoning") for u in usages]),
    }


def _sum(counts: Sequence[int | None]) -> int | None:
    """Return a sum of what is known; None where nothing is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _first_id(last: Attempted, attempts: Sequence[Attempted]) -> str | None:
    """Return the id under which the client's answer began, where the last attempt's is another one: a stream that
    broke off goes on under its first id (`graft`)."""
    first = next((a.response_id for a in attempts if a.first_s is not None and a.response_id), "")
    return first if first and first != last.response_id else None


_OF_ONE_CALL: Final = frozenset(
    (
        "midwatch.call_id",
        "gen_ai.response.id",
        "midwatch.first_response_id",
        "gen_ai.conversation.id",
        "error.code",
    )
)
"""Texts that differ from call to call."""


@lru_cache(4096)
def _text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def attributes(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return OTLP key-values; what is None is left out. Texts that come again and again are shared: half of
    what a span takes to make."""
    found: list[dict[str, Any]] = []
    for key, value in facts.items():
        if value is None:
            continue
        if value.__class__ is str and key not in _OF_ONE_CALL:
            found.append(_text(key, value))
        elif value.__class__ is int:
            found.append({"key": key, "value": {"intValue": str(value)}})
        else:
            found += otlp.attributes({key: value})
    return found


def _written(usage: Any) -> int | None:
    count = sum(usage.get(f"cache_write_{kept}", 0) for kept in ("5m", "1h", "12h"))
    return count or None


def _status(error: str | None, reason: str) -> dict[str, Any]:
    if error is None:
        return {"code": _OK}
    return {"code": _ERROR, "message": clean(reason, MAX_REASON) or error}


def provider(name: str) -> str:
    """Return a provider's name as the conventions have it."""
    return PROVIDERS.get(name, name)


def caller(parent: str | None) -> tuple[str | None, str | None]:
    """Return trace and span of a `traceparent`; (None, None) for what is none."""
    match = _PARENT.fullmatch(parent.strip().lower()) if parent and len(parent) < 200 else None
    if match is None or not int(match[1], 16) or not int(match[2], 16) or match[0][:2] == "ff":
        return None, None
    return match[1], match[2]


def parent_of(headers: Headers) -> str | None:
    """Return a request's `traceparent`."""
    if "traceparent" not in dict(headers):
        return None
    for name, value in headers:
        if name == "traceparent":
            return value
    return None
