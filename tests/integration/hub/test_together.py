"""Three hubs over one PostgreSQL and one ClickHouse endpoint, as processes: all know the same, one watches, one dies."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.access import mint_node
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.state import StateDb
from midwatch.store.tables import deliveries, incidents
from midwatch.wire.ids import new_id

sys.path.insert(0, str(Path(__file__).parents[2]))
from clickhouse import clickhouse
from databases import postgres

TOKEN = "mwt_" + "a" * 43
DEADLINE_S = 120.0


class HubProcess:
    """One hub, on a port of its own, over a directory of its own."""

    def __init__(self, data: Path, stores: dict[str, str], secret: bytes) -> None:
        data.mkdir()
        (data / "secret").write_bytes(secret)
        (data / "token").write_text(TOKEN)
        fleet = {
            "agents": {name: {"command": ["true"]} for name in ("inbox", "prices")},
            # a back-end that is down: what is to go there waits on the hub's own disk
            "hub": {"stores": stores, "forward": {"tempo": {"url": "http://127.0.0.1:1"}}},
        }
        (data / "fleet.json").write_text(json.dumps(fleet))
        # as after two days away: each would believe its clock after an hour
        (data / "hub").mkdir()
        self.clock = data / "hub" / "clock.json"
        before = time.time() - 2 * 86_400.0
        known = {"boot": "before", "at": before, "wall": before, "steady": 0.0}
        self.clock.write_text(json.dumps(known))
        self._said = (data / "said").open("wb")
        command = ["-m", "midwatch.hub", "--data", str(data), "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [sys.executable, *command, "--node", data.name],
            stdout=subprocess.PIPE, stderr=self._said, text=True,
        )  # fmt: skip
        self.data = data
        self.port = 0

    def ready(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "listening on" in line, (self.data / "said").read_text()
        self.port = int(line.rstrip().rsplit(":", 1)[1])

    def ask(self, method: str, path: str, body: Any = None, token: str = TOKEN) -> Any:
        """Return the answer as JSON, or as text. Raises OSError when it was none or a refusal."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            None if body is None else json.dumps(body).encode(),
            {"authorization": f"Bearer {token}", "content-type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            told = answer.read()
            kind = answer.headers["content-type"]
        return json.loads(told) if kind.startswith("application/json") else told.decode()

    def queued(self, word: str) -> bool:
        """Whether a word stands in the queue of what is to be sent on."""
        files = (self.data / "hub" / "forward" / "tempo").glob("*.queue")
        return any(word.encode() in file.read_bytes() for file in files)

    @property
    def believes(self) -> bool:
        """Whether this hub has looked at its clock and believes it."""
        known = json.loads(self.clock.read_text())
        return known["boot"] != "before" and known["need_s"] == 0.0

    @property
    def watches(self) -> bool:
        return "midwatch_watch_held 1" in self.ask("GET", "/metrics")

    def end(self, *, kill: bool = False) -> None:
        if self.process.poll() is None:
            self.process.kill() if kill else self.process.terminate()
        self.process.wait(timeout=DEADLINE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._said.close()


@pytest.fixture(scope="module")
def stores() -> Iterator[dict[str, str]]:
    with postgres() as state, clickhouse() as telemetry:
        yield {"state": state.fresh(), "telemetry": telemetry.fresh()}


@pytest.fixture
def hubs(stores: dict[str, str], tmp_path: Path) -> Iterator[list[HubProcess]]:
    secret = secrets.token_bytes(32)
    made = [HubProcess(tmp_path / f"hub{n}", stores, secret) for n in range(3)]
    try:
        for hub in made:
            hub.ready()
        yield made
    finally:
        for hub in made:
            hub.end()


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if found := condition():
                return found
        time.sleep(0.1)
    return pytest.fail(f"not within {DEADLINE_S:.0f} s: {what}")


def spans(trace: str, count: int, first: int = 0, **more: Any) -> dict[str, Any]:
    """Return an OTLP request of one trace; its span ids are 1, 2, …"""
    now = time.time_ns()
    made = [
        {
            "traceId": trace, "spanId": f"{first + n + 1:016x}", "name": "work", "kind": 1, **more,
            "startTimeUnixNano": str(now), "endTimeUnixNano": str(now + 1000),
        }
        for n in range(count)
    ]  # fmt: skip
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "inbox"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": made}]}]}


class Load:
    """Senders that go on to the next hub when one does not answer, as clients behind a load balancer do."""

    def __init__(self, hubs: list[HubProcess]) -> None:
        self._hubs = hubs
        self._over = threading.Event()
        self.traces: set[str] = set()
        self.beats: set[str] = set()
        self._threads = [threading.Thread(target=self._send, args=(n,)) for n in range(3)]
        for thread in self._threads:
            thread.start()

    def _send(self, first: int) -> None:
        at = first
        while not self._over.is_set():
            trace, beat = secrets.token_hex(16), new_id()
            sends = (
                ("/v1/traces", spans(trace, 8), self.traces, trace),
                ("/api/beats", {"agent": "prices", "id": beat}, self.beats, beat),
            )
            for path, body, kept, name in sends:
                for _ in range(30):
                    try:
                        self._hubs[at % 3].ask("POST", path, body)
                        kept.add(name)
                        break
                    except OSError:
                        at += 1
                        time.sleep(0.1)
                        if self._over.is_set():
                            return

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)


def out_of_memory(run: str) -> dict[str, Any]:
    data = {"end": "out-of-memory", "reason": "killed"}
    return {"agent": "inbox", "kind": "run.ended", "run_id": run, "data": data}


@pytest.mark.timeout(600)
def test_all_know_what_one_took_and_nothing_is_lost_or_told_twice_when_the_watching_one_is_killed(
    hubs: list[HubProcess], stores: dict[str, str]
) -> None:
    watching = until(lambda: [hub for hub in hubs if hub.watches], "a hub that watches")[0]
    others = [hub for hub in hubs if hub is not watching]
    assert not any(hub.watches for hub in others)

    # what one is told of the clock holds for all
    assert others[0].ask("POST", "/api/clock/trust")["believed"]
    assert others[0].believes

    # what one takes all show; what it means is judged once, elsewhere
    hubs[0].ask("POST", "/api/beats", {"agent": "inbox", "tokens": 5})
    for hub in hubs:
        until(lambda h=hub: h.ask("GET", "/api/agents/inbox")["last_beat"], "the beat, everywhere")
    others[0].ask("POST", "/api/events", out_of_memory("r1"))
    until(lambda: others[1].ask("GET", "/api/incidents")["items"], "the incident, everywhere")

    # an order goes to the node through the hub that it asks, an acknowledgement to the one that watches
    _ordered_through_another(asked=hubs[0], given=hubs[1])
    (opened,) = others[0].ask("GET", "/api/incidents")["items"]
    acked = f"/api/incidents/{opened['id']}/ack"
    until(
        lambda: others[0].ask("POST", acked, {})["acked_at"], "it acknowledged through another hub"
    )

    # the one that watches dies under load
    load = Load(hubs)
    until(lambda: len(load.traces) >= 20 and len(load.beats) >= 20, "some load")
    watching.end(kill=True)
    taken = len(load.traces)
    until(lambda: len(load.traces) >= taken + 20, "load that goes on")
    heir = until(lambda: [hub for hub in others if hub.watches], "another hub that watches")
    assert len(heir) == 1
    load.end()
    others[0].ask("POST", "/api/events", {**out_of_memory("r2"), "agent": "prices"})
    until(
        lambda: len(others[1].ask("GET", "/api/incidents")["items"]) == 2,
        "an incident that the heir opened",
    )

    for hub in others:
        until(lambda h=hub: h.believes, "a clock that another hub was asked about, believed")

    # the audit: everything that was acknowledged is there, once
    with contextlib.closing(ClickHouse(stores["telemetry"])) as client:
        stored = client.ask("SELECT trace_id, count(), uniqExact(span_id) FROM otel_traces FINAL GROUP BY 1")  # fmt: skip
        told = client.ask("SELECT id, count() FROM midwatch_beats FINAL WHERE agent = 'prices' GROUP BY 1")  # fmt: skip
    found = {trace: (count, ids) for trace, count, ids in stored.rows}
    assert {found.get(trace) for trace in load.traces} == {(8, 8)}
    lines = others[1].ask("GET", "/api/export/spans?format=jsonl&agent=inbox").splitlines()
    exported = Counter(json.loads(line)["trace_id"] for line in lines)
    assert {exported[trace] for trace in load.traces} == {8}
    assert load.beats <= {beat for beat, _ in told.rows}
    assert {count for _, count in told.rows} == {1}
    _each_incident_once(stores["state"])
    _forgotten_everywhere(asked=others[0], other=others[1])


def _forgotten_everywhere(asked: HubProcess, other: HubProcess) -> None:
    """Two hubs took spans of a session of which one span alone says so: an order to any reaches both queues."""
    trace = secrets.token_hex(16)
    said = {"attributes": [{"key": "session.id", "value": {"stringValue": "s-9"}}]}
    asked.ask("POST", "/v1/traces", spans(trace, 1, name="heliotrope-1", **said))
    other.ask("POST", "/v1/traces", spans(trace, 2, 1, name="heliotrope-2"))
    other.ask("POST", "/v1/traces", spans(secrets.token_hex(16), 1, name="nasturtium"))
    assert asked.queued("heliotrope-1")
    assert other.queued("heliotrope-2")
    # until it is known that the one that was killed is gone, an order fails and deletes nothing
    proof = until(
        lambda: asked.ask("POST", "/api/forget", {"sessions": ["s-9"]}), "an order carried out"
    )
    assert (proof["before"]["spans"], proof["complete"], proof["queued"]) == (3, True, 3)
    assert not asked.queued("heliotrope")
    assert not other.queued("heliotrope")
    assert other.queued("nasturtium")


def _ordered_through_another(asked: HubProcess, given: HubProcess) -> None:
    name = asked.data.name
    path, token = f"/api/nodes/{name}", mint_node((asked.data / "secret").read_bytes(), name)

    def serve() -> None:
        commands: list[dict[str, Any]] = []
        while not commands:
            commands = asked.ask("GET", f"{path}/commands?wait=5", token=token)
        assert [(c["agent"], c["do"]) for c in commands] == [("inbox", "stop")]
        reply = {"id": commands[0]["id"], "result": "done", "state": "stopped"}
        asked.ask("POST", f"{path}/replies", [reply], token)

    node = threading.Thread(target=serve)
    node.start()
    until(lambda: given.ask("POST", "/api/agents/inbox/stop", {}), "an order through another hub")
    node.join(DEADLINE_S)
    assert not node.is_alive()


def _each_incident_once(address: str) -> None:
    db = StateDb(address)
    db.open()
    told = db.write_now(lambda c: c.execute(incidents.select()).mappings().all())
    assert sorted((row["kind"], row["agent"]) for row in told) == [
        ("oom-kill", "inbox"),
        ("oom-kill", "prices"),
    ]
    sent = db.write_now(lambda c: c.execute(deliveries.select()).mappings().all())
    keys = [(row["incident_id"], row["target"], row["why"]) for row in sent]
    assert len(keys) == len(set(keys))
    db._close_reader()
    db._close_writer()
