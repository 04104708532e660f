"""The pages as they are served, without a browser."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import demo_fleets as fleets
import pytest
from demo_hub import NOW, Demo
from starlette.testclient import TestClient

from midwatch import web
from midwatch.core.fleet import Fleet
from midwatch.core.incident import IncidentState
from midwatch.core.notify import Delivery, DeliveryState, Why
from midwatch.core.states import State
from midwatch.core.view import FleetView
from midwatch.web import render
from midwatch.wire.items import Kind

INCIDENT = "/incidents/0197f3a0-1111-7000-8000-000000000001"
PAGES = (
    "/",
    "/agents/inbox",
    "/agents/inbox/ask/stop",
    "/incidents",
    INCIDENT,
    "/login",
    "/nowhere",
)
FRAGMENTS = (
    "/fragments/summary",
    "/fragments/incidents",
    "/fragments/agents",
    "/fragments/agents/inbox",
)


class Outline(HTMLParser):
    """The elements of a page, its text, and whether each element that was opened was closed."""

    VOID = frozenset({"meta", "link", "input", "br", "img"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def serve(demo: Demo) -> TestClient:
    return TestClient(demo.app(), follow_redirects=False)


@pytest.fixture(params=sorted(fleets.SCENARIOS))
def any_fleet(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    with serve(fleets.SCENARIOS[request.param]()) as client:
        yield client


@pytest.fixture
def night() -> Iterator[TestClient]:
    with serve(fleets.night()) as client:
        yield client


@pytest.mark.parametrize("path", [*PAGES, *FRAGMENTS])
def test_every_page_of_every_fleet_is_well_formed(any_fleet: TestClient, path: str) -> None:
    answer = any_fleet.get(path)
    assert answer.status_code in (200, 404)
    outline = Outline(answer.text)
    assert outline.open == []
    ids = [attrs["id"] for _, attrs in outline.elements if "id" in attrs]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("path", [*PAGES, *FRAGMENTS])
def test_nothing_runs_or_loads_that_is_not_ours(any_fleet: TestClient, path: str) -> None:
    answer = any_fleet.get(path)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    outline = Outline(answer.text)
    for tag, attrs in outline.elements:
        assert "style" not in attrs, f"<{tag}> has an inline style"
        assert not [name for name in attrs if name.startswith("on")], f"<{tag}> has a handler"
        assert tag not in ("img", "iframe", "object", "style")
        for name in ("src", "href", "action"):
            assert (attrs.get(name) or "/").startswith(("/", "#")), f"{tag} {name}={attrs[name]!r}"
    assert [s.get("type") for s in outline.all("script")] in ([], ["module"])


def test_hostile_text_is_shown_as_text() -> None:
    demo = fleets.hostile()
    with serve(demo) as client:
        names = [web_view(raw).path for raw in demo.reader.agents(NOW)]
        ids = [i.id for i in demo.book.incidents]
        paths = [
            "/",
            "/incidents",
            *(f"/agents/{n}" for n in names),
            *(f"/incidents/{i}" for i in ids),
        ]
        for path in paths:
            answer = client.get(path)
            assert answer.status_code == 200, path
            outline = Outline(answer.text)
            assert len(outline.all("script")) <= 1, path
            assert not outline.all("img"), path
            assert "\u202e" not in answer.text
            assert "\x1b" not in answer.text
        assert "<script>alert(1)</script>" in Outline(client.get("/").text).text


def web_view(raw: dict[str, Any]) -> Any:
    return web.routes.view.see(raw, render.words.zone("UTC"))


@pytest.mark.parametrize("state", list(State))
def test_each_state_has_a_word_a_shape_and_its_actions(state: State) -> None:
    demo = Demo()
    demo.put(fleets.agent("one", state.value))
    with serve(demo) as client:
        page = client.get("/").text
    outline = Outline(page)
    shapes = {attrs["href"] for attrs in outline.all("use")}
    assert f"#g-{state.value}" in shapes
    assert f'<symbol id="g-{state.value}"' in page
    assert f'<span class="word">{state.value.replace("-", " ")}</span>' in page
    assert outline.all("button")


def test_the_page_works_without_javascript(night: TestClient) -> None:
    page = night.get("/").text
    assert '<noscript><meta http-equiv="refresh" content="30"></noscript>' in page
    forms = {(f["method"], f["action"]) for f in Outline(page).all("form") if "action" in f}
    assert ("post", "/api/agents/prices/start") in forms
    assert ("get", "/agents/inbox/ask/stop") in forms
    question = Outline(night.get("/agents/inbox/ask/stop").text)
    assert "Stop inbox?" in question.text
    asked = [(f["method"], f["action"]) for f in question.all("form") if "action" in f]
    assert asked == [("post", "/api/agents/inbox/stop"), ("post", "/logout")]


def test_the_filter_works_without_javascript() -> None:
    with serve(fleets.many()) as client:
        rows = Outline(client.get("/?q=support+RUNNING").text).all("li")
    names = [r["data-agent"] for r in rows if "data-agent" in r]
    assert names
    assert all("support" in (n or "") or n in ("inbox", "translator") for n in names)


def test_what_matters_is_said_first(night: TestClient) -> None:
    page = night.get("/").text
    assert "<title>(2) night-shift · Midwatch</title>" in page
    said = Outline(page).text
    order = [
        "1 of 4 agents needs you: prices is parked.",
        "$2.64",
        "prices: parked because its key OPENAI_API_KEY was refused",
        "translator: ran out of memory at 1.0 GiB",
        "Parked at 02:14 after 3 failed starts",
        "Last worked 12 seconds ago, 31 mails today",
        "Wrote the report yesterday",
    ]
    places = [said.find(words) for words in order]
    assert -1 not in places
    assert places == sorted(places)


def test_times_are_shown_in_the_fleets_zone_and_told_to_machines_in_utc(night: TestClient) -> None:
    page = night.get("/").text
    assert 'data-zone="Europe/Paris"' in page
    assert (
        '<time datetime="2026-01-15T01:14:00Z" title="Thu 15 Jan 2026, 02:14:00 CET" data-age>'
        "14 minutes ago</time>" in page
    )


def test_no_data_is_not_shown_as_zero() -> None:
    demo = Demo()
    nothing = dict.fromkeys(("cost_usd", "budget_usd", "cycles", "restarts"))
    demo.put(
        fleets.agent(
            "new",
            "starting",
            sentence="new: starting",
            today=nothing,
            resources={},
            recent_cycles=[],
        )
    )
    with serve(demo) as client:
        said = Outline(client.get("/").text).text
        detail = Outline(client.get("/agents/new").text).text
    assert "no cycles yet" in said
    assert "no restart data" in said
    assert "$0" not in said
    assert "No cycles yet" in detail


def test_losses_are_on_the_page() -> None:
    with serve(fleets.broken()) as client:
        said = Outline(client.get("/fragments/summary").text).text
    assert "1,235 reports lost or cut: queue full 1,204 and spool full 31" in said


def test_messages_that_did_not_arrive_are_on_the_page() -> None:
    demo = fleets.calm()
    for n, error in enumerate(("ops: 503 <b>Unavailable</b>", None, "ops: 500")):
        state = DeliveryState.PENDING if error else DeliveryState.DELIVERED
        kept = Delivery(
            f"d{n}", f"k{n}", "i1", "ops", Why.OPENED, "t", "b", NOW - n, NOW, state, 1, error
        )
        demo.deliveries.kept[kept.id] = kept
    with serve(demo) as client:
        said = Outline(client.get("/fragments/summary").text).text
    assert "2 messages did not reach ops: 503 <b>Unavailable</b>" in said


def test_an_incident_shows_why_what_was_done_and_the_evidence(night: TestClient) -> None:
    said = " ".join(Outline(night.get(INCIDENT).text).text.split())
    for words in (
        "run.ended with end credentials 3 times; restarting cannot help",
        "park 02:14 parked until you start it",
        "noticed, 200 ms later",
        "71 MiB",
        "openai.AuthenticationError: Error code: 401",
    ):
        assert words in said


def test_incidents_are_listed_by_state_and_in_pages() -> None:
    demo = Demo()
    for i in range(120):
        resolved = IncidentState.RESOLVED if i % 2 else IncidentState.OPEN
        demo.tell(
            fleets.incident(
                i, "crash-loop", "x", state=resolved, opened_at=NOW - i, sentence=f"number {i}."
            )
        )
    with serve(demo) as client:
        first = client.get("/incidents?state=resolved").text
        older = next(
            a["href"] for a in Outline(first).all("a") if "after=" in (a.get("href") or "")
        )
        second = client.get(older or "").text
    numbers = [re.findall(r"<bdi>number (\d+)\.", page) for page in (first, second)]
    assert [len(n) for n in numbers] == [50, 10]
    assert numbers[0][0] == "1"
    assert numbers[1][-1] == "119"


def test_fragments_are_the_parts_of_the_page(night: TestClient) -> None:
    page = night.get("/").text
    for path in ("/fragments/summary", "/fragments/incidents", "/fragments/agents"):
        assert night.get(path).text.strip() in page
    row = night.get("/fragments/agents/inbox").text
    assert [r.get("data-agent") for r in Outline(row).all("li")] == ["inbox"]
    rows = night.get("/fragments/agents?name=inbox&name=gone&name=prices").text
    named = [r["data-agent"] for r in Outline(rows).all("li") if "data-agent" in r]
    assert named == ["inbox", "prices"]


@pytest.mark.parametrize(
    "path",
    [
        "/agents/nobody",
        "/agents/nobody/ask/stop",
        "/agents/inbox/ask/dance",
        "/incidents/none",
        "/fragments/agents/nobody",
        "/static/../render.py",
        "/static/none.css",
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(night: TestClient, path: str) -> None:
    answer = night.get(path)
    assert answer.status_code == 404
    assert "Back to the fleet" in answer.text


def test_login_tells_nothing_about_the_fleet() -> None:
    page = serve(fleets.night()).get("/login").text
    assert "midwatch link" in page
    assert "night-shift" not in page
    assert "prices" not in page


def test_static_files_are_kept_for_ever_under_their_version_only(night: TestClient) -> None:
    lasting = night.get(render.asset_url("watch.js"))
    assert lasting.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert lasting.headers["content-type"].startswith("text/javascript")
    assert night.get("/static/watch.js").headers["cache-control"] == "no-cache"
    assert night.get("/").headers["cache-control"] == "no-store"


def test_a_page_of_200_agents_stays_small_and_quick() -> None:
    with serve(fleets.many(200)) as client:
        page = client.get("/").text
    assert page.count('class="agent ') == 200
    assert len(page) < 1_000_000


def test_every_address_that_the_module_fetches_is_served(night: TestClient) -> None:
    module = night.get("/static/watch.js").text
    fetched = set(re.findall(r'load\([`"](/[a-z/]+)', module))
    assert fetched == {"/fragments/summary", "/fragments/incidents", "/fragments/agents"}
    assert all(night.get(path).status_code == 200 for path in fetched)


def test_problem_pages_go_to_people_and_not_to_programs() -> None:
    def asked(path: str, accept: str) -> bool:
        scope = {
            "type": "http",
            "path": path,
            "headers": [(b"accept", accept.encode())],
            "query_string": b"",
            "server": ("h", 80),
            "scheme": "http",
        }
        return web.wants_page(render.Request(scope))

    assert asked("/nowhere", "text/html,*/*")
    assert not asked("/api/agents", "text/html,*/*")
    assert not asked("/nowhere", "application/json")
    assert web.problem_page(500).status_code == 500


def test_who_is_not_signed_in_is_told_how() -> None:
    answer = web.problem_page(401, "no token: send Authorization: Bearer TOKEN")
    assert answer.status_code == 401
    assert b"midwatch link" in answer.body
    assert b"Bearer" not in answer.body


def test_the_pages_read_the_real_fleet_view() -> None:
    fleet = Fleet.model_validate(
        {"fleet": "real", "timezone": "Europe/Paris", "agents": {"inbox": {"command": ["true"]}}}
    ).resolved()
    reader = FleetView(fleet, node="lighthouse", now=NOW)
    beat = {
        "id": "b",
        "agent": "inbox",
        "at": NOW - 5,
        "tokens": 900,
        "duration_s": 2.0,
        "result": "ok",
    }
    demo = Demo()
    before = TestClient(with_reader(demo, reader)).get("/").text
    reader.apply(Kind.BEAT, beat, NOW)
    after = TestClient(with_reader(demo, reader)).get("/").text
    assert "no cycles yet" in before
    assert "Last 1 cycle, none failed, median 900 tokens" in after


def with_reader(demo: Demo, reader: Any) -> Any:
    demo.reader = reader
    return demo.app()
