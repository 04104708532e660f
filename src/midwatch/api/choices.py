"""What lists of traces and of sessions are chosen by, read from a query: the same words for both."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import Query
from pydantic import BeforeValidator

from midwatch.core.spans.questions import Choice, Window
from midwatch.store.questions.pages import MAX_CURSOR
from midwatch.wire.limits import NUSD_PER_USD
from midwatch.wire.problem import Refusal

MAX_VALUES: Final = 50
"""Values of one filter."""

Several = Annotated[list[str] | None, Query(max_length=MAX_VALUES)]
Cursor = Annotated[
    str | None, Query(max_length=MAX_CURSOR, description="`next` of the page before")
]
Text = Annotated[str | None, Query(max_length=500)]


def _seconds(value: Any) -> Any:
    """Return RFC 3339 text as Unix seconds; leave what is a number to pydantic."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return value
    if moment.tzinfo is None:
        raise ValueError(f"{value!r} has no offset; end it with Z")
    return moment.timestamp()


Since = Annotated[
    float | None,
    BeforeValidator(_seconds),
    Query(ge=0, le=1e11, description="RFC 3339 or Unix seconds"),
]


def window_of(since: float | None, until: float | None) -> Window:
    """Return the window of a request. Raises Refusal."""
    first = 0 if since is None else round(since * 1e9)
    last = 2**63 - 1 if until is None else round(until * 1e9)
    if last <= first:
        raise Refusal(422, "`until` must be later than `since`", reason="parameters")
    return Window(first, last)


def tags_of(tags: list[str] | None) -> dict[str, str]:
    """Return tags of a request, each NAME=VALUE. Raises Refusal."""
    found: dict[str, str] = {}
    for one in tags or ():
        name, equal, value = one.partition("=")
        if not equal or not name:
            raise Refusal(422, f"expected a tag as NAME=VALUE, got {one[:80]!r}", reason="parameters")  # fmt: skip
        found[name] = value
    return found


class Chosen:
    """The filters of a request, as a dependency; `choice` is what they come to."""

    def __init__(
        self,
        agent: Several = None,
        session: Several = None,
        user: Several = None,
        run: Several = None,
        model: Several = None,
        tool: Several = None,
        outcome: Several = None,
        tag: Annotated[list[str] | None, Query(max_length=20, description="NAME=VALUE")] = None,
        failed: Annotated[bool | None, Query(description="with an error in it, or without")] = None,
        open: Annotated[bool | None, Query(description="still open, or not")] = None,  # noqa: A002  its name in the query
        lost: Annotated[bool | None, Query(description="with lost spans, or without")] = None,
        flagged: Annotated[
            bool | None,
            Query(description="with a tool's result that speaks to the model, or without"),
        ] = None,
        text: Annotated[
            str | None,
            Query(max_length=500, description="in a name, a status message or a content"),
        ] = None,
        since: Since = None,
        until: Since = None,
        min_duration_s: Annotated[float | None, Query(ge=0, le=1e9)] = None,
        min_cost_usd: Annotated[float | None, Query(ge=0, le=1e9)] = None,
    ) -> None:
        self.choice = Choice(
            window=window_of(since, until),
            **_tuples(agents=agent, sessions=session, users=user, runs=run, models=model, tools=tool, outcomes=outcome),
            tags=tags_of(tag),
            failed=failed,
            open=open,
            lost=lost,
            flagged=flagged,
            text=text or None,
            min_duration_s=min_duration_s,
            min_cost_nusd=None if min_cost_usd is None else round(min_cost_usd * NUSD_PER_USD),
        )  # fmt: skip


def _tuples(**lists: list[str] | None) -> dict[str, Any]:
    return {name: tuple(values or ()) for name, values in lists.items()}
