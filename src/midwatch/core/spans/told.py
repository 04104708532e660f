"""Results of tools within what a model is told: a call repeats the messages before it, and results are among them.

Whatever the provider calls it: a message of the role `tool`, a part `tool_result` or `tool_call_response`, an item
`function_call_output`, a `functionResponse`, LangChain's `ToolMessage`. What stands before the model's last answer is
history: it was told to an earlier call, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

MAX_RESULTS: Final = 200
"""Results of one content, the latest."""

MAX_TEXTS: Final = 500
"""Texts of one result."""

MAX_DEPTH: Final = 32
"""Nesting that is looked into."""

_LONG_KEY: Final = 24
"""Characters from which on a key is no name but a text."""


class Told(NamedTuple):
    """One result: the id of its call if it says one, its texts, and whether it was told for the first time here, as
    far as the content itself can tell."""

    call_id: str | None
    texts: tuple[str, ...]
    fresh: bool


_MARK: Final = re.compile(
    r'"(?:tool|tool[_-]result|tool_call_response|toolResult|(?:custom_tool|function|computer|local_shell)_call_output'
    r"|(?:web_search|code_execution)_tool_result|mcp_tool_result|function_?[rR]esponse|gen_ai\.tool\.message"
    r'|(?:Tool|Function)Message|role"\s{0,4}:\s{0,4}"(?:function|toolResult))"'
)


def may_tell(text: str) -> bool:
    """Tell whether there may be a result in a content. Quick, as it begins with one sign: it is asked of every prompt."""
    return _MARK.search(text) is not None


def results_in(text: str) -> list[Told]:
    """Return the results of tools in a content that is JSON; none of what is not."""
    found = _Finder()
    try:
        read: object = json.loads(text)
        found.look(read, 0)
    except (ValueError, RecursionError):
        return []
    results = found.results[-MAX_RESULTS:]
    before = found.answered - (len(found.results) - len(results))
    return [one._replace(fresh=number >= before) for number, one in enumerate(results)]


def texts_of(text: str) -> tuple[str, ...]:
    """Return what a result says: the texts in it if it is JSON, else itself."""
    if text.lstrip()[:1] not in ("{", "[", '"'):
        return (text,)
    try:
        return tuple(_limited(_texts(json.loads(text), 0)))
    except (ValueError, RecursionError):
        return (text,)


_ROLES: Final = frozenset({"tool", "function", "toolResult"})
_TYPES: Final = frozenset(
    {
        "tool_result", "tool-result", "tool_call_response", "function_call_output", "custom_tool_call_output",
        "computer_call_output", "local_shell_call_output", "web_search_tool_result", "mcp_tool_result",
        "code_execution_tool_result", "function_response", "ToolMessage", "FunctionMessage",
    }
)  # fmt: skip
_HOLDERS: Final = ("functionResponse", "function_response", "toolResult")
_MODELS: Final = frozenset({"assistant", "model", "ai"})
_CALLS: Final = frozenset({"AIMessage", "AIMessageChunk", "function_call"})
_IDS: Final = ("tool_call_id", "tool_use_id", "toolUseId", "toolCallId", "call_id", "id")
_NO_TEXTS: Final = frozenset(
    {*_IDS, "role", "type", "name", "toolName", "tool_name", "status", "event.name"}
)


class _Finder:
    """Walks through messages and remembers results, and how many of them the model has answered."""

    def __init__(self) -> None:
        self.results: list[Told] = []
        self.answered = 0

    def look(self, node: object, depth: int) -> None:
        if depth > MAX_DEPTH:
            return
        if isinstance(node, list):
            for inner in cast("list[object]", node):
                self.look(inner, depth + 1)
        elif isinstance(node, dict):
            self._look(cast("dict[str, Any]", node), depth)

    def _look(self, node: dict[str, Any], depth: int) -> None:
        role, kind = node.get("role"), _kind(node)
        inner = next((node[name] for name in _HOLDERS if isinstance(node.get(name), dict)), None)
        if inner is not None:
            self._take(cast("dict[str, Any]", inner))
        elif (
            (isinstance(role, str) and role in _ROLES)
            or kind in _TYPES
            or (kind == "tool" and "content" in node)
            or node.get("event.name") == "gen_ai.tool.message"
        ):
            self._take(node)
        else:
            for value in node.values():
                self.look(value, depth + 1)
            # an assistant that says which results it saw is behind them
            if (isinstance(role, str) and role in _MODELS) or kind in _CALLS or kind == "ai":
                self.answered = len(self.results)

    def _take(self, node: dict[str, Any]) -> None:
        texts = tuple(_limited(_texts(node, 0)))
        if texts:
            self.results.append(Told(_call_id(node, 0), texts, fresh=True))


def _kind(node: Mapping[str, Any]) -> str:
    kind = node.get("type")
    if kind == "constructor":
        # LangChain: {"type": "constructor", "id": ["langchain", …, "ToolMessage"], "kwargs": {…}}
        names: object = node.get("id")
        kind = cast("list[object]", names)[-1] if isinstance(names, list) and names else None
    return kind if isinstance(kind, str) else ""


def _call_id(node: object, depth: int) -> str | None:
    if isinstance(node, dict):
        said = cast("dict[str, Any]", node)
        for name in _IDS:
            value = said.get(name)
            if isinstance(value, str) and value:
                return value
        children: list[Any] = [said.get(name) for name in ("kwargs", "parts", "content")]
    else:
        children = cast("list[Any]", node) if isinstance(node, list) else []
    if depth < 3:
        for child in children[:3]:
            found = _call_id(child, depth + 1)
            if found is not None:
                return found
    return None


def _texts(node: object, depth: int) -> Iterator[str]:
    if isinstance(node, str):
        if node:
            yield node
    elif depth > MAX_DEPTH:
        return
    elif isinstance(node, list):
        for inner in cast("list[object]", node):
            yield from _texts(inner, depth + 1)
    elif isinstance(node, dict):
        for key, value in cast("dict[str, object]", node).items():
            if len(key) >= _LONG_KEY:
                yield key
            if key not in _NO_TEXTS or not isinstance(value, str):
                yield from _texts(value, depth + 1)


def _limited(texts: Iterator[str]) -> Iterator[str]:
    for _, text in zip(range(MAX_TEXTS), texts, strict=False):
        yield text
