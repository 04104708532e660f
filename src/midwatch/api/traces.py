"""Traces: the list with its filters, one trace as spans in pages, as a tree, and what a span said."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from midwatch.api import traceshapes
from midwatch.api.answers import Json, Room
from midwatch.api.choices import Chosen, Cursor
from midwatch.core.spans.questions import BadQuestion, Node, Tree
from midwatch.wire.limits import NUSD_PER_USD
from midwatch.wire.problem import Refusal

MAX_SPANS: Final = 5_000
"""Spans of one page of a trace."""

Limit = Annotated[int, Query(ge=1, le=500, description="items of one page")]


def build(room: Room) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["read"])
    _add_lists(router, room)
    _add_tree(router, room)
    return router


def _add_lists(router: APIRouter, room: Room) -> None:
    @router.get("/api/traces", response_model=traceshapes.Traces)
    async def traces(  # pyright: ignore[reportUnusedFunction]
        chosen: Annotated[Chosen, Depends()], after: Cursor = None, limit: Limit = 100
    ) -> Response:
        """Traces, newest first. A trace is chosen when any of its spans says what is asked for; its sums are of the
        whole trace, tokens and cost counted once. Under sampling `weight` says how many a kept one stands for, and
        `left_out` how many of this list are gone."""
        found = await room.questions.traces(chosen.choice, after, limit)
        answer = {"items": list(found.items), "next": found.next, "left_out": found.left_out}
        return Json.of(traceshapes.Traces, answer)

    @router.get("/api/traces/{trace_id}", response_model=traceshapes.WholeTrace)
    async def trace(  # pyright: ignore[reportUnusedFunction]
        trace_id: str,
        after: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=MAX_SPANS)] = MAX_SPANS,
    ) -> Response:
        """One trace with its spans, by their start; `next`, given as `after`, reads on."""
        try:
            found = await room.questions.spans(trace_id.lower(), after, limit)
        except BadQuestion:
            if after is not None:
                raise
            raise stranger(trace_id) from None
        if not found.items and after is None:
            raise stranger(trace_id)
        answer = {
            "trace_id": trace_id.lower(),
            "spans": [span_shown(one) for one in found.items],
            "truncated": found.next is not None,
            "next": found.next,
        }
        return Json.of(traceshapes.WholeTrace, answer)


def _add_tree(router: APIRouter, room: Room) -> None:
    @router.get("/api/traces/{trace_id}/tree", response_model=traceshapes.TreeShape)
    async def tree(  # pyright: ignore[reportUnusedFunction]
        trace_id: str,
        below: Annotated[
            str | None, Query(max_length=32, description="only this span and what is below it")
        ] = None,
        fold: Annotated[bool, Query(description="siblings that are alike as one line")] = True,
        after: Cursor = None,
        limit: Limit = 200,
    ) -> Response:
        """A trace as lines of a tree: parents before children, each with the sums of everything below it, and how
        many siblings in a row it stands for. `offset_s` and `until_s` are seconds from the trace's first start: the
        bars of a waterfall."""
        found = await room.questions.tree(trace_id.lower(), below, after, limit, fold=fold)
        if found is None:
            raise stranger(trace_id)
        return Json.of(traceshapes.TreeShape, tree_shown(found))

    @router.get("/api/traces/{trace_id}/spans/{span_id}", response_model=traceshapes.WholeSpan)
    async def span(trace_id: str, span_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        """All that is known of one span but what was said in it: `original` are the attributes as its sender wrote
        them, `resource` says where it comes from. Bytes stand as `{"$bytes": base64}`."""
        found = await room.questions.span(trace_id.lower(), span_id.lower())
        if found is None:
            raise strange_span(span_id)
        return Json.of(traceshapes.WholeSpan, span_shown(found))

    @router.get(
        "/api/traces/{trace_id}/spans/{span_id}/contents", response_model=traceshapes.ContentsShape
    )
    async def contents(trace_id: str, span_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        """What a span was given and what it gave back: prompts, answers, arguments, results. `gone` counts what has
        expired or was removed."""
        found = await room.questions.contents(trace_id.lower(), span_id.lower())
        if found is None:
            raise strange_span(span_id)
        return Json.of(traceshapes.ContentsShape, {"items": list(found.items), "gone": found.gone})


def stranger(trace_id: str) -> Refusal:
    """Return the 404 for a trace that is not there."""
    return Refusal(404, f"no trace has the id {trace_id[:64]!r}", reason="trace")


def strange_span(span_id: str) -> Refusal:
    """Return the 404 for a span that is not there."""
    return Refusal(404, f"no span has the id {span_id[:32]!r} in this trace", reason="span")


def span_shown(item: dict[str, Any]) -> dict[str, Any]:
    """Return a span as the API shows it: its events' times as any other time."""
    events = item.get("events")
    if not isinstance(events, list):
        return item
    shown = [{**one, "at": one["time_ns"] / 1e9} for one in events if "time_ns" in one]  # pyright: ignore[reportUnknownVariableType]
    return {**item, "events": shown}


def tree_shown(found: Tree) -> dict[str, Any]:
    """Return a tree as the API shows it."""
    first = found.first_ns or 0
    return {
        "trace_id": found.trace_id,
        "at": first / 1e9,
        "duration_s": None if found.last_ns is None else max(0, found.last_ns - first) / 1e9,
        "total": found.total,
        "lines": [_line(node, first) for node in found.nodes],
        "next": found.next,
    }


def _line(node: Node, first_ns: int) -> dict[str, Any]:
    start_ns: int = node.span["start_ns"]
    end_ns = node.end_ns if node.end_ns is not None else start_ns
    below = asdict(node.below)
    return {
        "depth": node.depth,
        "children": node.children,
        "alike": node.alike,
        "orphan": node.orphan,
        "offset_s": (start_ns - first_ns) / 1e9,
        "until_s": (end_ns - first_ns) / 1e9,
        "below": {**below, "cost_usd": below["cost_nusd"] / NUSD_PER_USD},
        "span": node.span,
    }
