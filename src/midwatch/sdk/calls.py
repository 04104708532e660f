"""One model call, from the request to the last byte: its usage, its cost, its span.

Usage is read from what passes by anyway: from the parsed answer, or from the bytes of a
stream while the agent reads them. Nothing is added to the request and nothing is held back.
"""

from __future__ import annotations

import json

from midwatch.sdk import cycle, runtime, span
from midwatch.sdk.plain import text, whole
from midwatch.sdk.prices import cost_usd
from midwatch.sdk.scope import failure
from midwatch.sdk.shield import kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_BODY_BYTES = 32 * 1024 * 1024
"""A body, or a line of a stream, beyond this is let pass unread."""


_told_unmetered: set[str] = set()


class Usage:
    """Tokens of one call. `input_tokens` is all of the input, cached or not."""

    __slots__ = ("cache_write_tokens", "cached_tokens", "input_tokens", "output_tokens")

    def __init__(self, input_tokens: int, output_tokens: int, cached: int, written: int) -> None:
        self.input_tokens = input_tokens
        self.output_tokens = output_tokens
        self.cached_tokens = cached
        self.cache_write_tokens = written


def read_usage(usage: Any) -> Usage | None:
    """Read a usage object of any of the APIs; None when it is of no known shape.

    OpenAI counts cached tokens within the input, Anthropic beside it; here they are within.
    """
    if usage is None:
        return None
    prompt = whole(_get(usage, "prompt_tokens"))
    if prompt is not None:  # chat completions, embeddings
        details = _get(usage, "prompt_tokens_details")
        cached = whole(_get(details, "cached_tokens")) or 0
        written = whole(_get(details, "cache_write_tokens")) or 0
        return Usage(prompt, whole(_get(usage, "completion_tokens")) or 0, cached, written)
    given = whole(_get(usage, "input_tokens"))
    output = whole(_get(usage, "output_tokens"))
    if given is None and output is None:
        return None
    details = _get(usage, "input_tokens_details")
    if details is not None:  # responses
        cached = whole(_get(details, "cached_tokens")) or 0
        written = whole(_get(details, "cache_write_tokens")) or 0
        return Usage(given or 0, output or 0, cached, written)
    cached = whole(_get(usage, "cache_read_input_tokens")) or 0
    written = whole(_get(usage, "cache_creation_input_tokens")) or 0
    return Usage((given or 0) + cached + written, output or 0, cached, written)


def _get(source: Any, name: str) -> Any:
    if source is None:
        return None
    if isinstance(source, dict):
        return source.get(name)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return getattr(source, name, None)


class Call:
    """See the module. `end` may be called from any thread; the first time counts."""

    __slots__ = ("_ended", "_now", "_provider", "_span", "_tally", "model", "seen", "usage")

    def __init__(self, now: runtime.Runtime, provider: str, operation: str, model: str) -> None:
        self._now = now
        self._provider = provider
        self._ended = False
        self._tally = cycle.tally_now()
        self.model = model
        self.usage: Usage | None = None
        self.seen: dict[str, Any] = {}
        self._span: span.Span | None = None
        if now.traces:
            attributes: dict[str, Any] = {
                "midwatch.span": "call",
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": provider,
                "gen_ai.request.model": model,
            }
            self._span = span.Span(f"{operation} {model}", attributes, span.CLIENT)
        if now.notifier is not None:
            now.notifier.call_opened()

    def read(self, body: Any) -> None:
        """Take usage and model from an answer, or from one event of a stream.

        Later figures win; those that a later event leaves out stay (Anthropic tells the
        input at the start of a stream and the output at its end).
        """
        for part in (body, _get(body, "response"), _get(body, "message")):
            if part is None or isinstance(part, str):
                continue
            found = read_usage(_get(part, "usage"))
            if found is not None:
                self.usage = _merge(self.usage, found)
            model = _get(part, "model")
            if isinstance(model, str):
                self.seen["model"] = text(model, 128)
            identity = _get(part, "id")
            if isinstance(identity, str):
                self.seen["id"] = text(identity, 128)

    def end(self, error: BaseException | None = None) -> None:
        """Count the call. What the answer did not tell stays unknown."""
        if self._ended:
            return
        self._ended = True
        with kept("call"):
            self._count(failed=error is not None and failure(error) != "ok")
        with kept("call"):
            self._close(error)

    def _count(self, *, failed: bool) -> None:
        usage, tally = self.usage, self._tally
        tally.add(model_calls=1)
        if usage is None:
            if not failed:
                tally.missed(unmetered=1)
                self._tell_unmetered()
            return
        price = self._price()
        tally.add(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            cost_usd=price,
        )
        if price is None:
            tally.missed(unpriced=1)

    def _tell_unmetered(self) -> None:
        provider = self._provider
        if provider in _told_unmetered:
            return
        _told_unmetered.add(provider)
        reason = "an answer told no usage, so its tokens are not counted"
        if provider == "openai":
            reason += "; for streams pass stream_options={'include_usage': True}"
        self._now.event("sdk.untracked", {"client": provider, "reason": reason})

    def _price(self) -> float | None:
        usage = self.usage
        if usage is None:
            return None
        figures = (
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_tokens,
            usage.cache_write_tokens,
        )
        served = cost_usd(self.seen.get("model", self.model), *figures)
        return cost_usd(self.model, *figures) if served is None else served

    def _close(self, error: BaseException | None) -> None:
        now, ended = self._now, self._span
        if now.notifier is not None:
            now.notifier.call_done()
        if ended is None:
            return
        attributes = ended.attributes
        attributes["gen_ai.response.model"] = self.seen.get("model")
        attributes["gen_ai.response.id"] = self.seen.get("id")
        attributes["midwatch.call_id"] = self.seen.get("call_id")
        if self.usage is not None:
            attributes["gen_ai.usage.input_tokens"] = self.usage.input_tokens
            attributes["gen_ai.usage.output_tokens"] = self.usage.output_tokens
            attributes["gen_ai.usage.cache_read.input_tokens"] = self.usage.cached_tokens
            attributes["gen_ai.usage.cache_creation.input_tokens"] = self.usage.cache_write_tokens
            attributes["midwatch.cost_usd"] = self._price()
        if error is not None and failure(error) != "ok":
            ended.error = type(error).__name__
            attributes["error.type"] = type(error).__name__
        now.end_span(ended)


def _merge(earlier: Usage | None, later: Usage) -> Usage:
    if earlier is None:
        return later
    return Usage(
        max(later.input_tokens, earlier.input_tokens),
        max(later.output_tokens, earlier.output_tokens),
        max(later.cached_tokens, earlier.cached_tokens),
        max(later.cache_write_tokens, earlier.cache_write_tokens),
    )


class BodyReader:
    """Reads usage out of a body as its decoded bytes pass: one JSON document, or events."""

    def __init__(self, call: Call, content_type: str) -> None:
        self._call = call
        self._events = "event-stream" in content_type
        self._readable = self._events or "json" in content_type
        self._rest = bytearray()
        self._too_long = False

    def feed(self, chunk: bytes) -> None:
        """Look at the next bytes. They are not changed."""
        if not self._readable:
            return
        with kept("stream"):
            if not self._events:
                self._keep(chunk)
                return
            start = 0
            while (end := chunk.find(b"\n", start)) >= 0:
                self._keep(chunk[start:end])
                self._line()
                start = end + 1
            self._keep(chunk[start:])

    def end(self, error: BaseException | None = None) -> None:
        """The body is over, whole or not."""
        with kept("stream"):
            if self._events:
                self._line()
            elif self._rest and not self._too_long and b'"usage"' in self._rest:
                self._call.read(_loads(bytes(self._rest)))
            self._rest.clear()
        self._call.end(error)

    def _keep(self, part: bytes) -> None:
        if len(self._rest) + len(part) > MAX_BODY_BYTES:
            self._too_long = True
            self._rest.clear()
        if not self._too_long:
            self._rest += part

    def _line(self) -> None:
        line, too_long = bytes(self._rest), self._too_long
        self._rest.clear()
        self._too_long = False
        # only lines that tell usage are parsed: most of a stream is text in small pieces
        if not too_long and line.startswith(b"data:") and b'"usage"' in line:
            self._call.read(_loads(line[5:]))


def _loads(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
