"""Our own SDK and gateway: the conventions, with what they have no word for under `midwatch.`.

A cost that the gateway tells is the ledger's; ingest lets nobody else speak under its scope.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.calls.news import SCOPE as GATEWAY
from midwatch.core.spans import form
from midwatch.core.spans.family import Family, column, content, over
from midwatch.core.spans.form import ContentKind, CostFrom, Role, Row
from midwatch.core.spans.reading import (
    HINT,
    REPORTED,
    WORD,
    dollars,
    flag,
    label,
    name_of,
    seller,
    whole_nusd,
)
from midwatch.core.spans.standard import STANDARD, report_cost, role_of
from midwatch.core.spans.usage import settle

_ROLES: Final = {
    "cycle": Role.CYCLE,
    "session": Role.CHAIN,
    "turn": Role.TURN,
    "call": Role.CALL,
    "tool": Role.TOOL,
    "decision": Role.DECISION,
    "retrieval": Role.RETRIEVAL,
    "evaluation": Role.EVALUATION,
    "guard": Role.GUARD,
    "handoff": Role.HANDOFF,
    "memory": Role.MEMORY,
    "state": Role.MEMORY,
}


def _complete(row: Row) -> None:
    role = _ROLES.get(row[WORD] or "")
    if row[HINT] is not None:
        # one attempt of a call: the call has its usage
        role = Role.OTHER
    elif role is None:
        role = role_of(row)
    if row[form.COST_NUSD] is not None:
        ours = row[form.SCOPE] == GATEWAY
        row[form.COST_FROM] = (CostFrom.LEDGER if ours else CostFrom.REPORTED).value
    else:
        report_cost(row)
    settle(row)
    row[form.ROLE] = role.value


_OWN: Final = {
    "midwatch.span": column(WORD, label),
    "midwatch.attempt": column(HINT, name_of),
    "midwatch.cost_nusd": column(form.COST_NUSD, whole_nusd),
    "midwatch.cost_usd": column(REPORTED, dollars),
    "midwatch.first_response_id": column(form.FIRST_RESPONSE_ID, label, gives_back=True),
    "midwatch.price_version": column(form.PRICE_VERSION, label, gives_back=True),
    "midwatch.provider": column(form.PROVIDER, seller),
    "midwatch.model": column(form.RESPONSE_MODEL, label),
    "midwatch.session": column(form.SESSION, name_of),
    "midwatch.turn": column(form.TURN, name_of),
    "midwatch.user": column(form.USER, name_of),
    "midwatch.run_id": column(form.RUN_ID, label),
    "midwatch.outcome": column(form.OUTCOME, label, gives_back=True),
    "midwatch.goal_met": column(form.GOAL_MET, flag, gives_back=True),
    "midwatch.escalated": column(form.ESCALATED, flag, gives_back=True),
    "midwatch.state": content(ContentKind.STATE),
    "midwatch.side_effect": column(form.SIDE_EFFECT, flag, gives_back=True),
}

_LAST: Final = ("midwatch.provider", "midwatch.model")
"""What the fleet file calls them; the conventions' words come first."""

_MERGED: Final = over(_OWN, STANDARD)

dialect = Family(
    "midwatch",
    {
        **{key: slot for key, slot in _MERGED.items() if key not in _LAST},
        **{key: _MERGED[key] for key in _LAST},
    },
    scopes=("midwatch.",),
    marks=frozenset({"midwatch.span"}),
    tags=("midwatch.tag.",),
    complete=_complete,
)
