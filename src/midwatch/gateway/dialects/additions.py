"""What the gateway adds to a request, each by a splice that leaves every other byte as it came.

    with_prefill    the beginning of the answer, for a model that goes on with it
    with_rest_asked the beginning of the answer, and the question for its rest
    with_note       a word to the model at the end of the conversation
    with_mark       Anthropic's marker behind what stays the same from call to call

They raise BadRequest for a body without the place that they need; nobody is asked then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

from midwatch.core.calls.ask import Ask, Dialect
from midwatch.gateway.dialects import counting
from midwatch.gateway.dialects.bodies import BadRequest, Member, elements, members


class Prefill(StrEnum):
    """How a provider is told that the last message is the beginning of its own answer."""

    PLAIN = "plain"  # by standing last: Anthropic, Gemini, routers
    PREFIX = "prefix"  # `prefix: true` beside it: Mistral, DeepSeek
    PARTIAL = "partial"  # `partial: true` beside it: Moonshot, Qwen
    SERVER = (
        "server"  # both `prefix` and `continue_final_message`: vLLM, SGLang, and who copies them
    )


_FORMS: Final = {
    "mistral": Prefill.PREFIX,
    "deepseek": Prefill.PREFIX,
    "moonshotai": Prefill.PARTIAL,
    "dashscope": Prefill.PARTIAL,
    "openrouter": Prefill.PLAIN,
    "anthropic": Prefill.PLAIN,
    "google": Prefill.PLAIN,
    "aws": Prefill.PLAIN,
}
"""By whose price list holds, for providers that speak OpenAI's dialect."""

MARK_TOKENS: Final = 1024
"""Providers keep no shorter prefix."""

CONTINUABLE: Final = frozenset((Dialect.CHAT, Dialect.MESSAGES, Dialect.GENERATE))
"""Dialects in which an answer can be begun for a model. OpenAI's responses know no such thing."""


def form_of(dialect: Dialect, seller: str) -> Prefill:
    """Return how a seller's models are given the beginning of an answer."""
    if dialect is not Dialect.CHAT:
        return Prefill.PLAIN
    return _FORMS.get(seller, Prefill.SERVER)


def with_prefill(ask: Ask, body: bytes, text: str, form: Prefill) -> bytes:
    """Return a request whose answer is begun with `text`, which does not end in white space: Anthropic
    refuses that. Raises BadRequest."""
    if ask.dialect is Dialect.GENERATE:
        turn: dict[str, Any] = {"role": "model", "parts": [{"text": text}]}
        return _appended(body, _member(body, "contents"), turn)
    said: Any = [{"type": "text", "text": text}] if ask.dialect is Dialect.MESSAGES else text
    turn = {"role": "assistant", "content": said}
    if form in (Prefill.PREFIX, Prefill.SERVER):
        turn["prefix"] = True
    elif form is Prefill.PARTIAL:
        turn["partial"] = True
    body = _appended(body, _member(body, "messages"), turn)
    if form is Prefill.SERVER:
        body = _first(body, b'"continue_final_message":true,"add_generation_prompt":false')
    return body


def with_rest_asked(ask: Ask, body: bytes, text: str, note: str) -> bytes:
    """Return a request that shows a model what it said so far, and asks for the rest with `note`. Raises
    BadRequest."""
    if ask.dialect is Dialect.GENERATE:
        said: list[Any] = [{"role": "model", "parts": [{"text": text}]}]
        said.append({"role": "user", "parts": [{"text": note}]})
        return _appended(body, _member(body, "contents"), *said)
    said = [{"role": "assistant", "content": text}, {"role": "user", "content": note}]
    if ask.dialect is Dialect.RESPONSES:
        return _with_input(body, *said)
    return _appended(body, _member(body, "messages"), *said)


def with_bound(ask: Ask, body: bytes, bound: int) -> bytes:
    """Return a request whose answer is bound to so many tokens, where the client bound it at all."""
    listed = members(body)
    if ask.dialect is Dialect.GENERATE:
        config = next(
            (m for m in listed if m.key in ("generationConfig", "generation_config")), None
        )
        if config is None or body[config.start : config.start + 1] != b"{":
            return body
        listed = members(body, config.start)
    for member in reversed(listed):
        if member.key in _BOUNDS and body[member.start : member.end] != b"null":
            body = body[: member.start] + str(bound).encode() + body[member.end :]
    return body


_BOUNDS: Final = frozenset(
    ("max_tokens", "max_completion_tokens", "maxOutputTokens", "max_output_tokens")
)


def tokens_of(text: str) -> int:
    """Return the tokens, from above, that an added message brings with it."""
    return counting.of_text(text) + counting.PER_MESSAGE


def with_note(ask: Ask, body: bytes, note: str) -> bytes:
    """Return a request that ends with a note to the model. Raises BadRequest.

    At the end, not in the system prompt: what the provider has cached of the prompt stays good.
    """
    if ask.dialect is Dialect.GENERATE:
        turn = {"role": "user", "parts": [{"text": note}]}
        return _appended(body, _member(body, "contents"), turn)
    if ask.dialect is Dialect.RESPONSES:
        return _noted_input(body, note)
    place = _member(body, "messages")
    if ask.dialect is Dialect.MESSAGES:
        return _noted_message(body, place, note)
    return _appended(body, place, {"role": "system", "content": note})


def _noted_input(body: bytes, note: str) -> bytes:
    return _with_input(body, {"role": "developer", "content": note})


def _with_input(body: bytes, *turns: object) -> bytes:
    """Return a request for a response with further turns in its input, which may be a text alone."""
    place = _member(body, "input")
    if body[place.start : place.start + 1] == b"[":
        return _appended(body, place, *turns)
    said = b'[{"role":"user","content":' + body[place.start : place.end] + b"}," + _listed(turns)
    return body[: place.start] + said + b"]" + body[place.end :]


def _noted_message(body: bytes, place: Member, note: str) -> bytes:
    """Anthropic's: a further block of the last message; as a message of its own when that is the model's."""
    last = elements(body, place.start)[-1:]
    block = {"type": "text", "text": note}
    for start, _ in last:
        own = {member.key: member for member in members(body, start)}
        content = own.get("content")
        role = own.get("role")
        if content is None or role is None or body[role.start : role.end] != b'"user"':
            break
        if body[content.start : content.start + 1] == b"[":
            return _appended(body, content, block)
        said = b'[{"type":"text","text":' + body[content.start : content.end] + b"}," + _dump(block)
        return body[: content.start] + said + b"]" + body[content.end :]
    raise BadRequest("messages: the last one is not the user's", "messages")


def with_mark(ask: Ask, body: bytes) -> bytes | None:
    """Return a request to Anthropic whose system prompt, or tools without one, are marked for its cache; None
    where there is nothing to mark: too short, or the client sets its own marks."""
    if ask.dialect is not Dialect.MESSAGES or ask.system_tokens < MARK_TOKENS or ask.cache_write:
        return None
    if b'"cache_control"' in body:
        return None
    own = {member.key: member for member in members(body)}
    system, tools = own.get("system"), own.get("tools")
    if system is not None and body[system.start : system.start + 1] == b'"':
        text = body[system.start : system.end]
        if text != b'""':
            said = b'[{"type":"text","text":' + text + b"," + _MARK + b"}]"
            return body[: system.start] + said + body[system.end :]
    for place in (system, tools):
        if place is not None and body[place.start : place.start + 1] == b"[":
            parts = elements(body, place.start)
            if parts:
                end = parts[-1][1] - 1
                return body[:end] + b"," + _MARK + body[end:]
    return None


_MARK: Final = b'"cache_control":{"type":"ephemeral"}'


def _member(body: bytes, key: str) -> Member:
    found = next((member for member in members(body) if member.key == key), None)
    if found is None:
        raise BadRequest(f"{key}: expected a list, got nothing", key)
    return found


def _appended(body: bytes, place: Member, *values: object) -> bytes:
    """Return the body with further elements at the end of an array."""
    if body[place.start : place.start + 1] != b"[":
        raise BadRequest(f"{place.key}: expected a list", place.key)
    end = place.end - 1
    comma = b"," if body[place.start + 1 : end].strip() else b""
    return body[:end] + comma + _listed(values) + body[end:]


def _first(body: bytes, member: bytes) -> bytes:
    """Return the body with one more member at its beginning. It has others."""
    at = body.index(b"{") + 1
    return body[:at] + member + b"," + body[at:]


def _listed(values: Sequence[object]) -> bytes:
    return b",".join(map(_dump, values))


def _dump(value: object | Sequence[object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
