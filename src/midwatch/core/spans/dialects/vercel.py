"""Vercel's AI SDK: `ai.generateText` around `ai.generateText.doGenerate`, tools as `ai.toolCall`.

The outer span repeats what the inner ones used. Since version 6 the input's details say what was fresh; before, the
figures of Anthropic leave the caches out. Source: the SDK's telemetry page and its recording in tests/emitters.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.spans import form
from midwatch.core.spans.family import Family, column, content, over
from midwatch.core.spans.form import ContentKind, Role, Row
from midwatch.core.spans.reading import (
    FRESH,
    HINT,
    TOTAL,
    WORD,
    finish,
    label,
    milliseconds,
    name_of,
    seller,
    tokens,
)
from midwatch.core.spans.standard import STANDARD, report_cost, role_of
from midwatch.core.spans.usage import settle

_ENDS: Final = {
    "doGenerate": Role.CALL,
    "doStream": Role.CALL,
    "doEmbed": Role.EMBEDDING,
    "doRerank": Role.RERANK,
}
_WHOLES: Final = {
    "ai.toolCall": Role.TOOL,
    "ai.embed": Role.CHAIN,
    "ai.embedMany": Role.CHAIN,
    "ai.rerank": Role.CHAIN,
}

_METADATA: Final = "ai.telemetry.metadata."


def _complete(row: Row) -> None:
    operation = row[WORD]
    if operation is None:
        role = role_of(row)
    else:
        role = _ENDS.get(operation.rpartition(".")[2]) or _WHOLES.get(operation) or Role.AGENT
        if row[form.OPERATION] is None:
            row[form.OPERATION] = operation
    if role is Role.AGENT and row[form.AGENT_NAME] is None:
        row[form.AGENT_NAME] = row[HINT]
    settle(row, beside=row[form.PROVIDER] == "anthropic")
    report_cost(row)
    row[form.ROLE] = role.value


_OWN: Final = {
    "ai.operationId": column(WORD, label),
    "ai.model.id": column(form.MODEL, label, gives_back=True),
    "ai.model.provider": column(form.PROVIDER, seller),
    "ai.response.model": column(form.RESPONSE_MODEL, label, gives_back=True),
    "ai.response.id": column(form.RESPONSE_ID, label, gives_back=True),
    "ai.response.finishReason": column(form.FINISH, finish),
    "ai.response.msToFirstChunk": column(form.FIRST_TOKEN_NS, milliseconds),
    "ai.stream.msToFirstChunk": column(form.FIRST_TOKEN_NS, milliseconds),
    "ai.usage.inputTokens": column(form.INPUT_TOKENS, tokens, gives_back=True),
    "ai.usage.promptTokens": column(form.INPUT_TOKENS, tokens),
    "ai.usage.tokens": column(form.INPUT_TOKENS, tokens),
    "ai.usage.outputTokens": column(form.OUTPUT_TOKENS, tokens, gives_back=True),
    "ai.usage.completionTokens": column(form.OUTPUT_TOKENS, tokens),
    "ai.usage.totalTokens": column(TOTAL, tokens),
    "ai.usage.inputTokenDetails.noCacheTokens": column(FRESH, tokens),
    "ai.usage.inputTokenDetails.cacheReadTokens": column(form.CACHED_TOKENS, tokens),
    "ai.usage.cachedInputTokens": column(form.CACHED_TOKENS, tokens),
    "ai.usage.inputTokenDetails.cacheWriteTokens": column(form.CACHE_WRITE_TOKENS, tokens),
    "ai.usage.outputTokenDetails.reasoningTokens": column(form.REASONING_TOKENS, tokens),
    "ai.usage.reasoningTokens": column(form.REASONING_TOKENS, tokens),
    "ai.telemetry.functionId": column(HINT, label),
    f"{_METADATA}sessionId": column(form.SESSION, name_of),
    f"{_METADATA}session_id": column(form.SESSION, name_of),
    f"{_METADATA}threadId": column(form.SESSION, name_of),
    f"{_METADATA}chatId": column(form.SESSION, name_of),
    f"{_METADATA}userId": column(form.USER, name_of),
    f"{_METADATA}user_id": column(form.USER, name_of),
    "ai.toolCall.name": column(form.TOOL, label, gives_back=True),
    "ai.toolCall.id": column(form.TOOL_CALL_ID, label, gives_back=True),
    "ai.prompt": content(ContentKind.INPUT),
    "ai.prompt.messages": content(ContentKind.INPUT),
    "ai.prompt.tools": content(ContentKind.TOOLS),
    "ai.response.text": content(ContentKind.OUTPUT),
    "ai.response.object": content(ContentKind.OUTPUT),
    "ai.response.reasoning": content(ContentKind.OUTPUT),
    "ai.response.toolCalls": content(ContentKind.OUTPUT),
    "ai.toolCall.args": content(ContentKind.ARGUMENTS),
    "ai.toolCall.result": content(ContentKind.RESULT),
    "ai.value": content(ContentKind.INPUT),
    "ai.values": content(ContentKind.INPUT),
    "ai.embedding": content(ContentKind.OUTPUT),
    "ai.embeddings": content(ContentKind.OUTPUT),
    "ai.documents": content(ContentKind.DOCUMENTS),
    "ai.ranking": content(ContentKind.OUTPUT),
}

dialect = Family(
    "vercel",
    over(_OWN, STANDARD, (form.AGENT_NAME, form.OPERATION)),
    scopes=("@vercel/ai",),
    marks=frozenset({"ai.operationId"}),
    tags=(_METADATA,),
    complete=_complete,
)
