"""What is asked: the facts of one model call, read once by its dialect. No stage looks into the body again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from midwatch.core.sealed import sealed


class Kind(StrEnum):
    """Families of providers: whose paths, headers and words are spoken."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


class Dialect(StrEnum):
    """Shapes of request and answer."""

    CHAT = "chat"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"
    COUNT = "count"
    """Anthropic's count_tokens and Gemini's countTokens: nothing is generated, nothing is paid."""
    GENERATE = "generate"
    MODELS = "models"
    """A question about which models there are."""


KIND: Mapping[Dialect, Kind] = {
    Dialect.CHAT: Kind.OPENAI,
    Dialect.RESPONSES: Kind.OPENAI,
    Dialect.EMBEDDINGS: Kind.OPENAI,
    Dialect.MESSAGES: Kind.ANTHROPIC,
    Dialect.GENERATE: Kind.GEMINI,
}
"""Whose a dialect is, where it is one provider's alone."""


@sealed
class Ask:
    """One call as its client put it."""

    kind: Kind
    dialect: Dialect
    model: str
    """As asked for; with the provider in front where the client names one: `openai/gpt-4o`."""
    stream: bool = False
    input_tokens: int = 0
    """Counted from above: never fewer than the provider will bill, as far as that can be known beforehand."""
    max_output: int | None = None
    """The bound that the client set; None: the model's own."""
    choices: int = 1
    """Answers asked for at once (`n`, `candidateCount`): each may be as long."""
    tools: bool = False
    images: bool = False
    usage_asked: bool = True
    """False: a chat stream whose client did not ask for usage, so that what we add is taken out again."""
    tier: str = "default"
    """Service tier asked for: default, batch, flex, priority."""
    task: str | None = None
    session: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    request_hash: str = ""
    """Of the whole request, ids and times taken out: the same question asked twice has the same."""
    result_hash: str | None = None
    """Of the newest tool result among the messages, None without one."""
    prompt: str = ""
    """The beginning of the newest text of the user, bounded: for conditions such as prompt.contains(…)."""
    opening: int = 0
    """Of its first words, within this process: calls of one conversation have the same."""
    system_hash: str = ""
    """Of system prompt and tools: what stays the same from call to call."""
    system_tokens: int = 0
    """Their share of `input_tokens`."""
    tool_tokens: int = 0
    """The share of the tools' definitions in `system_tokens`."""
    structured: bool = False
    """The answer must have a form (a schema, JSON): what is cut cannot be continued."""
    audio: bool = False
    """Sound goes in or comes out, which has prices of its own."""
    draws: bool = False
    """The answer may contain images, which have prices of their own."""
    cache_write: str = ""
    """The longest time for which the client asks the provider to keep a part of the prompt: 5m or 1h."""
    unseen: tuple[str, ...] = ()
    """What of the input is not in the request, such as previous_response_id: reckon with the whole window."""
    unbounded: tuple[str, ...] = ()
    """What has no bound at all, such as a web search without max_uses: the cost cannot be known beforehand."""
    searches: int = 0
    """Paid searches that the provider may make, where the client bounds them."""
    region: str = ""
    """Where the client asks for it to be computed, when that is dearer (Anthropic's `inference_geo`)."""
    array: bool = False
    """The stream is Gemini's one JSON array instead of server-sent events."""
