"""Pages of traces and sessions: lists with filters, one trace as a waterfall, one session as turns.

All text in them is of agents and models: templates escape it, `words.plain` bounds it. A page shows what one question
answers; more is behind its links.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query
from fastapi.responses import HTMLResponse, Response

from midwatch.core.spans.questions import BadQuestion, Choice, Node, Questions, Tree, Window
from midwatch.core.spans.turns import MAX_FOLLOWED
from midwatch.web import render, words
from midwatch.web.spanpage import flagged, reasons, shown_of

PAGE_SIZE: Final = 50

LINES: Final = 200
"""Lines of a waterfall on one page."""

BACK: Final[Mapping[str, tuple[str, float | None]]] = {
    "hour": ("Last hour", 3_600.0),
    "day": ("Last 24 hours", 86_400.0),
    "week": ("Last 7 days", 7 * 86_400.0),
    "all": ("All that is kept", None),
}
"""How far back a list goes: value, words, seconds."""

WIDE: Final = 1_000
"""Units of a waterfall's width."""

MAX_TEXT: Final = 20_000
"""Characters of one content that a page shows; the API gives the rest."""

_HIDDEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

Frame = Callable[[float], Awaitable[dict[str, Any]]]
Word = Annotated[str, Query(max_length=300)]


@dataclass(frozen=True, slots=True)
class Bar:
    """A line's bar in units of WIDE: what the span itself took, and how far all below it reaches."""

    x: float
    own: float
    whole: float


@dataclass(frozen=True, slots=True)
class LineView:
    """One line of a waterfall."""

    node: Node
    bar: Bar
    indent: int

    @property
    def span(self) -> dict[str, Any]:
        return self.node.span

    @property
    def flags(self) -> list[str]:
        """Why the span is flagged."""
        return flagged(self.span)

    @property
    def tone(self) -> str:
        """good, bad (it failed, or is lost), warn (something below failed) or calm (open)."""
        if self.span.get("status") == "error" or self.span.get("rank") == "lost":
            return "bad"
        if self.node.below.errors:
            return "warn"
        return "calm" if self.span.get("rank") == "open" else "good"


class Filters:
    """The filters of a list as the form sends them; empty is no filter."""

    NAMES: Final = ("agent", "session", "user", "model", "tool", "text", "tag")

    def __init__(
        self,
        agent: Word = "",
        session: Word = "",
        user: Word = "",
        model: Word = "",
        tool: Word = "",
        text: Word = "",
        tag: Word = "",
        only: Annotated[str, Query(pattern="^(|failed|open|lost|flagged)$")] = "",
        back: Annotated[str, Query(pattern="^(hour|day|week|all)$")] = "day",
        after: Annotated[str, Query(max_length=4_096)] = "",
    ) -> None:
        self.values = dict(zip(self.NAMES, (agent, session, user, model, tool, text, tag), strict=True))  # fmt: skip
        self.only, self.back, self.after = only, back, after

    @property
    def narrowed(self) -> bool:
        """Tell whether anything is filtered."""
        return bool(self.only or any(self.values.values()))

    def choice(self, now: float) -> Choice:
        """Return what is asked for. Raises BadQuestion for a tag without a value."""
        v = self.values
        seconds = BACK[self.back][1]
        since_ns = 0 if seconds is None else max(0, round((now - seconds) * 1e9))
        name, equal, value = v["tag"].partition("=")
        if v["tag"] and not (name and equal):
            raise BadQuestion(f"expected a tag as NAME=VALUE, got {v['tag'][:80]!r}")
        return Choice(
            window=Window(since_ns),
            agents=_one(v["agent"]),
            sessions=_one(v["session"]),
            users=_one(v["user"]),
            models=_one(v["model"]),
            tools=_one(v["tool"]),
            tags={name: value} if v["tag"] else {},
            failed=True if self.only == "failed" else None,
            open=True if self.only == "open" else None,
            lost=True if self.only == "lost" else None,
            flagged=True if self.only == "flagged" else None,
            text=v["text"] or None,
        )

    def link(self, **more: str) -> str:
        """Return the query of the same list with something else changed."""
        every = {**self.values, "only": self.only, "back": self.back, **more}
        return urlencode({k: v for k, v in every.items() if v and (k, v) != ("back", "day")})


def _one(word: str) -> tuple[str, ...]:
    return (word,) if word else ()


def bar_of(node: Node, first_ns: int, last_ns: int) -> Bar:
    """Return where a line's bar stands in a trace from `first_ns` to `last_ns`; nothing is narrower than a pixel."""
    whole = max(1, last_ns - first_ns)
    start = node.span["start_ns"]
    end = node.end_ns if node.end_ns is not None else start
    own = end if node.alike > 1 else start + (node.span.get("duration_ns") or 0)

    def at(ns: int) -> float:
        return min(WIDE, max(0.0, (ns - first_ns) * WIDE / whole))

    x = min(at(start), WIDE - 2)
    return Bar(round(x, 1), round(max(2, at(own) - x), 1), round(max(2, at(end) - x), 1))


def lines_of(tree: Tree) -> list[LineView]:
    """Return a tree's lines with their bars."""
    first = tree.first_ns or 0
    last = tree.last_ns if tree.last_ns is not None else first
    return [LineView(node, bar_of(node, first, last), min(node.depth, 12)) for node in tree.nodes]


def ticks(first_ns: int, last_ns: int) -> list[tuple[int, str]]:
    """Return four marks of a waterfall's head: place in per cent and words."""
    whole_s = max(0, last_ns - first_ns) / 1e9
    return [(at, words.span(whole_s * at / 100)) for at in (0, 25, 50, 75)]


def prose(text: str) -> str:
    """Return text of several lines without what moves or hides text: controls, and marks of direction."""
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in _HIDDEN)


def add_pages(router: APIRouter, questions: Questions, frame: Frame, clock: Callable[[], float]) -> None:  # fmt: skip
    """Add the pages of traces and sessions."""
    _add_traces(router, questions, frame, clock)
    _add_sessions(router, questions, frame, clock)


def _add_traces(router: APIRouter, questions: Questions, frame: Frame, clock: Callable[[], float]) -> None:  # fmt: skip
    @router.get("/traces")
    async def traces(filters: Annotated[Filters, Depends()]) -> Response:  # pyright: ignore[reportUnusedFunction]
        now = clock()
        found = await questions.traces(filters.choice(now), filters.after or None, PAGE_SIZE)
        return render.html("traces.html", **await frame(now), filters=filters, back=BACK, found=found)  # fmt: skip

    @router.get("/traces/{trace_id}")
    async def trace(  # pyright: ignore[reportUnusedFunction]
        trace_id: str,
        below: Annotated[str, Query(max_length=32)] = "",
        unfold: Annotated[str, Query(max_length=4)] = "",
        after: Annotated[str, Query(max_length=16)] = "",
    ) -> Response:
        fold = not unfold
        try:
            tree = await questions.tree(trace_id.lower(), below or None, after or None, LINES, fold=fold)  # fmt: skip
        except BadQuestion:
            tree = None
        if tree is None:
            return render.problem_page(404, "There is no such trace or span. Traces are kept as long as the fleet file says.")  # fmt: skip
        return render.html(
            "trace.html", **await frame(clock()), tree=tree, lines=lines_of(tree), below=below,
            unfold=unfold, after=after, ticks=ticks(tree.first_ns or 0, tree.last_ns or 0),
        )  # fmt: skip

    @router.get("/traces/{trace_id}/spans/{span_id}")
    async def span(trace_id: str, span_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        trace, one = trace_id.lower(), span_id.lower()
        try:
            tree = await questions.tree(trace, one, None, 1)
            held = await questions.contents(trace, one)
            item = await questions.span(trace, one)
        except BadQuestion:
            tree = held = item = None
        if tree is None or held is None or item is None:
            return render.problem_page(404, "There is no such span in this trace.")
        return render.html(
            "span.html", **await frame(clock()), tree=tree, node=tree.nodes[0], held=held, most=MAX_TEXT,
            prose=prose, shown=shown_of(item), reasons=reasons, path=path_of,
        )  # fmt: skip


def _add_sessions(router: APIRouter, questions: Questions, frame: Frame, clock: Callable[[], float]) -> None:  # fmt: skip
    @router.get("/sessions")
    async def sessions(filters: Annotated[Filters, Depends()]) -> Response:  # pyright: ignore[reportUnusedFunction]
        now = clock()
        found = await questions.sessions(filters.choice(now), filters.after or None, PAGE_SIZE)
        return render.html("sessions.html", **await frame(now), filters=filters, back=BACK, found=found, path=path_of)  # fmt: skip

    # `path`: emitters name sessions as they like
    @router.get("/sessions/{session:path}", response_class=HTMLResponse)
    async def one(  # pyright: ignore[reportUnusedFunction]
        session: str, follow: Annotated[str, Query(max_length=MAX_FOLLOWED)] = ""
    ) -> Response:
        found = await questions.session(session, follow.strip() or None)
        if found is None:
            return render.problem_page(404, f"No session is named {words.plain(session, 128)!r}.")
        return render.html(
            "session.html", **await frame(clock()), found=found, follow=follow, path=path_of
        )


def path_of(session: str) -> str:
    """Return the address of a session's page."""
    return "/sessions/" + quote(session, safe="")
