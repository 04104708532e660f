"""What all three dialects can say, drawn at random: the ground of the property tests."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import strategies as st

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.gateway.translate import chat_request, generate_request, messages_request
from midwatch.gateway.translate.form import (
    Call,
    Choice,
    Conversation,
    Finish,
    Form,
    Image,
    Mode,
    Notes,
    Part,
    Reply,
    Result,
    Role,
    Text,
    Tool,
    Turn,
    joined,
)

KINDS = list(Kind)
DIALECT = {
    Kind.OPENAI: Dialect.CHAT,
    Kind.ANTHROPIC: Dialect.MESSAGES,
    Kind.GEMINI: Dialect.GENERATE,
}
MODEL = {Kind.OPENAI: "gpt-4o", Kind.ANTHROPIC: "claude-haiku-4-5", Kind.GEMINI: "gemini-3-pro"}

texts = st.text('aZ9 \n\t"\\{}[]<>&/äß漢😀\u2028\x7f', min_size=1, max_size=12)
names = st.text("abc_z", min_size=1, max_size=8)
ids = st.text("aZ9_-", min_size=1, max_size=40)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=3,
)
objects = st.dictionaries(names, values, max_size=2)
images = st.builds(
    lambda mime, data: Image(mime, base64.b64encode(data).decode()),
    st.sampled_from(["image/png", "image/jpeg", "image/webp"]),
    st.binary(min_size=1, max_size=12),
)


@st.composite
def schemas(draw: st.DrawFn) -> dict[str, Any]:
    """Objects that each kind takes as arguments and as the form of an answer."""
    properties = draw(
        st.dictionaries(
            names,
            st.sampled_from(
                [
                    {"type": "string"},
                    {"type": "integer", "description": "how many"},
                    {"type": "array", "items": {"type": "number"}},
                ]
            ),
            max_size=3,
        )
    )
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


@st.composite
def conversations(draw: st.DrawFn, *, stream: bool | None = None) -> Conversation:
    tools = draw(
        st.lists(
            st.builds(Tool, names, texts | st.just(""), schemas()),
            max_size=3,
            unique_by=lambda t: t.name,
        )
    )
    tools = [t for t in tools if t.schema != {"type": "object", "properties": {}}]
    turns: list[Turn] = []
    asked: list[Call] = []
    fresh = draw(st.lists(ids, min_size=6, max_size=6, unique=True))
    for number in range(draw(st.integers(1, 3))):
        parts: list[Part] = [Result(c.id, (Text(draw(texts)),), c.name) for c in asked]
        parts += draw(
            st.lists(st.builds(Text, texts) | images, min_size=0 if parts else 1, max_size=3)
        )
        turns.append(Turn(Role.USER, tuple(parts)))
        count = draw(st.integers(0, 2)) if tools else 0
        asked = [
            Call(fresh[number * 2 + i], draw(st.sampled_from(tools)).name, draw(objects))
            for i in range(count)
        ]
        said = draw(st.lists(st.builds(Text, texts), min_size=0 if asked else 1, max_size=2))
        turns.append(Turn(Role.MODEL, (*said, *asked)))
    ends: list[Part] = [Result(c.id, (Text(draw(texts)),), c.name) for c in asked]
    turns.append(Turn(Role.USER, tuple(ends or [Text(draw(texts))])))
    modes = [Choice(), Choice(Mode.AUTO), Choice(Mode.ANY), Choice(Mode.NONE)]
    modes += [Choice(Mode.ANY, tool.name) for tool in tools]
    return Conversation(
        turns=tuple(turns),
        system=tuple(draw(st.lists(texts, max_size=2))),
        tools=tuple(tools),
        choice=draw(st.sampled_from(modes)) if tools else Choice(),
        max_output=draw(st.integers(1, 4000)),
        temperature=draw(st.none() | st.floats(0, 1)),
        stops=tuple(draw(st.lists(texts.filter(lambda t: bool(t.strip())), max_size=4))),
        form=draw(st.none() | st.builds(Form, schemas())),
        stream=draw(st.booleans()) if stream is None else stream,
    )


def ask(kind: Kind, *, stream: bool = False, array: bool = False, usage: bool = True) -> Ask:
    return Ask(kind, DIALECT[kind], MODEL[kind], stream=stream, array=array, usage_asked=usage)


def write(kind: Kind, said: Conversation, notes: Notes | None = None) -> dict[str, Any]:
    found = notes if notes is not None else Notes()
    writer = {
        Kind.OPENAI: chat_request,
        Kind.ANTHROPIC: messages_request,
        Kind.GEMINI: generate_request,
    }
    return writer[kind].write(said, MODEL[kind], found)


def read(
    kind: Kind, body: dict[str, Any], notes: Notes | None = None, *, stream: bool = False
) -> Conversation:
    found = notes if notes is not None else Notes()
    if kind is Kind.GEMINI:
        return generate_request.read(body, found, stream=stream)
    return {Kind.OPENAI: chat_request, Kind.ANTHROPIC: messages_request}[kind].read(body, found)


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    said: list[Any] = draw(st.lists(st.builds(Text, texts), max_size=1))
    identities = draw(st.lists(ids, max_size=2, unique=True))
    calls = [Call(identity, draw(names), draw(objects)) for identity in identities]
    finishes = [Finish.LENGTH, Finish.FILTER, Finish.TOOLS if calls else Finish.STOP]
    return Reply(joined([*said, *calls]), draw(st.sampled_from(finishes)), draw(ids), draw(names))
