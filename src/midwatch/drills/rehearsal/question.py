"""One request to a model, in a form that no provider owns.

Dialects read their bodies into a `Question`; scripts, built-in behaviour and the prompt cache look at
nothing else. Ids that change from one try to the next (tool calls, responses) are left out, so that
the same question always has the same fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

from midwatch.drills.rehearsal import tokens

Json = dict[str, Any]
Api = Literal["chat", "responses", "messages", "generate", "embeddings"]
"""What a client speaks: `generate` is Gemini's generateContent."""


class BadQuestion(ValueError):
    """The body is no request of its dialect; `param` names the field."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


@dataclass(frozen=True)
class Tool:
    """A tool that the client offers; `schema` is the JSON schema of its arguments."""

    name: str
    description: str
    schema: Json


@dataclass(frozen=True)
class Call:
    """A tool call in an answer. `args` is text when it is not JSON on purpose."""

    tool: str
    args: Json | str

    def arguments(self) -> str:
        """Return the arguments as they travel."""
        return (
            self.args if isinstance(self.args, str) else json.dumps(self.args, ensure_ascii=False)
        )


@dataclass(frozen=True)
class Turn:
    """One message: what a person said, what the model answered, or what a tool returned.

    `ttl` marks where the client asked for a cache breakpoint, and for how long.
    """

    role: Literal["user", "assistant", "result"]
    text: str = ""
    calls: tuple[Call, ...] = ()
    tool: str = ""
    images: int = 0
    sounds: int = 0
    ttl: tokens.Ttl = ""

    def whole(self) -> str:
        """Return all that counts as text in it."""
        return self.text + "".join(f"\n{c.tool}({c.arguments()})" for c in self.calls)


@dataclass(frozen=True)
class Question:
    """What is asked: the conversation so far, the tools offered, and how the answer should travel."""

    api: Api
    model: str
    system: str = ""
    turns: tuple[Turn, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `any`, or the name of the tool that must be called."""
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    schema: Json | None = None
    """The JSON schema that the answer's text must have; `{}` for any JSON object."""
    tools_ttl: tokens.Ttl = ""
    system_ttl: tokens.Ttl = ""
    explicit_cache: bool = False
    """The dialect caches only up to a breakpoint (Anthropic), not by itself (OpenAI)."""
    prefill: str | None = None
    """The beginning of the answer, when the client gave one: the answer goes on from there."""
    thinks: int = 0
    """Tokens of reasoning before the answer."""
    shows_thoughts: bool = False
    tier: str = ""
    """The service tier that was asked for."""
    as_array: bool = False
    """Gemini's stream as one JSON array instead of server-sent events."""
    raw: Json = field(default_factory=dict[str, Any], compare=False)
    """The body, for what a dialect echoes."""

    @cached_property
    def user(self) -> str:
        """The last text that a person said."""
        return next((t.text for t in reversed(self.turns) if t.role == "user" and t.text), "")

    @cached_property
    def result(self) -> str:
        """The last tool result, or nothing."""
        return next((t.text for t in reversed(self.turns) if t.role == "result"), "")

    @cached_property
    def after(self) -> str:
        """The tool whose result the conversation ends with, or nothing."""
        last = self.turns[-1] if self.turns else None
        return last.tool if last is not None and last.role == "result" else ""

    @cached_property
    def turn(self) -> int:
        """Which answer of the conversation this one will be, from 1."""
        return 1 + sum(t.role == "assistant" for t in self.turns)

    @cached_property
    def step(self) -> int:
        """Which answer since a person last spoke this one will be, from 1."""
        count = 1
        for turn in reversed(self.turns):
            if turn.role == "user" and turn.text:
                break
            count += turn.role == "assistant"
        return count

    @cached_property
    def history(self) -> str:
        """Tool calls and results so far, one per line, oldest first."""
        lines: list[str] = []
        for turn in self.turns:
            lines += [f"{c.tool}({c.arguments()})" for c in turn.calls]
            if turn.role == "result":
                lines.append(f"{turn.tool} -> {turn.text}")
        return "\n".join(lines)

    def offers(self, name: str) -> bool:
        """Tell whether a tool of this name is offered."""
        return any(t.name == name for t in self.tools)

    @cached_property
    def tools_text(self) -> str:
        """The tools as they count in the prompt."""
        return "".join(
            f"{t.name}{t.description}{json.dumps(t.schema, ensure_ascii=False)}" for t in self.tools
        )

    @cached_property
    def fingerprint(self) -> str:
        """The same for the same question, whatever ids it carried, and wherever its answer begins."""
        parts = [self.api, self.model, self.system, self.tools_text, self.tool_choice]
        parts += [f"{t.role}:{t.tool}:{t.images}:{t.sounds}:{t.whole()}" for t in self.turns]
        parts.append(json.dumps(self.schema))
        return hashlib.blake2b(
            "\x00".join(parts).encode("utf-8", "replace"), digest_size=16
        ).hexdigest()

    def blocks(self) -> list[tokens.Block]:
        """Return the prompt in the order in which providers cache it: tools, system, messages."""
        blocks = [
            tokens.Block(self.tools_text, 0, self.tools_ttl),
            tokens.Block(self.system, 0, self.system_ttl),
        ]
        gemini = self.api == "generate"
        each = tokens.GEMINI_IMAGE_TOKENS if gemini else tokens.IMAGE_TOKENS
        blocks += [tokens.Block(t.whole(), t.images, t.ttl, t.sounds, each) for t in self.turns]
        if self.prefill:
            blocks.append(tokens.Block(self.prefill, 0))
        return blocks


# --- reading bodies: each gives the value or says what was expected instead ---


def as_object(value: Any, param: str) -> Json:
    """Return `value` when it is an object, else raise BadQuestion."""
    if not isinstance(value, dict):
        raise BadQuestion(f"{param}: expected an object, got {_show(value)}", param)
    return cast("Json", value)


def as_list(value: Any, param: str) -> list[Any]:
    """Return `value` when it is a list, else raise BadQuestion."""
    if not isinstance(value, list):
        raise BadQuestion(f"{param}: expected a list, got {_show(value)}", param)
    return cast("list[Any]", value)


def as_text(value: Any, param: str) -> str:
    """Return `value` when it is text, else raise BadQuestion."""
    if not isinstance(value, str):
        raise BadQuestion(f"{param}: expected text, got {_show(value)}", param)
    return value


def as_count(value: Any, param: str) -> int | None:
    """Return `value` when it is a whole number from 1 up or missing, else raise BadQuestion."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadQuestion(f"{param}: expected a whole number from 1 up, got {_show(value)}", param)
    return value


def as_stops(value: Any, param: str) -> tuple[str, ...]:
    """Return stop sequences, which come as one text, a list, or not at all."""
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    return tuple(as_text(v, param) for v in as_list(value, param))


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
