"""The names of OpenTelemetry's GenAI conventions, of all three generations, that other families use beside their own.

Source: semantic conventions up to 1.36 (`gen_ai.system`, messages as events), 1.37 to 1.41 (`gen_ai.provider.name`,
messages as attributes), and the conventions' own repository since (`cache_write`, plan, memory, retrieval). What no
version ever had but emitters send under `gen_ai.` stands here too, behind the standard's own.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.spans import form
from midwatch.core.spans.dialect import Slot
from midwatch.core.spans.family import column, content
from midwatch.core.spans.form import ContentKind, Role, Row
from midwatch.core.spans.reading import (
    AUDIO_IN,
    AUDIO_OUT,
    DETAILS,
    IMAGE_IN,
    PENDING,
    PENDING_PARENT,
    REPORTED,
    TOTAL,
    dollars,
    finish,
    label,
    name_of,
    seconds,
    seller,
    text,
    tokens,
)

NEWEST: Final[dict[str, Slot]] = {
    "gen_ai.operation.name": column(form.OPERATION, label, gives_back=True),
    "gen_ai.provider.name": column(form.PROVIDER, seller, gives_back=True),
    "gen_ai.request.model": column(form.MODEL, label, gives_back=True),
    "gen_ai.response.model": column(form.RESPONSE_MODEL, label, gives_back=True),
    "gen_ai.response.id": column(form.RESPONSE_ID, label, gives_back=True),
    "gen_ai.response.finish_reasons": column(form.FINISH, finish),
    "gen_ai.response.time_to_first_chunk": column(form.FIRST_TOKEN_NS, seconds),
    "gen_ai.conversation.id": column(form.SESSION, label, gives_back=True),
    "gen_ai.agent.name": column(form.AGENT_NAME, label, gives_back=True),
    "gen_ai.agent.id": column(form.AGENT_NAME, label),
    "gen_ai.tool.name": column(form.TOOL, label, gives_back=True),
    "gen_ai.tool.call.id": column(form.TOOL_CALL_ID, label, gives_back=True),
    "gen_ai.usage.input_tokens": column(form.INPUT_TOKENS, tokens, gives_back=True),
    "gen_ai.usage.output_tokens": column(form.OUTPUT_TOKENS, tokens, gives_back=True),
    "gen_ai.usage.cache_read.input_tokens": column(form.CACHED_TOKENS, tokens, gives_back=True),
    "gen_ai.usage.cache_write.input_tokens": column(form.CACHE_WRITE_TOKENS, tokens),
    "gen_ai.usage.cache_creation.input_tokens": column(
        form.CACHE_WRITE_TOKENS, tokens, gives_back=True
    ),
    # not given back: it is worked out where only the total has it
    "gen_ai.usage.reasoning.output_tokens": column(form.REASONING_TOKENS, tokens),
    "gen_ai.usage.audio.input_tokens": column(AUDIO_IN, tokens),
    "gen_ai.usage.audio.output_tokens": column(AUDIO_OUT, tokens),
    "gen_ai.usage.image.input_tokens": column(IMAGE_IN, tokens),
    "gen_ai.input.messages": content(ContentKind.INPUT),
    "gen_ai.output.messages": content(ContentKind.OUTPUT),
    "gen_ai.system_instructions": content(ContentKind.SYSTEM),
    "gen_ai.tool.definitions": content(ContentKind.TOOLS),
    "gen_ai.tool.call.arguments": content(ContentKind.ARGUMENTS),
    "gen_ai.tool.call.result": content(ContentKind.RESULT),
    "gen_ai.retrieval.query.text": content(ContentKind.INPUT),
    "gen_ai.retrieval.documents": content(ContentKind.DOCUMENTS),
    "gen_ai.memory.query.text": content(ContentKind.INPUT),
    "gen_ai.memory.records": content(ContentKind.DOCUMENTS),
}
"""1.37 and later, and the conventions' own repository."""

OLD: Final[dict[str, Slot]] = {
    "gen_ai.system": column(form.PROVIDER, seller),
    "gen_ai.usage.prompt_tokens": column(form.INPUT_TOKENS, tokens),
    "gen_ai.usage.completion_tokens": column(form.OUTPUT_TOKENS, tokens),
    "gen_ai.prompt": content(ContentKind.INPUT),
    "gen_ai.completion": content(ContentKind.OUTPUT),
    "gen_ai.server.time_to_first_token": column(form.FIRST_TOKEN_NS, seconds),
}
"""Up to 1.36."""

BESIDE: Final[dict[str, Slot]] = {
    # what no version ever had, by who sends it: Traceloop and its heirs
    "gen_ai.usage.total_tokens": column(TOTAL, tokens),
    "gen_ai.usage.reasoning_tokens": column(form.REASONING_TOKENS, tokens),
    "gen_ai.usage.cache_read_input_tokens": column(form.CACHED_TOKENS, tokens),
    "gen_ai.usage.cache_creation_input_tokens": column(form.CACHE_WRITE_TOKENS, tokens),
    "gen_ai.usage.cached_tokens": column(form.CACHED_TOKENS, tokens),
    "gen_ai.usage.cost": column(REPORTED, dollars),
    # Sentry's clients
    "gen_ai.usage.input_tokens.cached": column(form.CACHED_TOKENS, tokens),
    "gen_ai.usage.input_tokens.cache_write": column(form.CACHE_WRITE_TOKENS, tokens),
    "gen_ai.usage.output_tokens.reasoning": column(form.REASONING_TOKENS, tokens),
    "gen_ai.cost.total_tokens": column(REPORTED, dollars),
    # Pydantic AI: what an agent's run adds up, and what the providers call their figures
    "gen_ai.aggregated_usage.input_tokens": column(form.INPUT_TOKENS, tokens),
    "gen_ai.aggregated_usage.output_tokens": column(form.OUTPUT_TOKENS, tokens),
    "gen_ai.aggregated_usage.cache_read.input_tokens": column(form.CACHED_TOKENS, tokens),
    "gen_ai.aggregated_usage.cache_creation.input_tokens": column(form.CACHE_WRITE_TOKENS, tokens),
    "gen_ai.aggregated_usage.details.reasoning_tokens": column(form.REASONING_TOKENS, tokens),
    "gen_ai.usage.details.reasoning_tokens": column(form.REASONING_TOKENS, tokens),
    "gen_ai.usage.details.cache_read_tokens": column(form.CACHED_TOKENS, tokens),
    "gen_ai.usage.details.cache_read_input_tokens": column(form.CACHED_TOKENS, tokens),
    "gen_ai.usage.details.cache_write_tokens": column(form.CACHE_WRITE_TOKENS, tokens),
    "gen_ai.usage.details.cache_creation_input_tokens": column(form.CACHE_WRITE_TOKENS, tokens),
    "gen_ai.client.operation.time_to_first_chunk": column(form.FIRST_TOKEN_NS, seconds),
    "gen_ai.usage.raw": column(DETAILS, text),
    # Anthropic's own client
    "anthropic.usage.cache_creation.ephemeral_1h_input_tokens": column(
        form.CACHE_WRITE_1H_TOKENS, tokens
    ),
    "anthropic.message.stop_reason": column(form.FINISH, finish),
}

COMMON: Final[dict[str, Slot]] = {
    # conventions that are not GenAI's, and names that all families share
    # not given back: an exception among the events says it too
    "error.type": column(form.ERROR_TYPE, label),
    "session.id": column(form.SESSION, name_of),
    "user.id": column(form.USER, name_of, gives_back=True),
    "enduser.id": column(form.USER, name_of),
    "midwatch.call_id": column(form.CALL_ID, label, gives_back=True),
    # pending spans may come from any instrumentation that sends through Logfire
    "logfire.span_type": column(PENDING, text),
    "logfire.pending_parent_id": column(PENDING_PARENT, text),
}

STANDARD: Final[dict[str, Slot]] = {**NEWEST, **OLD, **BESIDE, **COMMON}

OPERATIONS: Final[dict[str, Role]] = {
    "chat": Role.CALL,
    "text_completion": Role.CALL,
    "completion": Role.CALL,
    "generate_content": Role.CALL,
    "responses": Role.CALL,
    "llm_request": Role.CALL,
    "embeddings": Role.EMBEDDING,
    "embedding": Role.EMBEDDING,
    "rerank": Role.RERANK,
    "execute_tool": Role.TOOL,
    "invoke_agent": Role.AGENT,
    "create_agent": Role.CHAIN,
    "invoke_workflow": Role.CHAIN,
    "execute_task": Role.CHAIN,
    "task": Role.CHAIN,
    "handoff": Role.HANDOFF,
    "plan": Role.DECISION,
    "decision": Role.DECISION,
    "retrieval": Role.RETRIEVAL,
    "vector_db_retrieve": Role.RETRIEVAL,
    "evaluate": Role.EVALUATION,
    "evaluation": Role.EVALUATION,
    "guardrail": Role.GUARD,
    "apply_guardrail": Role.GUARD,
    "create_memory": Role.MEMORY,
    "search_memory": Role.MEMORY,
    "update_memory": Role.MEMORY,
    "upsert_memory": Role.MEMORY,
    "delete_memory": Role.MEMORY,
    "create_memory_store": Role.MEMORY,
    "delete_memory_store": Role.MEMORY,
}


def role_of(row: Row) -> Role:
    """Return what a span is by its operation; without one that is known, what has a tool's name is a tool, and what
    has a model and tokens a call."""
    operation = row[form.OPERATION]
    if operation is not None:
        role = OPERATIONS.get(operation)
        if role is not None:
            return role
        if "agent" in operation:
            # a word of the emitter's own: what it says of usage must not count as a call's
            return Role.AGENT
    if row[form.TOOL] is not None:
        return Role.TOOL
    has_model = row[form.MODEL] is not None or row[form.RESPONSE_MODEL] is not None
    has_usage = row[form.INPUT_TOKENS] is not None or row[form.OUTPUT_TOKENS] is not None
    return Role.CALL if has_model and has_usage else Role.OTHER


def report_cost(row: Row) -> None:
    """Take what the emitter says the span cost, where nobody who knows better has said it."""
    if row[REPORTED] is not None and row[form.COST_NUSD] is None:
        row[form.COST_NUSD], row[form.COST_FROM] = row[REPORTED], form.CostFrom.REPORTED.value
