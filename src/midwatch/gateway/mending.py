"""What follows when an answer breaks off in mid-stream and its client has a part of it.

`continue`: another attempt goes on where it stopped; the beginning is given to the model as its own. `restart`: the
same is asked again, and the new answer is passed on behind the part that the client has, when it begins with
exactly that. Either way the client sees one answer: one beginning, one id, blocks numbered through, one
sentinel, and a usage that is the sum of all attempts, as it is charged. Where neither can be, the stream
ends with an error.

Pure: no I/O, no clock. `Mending` is what the client has; `Graft` turns one further stream into its rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from pydantic_core import from_json

from midwatch.core.calls.ask import Ask, Dialect
from midwatch.core.calls.chain import Place
from midwatch.gateway.dialects import Event, Listener, Route, What, additions, sse
from midwatch.gateway.dialects.listeners import THOUGHTS, MessagesListener
from midwatch.gateway.settings import Settings

Json = dict[str, Any]

CONTINUE: Final = "continue"
RESTART: Final = "restart"


@dataclass(slots=True)
class Mending:
    """What a client has of an answer that broke off, and how it is gone on with."""

    route: Route
    restart: bool
    text: str = ""
    pieces: int = 0
    """Tokens that the client has, at least."""
    response_id: str = ""
    created: object = None
    block: int = -1
    """Anthropic's: the newest block, and whether it is open."""
    block_open: bool = False
    sequence: int = -1
    input_tokens: int = 0
    """Charged for the attempts that broke off; their output, too."""
    output_tokens: int = 0
    listener: Listener | None = None
    """Of what went out last: the error is told behind it."""
    tried: set[str] = field(default_factory=set[str])

    @property
    def beginning(self) -> str:
        """The text that a model is given as its own; Anthropic takes none that ends in white space."""
        return self.text.rstrip()

    def broke(self, listener: Listener, graft: Graft | None, usage: tuple[int, int]) -> None:
        """Note what the client got of a further attempt, and what that is charged (tokens in, out). `listener`: of
        the client's dialect, to what went out."""
        self.listener = listener
        self.input_tokens += usage[0]
        self.output_tokens += usage[1]
        if graft is not None:
            self.text += graft.passed
            self.pieces += graft.pieces
            self.block, self.block_open = graft.block, graft.block_open
            return
        self.text, self.pieces = listener.text(), listener.pieces
        self.response_id, self.created = listener.response_id, listener.created
        if isinstance(listener, MessagesListener):
            self.block, self.block_open = listener.block, listener.block_open

    def may(self, settings: Settings, place: Place) -> bool:
        """Tell whether a place can go on: its model is known to continue, or nothing has to be known of it."""
        return self.restart or not self.beginning or continues(settings, place)

    def ask(self, ask: Ask) -> Ask:
        """Return the facts of the request that goes on."""
        if self.restart or not self.beginning:
            return ask
        bound = None if ask.max_output is None else self._bound(ask.max_output)
        tokens = ask.input_tokens + additions.tokens_of(self.beginning)
        return replace(ask, input_tokens=tokens, max_output=bound)

    def body(self, ask: Ask, body: bytes, seller: str) -> bytes:
        """Return the request that goes on. Raises BadRequest."""
        if self.restart or not self.beginning:
            return body
        if ask.max_output is not None:
            body = additions.with_bound(ask, body, self._bound(ask.max_output))
        form = additions.form_of(ask.dialect, seller)
        return additions.with_prefill(ask, body, self.beginning, form)

    def _bound(self, bound: int) -> int:
        return max(1, bound - self.pieces)

    @property
    def owed(self) -> str:
        """What the further stream may, or must, repeat before its text is new to the client."""
        return self.text if self.restart else self.text[len(self.beginning) :]


def continues(settings: Settings, place: Place) -> bool:
    """Tell whether a place's model is known to go on with an answer that is begun for it: by the fleet file, or
    by a price list. Unknown is no: a model that rejects it answers with an error that hides the real one."""
    told = settings.chains.about(place.model).prefill
    if told is not None:
        return told
    seller = settings.providers[place.provider].seller
    return settings.shelf.find(place.provider, seller, place.model).prefill


def begin(policy: str, route: Route, listener: Listener) -> tuple[Mending | None, str]:
    """Return how an answer that broke off is gone on with; None with the reason: not at all. `listener`: of the
    client's dialect."""
    if policy not in (RESTART, CONTINUE):
        return None, "models.on_cut says so"
    if route.dialect not in additions.CONTINUABLE:
        return None, f"{route.dialect.value} cannot be continued"
    if not listener.text_only:
        return None, "more than one text had begun"
    if policy == RESTART:
        return Mending(route, restart=True), ""
    if not listener.continuable:
        return None, "it has a form that must be whole"
    return Mending(route, restart=False), ""


class Graft:
    """One further stream on its way to become the rest of an answer."""

    def __init__(self, mending: Mending) -> None:
        self.passed = ""
        """The text that went out."""
        self.pieces = 0
        self.broken: str | None = None
        """Why this stream is not the rest of what the client has."""
        self.block = mending.block
        self.block_open = mending.block_open
        self._mending = mending
        self._owed = mending.owed
        self._strict = mending.restart
        self._offset: int | None = None
        turn: dict[Dialect, Callable[[Json], list[Json]]] = {
            Dialect.CHAT: self._chat,
            Dialect.MESSAGES: self._message,
            Dialect.GENERATE: self._generate,
        }
        self._turn = turn[mending.route.dialect]

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
        made = self._turn(value)
        if self.broken is not None:
            return b""
        return b"".join([_render(one, name, array=array) for one in made])

    def _new(self, text: str) -> str:
        """Return what of a text the client does not have yet."""
        owed = self._owed
        if owed:
            count = _common(owed, text)
            self._owed = owed[count:]
            if count < len(text) and self._owed:
                if self._strict:
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
        if self._strict and self._owed:
            self.broken = "the new answer begins otherwise"

    def _end(self) -> None:
        if self._strict and self._owed:
            self.broken = "the new answer is shorter"

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
