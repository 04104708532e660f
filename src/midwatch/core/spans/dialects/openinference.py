"""OpenInference: Arize's names, which Phoenix and many frameworks speak.

The span's kind is told; messages are indexed attributes. Some instrumentations hold more than the names say: the
OpenAI Agents SDK's trace is called an agent, LangGraph's run a chain and its node `agent` an agent.
Source: the OpenInference specification; recordings in tests/emitters.
"""

from __future__ import annotations

import re
from typing import Final

from midwatch.core.spans import form
from midwatch.core.spans.family import Family, column, content, over
from midwatch.core.spans.form import ContentKind, Role, Row
from midwatch.core.spans.reading import (
    AUDIO_IN,
    AUDIO_OUT,
    HINT,
    RAW,
    REPORTED,
    TOTAL,
    WORD,
    dollars,
    finish,
    label,
    name_of,
    seller,
    text,
    tokens,
)
from midwatch.core.spans.standard import STANDARD, report_cost, role_of
from midwatch.core.spans.usage import settle

_ROLES: Final = {
    "LLM": Role.CALL,
    "AGENT": Role.AGENT,
    "TOOL": Role.TOOL,
    "CHAIN": Role.CHAIN,
    "PROMPT": Role.CHAIN,
    "RETRIEVER": Role.RETRIEVAL,
    "RERANKER": Role.RERANK,
    "EMBEDDING": Role.EMBEDDING,
    "GUARDRAIL": Role.GUARD,
    "EVALUATOR": Role.EVALUATION,
    "DECISION": Role.DECISION,
}

_LOOKED_AT: Final = 65_536
"""Characters of an answer in which its id is looked for."""

_ID: Final = re.compile(r'"id": ?"((?:chatcmpl|resp|msg|cmpl)[-_][A-Za-z0-9_-]{4,200})"')
"""An answer's id in the answer's own JSON. Quotes within texts are escaped there, so a text cannot pretend one."""

_NODE: Final = re.compile(r'"langgraph_node": ?"')


_MENDED: Final = {"openinference.instrumentation.langchain": (0, 1, 55)}
"""Instrumentations that told Anthropic's caches beside the input, and the version since which they do not."""


def _leaves_caches_out(row: Row) -> bool:
    mended = _MENDED.get(row[form.SCOPE] or "")
    if mended is None or not (row[form.MODEL] or "").startswith("claude"):
        return False
    parts = (row[form.SCOPE_VERSION] or "").split(".")[:3]
    whole = all(part.isdecimal() and len(part) < 9 for part in parts)
    return whole and tuple(map(int, parts)) < mended


def _complete(row: Row) -> None:
    role = _ROLES.get(row[WORD] or "")
    if role is None:
        role = role_of(row)
    if role is Role.CALL:
        if row[form.RESPONSE_ID] is None and row[RAW] is not None:
            found = _ID.search(row[RAW], 0, _LOOKED_AT)
            row[form.RESPONSE_ID] = found[1] if found else None
        settle(row, beside=_leaves_caches_out(row))
        report_cost(row)
    elif role is Role.AGENT or role is Role.CHAIN:
        role = _holder(row, role)
    elif role is Role.TOOL:
        if row[form.TOOL] is None:
            row[form.TOOL] = label(row[form.NAME])
        if row[form.SCOPE] == "openinference.instrumentation.openai_agents" and row[
            form.NAME
        ].startswith("handoff to "):
            role = Role.HANDOFF
    else:
        settle(row)
    row[form.ROLE] = role.value


def _holder(row: Row, role: Role) -> Role:
    """Return what a span that holds others is, and name its agent."""
    settle(row)
    if row[form.AGENT_NAME] is not None:
        return role
    about = row[HINT] or ""
    if "langgraph" in about:
        # a run of a graph is an agent at work, its nodes are steps, whatever they are called
        if _NODE.search(about):
            return Role.CHAIN
        row[form.AGENT_NAME] = label(row[form.NAME])
        return Role.AGENT
    if role is Role.AGENT:
        if row[form.SCOPE] == "openinference.instrumentation.openai_agents":
            return Role.CHAIN  # the trace; the agents in it have names
        row[form.AGENT_NAME] = label(row[form.NAME])
    return role


_OWN: Final = {
    "openinference.span.kind": column(WORD, label),
    "llm.request.model_name": column(form.MODEL, label),
    "llm.model_name": column(form.MODEL, label, gives_back=True),
    "embedding.model_name": column(form.MODEL, label),
    "reranker.model_name": column(form.MODEL, label),
    "decision.request.model_name": column(form.MODEL, label),
    "decision.model_name": column(form.MODEL, label),
    "llm.response.model_name": column(form.RESPONSE_MODEL, label, gives_back=True),
    "decision.response.model_name": column(form.RESPONSE_MODEL, label),
    "llm.provider": column(form.PROVIDER, seller),
    "llm.system": column(form.PROVIDER, seller, gives_back=True),
    "decision.provider": column(form.PROVIDER, seller),
    "decision.system": column(form.PROVIDER, seller),
    "llm.token_count.prompt": column(form.INPUT_TOKENS, tokens, gives_back=True),
    "llm.token_count.completion": column(form.OUTPUT_TOKENS, tokens, gives_back=True),
    "llm.token_count.total": column(TOTAL, tokens),
    "llm.token_count.prompt_details.cache_read": column(
        form.CACHED_TOKENS, tokens, gives_back=True
    ),
    "llm.token_count.prompt_details.cache_input": column(form.CACHED_TOKENS, tokens),
    "llm.token_count.prompt_details.cache_write": column(
        form.CACHE_WRITE_TOKENS, tokens, gives_back=True
    ),
    "llm.token_count.prompt_details.audio": column(AUDIO_IN, tokens),
    "llm.token_count.completion_details.reasoning": column(form.REASONING_TOKENS, tokens),
    "llm.token_count.completion_details.audio": column(AUDIO_OUT, tokens),
    "decision.token_count.input": column(form.INPUT_TOKENS, tokens),
    "decision.token_count.output": column(form.OUTPUT_TOKENS, tokens),
    "llm.cost.total": column(REPORTED, dollars),
    "llm.finish_reason": column(form.FINISH, finish),
    "session.id": column(form.SESSION, name_of, gives_back=True),
    "agent.name": column(form.AGENT_NAME, label),
    "tool.name": column(form.TOOL, label),
    "tool.id": column(form.TOOL_CALL_ID, label, gives_back=True),
    "tool_call.id": column(form.TOOL_CALL_ID, label),
    "metadata": column(HINT, text),
    "input.value": content(ContentKind.INPUT),
    "output.value": content(ContentKind.OUTPUT, RAW, text),
    "reranker.query": content(ContentKind.INPUT),
    "llm.prompt_template.template": content(ContentKind.SYSTEM),
    "llm.prompt_template.variables": content(ContentKind.INPUT),
}
dialect = Family(
    "openinference",
    over(_OWN, STANDARD, (form.AGENT_NAME, form.TOOL, form.RESPONSE_ID)),
    scopes=("openinference.instrumentation", "@arizeai/openinference"),
    marks=frozenset({"openinference.span.kind"}),
    folds={
        "llm.input_messages": ContentKind.INPUT,
        "llm.output_messages": ContentKind.OUTPUT,
        "llm.prompts": ContentKind.INPUT,
        "llm.choices": ContentKind.OUTPUT,
        "llm.tools": ContentKind.TOOLS,
        "retrieval.documents": ContentKind.DOCUMENTS,
        "reranker.input_documents": ContentKind.INPUT,
        "reranker.output_documents": ContentKind.DOCUMENTS,
        "embedding.embeddings": ContentKind.INPUT,
        "input.images": ContentKind.INPUT,
        "output.images": ContentKind.OUTPUT,
        "input.documents": ContentKind.INPUT,
        "output.documents": ContentKind.OUTPUT,
    },
    complete=_complete,
)
