"""The routes: whole pages, and the fragments of them that watch.js swaps in.

A page is always complete as it is served. The fleet page is refreshed by fragments, because it
is large; the others are small and are fetched again as a whole.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from midwatch.core.incident import Incident, IncidentState
from midwatch.core.notify import undelivered
from midwatch.core.ports import DeliveryBook, FleetReader, IncidentBook
from midwatch.core.spans.questions import Questions
from midwatch.web import charts, prompt, render, tracing, view, words

OPEN_PATHS: Final = ("/login", "/static/", "/favicon.ico")
"""What may be seen without signing in: it tells nothing about the fleet."""

PAGE_SIZE: Final = 50
"""Incidents on one page of the list."""

FILTER_FROM: Final = 9
"""From so many agents on, the page offers a filter."""

RUNS_SHOWN: Final = 20

DELIVERIES_SEEN: Final = 200
"""Newest messages that are looked through for those that did not arrive."""

Names = Annotated[list[str] | None, Query(max_length=100)]

RunsOf = Callable[[str, int], Awaitable[Sequence[dict[str, Any]]]]
"""Returns the last runs of an agent, newest first, in the shape of `GET /api/runs`."""

_WEIGHT: Final = {"critical": 0, "warning": 1, "info": 2}


class Pages:
    """Gathers what the pages show: one view of the fleet at one moment."""

    def __init__(
        self,
        reader: FleetReader,
        book: IncidentBook,
        clock: Callable[[], float],
        runs: RunsOf | None,
        deliveries: DeliveryBook | None,
        *,
        traced: bool = False,
    ) -> None:
        self.reader = reader
        self.book = book
        self.clock = clock
        self.runs = runs
        self.deliveries = deliveries
        self.traced = traced

    async def frame(self, now: float) -> dict[str, Any]:
        """Return what every page shows: the fleet's name, open incidents, times in its zone."""
        fleet = self.reader.fleet(now)
        incidents = sorted(
            await self.book.open_incidents(),
            key=lambda i: (i.state is not IncidentState.OPEN, _WEIGHT[i.severity], -i.opened_at),
        )
        unseen = [i for i in incidents if i.state is IncidentState.OPEN]
        zone = str(fleet.get("timezone") or "UTC")
        return {
            "now": now,
            "zone": zone,
            "traced": self.traced,
            "times": render.Times(now, words.zone(zone)),
            "fleet": fleet,
            "fleet_name": words.plain(fleet.get("fleet") or "fleet", 128),
            "incidents": incidents,
            "open_count": len(incidents),
            "worst": min((i.severity for i in unseen), key=_WEIGHT.__getitem__, default="none"),
        }

    async def fleet(self, query: str = "") -> dict[str, Any]:
        """Return the frame and every agent, in groups."""
        now = self.clock()
        frame = await self.frame(now)
        read = self.reader.agents(now)
        dense = len(read) >= view.DENSE_FROM
        agents = [view.see(a, frame["times"].tz, titles=not dense) for a in read]
        shown = [a for a in agents if matches(a, query)]
        return {
            **frame,
            "agents": agents,
            "groups": view.in_groups(shown),
            "shown_count": len(shown),
            "dense": dense,
            "lead": view.lead(agents, frame["open_count"]),
            "undelivered": await self.undelivered(now),
            "filter": len(agents) >= FILTER_FROM,
            "query": query,
        }

    async def undelivered(self, now: float) -> list[str]:
        """Return a sentence for each target that messages do not reach."""
        if self.deliveries is None:
            return []
        failed = undelivered(await self.deliveries.recent(DELIVERIES_SEEN), now)
        return [
            f"{words.plural(count, 'message')} did not reach {words.plain(target, 60)}:"
            f" {words.plain(error.removeprefix(f'{target}: '), 200)}"
            for target, (count, error) in sorted(failed.items())
        ]

    async def rows(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the rows of some agents; unknown names are left out."""
        now = self.clock()
        times = render.Times(now, words.zone(self.reader.fleet(now).get("timezone")))
        dense = len(self.reader.names()) >= view.DENSE_FROM
        found = [a for name in names if (a := self.reader.agent(name, now)) is not None]
        agents = [view.see(a, times.tz, titles=not dense) for a in found]
        return {"agents": agents, "times": times, "dense": dense}

    async def agent(self, name: str) -> dict[str, Any] | None:
        """Return all about one agent, or None when no agent has this name."""
        now = self.clock()
        read = self.reader.agent(name, now)
        if read is None:
            return None
        frame = await self.frame(now)
        tz = frame["times"].tz
        cycles: list[dict[str, Any]] = read.get("recent_cycles") or []

        def when(value: object) -> str:
            at = words.moment(value)
            return f"{at.astimezone(tz):%H:%M:%S}" if at else "no time"

        def chart(which: Any) -> tuple[Any, charts.Scale] | None:
            chosen = charts.scale(cycles, which)
            drawn = charts.strip(cycles, when, prefer=which) if chosen.name == which else None
            return None if drawn is None else (drawn, chosen)

        return {
            **frame,
            "agent": view.see(read, tz),
            "prompt": prompt.see(read),
            "cycles": list(reversed(cycles)),
            "charts": [(label, c) for label, which in _CHARTS if (c := chart(which)) is not None],
            "result_of": charts.result_of,
            "runs": None if self.runs is None else await self.runs(name, RUNS_SHOWN),
            "past": await self.book.page(state=None, agent=name, after=None, limit=20),
        }


_CHARTS: Final = (("Tokens per cycle", "tokens"), ("Duration per cycle", "duration_s"))


def matches(agent: view.AgentView, query: str) -> bool:
    """Tell whether an agent has every word of the query in its name, group, state or sentence."""
    text = f"{agent.shown} {agent.group} {agent.state} {agent.sentence}".casefold()
    return all(word in text for word in query.casefold().split())


def build(
    reader: FleetReader,
    book: IncidentBook,
    *,
    clock: Callable[[], float],
    runs: RunsOf | None = None,
    deliveries: DeliveryBook | None = None,
    questions: Questions | None = None,
) -> APIRouter:
    """Return the routes of all pages. `clock` gives Unix seconds.

    `runs` gives the history of an agent's processes, `deliveries` the messages that did not arrive;
    the pages leave out what is not given. `questions` are asked for traces and sessions.
    """
    pages = Pages(reader, book, clock, runs, deliveries, traced=questions is not None)
    router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
    _add_fleet(router, pages)
    _add_agents(router, pages)
    _add_incidents(router, pages)
    if questions is not None:
        tracing.add_pages(router, questions, pages.frame, clock)
    _add_static(router)
    return router


def _add_fleet(router: APIRouter, pages: Pages) -> None:
    @router.get("/")
    async def fleet(q: str = Query("", max_length=200)) -> Response:  # pyright: ignore[reportUnusedFunction]
        return render.html("fleet.html", **await pages.fleet(q))

    @router.get("/fragments/summary")
    async def summary() -> Response:  # pyright: ignore[reportUnusedFunction]
        return render.html("parts/summary.html", **await pages.fleet())

    @router.get("/fragments/incidents")
    async def incidents() -> Response:  # pyright: ignore[reportUnusedFunction]
        return render.html("parts/incidents.html", **await pages.frame(pages.clock()))

    @router.get("/fragments/agents")
    async def agents(name: Names = None) -> Response:  # pyright: ignore[reportUnusedFunction]
        if name:
            return render.html("parts/rows.html", **await pages.rows(name))
        return render.html("parts/agents.html", **await pages.fleet())

    @router.get("/fragments/agents/{agent:path}")
    async def row(agent: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        found = await pages.rows([agent])
        if not found["agents"]:
            return render.problem_page(404, f"No agent is named {words.plain(agent, 128)!r}.")
        return render.html("parts/rows.html", **found)


def _add_agents(router: APIRouter, pages: Pages) -> None:
    # `path`: an agent that registered by itself may have a slash in its name
    @router.get("/agents/{agent:path}/ask/{do}")
    async def ask(agent: str, do: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        """The question before a deed, for browsers without JavaScript."""
        found = await pages.agent(agent)
        deed = view.DEEDS.get(do)
        if found is None or deed is None:
            return render.problem_page(
                404, "There is no such agent, or nothing by this name to do to it."
            )
        return render.html("ask.html", deed=deed, **found)

    @router.get("/agents/{agent:path}")
    async def detail(agent: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        found = await pages.agent(agent)
        if found is None:
            return render.problem_page(404, f"No agent is named {words.plain(agent, 128)!r}.")
        return render.html("agent.html", **found)


def _add_incidents(router: APIRouter, pages: Pages) -> None:
    @router.get("/incidents")
    async def listing(  # pyright: ignore[reportUnusedFunction]
        state: str = Query("", max_length=20),
        agent: str = Query("", max_length=128),
        after: str = Query("", max_length=128),
    ) -> Response:
        known = state if state in list(IncidentState) else None
        found = await pages.book.page(
            state=known, agent=agent or None, after=after or None, limit=PAGE_SIZE
        )
        frame = await pages.frame(pages.clock())
        older = found[-1].id if len(found) == PAGE_SIZE else None
        return render.html(
            "incidents.html",
            **frame,
            found=found,
            state=known or "",
            agent_name=agent,
            older=older,
            after=after,
        )

    @router.get("/incidents/{incident_id}")
    async def one(incident_id: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        incident: Incident | None = await pages.book.get(incident_id)
        if incident is None:
            return render.problem_page(
                404, "No incident has this id. Old ones are kept as long as the store is."
            )
        return render.html("incident.html", **await pages.frame(pages.clock()), incident=incident)


def _add_static(router: APIRouter) -> None:
    @router.get("/login")
    async def login() -> Response:  # pyright: ignore[reportUnusedFunction]
        return render.html("login.html")

    @router.get("/favicon.ico")
    async def favicon() -> Response:  # pyright: ignore[reportUnusedFunction]
        return RedirectResponse(render.asset_url("moon-none.svg"), 302)

    @router.get("/static/{name}")
    async def static(name: str, v: str | None = None) -> Response:  # pyright: ignore[reportUnusedFunction]
        return render.asset_response(name, v) or render.problem_page(404)
