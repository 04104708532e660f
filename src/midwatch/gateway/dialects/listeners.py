"""What the chunks of each dialect mean."""

from __future__ import annotations

from typing import Any, Final, cast

from midwatch.core.calls.ask import Ask, Dialect
from midwatch.core.pricing import anthropic, gemini, openai
from midwatch.core.pricing.usage import Tier
from midwatch.gateway.dialects import sse
from midwatch.gateway.dialects.bodies import BadRequest, Json, without
from midwatch.gateway.dialects.stream import Event, Listener, What, objects


def tier_of(ask: Ask) -> Tier:
    """Return the tier that was asked for, for readers of usage."""
    return openai.TIERS.get(ask.tier, Tier.OTHER)


class ChatListener(Listener):
    """OpenAI's chat: chunks of choices, a chunk with the usage when it is asked for, [DONE].

    Ends that occur: the reason in a chunk of its own or with the last content; the usage with it, after it, or
    not at all; [DONE] without any reason, which the provider means as the end.
    """

    def __init__(self, ask: Ask, *, expects_usage: bool = True) -> None:
        super().__init__(ask, sse.Events(), openai.Stream(tier_of(ask)))
        self.expects_usage = expects_usage
        self._reasons: dict[int, str] = {}

    def _take(self, raw: bytes, value: Json) -> Event | None:
        if value.get("error"):
            return self._error(raw, value)
        choices = objects(value.get("choices"))
        if not self.response_id:
            self._name(value.get("id"), value.get("model"))
            self.created = value.get("created")
        what = What.META
        for choice in choices:
            if self._choice(choice):
                what = What.CONTENT
        usage = value.get("usage")
        if usage or "x_groq" in value or (choices and choices[0].get("usage")):
            self._tell(value)
        if "usage" in value and not self.ask.usage_asked:
            if usage is None:
                raw = _stripped(raw)
            elif not choices:
                return None  # the chunk that only we asked for
        return Event(raw, what)

    def _choice(self, choice: Json) -> bool:
        """Note what a choice says; return whether that is something for the client."""
        index = choice.get("index", 0)
        reason = choice.get("finish_reason")
        # many servers send "" in every chunk but the last
        if reason and isinstance(reason, str) and isinstance(index, int):
            self._reasons[index] = reason[:64]
            self.finished = len(self._reasons) >= self.ask.choices
            self.finish = self._reasons.get(0, self.finish)
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return False
        content = False
        for key, said in cast("Json", delta).items():
            if key == "role" or not said:
                continue
            content = True
            if key == "content" and isinstance(said, str):
                if index == 0:
                    self._say(said)
                else:
                    self._count(said)
                continue
            self._count(said)
            if key not in THOUGHTS:
                self.text_only = False
        return content


THOUGHTS: Final = frozenset(
    ("reasoning_content", "reasoning", "reasoning_details", "thinking", "annotations")
)
"""What stands beside the text and does not belong to it."""


_NO_USAGE: Final = b',"usage":null'


def _stripped(raw: bytes) -> bytes:
    """Return a chunk without the `"usage":null` that it has because we asked for usage.

    Within a string its quotes would be escaped: one that is found alone is the chunk's own.
    """
    if raw.count(_NO_USAGE) == 1:
        return raw.replace(_NO_USAGE, b"")
    try:
        return without(raw, "usage", raw.index(b"data:"))
    except (BadRequest, ValueError, IndexError):
        return raw


class MessagesListener(Listener):
    """Anthropic's messages: message_start, blocks with their deltas, message_delta, message_stop."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask, sse.Events(), anthropic.Stream(tier_of(ask)))
        self.block = -1
        """The index of the newest block."""
        self.block_open = False

    def _take(self, raw: bytes, value: Json) -> Event | None:
        kind = value.get("type")
        if kind == "content_block_delta":
            return self._delta(raw, value.get("delta"))
        if kind == "content_block_start":
            return self._start(raw, value)
        if kind == "content_block_stop":
            self.block_open = False
        elif kind == "message_start":
            message = value.get("message")
            if isinstance(message, dict):
                shown = cast("Json", message)
                self._name(shown.get("id"), shown.get("model"))
                self._tell(value)
        elif kind == "message_delta":
            delta = value.get("delta")
            reason = cast("Json", delta).get("stop_reason") if isinstance(delta, dict) else None
            if reason and isinstance(reason, str):
                self.finish, self.finished = reason[:64], True
            self._tell(value)
        elif kind == "message_stop":
            return self._done(raw)
        elif kind == "ping":
            return Event(raw, What.PING)
        elif kind == "error":
            return self._error(raw, value)
        return Event(raw, What.META)

    def _start(self, raw: bytes, value: Json) -> Event:
        index, block = value.get("index"), value.get("content_block")
        self.block = index if isinstance(index, int) else self.block + 1
        self.block_open = True
        shown = cast("Json", block) if isinstance(block, dict) else {}
        kind, text = shown.get("type"), shown.get("text")
        if kind == "text":
            if isinstance(text, str) and text:
                self._say(text)
                return Event(raw, What.CONTENT)
            return Event(raw, What.META)
        # a tool call cannot be continued, and a thought that is cut has no signature
        self._count(shown.get("name"))
        self.text_only = False
        return Event(raw, What.META if kind == "thinking" else What.CONTENT)

    def _delta(self, raw: bytes, delta: object) -> Event:
        if isinstance(delta, dict):
            shown = cast("Json", delta)
            text = shown.get("text")
            if isinstance(text, str):
                self._say(text)
            else:
                self._count(shown.get("partial_json", shown.get("thinking")))
        return Event(raw, What.CONTENT)


TEXT_PLACE: Final = ("item_id", "output_index", "content_index")
"""Where in a response a text stands."""

_FAILED: Final = ("error", "response.failed", "response.cancelled")
_OVER: Final = ("response.completed", "response.incomplete")


class ResponsesListener(Listener):
    """OpenAI's responses: numbered events, of which the last carries the whole response."""

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask, sse.Events(), openai.Stream(tier_of(ask)))
        self.place: Json = {}
        """The item, and the part of it, in which the text stands; empty before there is any."""
        self.done: set[str] = set()
        """Kinds of events by which that text was said to be over."""

    def _done(self, raw: bytes) -> Event:
        # some servers add it; only the whole response ends a response
        return Event(raw, What.META)

    def _take(self, raw: bytes, value: Json) -> Event | None:
        kind, number = value.get("type"), value.get("sequence_number")
        if isinstance(number, int):
            self.sequence = number
        if not isinstance(kind, str):
            return self._error(raw, value) if value.get("error") else Event(raw, What.META)
        if kind.endswith(".delta"):
            delta = value.get("delta")
            if kind == "response.output_text.delta" and isinstance(delta, str):
                self._say(delta)
                if not self.place:
                    self.place = {key: value.get(key) for key in TEXT_PLACE}
                elif value.get("item_id") != self.place["item_id"]:
                    self.text_only = False
            else:
                self._count(delta)
                if not kind.startswith("response.reasoning"):
                    self.text_only = False
            return Event(raw, What.CONTENT)
        response: object = value.get("response")
        if isinstance(response, dict) and not self.response_id:
            shown = cast("Json", response)
            self._name(shown.get("id"), shown.get("model"))
        return self._other(raw, kind, value, cast("object", response))

    def _other(self, raw: bytes, kind: str, value: Json, response: object) -> Event:
        if kind in _FAILED:
            self._tell(value)
            return self._error(raw, value)
        if kind in _OVER:
            self._tell(value)
            self.finished = self.ended = True
            self.finish = _reason(response)
            return Event(raw, What.END)
        if kind == "keepalive":
            return Event(raw, What.PING)
        if kind in ("response.output_text.done", "response.content_part.done"):
            self.done.add(kind)
        if kind in ("response.output_item.added", "response.output_item.done"):
            item = value.get("item")
            if isinstance(item, dict) and cast("Json", item).get("type") not in (
                "message",
                "reasoning",
            ):
                self.text_only = False
            if kind.endswith("done"):
                if isinstance(item, dict) and cast("Json", item).get("type") == "message":
                    self.done.add(kind)
                self._accumulator.feed(value)  # searches are billed by the item
        return Event(raw, What.META)


def _reason(response: object) -> str:
    """Return `completed`, or why the response is not whole: max_output_tokens, content_filter."""
    shown = cast("Json", response) if isinstance(response, dict) else {}
    details = shown.get("incomplete_details")
    reason = cast("Json", details).get("reason") if isinstance(details, dict) else None
    return reason[:64] if isinstance(reason, str) else str(shown.get("status", "completed"))[:64]


class GenerateListener(Listener):
    """Gemini: each chunk is an answer of its own, with parts, perhaps the reason, and the usage so far.

    There is no sentinel; as a JSON array the closing bracket is one. Some models tell STOP in every chunk, so
    that a reason is believed at once only where it comes without content, or after content that came without
    it; any other is the end only when the body ends well (`close`).
    """

    def __init__(self, ask: Ask) -> None:
        splitter = sse.Elements() if ask.array else sse.Events()
        super().__init__(ask, splitter, gemini.Stream(tier_of(ask)))
        self._reasons: dict[int, str] = {}
        self._believed: set[int] = set()
        """Answers whose reason is the end, by all that is known."""
        self._bare: set[int] = set()
        """Answers of which content came without a reason: theirs comes at the end alone."""
        self._refuted: set[int] = set()
        """Answers that went on behind a reason."""

    def close(self) -> list[Event]:
        events = super().close()
        if self.failure is None and len(self._reasons) >= self.ask.choices:
            self.finished = True
        return events

    def _read(self, raw: bytes) -> Event | None:
        if not self.ask.array:
            return super()._read(raw)
        shown = raw.strip().lstrip(b"[,").strip()
        if not raw.lstrip().startswith(b"[") and not self.opened:
            # the element with the opening bracket was left out
            raw = b"[" + raw.lstrip().removeprefix(b",")
        if shown == b"]":
            return self._done(raw)
        event = super()._read(b"data:" + shown) if shown.startswith(b"{") else None
        if event is None or event.what is What.MALFORMED:
            return Event(raw, What.MALFORMED)
        self.opened = self.opened or event.what is not What.ERROR
        # the brackets and commas around it belong to what the client gets
        return event._replace(raw=raw)

    def _take(self, raw: bytes, value: Json) -> Event | None:
        if value.get("error"):
            return self._error(raw, value)
        if not self.response_id:
            self._name(value.get("responseId"), value.get("modelVersion"))
        what = What.META
        for candidate in objects(value.get("candidates")):
            if self._candidate(candidate):
                what = What.CONTENT
        if "usageMetadata" in value:
            self._tell(value)
        feedback = value.get("promptFeedback")
        blocked = cast("Json", feedback).get("blockReason") if isinstance(feedback, dict) else None
        if isinstance(blocked, str):
            self.finish, self.finished = blocked[:64], True
        return Event(raw, what)

    def _candidate(self, candidate: Json) -> bool:
        index = candidate.get("index", 0)
        index = index if isinstance(index, int) else 0
        content = candidate.get("content")
        said = False
        for part in (
            objects(cast("Json", content).get("parts")) if isinstance(content, dict) else ()
        ):
            text: Any = part.get("text")
            if isinstance(text, str):
                said = said or bool(text)
                if index == 0 and part.get("thought") is not True:
                    self._say(text)
                else:
                    self._count(text)
            elif part:
                said = True
                self._count(part)
                self.text_only = False
        self._note_reason(index, candidate.get("finishReason"), said=said)
        return said

    def _note_reason(self, index: int, reason: object, *, said: bool) -> None:
        """Note why an answer ends, or that it goes on."""
        if said and index in self._believed:
            self._refuted.add(index)
            self._believed.discard(index)
        if reason and isinstance(reason, str) and reason != "FINISH_REASON_UNSPECIFIED":
            self._reasons[index] = reason[:64]
            if index not in self._refuted and (not said or index in self._bare):
                self._believed.add(index)
        elif said:
            self._reasons.pop(index, None)
            self._bare.add(index)
        if index == 0:
            self.finish = self._reasons.get(0)
        self.finished = len(self._believed) >= self.ask.choices


def listener(ask: Ask, *, expects_usage: bool = True) -> Listener:
    """Return a listener for the stream that a call asks for.

    `expects_usage`: a chat provider sends the usage in a chunk of its own at the end, since it was asked for.
    """
    if ask.dialect is Dialect.CHAT:
        return ChatListener(ask, expects_usage=expects_usage)
    if ask.dialect is Dialect.MESSAGES:
        return MessagesListener(ask)
    if ask.dialect is Dialect.RESPONSES:
        return ResponsesListener(ask)
    return GenerateListener(ask)
