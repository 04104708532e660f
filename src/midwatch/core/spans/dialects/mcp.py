"""Spans of the Model Context Protocol: clients and servers that call tools, read resources, get prompts.

One call has two spans when both ends are instrumented. The client's is the tool call; the server's below it only
holds what the tool does, unless nobody called it that is seen. Source: GenAI conventions, Model Context Protocol.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.spans import form
from midwatch.core.spans.family import Family, column, content, over
from midwatch.core.spans.form import ContentKind, Role, Row
from midwatch.core.spans.reading import WORD, label
from midwatch.core.spans.standard import STANDARD

_SERVER: Final = 2
"""OpenTelemetry's kind of a span that answers."""

_CALL: Final = "tools/call"

_ROLES: Final = {
    "resources/read": Role.RETRIEVAL,
    "sampling/createMessage": Role.CHAIN,
}


def _complete(row: Row) -> None:
    method = row[WORD]
    if method == _CALL:
        if row[form.TOOL] is None:
            # clients of the official SDK say it in the span's name alone
            _, found, tool = row[form.NAME].partition(_CALL + " ")
            row[form.TOOL] = label(tool) if found else None
        answers = row[form.KIND] == _SERVER and row[form.PARENT_ID] is not None
        row[form.ROLE] = Role.CHAIN.value if answers else Role.TOOL.value
    else:
        row[form.ROLE] = _ROLES.get(method, Role.OTHER).value


_OWN: Final = {
    # no session and no id of a call: `mcp.session.id` is a connection, and its requests are counted from 1
    "mcp.method.name": column(WORD, label),
    "mcp.tool.name": column(form.TOOL, label),
    "mcp.request.argument": content(ContentKind.ARGUMENTS),
    "mcp.response.value": content(ContentKind.RESULT),
}

dialect = Family(
    "mcp",
    # what is worked out from the span's name cannot be given back
    over(_OWN, STANDARD, (form.TOOL,)),
    marks=frozenset({"mcp.method.name"}),
    complete=_complete,
)
