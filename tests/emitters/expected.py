"""What each recording must become, written by hand from what its script did: never from what the code says.

Every script holds the same conversation: turn 1 asks the model (1500 tokens in, 1024 of them cached; 63 out, 23 of
them reasoning), runs the tool `get_weather` once, and asks again (1600/1408, 40/7); turn 2 asks once more, streamed
(1700/1536, 11/0). Anthropic also writes 256 tokens to its cache in the first call. What differs is what an emitter
is able to say, and that stands here with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

AGENT: Final = "weather-clerk"
SESSION: Final = "conversation-7"


@dataclass(frozen=True)
class Call:
    """One model call. None: the emitter does not say it."""

    model: str
    provider: str | None
    input: int
    output: int
    cached: int | None = None
    written: int | None = None
    reasoning: int | None = None
    has_id: bool = True
    """It tells the provider's id of the answer."""


PRICES: Final = {
    "gpt-4o-mini": (150, 75, 0, 600),
    "claude-haiku-4-5": (1000, 100, 1250, 5000),
    "gemini-2.5-flash": (300, 30, 0, 2500),
}
"""Nano-dollars a token, from the providers' own pages: fresh, from a cache, to a cache, out."""


def cost_nusd(call: Call) -> int:
    """Return what a call costs by its figures, without the code's own arithmetic."""
    fresh, cached, written, out = next(
        price for name, price in PRICES.items() if call.model.startswith(name)
    )
    read, kept = call.cached or 0, call.written or 0
    return (call.input - read - kept) * fresh + read * cached + kept * written + call.output * out


@dataclass(frozen=True)
class Expected:
    """The normal form of one recording. Calls are those that have one answer, each once."""

    agents: frozenset[str]
    sessions: frozenset[str]
    turns: int
    calls: tuple[Call, ...]
    tools: tuple[str, ...]
    others: dict[str, int]
    """How many spans of other roles there are."""
    reported: tuple[int, ...] = ()
    """What the emitter itself says each call costs, in nano-dollars."""


def _calls(model: str, provider: str, **changes: object) -> tuple[Call, ...]:
    three = (
        Call(model, provider, 1500, 63, 1024, None, 23),
        Call(model, provider, 1600, 40, 1408, None, 7),
        Call(model, provider, 1700, 11, 1536, None, 0),
    )
    return tuple(replace(call, **changes) for call in three)  # pyright: ignore[reportArgumentType]


def _first(calls: tuple[Call, ...], **changes: object) -> tuple[Call, ...]:
    return (replace(calls[0], **changes), *calls[1:])  # pyright: ignore[reportArgumentType]


def _last(calls: tuple[Call, ...], **changes: object) -> tuple[Call, ...]:
    return (*calls[:-1], replace(calls[-1], **changes))  # pyright: ignore[reportArgumentType]


OPENAI: Final = _calls("gpt-4o-mini", "openai")
GEMINI: Final = _calls("gemini-2.5-flash", "google")
ANTHROPIC: Final = tuple(
    replace(call, written=written)
    for call, written in zip(_calls("claude-haiku-4-5", "anthropic"), (256, 0, 0), strict=True)
)
NOBODY: Final[frozenset[str]] = frozenset()
CLERK: Final = frozenset({AGENT})
THERE: Final = frozenset({SESSION})

EXPECTED: Final[dict[str, Expected]] = {
    # written by hand three times: session-a has two calls, b and c an agent with two calls and a tool
    "otel-plain": Expected(
        CLERK,
        frozenset({"session-a", "session-b", "session-c"}),
        2,
        (
            Call("gpt-4o-mini-2024-07-18", "openai", 1500, 63),
            Call("gpt-4o-mini-2024-07-18", "openai", 1700, 11),
            *(
                call
                for _ in range(2)
                for call in (
                    Call("claude-haiku-4-5-20251001", "anthropic", 1500, 63, 1024, 256),
                    Call("claude-haiku-4-5-20251001", "anthropic", 1600, 40, 1408, 0),
                )
            ),
        ),
        ("get_weather", "get_weather"),
        {"decision": 1, "retrieval": 1},
    ),
    # knows of no agent and no session, and says nothing of caches and reasoning
    "otel-openai": Expected(
        NOBODY, NOBODY, 0, _calls("gpt-4o-mini", "openai", cached=None, reasoning=None), (), {}
    ),
    # the script runs the tool itself, so there is no span of it; no reasoning is told where there was none
    "otel-google": Expected(NOBODY, NOBODY, 0, _last(GEMINI, reasoning=None), (), {}),
    "openinference-openai": Expected(NOBODY, THERE, 0, OPENAI, (), {}),
    # the client makes a span of its own within each; it knows no session, and tells reasoning only where there was some
    "openinference-anthropic": Expected(NOBODY, THERE, 0, _last(ANTHROPIC, reasoning=None), (), {}),
    "openinference-agents": Expected(
        CLERK,
        THERE,
        2,
        tuple(replace(call, written=0) for call in OPENAI),
        ("get_weather",),
        {},
    ),
    "openinference-langgraph": Expected(
        CLERK,
        THERE,
        2,
        # of a stream's answer it keeps no id, and of its figures none that is 0
        _last(OPENAI, has_id=False, reasoning=None),
        ("get_weather",),
        {},
    ),
    # of the interface that the SDK uses, responses, the usage says that nothing was written to a cache
    "logfire-agents": Expected(
        CLERK,
        THERE,
        2,
        tuple(replace(call, written=0) for call in OPENAI),
        ("get_weather",),
        {},
        (186_000, 158_400, 146_400),
    ),
    "logfire-pydantic-ai": Expected(
        CLERK, THERE, 2, OPENAI, ("get_weather",), {}, (186_000, 158_400, 146_400)
    ),
    # in a stream it says nothing of reasoning
    "traceloop-openai": Expected(NOBODY, NOBODY, 0, _last(OPENAI, reasoning=None), (), {}),
    # its stream adds the one token that an answer begins with to the eleven of its end; the client's own span, in a
    # trace of its own, says it rightly
    "traceloop-anthropic": Expected(NOBODY, NOBODY, 0, _last(ANTHROPIC, reasoning=None), (), {}),
    # leaves thoughts out of the output; its total has them
    "traceloop-google": Expected(NOBODY, NOBODY, 0, _last(GEMINI, reasoning=None), (), {}),
    "traceloop-agents": Expected(CLERK, NOBODY, 2, OPENAI, ("get_weather",), {}),
    # names no provider and no answer
    "langfuse": Expected(
        CLERK,
        THERE,
        2,
        tuple(replace(call, has_id=False, provider=None) for call in OPENAI),
        ("get_weather",),
        {},
    ),
    "mcp": Expected(CLERK, THERE, 1, (), ("get_weather",), {}),
    "vercel": Expected(CLERK, THERE, 2, OPENAI, ("get_weather",), {}),
    # a cycle, a session, two turns: our SDK does not tell reasoning
    "midwatch": Expected(
        CLERK,
        THERE,
        2,
        tuple(replace(call, written=0, reasoning=None) for call in OPENAI),
        ("get_weather",),
        {"cycle": 1},
        (186_000, 158_400, 146_400),
    ),
}
