"""Traceloop (OpenLLMetry): the conventions of its day, kinds of spans of its own, and association properties.

Old versions send indexed attributes (`gen_ai.prompt.0.content`), new ones the standard's messages.
Source: opentelemetry-semantic-conventions-ai; recordings in tests/emitters.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.spans import form
from midwatch.core.spans.family import Family, column, content, over
from midwatch.core.spans.form import ContentKind, Role, Row
from midwatch.core.spans.reading import HINT, TOTAL, WORD, finish, label, name_of, tokens
from midwatch.core.spans.standard import STANDARD, report_cost, role_of
from midwatch.core.spans.usage import settle

_KINDS: Final = {
    "workflow": Role.CHAIN,
    "task": Role.CHAIN,
    "agent": Role.AGENT,
    "tool": Role.TOOL,
}

_REQUESTS: Final = {
    "chat": Role.CALL,
    "completion": Role.CALL,
    "rerank": Role.RERANK,
    "embedding": Role.EMBEDDING,
}

_ASSOCIATED: Final = "traceloop.association.properties."


def _complete(row: Row) -> None:
    role = _KINDS.get(row[WORD] or "") or _REQUESTS.get(row[WORD] or "") or role_of(row)
    entity = row[HINT]
    if role is Role.AGENT and row[form.AGENT_NAME] is None:
        row[form.AGENT_NAME] = entity
    elif role is Role.TOOL and row[form.TOOL] is None:
        row[form.TOOL] = entity
    settle(row)
    report_cost(row)
    row[form.ROLE] = role.value


_OWN: Final = {
    "traceloop.span.kind": column(WORD, label),
    "llm.request.type": column(WORD, label),
    "traceloop.entity.name": column(HINT, label),
    "traceloop.workflow.name": column(HINT, label),
    f"{_ASSOCIATED}session_id": column(form.SESSION, name_of),
    f"{_ASSOCIATED}thread_id": column(form.SESSION, name_of),
    f"{_ASSOCIATED}conversation_id": column(form.SESSION, name_of),
    f"{_ASSOCIATED}user_id": column(form.USER, name_of),
    "llm.usage.total_tokens": column(TOTAL, tokens),
    "llm.usage.reasoning_tokens": column(form.REASONING_TOKENS, tokens),
    "gen_ai.response.finish_reason": column(form.FINISH, finish),
    "gen_ai.response.stop_reason": column(form.FINISH, finish),
    "llm.response.finish_reason": column(form.FINISH, finish),
    "traceloop.entity.input": content(ContentKind.INPUT),
    "traceloop.entity.output": content(ContentKind.OUTPUT),
    "gen_ai.task.input": content(ContentKind.INPUT),
    "gen_ai.task.output": content(ContentKind.OUTPUT),
}

dialect = Family(
    "traceloop",
    # agents and tools may be worked out from the entity; the output from the total
    over(_OWN, STANDARD, (form.AGENT_NAME, form.TOOL)),
    scopes=(
        "opentelemetry.instrumentation.openai.v1",
        "opentelemetry.instrumentation.openai.v0",
        "opentelemetry.instrumentation.openai_agents",
        "opentelemetry.instrumentation.anthropic",
        "opentelemetry.instrumentation.google_generativeai",
        "@traceloop/",
    ),
    marks=frozenset(
        {
            "traceloop.span.kind",
            "traceloop.entity.name",
            "traceloop.workflow.name",
            "llm.request.type",
            f"{_ASSOCIATED}session_id",
        }
    ),
    folds={
        "gen_ai.prompt": ContentKind.INPUT,
        "gen_ai.completion": ContentKind.OUTPUT,
        "llm.request.functions": ContentKind.TOOLS,
        "llm.prompts": ContentKind.INPUT,
        "llm.completions": ContentKind.OUTPUT,
    },
    tags=(_ASSOCIATED,),
    complete=_complete,
)
