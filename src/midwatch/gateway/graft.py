"""One further stream on its way to become the rest of an answer that broke off (`mending`): what of its events goes
to the client, and as what. Pure: no I/O, no clock.

Of OpenAI's responses the events that end one carry its text anew. The response itself passes as the provider says
it, with its own ids, since a further request can refer to that response alone; of one that a request asked for, its
text is made whole.

The rest that a request asked for begins with the client's last words, or it is none. The first event of it that
goes out bears a mark (`MARK`), since nothing proves that it is what would have followed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from pydantic_core import from_json

from midwatch.core.calls.ask import Dialect
from midwatch.gateway.dialects import Event, What, sse
from midwatch.gateway.dialects.listeners import THOUGHTS
from midwatch.gateway.mending import Mending, Way

MARK: Final = {"seam": "unproven"}
"""What stands under `midwatch` in the first event behind a seam that nothing proves. Clients pass over what they do
not know."""

Json = dict[str, Any]


class Graft:
    """One further stream on its way to become the rest of an answer."""

    def __init__(self, mending: Mending, way: Way | None) -> None:
        self.passed = ""
        """The text that went out."""
        self.pieces = 0
        self.broken: str | None = None
        """Why this stream is not the rest of what the client has."""
        self.block: int = mending.block
        self.block_open: bool = mending.block_open
        self.sequence: int = mending.sequence
        """The number of the newest event that went out."""
        self.done = set(mending.done)
        self._item: object = None
        """The id of the item that becomes the one which the client has."""
        self._mending = mending
        self._owed, self._loose = mending.owed(way)
        """What the stream has to say before anything is new, and how much of its end may come otherwise."""
        self._asked = way is Way.REQUEST
        self._blank = self._asked
        """White space before the first word is the new answer's own."""
        self._offset: int | None = None
        turn: dict[Dialect, Callable[[Json], list[Json]]] = {
            Dialect.CHAT: self._chat,
            Dialect.MESSAGES: self._message,
            Dialect.GENERATE: self._generate,
            Dialect.RESPONSES: self._response,
        }
        self._turn = turn[mending.route.dialect]

    @property
    def unproven(self) -> bool:
        """The client has text behind a seam that nothing proves."""
        return self._asked and self.pieces > 0

    def feed(self, events: Sequence[Event]) -> bytes:
        """Return what goes to the client for the stream's next events; nothing more once it is `broken`."""
        out: list[bytes] = []
        for event in events:
            if self.broken is not None:
                break
            if event.what in (What.MALFORMED, What.ERROR, What.PING):
                continue  # a ping between is the old stream's to send; nobody misses it
            out.append(self._event(event))
        return b"".join(out)

    def _event(self, event: Event) -> bytes:
        array = self._mending.route.array
        raw = event.raw.strip().lstrip(b"[,").strip() if array else event.raw
        name, data = (b"", raw) if array else sse.fields(raw)
        value = _object(data)
        if value is None:  # [DONE], the closing bracket
            self._end()
            return b"" if self.broken is not None else raw
        before = self.pieces
        made = self._turn(value)
        if self.broken is not None:
            return b""
        if made and self.unproven and not before:
            made[0]["midwatch"] = MARK
        return b"".join([_render(one, name, array=array) for one in made])

    def _new(self, text: str) -> str:
        """Return what of a text the client does not have yet."""
        if self._blank:
            text = text.lstrip()
            self._blank = not text
        owed = self._owed
        if owed:
            count = _common(owed, text)
            self._owed = owed[count:]
            if count < len(text) and self._owed:
                if self._must:
                    self.broken = "the new answer begins otherwise"
                    return ""
                self._owed = ""  # white space that was cut off, and comes otherwise now
            text = text[count:]
        if text:
            self.passed += text
            self.pieces += 1
        return text

    def _other(self) -> None:
        """Something that is no text comes: everything owed must have come before."""
        if self._must:
            self.broken = "the new answer begins otherwise"

    def _end(self) -> None:
        if self._must:
            self.broken = "the new answer is shorter"

    @property
    def _must(self) -> bool:
        """Something has yet to be said as the client has it."""
        return len(self._owed) > self._loose

    def _whole(self, part: Json) -> Json:
        """Return the part in which the client's text stands, or the event that ends it, with all of that text."""
        if not self._asked or not isinstance(part.get("text"), str):
            return part
        return {**part, "text": self._mending.text + self.passed}

    # -- OpenAI's chat -----------------------------------------------------------------------------

    def _chat(self, value: Json) -> list[Json]:
        mending = self._mending
        if mending.response_id:
            value["id"] = mending.response_id
        if mending.created is not None and "created" in value:
            value["created"] = mending.created
        usage = value.get("usage")
        worth = isinstance(usage, dict)
        if isinstance(usage, dict):
            self._add(cast("Json", usage), "prompt_tokens", "completion_tokens", "total_tokens")
        for choice in _objects(value.get("choices")):
            worth = self._choice(choice) or worth
        return [value] if worth else []

    def _choice(self, choice: Json) -> bool:
        """Take out of a choice what the client has; return whether something is left."""
        delta = choice.get("delta")
        left = False
        if isinstance(delta, dict):
            shown = cast("Json", delta)
            for key in ("role", *THOUGHTS):
                shown.pop(key, None)
            content = shown.get("content")
            if isinstance(content, str):
                shown["content"] = self._new(content)
                if not shown["content"]:
                    del shown["content"]
            if any(said for key, said in shown.items() if key != "content"):
                self._other()
            left = any(shown.values())
        if choice.get("finish_reason"):
            self._end()
            left = True
        return left

    # -- Anthropic's messages ----------------------------------------------------------------------

    def _message(self, value: Json) -> list[Json]:
        kind = value.get("type")
        if kind == "message_start":
            return []
        if kind == "content_block_start":
            return self._block(value)
        if kind == "content_block_delta":
            delta = value.get("delta")
            shown = cast("Json", delta) if isinstance(delta, dict) else {}
            if isinstance(shown.get("text"), str):
                shown["text"] = self._new(shown["text"])
                if not shown["text"]:
                    return []
            else:
                self._other()
            return [self._numbered(value)]
        if kind == "content_block_stop":
            self.block_open = False
            return [self._numbered(value)]
        if kind == "message_delta":
            self._end()
            usage = value.get("usage")
            if isinstance(usage, dict):
                self._add(cast("Json", usage), "input_tokens", "output_tokens", "")
        elif kind == "message_stop":
            self._end()
        return [value]

    def _block(self, value: Json) -> list[Json]:
        """A block begins: the first one is the client's open block, when both are text."""
        block, number = value.get("content_block"), value.get("index")
        shown = cast("Json", block) if isinstance(block, dict) else {}
        index = number if isinstance(number, int) else 0
        closing: list[Json] = []
        text = shown.get("text") if shown.get("type") == "text" else None
        if self._offset is None:
            if text is not None and self.block_open:
                self._offset = self.block - index
                new = self._new(text) if isinstance(text, str) else ""
                return [_text_delta(self.block, new)] if new else []
            if self.block_open:
                closing = [{"type": "content_block_stop", "index": self.block}]
            self._offset = self.block + 1 - index
        if text is None:
            self._other()
        elif isinstance(text, str):
            shown["text"] = self._new(text)
        self.block, self.block_open = index + self._offset, True
        return [*closing, self._numbered(value)]

    def _numbered(self, value: Json) -> Json:
        index = value.get("index")
        if isinstance(index, int):
            value["index"] = index + (self._offset or 0)
        return value

    # -- Gemini's generateContent --------------------------------------------------------------------

    def _generate(self, value: Json) -> list[Json]:
        if self._mending.response_id:
            value["responseId"] = self._mending.response_id
        left = False
        for candidate in _objects(value.get("candidates")):
            content = candidate.get("content")
            if isinstance(content, dict):
                left = self._parts(cast("Json", content)) or left
            if candidate.get("finishReason") is not None:
                self._end()
                left = True
        usage = value.get("usageMetadata")
        if isinstance(usage, dict):
            self._add(
                cast("Json", usage), "promptTokenCount", "candidatesTokenCount", "totalTokenCount"
            )
        return [value] if left else []

    def _parts(self, content: Json) -> bool:
        parts: list[Json] = []
        for part in _objects(content.get("parts")):
            text = part.get("text")
            if part.get("thought") is True:
                continue
            if isinstance(text, str):
                part["text"] = self._new(text)
                if not part["text"]:
                    continue
            else:
                self._other()
            parts.append(part)
        content["parts"] = parts
        return bool(parts)

    # -- OpenAI's responses ----------------------------------------------------------------------------

    def _response(self, value: Json) -> list[Json]:
        kind = str(value.get("type"))
        if kind in _BEGUN or kind.startswith("response.reasoning"):
            return []  # the client has a beginning, and thoughts that led to the same
        if kind.startswith("response.output_item."):
            value = self._output_item(kind, value)
        elif kind == "response.content_part.added" and value.get("item_id") == self._item:
            if value.get("content_index") == self._mending.place["content_index"]:
                return []
            self._other()
        elif kind == "response.output_text.delta":
            new = self._new(str(value.get("delta") or ""))
            value = {**value, "delta": new, "logprobs": []} if new else {}
        elif kind in ("response.output_text.done", "response.content_part.done"):
            value = self._over(kind, value)
        elif kind in ("response.completed", "response.incomplete"):
            self._end()
            response = value.get("response")
            if isinstance(response, dict):
                value = {**value, "response": self._ended(cast("Json", response))}
        if not value:
            return []
        self.sequence += 1
        return [{**self._placed(value), "sequence_number": self.sequence}]

    def _output_item(self, kind: str, value: Json) -> Json:
        """Return an event by which an item begins or ends; {}: the client has it, or does not need it."""
        item = value.get("item")
        shown = cast("Json", item) if isinstance(item, dict) else {}
        if shown.get("type") == "reasoning":
            return {}
        begins = kind.endswith("added")
        if shown.get("type") != "message" or (begins and self._item is not None):
            self._other()
            return value
        if begins:
            self._item, index = shown.get("id"), value.get("output_index")
            first = self._mending.place["output_index"]
            if isinstance(index, int) and isinstance(first, int):
                self._offset = first - index
            return {}
        if shown.get("id") == self._item:
            value = self._over(kind, value)
            shown = {**self._item_whole(shown), "id": self._mending.place["item_id"]}
            return {**value, "item": shown} if value else {}
        return value

    def _over(self, kind: str, value: Json) -> Json:
        """Return the event by which the text ends; {}: the client has it."""
        self._end()
        if kind in self.done:
            return {}
        self.done.add(kind)
        part = value.get("part")
        if isinstance(part, dict):
            return {**value, "part": self._whole(cast("Json", part))}
        return self._whole(value)

    def _ended(self, response: Json) -> Json:
        """Return the whole response, as the last event carries it."""
        usage, items = response.get("usage"), _objects(response.get("output"))
        if isinstance(usage, dict):
            self._add(cast("Json", usage), "input_tokens", "output_tokens", "total_tokens")
        if not self._asked or not items:
            return response
        return {**response, "output": [self._item_whole(item) for item in items]}

    def _item_whole(self, item: Json) -> Json:
        """Return an item with all of the client's text in it, where it is the one in which that stands."""
        parts, place = _objects(item.get("content")), self._mending.place.get("content_index")
        if not self._asked or item.get("id") != self._item or not parts:
            return item
        whole = [self._whole(part) if n == place else part for n, part in enumerate(parts)]
        return {**item, "content": whole}

    def _placed(self, value: Json) -> Json:
        """Return an event that names the item and the index that the client knows."""
        if value.get("item_id") is not None and value.get("item_id") == self._item:
            value = {**value, "item_id": self._mending.place["item_id"]}
        index = value.get("output_index")
        return (
            {**value, "output_index": index + (self._offset or 0)}
            if isinstance(index, int)
            else value
        )

    def _add(self, usage: Json, inside: str, out: str, total: str) -> None:
        """Add what the attempts before used."""
        mending = self._mending
        for key, more in (
            (inside, mending.input_tokens),
            (out, mending.output_tokens),
            (total, mending.input_tokens + mending.output_tokens),
        ):
            count = usage.get(key)
            if isinstance(count, int) and not isinstance(count, bool):
                usage[key] = count + more


_BEGUN: Final = ("response.created", "response.in_progress", "response.queued")


def _common(owed: str, text: str) -> int:
    """Return how many characters both begin with alike."""
    if text.startswith(owed):
        return len(owed)
    if owed.startswith(text):
        return len(text)
    return next(n for n, (one, two) in enumerate(zip(owed, text, strict=False)) if one != two)


def _text_delta(index: int, text: str) -> Json:
    delta = {"type": "text_delta", "text": text}
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _objects(value: object) -> list[Json]:
    listed = cast("list[Any]", value) if isinstance(value, list) else []
    return [item for item in listed if isinstance(item, dict)]


def _object(data: bytes | None) -> Json | None:
    try:
        value = from_json(data) if data is not None else None
    except ValueError:
        return None
    return cast("Json", value) if isinstance(value, dict) else None


def _render(value: Json, name: bytes, *, array: bool) -> bytes:
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    if array:
        return b"," + data
    kind = value.get("type")
    if name and isinstance(kind, str):  # Anthropic names each event by its type
        name = kind.encode("ascii", "replace")
    return (b"event: " + name + b"\n" if name else b"") + b"data: " + data + b"\n\n"
