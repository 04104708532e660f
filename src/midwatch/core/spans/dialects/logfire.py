"""Logfire and Pydantic AI: the conventions, and a few words of their own. Pending spans are understood for every
family (`understanding`). Source: recordings in tests/emitters.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from midwatch.core.spans import form
from midwatch.core.spans.family import Family, column, content, over
from midwatch.core.spans.form import ContentKind, Row
from midwatch.core.spans.reading import REPORTED, dollars, label
from midwatch.core.spans.standard import STANDARD, report_cost, role_of
from midwatch.core.spans.usage import settle


def _complete(row: Row) -> None:
    row[form.ROLE] = role_of(row).value
    settle(row)
    report_cost(row)


_OWN: Final = {
    "operation.cost": column(REPORTED, dollars),
    "agent_name": column(form.AGENT_NAME, label),
    "request_data": content(ContentKind.INPUT),
    "response_data": content(ContentKind.OUTPUT),
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
    # the agent's name is told twice, and a column gives back one of them
    over(_OWN, STANDARD, (form.AGENT_NAME,)),
    scopes=("logfire", "pydantic-ai"),
    complete=_complete,
)
