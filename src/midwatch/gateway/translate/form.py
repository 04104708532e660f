"""What a call says and what comes back, in no provider's words: the middle between any two dialects.

One reader and one writer for each dialect meet here. What has no place in these shapes cannot be carried from
one kind of provider to another: the reader or the writer says so by name (`CannotTranslate`), or notes that
it was left out where that changes nothing in the answer's worth (`Notes`). Nothing goes missing unsaid.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

Json = dict[str, Any]

MAX_NOTES: Final = 24
"""Names of what was left out that are told; the rest is counted."""

MAX_NAME: Final = 120


class CannotTranslate(ValueError):
    """Something that another kind of provider has no word for. `name`: the field, `why`: for people."""

    def __init__(self, name: str, why: str) -> None:
        self.name = _line(name)
        self.why = _line(why)
        super().__init__(f"{self.name}: {self.why}")


class Notes:
    """What was left out, or changed, on the way: fields by their names, each once, in order."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self.more = 0
        """Names beyond MAX_NOTES."""

    def leave(self, name: str) -> None:
        name = _line(name)
        if name in self._names:
            return
        if len(self._names) >= MAX_NOTES:
            self.more += 1
        else:
            self._names[name] = None

    @property
    def names(self) -> tuple[str, ...]:
        more = (f"{self.more} more",) if self.more else ()
        return (*self._names, *more)


def _line(text: str) -> str:
    """Return a stranger's name for a header and a log: printable ASCII, bounded."""
    shown = text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= MAX_NAME else shown[: MAX_NAME - 3] + "..."


# -- what is said ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """A picture: base64 with its type, or an address."""

    mime: str = ""
    data: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A PDF, as base64."""

    data: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call."""

    id: str
    name: str
    arguments: Json


@dataclass(frozen=True, slots=True)
class Result:
    """What a tool call came to. `name`: of the tool, which the call with this id says."""

    id: str
    content: tuple[Text | Image, ...]
    name: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Thought:
    """Reasoning that is shown. Only in answers: in a history it is its own provider's alone."""

    text: str


Part = Text | Image | Document | Call | Result | Thought


class Role(StrEnum):
    USER = "user"
    MODEL = "model"


@dataclass(frozen=True, slots=True)
class Turn:
    """All that one side says before the other one speaks. Results of tools are the user's."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str = ""
    schema: Json | None = None
    """JSON schema of the arguments; None: it takes none."""


class Mode(StrEnum):
    """Whether the model calls tools."""

    UNSAID = "unsaid"
    AUTO = "auto"
    NONE = "none"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Choice:
    mode: Mode = Mode.UNSAID
    name: str = ""
    """With ANY: the one tool."""
    parallel: bool = True
    """Several calls at once are allowed."""


@dataclass(frozen=True, slots=True)
class Form:
    """The answer is JSON; with a schema, of that form."""

    schema: Json | None = None
    name: str = "answer"


@dataclass(frozen=True, slots=True)
class Conversation:
    """One request."""

    turns: tuple[Turn, ...]
    system: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    choice: Choice = Choice()
    max_output: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence: float | None = None
    frequency: float | None = None
    seed: int | None = None
    stops: tuple[str, ...] = ()
    form: Form | None = None
    user: str = ""
    """Whom the client serves, in its own naming."""
    stream: bool = False


def settled(conversation: Conversation, where: str) -> Conversation:
    """Return a conversation as all three dialects take it. Raises CannotTranslate.

    1. empty texts go: two of three dialects refuse them, and they say nothing; 2. what one side says in a row
    is one turn; 3. the user begins and ends; 4. each result answers a call of the turn before it.
    """
    turns: list[Turn] = []
    for turn in conversation.turns:
        parts = tuple(p for p in turn.parts if not isinstance(p, Text) or p.text)
        if not parts:
            continue
        if turns and turns[-1].role is turn.role:
            turns[-1] = Turn(turn.role, turns[-1].parts + parts)
        else:
            turns.append(Turn(turn.role, parts))
    if not turns:
        raise CannotTranslate(where, "nothing is said")
    if turns[0].role is not Role.USER:
        raise CannotTranslate(f"{where}[0]", "other providers want the user to begin")
    if turns[-1].role is not Role.USER:
        said = "an answer that the client begins is not continued alike by other providers"
        raise CannotTranslate(f"{where}[-1]", said)
    return replace(conversation, turns=tuple(_matched(turns, where)))


def _matched(turns: Sequence[Turn], where: str) -> Iterable[Turn]:
    """Give each result the name of its tool; results come first in their turn."""
    asked: dict[str, str] = {}
    for turn in turns:
        if turn.role is Role.MODEL:
            asked = {part.id: part.name for part in turn.parts if isinstance(part, Call)}
            yield turn
            continue
        results: list[Part] = []
        rest: list[Part] = []
        for part in turn.parts:
            if not isinstance(part, Result):
                rest.append(part)
                continue
            name = asked.pop(part.id, None)
            if name is None:
                raise CannotTranslate(
                    f"{where}.tool_result", f"no call before it has the id {part.id[:60]!r}"
                )
            results.append(replace(part, name=name))
        yield Turn(turn.role, (*results, *rest))


# -- what comes back ---------------------------------------------------------------------------


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    SEQUENCE = "sequence"
    """One of the client's stops was met."""
    LENGTH = "length"
    TOOLS = "tools"
    FILTER = "filter"
    """Declined: by the model, or by a filter."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole answer. Its usage is read by the provider's own reader (`core.pricing`)."""

    parts: tuple[Text | Thought | Call, ...]
    finish: Finish
    id: str = ""
    model: str = ""
    stop: str = ""
    """The stop that was met, with SEQUENCE."""


def ended(finish: Finish, *, called: bool) -> Finish:
    """Return why an answer ended, now that it is known whether tools are called: not every provider says so."""
    if called:
        return Finish.TOOLS if finish in (Finish.STOP, Finish.SEQUENCE) else finish
    return Finish.STOP if finish is Finish.TOOLS else finish


def joined(parts: Iterable[Text | Thought | Call]) -> tuple[Text | Thought | Call, ...]:
    """Return the parts of an answer, what is said in a row as one, and nothing empty."""
    found: list[Text | Thought | Call] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, Call):
            found.append(part)
        elif isinstance(last, Text | Thought) and type(last) is type(part):
            found[-1] = type(part)(last.text + part.text)
        elif part.text:
            found.append(part)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Said:
    text: str


@dataclass(frozen=True, slots=True)
class Mused:
    """A piece of shown reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A tool call begins. `index`: among the calls of this answer, from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Argued:
    """A piece of the JSON text of a call's arguments."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    finish: Finish
    stop: str = ""


Delta = Said | Mused | Called | Argued | Finished


# -- ids ---------------------------------------------------------------------------------------

_FITTING: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
"""Ids of calls that every dialect takes: OpenAI bounds their length, Anthropic their letters."""


def fitting(identity: str) -> str:
    """Return an id of a call that every dialect takes: the same one for the same, always."""
    return identity if _FITTING.fullmatch(identity) else made(identity)


def made(*facts: object) -> str:
    """Return an id made of what is known, for calls that come without one."""
    text = "\x1f".join(str(fact) for fact in facts)
    return "call_" + hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class Frame:
    """What an answer's writer needs beside the answer itself."""

    id: str
    """For answers without one of their own."""
    model: str
    """The place's name for it, where the answer says none."""
    created: int
    """Unix seconds."""
    asked: str = ""
    """The model that the client asked for."""
    usage_asked: bool = True
    """The client of a chat stream wants the usage."""
    array: bool = False
    """Gemini's stream as one JSON array."""
