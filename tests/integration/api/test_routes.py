from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from midwatch.api import shapes, traceshapes
from midwatch.api.node import ACTIONS
from midwatch.core.access import mint_node
from midwatch.core.incident import Action, Incident, IncidentState


def incident(number: int, state: IncidentState = IncidentState.OPEN) -> Incident:
    return Incident(
        id=f"i{number:03}",
        kind="oom-kill",
        agent="inbox",
        group=None,
        severity="critical",
        state=state,
        sentence="inbox ran out of memory",
        reason="rss 1 GiB of 1 GiB",
        evidence={"rss_bytes": 2**30},
        opened_at=1_800_000_000.0 + number,
        evidence_at=1_800_000_000.0,
        seen_at=1_800_000_000.0,
        actions=[Action("restart", 1_800_000_001.0, "restarted")],
    )


RFC_3339 = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def times_in(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is a time by its name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from times_in(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from times_in(inner, name)
    elif name.endswith("_at") or name in ("at", "since", "last_beat"):
        yield name, value


async def answer_one(hub: Any, result: str, state: str) -> dict[str, Any]:
    token = mint_node(hub.secret, "here")
    (command,) = (await hub.client.get("/api/nodes/here/commands?wait=5", token=token)).json()
    said = {"id": command["id"], "result": result, "state": state}
    await hub.client.post("/api/nodes/here/replies", [said], token=token)
    return command


@pytest.mark.parametrize("do", ACTIONS)
async def test_an_action_goes_to_the_node_and_its_reply_comes_back(hub: Any, do: str) -> None:
    asked = asyncio.create_task(hub.client.post(f"/api/agents/inbox/{do}"))
    command = await answer_one(hub, "done", "stopped")
    assert (command["agent"], command["do"]) == ("inbox", do)
    answer = await asked
    assert answer.json() == [{"agent": "inbox", "action": do, "result": "done", "state": "stopped"}]


async def test_without_a_node_an_action_is_a_503_that_says_so(
    hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midwatch.api.node.FETCH_S", 0.05)
    answer = await hub.client.post("/api/agents/inbox/stop")
    assert answer.status == 503
    assert "has not asked for commands" in answer.json()["detail"]
    # taken back: a node that comes later does not carry it out
    token = mint_node(hub.secret, "here")
    assert (await hub.client.get("/api/nodes/here/commands", token=token)).json() == []


async def test_unknown_agents_and_deeds_are_problem_documents(hub: Any) -> None:
    answer = await hub.client.post("/api/agents/inbx/stop")
    assert (answer.status, "did you mean 'inbox'" in answer.json()["detail"]) == (404, True)
    assert (await hub.client.post("/api/agents/inbox/explode")).status == 422
    answer = await hub.client.ask("PUT", "/api/agents")
    assert answer.status == 405
    assert answer.headers["content-type"] == "application/problem+json"
    answer = await hub.client.get("/api/agents?limit=0")
    assert (answer.status, answer.json()["errors"][0]["path"]) == (422, "query.limit")


async def test_a_ping_reaches_the_supervisor_as_seen(hub: Any) -> None:
    await hub.client.get("/ping/inbox", token=None)
    await hub.client.get("/ping/inbox", token=None)
    token = mint_node(hub.secret, "here")
    (command,) = (await hub.client.get("/api/nodes/here/commands", token=token)).json()
    assert (command["agent"], command["do"]) == ("inbox", "seen")


async def test_lists_page_with_after_until_next_is_null(hub: Any) -> None:
    for number in range(7):
        await hub.hub._incidents.save(incident(number))
        await hub.client.post("/api/runs", {"agent": "inbox", "run_id": f"r{number}"})
        await hub.client.post("/api/beats", {"agent": "inbox", "id": f"b{number}"})
    for path, key, first in (
        ("/api/incidents?", "id", "i006"),
        ("/api/runs?", "run_id", "r6"),
        ("/api/beats?", "id", "b6"),
    ):
        seen: list[str] = []
        after = ""
        for _ in range(4):
            answer = (await hub.client.get(f"{path}limit=3{after}")).json()
            seen += [item[key] for item in answer["items"]]
            if answer["next"] is None:
                break
            after = f"&after={answer['next']}"
        assert (len(seen), len(set(seen)), seen[0]) == (7, 7, first)


async def test_incidents_are_filtered_by_state_and_acknowledged(hub: Any) -> None:
    await hub.hub._incidents.save(incident(1))
    await hub.hub._incidents.save(incident(2, IncidentState.RESOLVED))
    found = (await hub.client.get("/api/incidents?state=resolved")).json()["items"]
    assert [one["id"] for one in found] == ["i002"]
    assert (await hub.client.get("/api/incidents?state=strange")).status == 422
    assert (await hub.client.get("/api/incidents/i001")).json()["actions"][0]["do"] == "restart"
    assert (await hub.client.post("/api/incidents/nope/ack")).status == 404


async def test_answers_have_the_documented_shapes(hub: Any) -> None:
    await hub.client.post("/api/beats", {"agent": "inbox", "tokens": 5, "cost_usd": 0.5})
    await hub.client.post("/api/runs", {"agent": "inbox", "run_id": "r"})
    await hub.client.post("/api/tokens", {"name": "laptop"})
    await hub.hub._incidents.save(incident(1))
    for path, shape in (
        ("/api/fleet", shapes.FleetShape),
        ("/api/agents", shapes.Agents),
        ("/api/agents/inbox", shapes.AgentShape),
        ("/api/incidents", shapes.Incidents),
        ("/api/runs", shapes.Runs),
        ("/api/beats", shapes.Beats),
        ("/api/tokens", shapes.Tokens),
        ("/api/cost", shapes.CostShape),
        ("/api/traces", traceshapes.Traces),
        ("/api/deliveries", shapes.Deliveries),
        ("/api/agents/inbox/logs", shapes.LogShape),
    ):
        answer = await hub.client.get(path)
        assert answer.status == 200, path
        shape.model_validate_json(answer.body)
        for name, value in times_in(answer.json()):
            assert value is None or RFC_3339.fullmatch(value), (path, name, value)
    described = (await hub.client.get("/api/openapi.json")).json()["paths"]
    assert {"/api/fleet", "/api/agents/{agent}/{do}", "/api/stream", "/readyz"} <= described.keys()


async def test_cost_is_summed_by_agent_and_no_data_is_null(hub: Any) -> None:
    beats = [{"agent": "inbox", "cost_usd": 0.25}] * 2 + [{"agent": "prices"}]
    await hub.client.post("/api/beats", beats)
    cost = (await hub.client.get("/api/cost")).json()
    assert cost["total_usd"] == 0.5
    assert [(row["agent"], row["cost_usd"]) for row in cost["rows"]] == [
        ("inbox", 0.5),
        ("prices", None),
    ]


@pytest.mark.parametrize(
    ("since", "cycles"),
    [("2026-01-01T00:00:00Z", 1), ("1767225600.5", 1), ("2096-01-01T00:00:00%2B02:00", 0)],
)
async def test_cost_since_reads_both_forms_of_a_time(hub: Any, since: str, cycles: int) -> None:
    await hub.client.post("/api/beats", {"agent": "inbox", "cost_usd": 1})
    rows = (await hub.client.get(f"/api/cost?since={since}")).json()["rows"]
    assert sum(row["cycles"] for row in rows) == cycles


async def test_cost_since_nonsense_is_422(hub: Any) -> None:
    for since in ("yesterday", "2026-01-01T00:00:00", "-1", "nan"):
        assert (await hub.client.get(f"/api/cost?since={since}")).status == 422, since


async def test_output_is_read_from_the_end_and_onwards(hub: Any) -> None:
    folder = hub.data / "logs" / "inbox"
    folder.mkdir(parents=True)
    (folder / "output.log").write_bytes(b"one\ntwo\n\xff\xfe\nthr")
    read = (await hub.client.get("/api/agents/inbox/logs?tail=2")).json()
    assert (read["lines"], read["truncated"]) == (["\ufffd\ufffd", "thr"], True)
    read = (await hub.client.get("/api/agents/inbox/logs?since_offset=4")).json()
    assert (read["lines"], read["offset"]) == (["two", "\ufffd\ufffd"], 11)
    (folder / "output.log").unlink()
    (folder / "output.log").symlink_to(hub.data / "secret")
    assert (await hub.client.get("/api/agents/inbox/logs")).status == 404
    assert (await hub.client.get("/api/agents/..%2F../logs")).status == 404


async def test_output_is_chosen_and_read_on_across_a_rotation(hub: Any) -> None:
    folder = hub.data / "logs" / "inbox"
    folder.mkdir(parents=True)
    stamp = "2026-01-01T00:00:0{}.000Z "
    said = ["INFO: a", "ERROR: b", "ERROR: c", "plain d"]
    (folder / "output.log").write_text(
        "".join(stamp.format(n) + t + "\n" for n, t in enumerate(said))
    )

    async def ask(query: str) -> dict[str, Any]:
        found = (await hub.client.get(f"/api/agents/inbox/logs?{query}")).json()
        return {**found, "lines": [line[25:] for line in found["lines"]]}

    assert (await ask("level=error"))["lines"] == ["ERROR: b", "ERROR: c"]
    assert (await ask("grep=(a|c)$"))["lines"] == ["INFO: a", "ERROR: c"]
    assert (await ask("since=2026-01-01T00:00:02Z"))["lines"] == ["ERROR: c", "plain d"]
    assert (await ask("until=2026-01-01T00:00:00Z"))["lines"] == ["INFO: a"]
    first = await ask("tail=1")
    assert (first["lines"], first["more"]) == (["plain d"], False)
    (folder / "output.log").rename(folder / "output.log.1")
    (folder / "output.log").write_text(stamp.format(9) + "e\n")
    assert (await ask(f"after={first['after']}"))["lines"] == ["e"]
    gone = await ask("after=1.2.3")
    assert (gone["gap"], len(gone["lines"])) == (True, 5)
    for bad in ("grep=(", "level=loud", "after=x"):
        assert (await hub.client.get(f"/api/agents/inbox/logs?{bad}")).status == 422


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
async def test_output_that_is_no_file_is_not_read(hub: Any, make: Callable[[Any], None]) -> None:
    (hub.data / "logs" / "inbox").mkdir(parents=True)
    make(hub.data / "logs" / "inbox" / "output.log")
    answer = await hub.client.get("/api/agents/inbox/logs")
    assert (answer.status, "is no file" in answer.json()["detail"]) == (404, True)


async def test_metrics_are_prometheus_text_with_escaped_labels(hub: Any) -> None:
    await hub.client.post("/api/beats", [{"agent": "inbox"}, {"agent": "nope"}])
    text = (await hub.client.get("/metrics")).body.decode()
    assert 'midwatch_accepted_total{kind="beat"} 1' in text
    assert 'midwatch_rejected_total{reason="unknown_agent"} 1' in text
    assert 'midwatch_append_seconds_bucket{le="+Inf"} 1' in text
    assert 'midwatch_agent_beats_today{agent="inbox"} 1' in text
    for line in text.splitlines():
        assert line.startswith("#") or len(line.rsplit(" ", 1)) == 2


async def test_the_stream_sends_what_is_published(hub: Any) -> None:
    stream = hub.hub._stream
    following = stream.follow(resumes=True)
    assert (await anext(following)).startswith(b"retry:")
    assert b"event: resync" in await anext(following)
    stream.publish("incident", {"id": "i1", "sentence": "line\nbreak"})
    event = (await anext(following)).decode()
    head, _, data = event.strip().rpartition("data: ")
    assert "event: incident" in head
    assert json.loads(data)["sentence"] == "line\nbreak"
    await following.aclose()
    assert stream.followers == 0


async def test_a_fault_of_the_hub_is_a_problem_document_without_its_inside(
    hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("the inside")

    monkeypatch.setattr(hub.hub._view, "fleet", broken)
    answer = await hub.client.get("/api/fleet")
    assert answer.status == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert b"inside" not in answer.body
    monkeypatch.setattr(hub.hub._intake, "read", broken)
    answer = await hub.client.post("/api/beats", {"agent": "inbox"})
    assert (answer.status, b"inside" in answer.body) == (500, False)
    assert hub.hub.counts.total("server_errors") == 2


async def test_a_new_fleet_file_is_taken_up_when_the_supervisor_says_so(hub: Any) -> None:
    fleet = {"fleet": "test", "agents": {"fresh": {"command": ["true"]}}}
    (hub.data / "fleet.json").write_text(json.dumps(fleet))
    assert (await hub.client.post("/api/beats", {"agent": "fresh"})).status == 404
    loaded = {"agent": "midwatch", "kind": "fleet.loaded", "data": {"fleet": "test"}}
    token = mint_node(hub.secret, "here")
    assert (await hub.client.post("/api/events", loaded, token=token)).status == 200
    assert (await hub.client.post("/api/beats", {"agent": "fresh"})).status == 200


async def test_a_question_is_no_larger_than_a_megabyte_announced_or_not(hub: Any) -> None:
    large = b'{"query": "' + b"x" * 2**20 + b'"}'
    taken = 0

    class Counting:
        """The hub, told of each piece that was read."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def counted() -> Any:
                nonlocal taken
                message = await receive()
                taken += len(message.get("body", b""))
                return message

            if scope["path"] == "/api/sql" and hushed:
                scope["headers"] = [h for h in scope["headers"] if h[0] != b"content-length"]
            await hub.hub.asgi(scope, counted, send)

    client = replace(hub.client, app=Counting())
    hushed = False
    answer = await client.ask("POST", "/api/sql", raw=large)
    assert (answer.status, taken) == (413, 0), answer.body
    hushed = True
    answer = await client.ask("POST", "/api/sql", raw=large * 4)
    assert answer.status == 413, answer.body
    assert 2**20 < taken <= 2**20 + 65_536
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await client.post("/api/sql", {"query": "SELECT 1"})).status == 200
