"""Logfire: the conventions, and what its integrations say in words of their own.

Pydantic AI speaks the conventions; the integration of the OpenAI Agents SDK tells what a span is by its message
template. Pending spans are understood for every family (`understanding`).
Source: the integration's behaviour; recordings in tests/emitters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from midwatch.core.spans import form
from midwatch.core.spans.family import Family, column, content, over
from midwatch.core.spans.form import ContentKind, Role, Row
from midwatch.core.spans.reading import (
    DETAILS,
    HINT,
    REPORTED,
    WORD,
    dollars,
    label,
    loaded,
    members,
    name_of,
    text,
    tokens,
)
from midwatch.core.spans.standard import STANDARD, report_cost, role_of
from midwatch.core.spans.usage import settle

_TEMPLATES: Final = (
    ("Agent run: ", Role.AGENT),
    ("Function: ", Role.TOOL),
    ("Responses API", Role.CALL),
    ("Chat completion with ", Role.CALL),
    ("Handoff: ", Role.HANDOFF),
    ("Guardrail ", Role.GUARD),
    ("OpenAI Agents trace: ", Role.CHAIN),
    ("Task: ", Role.CHAIN),
    ("Turn {turn} ", Role.CHAIN),
    ("Custom span: ", Role.CHAIN),
)
"""What the integration of the OpenAI Agents SDK writes; its `turn` is one step of an agent's run."""

_WRITTEN: Final = {
    "agent": Role.AGENT,
    "tool": Role.TOOL,
}


def _complete(row: Row) -> None:
    role = role_of(row)
    template = row[WORD]
    if row[form.SCOPE] == "logfire.openai_agents" and template is not None:
        role = next((found for start, found in _TEMPLATES if template.startswith(start)), role)
    named = row[HINT]
    if role is Role.AGENT and row[form.AGENT_NAME] is None:
        row[form.AGENT_NAME] = named
    elif role is Role.TOOL and row[form.TOOL] is None:
        row[form.TOOL] = named
    if row[DETAILS] is not None:
        _read_usage(row, members(loaded(row[DETAILS])))
    settle(row)
    report_cost(row)
    row[form.ROLE] = role.value


def _read_usage(row: Row, raw: Mapping[str, Any]) -> None:
    """Take from the provider's own object what has no attribute."""
    inner = members(raw.get("input_tokens_details") or raw.get("prompt_tokens_details"))
    outer = members(raw.get("output_tokens_details") or raw.get("completion_tokens_details"))
    for place, source, names in (
        (form.CACHED_TOKENS, inner, ("cached_tokens",)),
        (form.CACHE_WRITE_TOKENS, inner, ("cache_write_tokens",)),
        (form.CACHED_TOKENS, raw, ("cache_read_input_tokens",)),
        (form.CACHE_WRITE_TOKENS, raw, ("cache_creation_input_tokens",)),
        (form.REASONING_TOKENS, outer, ("reasoning_tokens",)),
    ):
        if row[place] is None:
            row[place] = next((t for n in names if (t := tokens(source.get(n))) is not None), None)


_OWN: Final = {
    "logfire.msg_template": column(WORD, text),
    "operation.cost": column(REPORTED, dollars),
    "agent_name": column(form.AGENT_NAME, label),
}
_AGENTS: Final = {
    **_OWN,
    "name": column(HINT, label),
    "response_id": column(form.RESPONSE_ID, label),
    "group_id": column(form.SESSION, name_of),
    "input": content(ContentKind.INPUT),
    "output": content(ContentKind.OUTPUT),
    "raw_input": content(ContentKind.INPUT),
    "response": content(ContentKind.OUTPUT),
    "request_data": content(ContentKind.INPUT),
    "response_data": content(ContentKind.OUTPUT),
    "events": content(ContentKind.INPUT),
}
_PYDANTIC: Final = {
    "final_result": content(ContentKind.OUTPUT),
    "pydantic_ai.all_messages": content(ContentKind.INPUT),
    "all_messages_events": content(ContentKind.INPUT),
    "tool_arguments": content(ContentKind.ARGUMENTS),
    "tool_response": content(ContentKind.RESULT),
}


class _Logfire(Family):
    """Claims spans that Logfire made unless another family's keys are on them."""

    __slots__ = ()

    def claims(self, scope: str, version: str, keys: Collection[str]) -> bool:
        """Tell whether Logfire or Pydantic AI made the span."""
        return Family.claims(self, scope, version, keys) or "logfire.msg_template" in keys


dialect = _Logfire(
    "logfire",
    over(
        {**_AGENTS, **_PYDANTIC},
        STANDARD,
        (
            form.AGENT_NAME,
            form.TOOL,
            form.SESSION,
            form.RESPONSE_ID,
            form.CACHED_TOKENS,
            form.CACHE_WRITE_TOKENS,
            form.REASONING_TOKENS,
        ),
    ),
    scopes=("logfire", "pydantic-ai"),
    complete=_complete,
)
