"""OpenTelemetry's GenAI conventions themselves, whoever sends them."""

from __future__ import annotations

from collections.abc import Collection

from midwatch.core.spans.family import Family
from midwatch.core.spans.form import ROLE, ContentKind, Row
from midwatch.core.spans.standard import STANDARD, report_cost, role_of
from midwatch.core.spans.usage import settle


def _complete(row: Row) -> None:
    row[ROLE] = role_of(row).value
    settle(row)
    report_cost(row)


class _GenAi(Family):
    """Claims whatever has one key of the conventions."""

    __slots__ = ()

    def claims(self, scope: str, version: str, keys: Collection[str]) -> bool:  # noqa: ARG002  the port
        """Tell whether a key is the conventions' own."""
        return any(key.startswith("gen_ai.") for key in keys)


dialect = _GenAi(
    "gen_ai",
    STANDARD,
    folds={"gen_ai.prompt": ContentKind.INPUT, "gen_ai.completion": ContentKind.OUTPUT},
    complete=_complete,
)
