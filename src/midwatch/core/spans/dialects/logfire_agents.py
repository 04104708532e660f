"""The OpenAI Agents SDK under Logfire: what a span is stands in its message template, a name in `name`, the rest in
objects of the provider's. Source: the integration's behaviour; recording in tests/emitters.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def _complete(row: Row) -> None:
    role = role_of(row)
    template = row[WORD]
    if template is not None:
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
    "name": column(HINT, label),
    "agent_name": column(form.AGENT_NAME, label),
    "response_id": column(form.RESPONSE_ID, label),
    "group_id": column(form.SESSION, name_of),
    "operation.cost": column(REPORTED, dollars),
    "input": content(ContentKind.INPUT),
    "output": content(ContentKind.OUTPUT),
    "raw_input": content(ContentKind.INPUT),
    "response": content(ContentKind.OUTPUT),
    "request_data": content(ContentKind.INPUT),
    "events": content(ContentKind.INPUT),
}

dialect = Family(
    "logfire_agents",
    over(
        _OWN,
        STANDARD,
        (
            form.AGENT_NAME,
            form.TOOL,
            form.SESSION,
            form.RESPONSE_ID,
            form.CACHED_TOKENS,
            form.CACHE_WRITE_TOKENS,
        ),
    ),
    scopes=("logfire.openai_agents",),
    complete=_complete,
)
