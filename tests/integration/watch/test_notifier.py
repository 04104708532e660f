"""Messages to a real HTTP service that fails, hangs and recovers; and to the console."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.errors import DeliveryError
from midwatch.core.fleet import Fleet
from midwatch.core.incident import Incident, IncidentState
from midwatch.core.notify import Delivery, DeliveryState
from midwatch.watch.memory import MemoryDeliveries
from midwatch.watch.notifier import Notifier
from midwatch.watch.sender import AppriseSender, scrub

# one of apprise's hundred plugins imports it
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

SECRET = "hunter2-very-secret"
TOKEN = "tok_abcdefghijkl"


class Service:
    """A chat service: `status` is what it answers, `gate` holds its answers back."""

    def __init__(self) -> None:
        self.status = 200
        self.got: list[dict[str, Any]] = []
        self.gate = threading.Event()
        self.gate.set()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                service.gate.wait(60)
                if service.status == 200:
                    service.got.append(json.loads(body))
                self.send_response(service.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"json://ann:{SECRET}@127.0.0.1:{self._server.server_port}/{TOKEN}"

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


class Desk:
    """A notifier over books in memory."""

    def __init__(self, fleet: Fleet, deliveries: MemoryDeliveries | None = None) -> None:
        self.deliveries = deliveries or MemoryDeliveries()
        self.console: list[str] = []
        self.incidents: dict[str, Incident] = {}
        self.notifier = Notifier(
            deliveries=self.deliveries,
            fleet=fleet,
            clock=time.time,
            incident_of=self._incident,
            console=self.console.append,
        )

    async def _incident(self, incident_id: str) -> Incident | None:
        return self.incidents.get(incident_id)

    async def told(self, target: str) -> None:
        await _until(lambda: all(d.delivered_at is not None for d in self.to(target)))

    async def tell(self, name: str = "i1", **more: Any) -> Incident:
        now = time.time()
        values: dict[str, Any] = {
            "id": name,
            "kind": "oom-kill",
            "agent": "prices",
            "group": None,
            "severity": "critical",
            "state": IncidentState.OPEN,
            "sentence": f"prices: ran out of memory ({name})",
            "reason": "",
            "evidence": {},
            "opened_at": now,
            "evidence_at": now,
            "seen_at": now,
        }
        incident = self.incidents[name] = Incident(**{**values, **more})
        await self.notifier.tell(incident)
        return incident

    def to(self, target: str) -> list[Delivery]:
        return [d for d in self.deliveries.kept.values() if d.target == target]


async def _until(condition: Callable[[], Any], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midwatch.core.notify.RETRY_S", (0.05, 0.2))
    monkeypatch.setattr("midwatch.watch.notifier.PACE_S", 0.05)


async def test_a_service_that_fails_is_tried_until_it_takes_the_message_once(
    service: Service,
) -> None:
    desk = Desk(Fleet(fleet="night", agents={}, notify={"ops": service.url}))
    service.status = 503
    desk.notifier.start()
    await desk.tell()
    await _until(lambda: desk.to("ops")[0].attempts >= 3)
    delivery = desk.to("ops")[0]
    assert delivery.state is DeliveryState.PENDING
    assert delivery.error is not None
    assert "503" in delivery.error
    service.status = 200
    await _until(lambda: desk.to("ops")[0].state is DeliveryState.DELIVERED)
    await desk.notifier.stop()
    (message,) = service.got
    assert message["title"] == "night: oom-kill (critical)"
    assert message["message"] == "prices: ran out of memory (i1)"
    assert message["type"] == "failure"
    assert desk.notifier.failed_attempts >= 3
    assert desk.console == ["night: oom-kill (critical): prices: ran out of memory (i1)"]


async def test_no_secret_of_a_url_is_kept_logged_or_printed(
    service: Service, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = io.StringIO()
    outlet = logging.StreamHandler(lines)  # what a hub with --verbose would print
    root = logging.getLogger()
    before = root.level
    root.addHandler(outlet)
    root.setLevel(logging.DEBUG)
    try:
        desk = Desk(Fleet(agents={}, notify={"ops": service.url}))
        service.status = 500
        desk.notifier.start()
        await desk.tell()
        await _until(lambda: desk.to("ops")[0].attempts >= 1)
        await desk.notifier.stop()
    finally:
        root.removeHandler(outlet)
        root.setLevel(before)
    said = "".join(capfd.readouterr()) + lines.getvalue() + repr(desk.to("ops"))
    assert "could not tell ops" in said
    assert SECRET not in said
    assert TOKEN not in said


async def test_a_service_that_hangs_delays_neither_the_console_nor_the_others(
    service: Service,
) -> None:
    other = Service()
    try:
        desk = Desk(Fleet(agents={}, notify={"slow": service.url, "quick": other.url}))
        service.gate.clear()
        desk.notifier.start()
        await desk.tell("i1")
        await desk.tell("i2")
        await _until(lambda: len(other.got) == 2 and len(desk.console) == 2)
        assert service.got == []
        service.gate.set()
        await _until(lambda: len(service.got) == 2)
        await desk.notifier.stop()
    finally:
        other.close()


async def test_forty_failures_at_once_are_a_handful_of_messages_and_none_is_left_out(
    service: Service,
) -> None:
    desk = Desk(Fleet(fleet="night", agents={}, notify={"ops": service.url}))
    desk.notifier.start()
    service.gate.clear()
    await desk.tell("i0")
    await _until(lambda: desk.notifier._busy.get("ops"))
    for n in range(1, 40):
        await desk.tell(f"i{n}", severity="warning")
    service.gate.set()
    await desk.told("ops")
    await desk.notifier.stop()
    first, rest = service.got
    assert first["title"] == "night: oom-kill (critical)"
    assert (rest["title"], rest["type"]) == ("night: 39 messages", "warning")
    lines = rest["message"].splitlines()
    assert lines[0] == "oom-kill (warning): prices: ran out of memory (i1)"
    assert lines[-1] == "and 29 more: midwatch incidents lists them all"
    assert len(desk.console) == 40


async def test_a_target_gets_its_next_message_only_after_a_pause(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midwatch.watch.notifier.PACE_S", 1.2)
    desk = Desk(Fleet(agents={}, notify={"ops": service.url}))
    desk.notifier.start()
    await desk.tell("i1")
    await _until(lambda: service.got)
    began = time.monotonic()
    for n in range(2, 5):
        await desk.tell(f"i{n}")
        await asyncio.sleep(0.02)
    await desk.told("ops")
    assert time.monotonic() - began > 0.6
    await desk.notifier.stop()
    assert len(service.got) == 2


async def test_an_output_that_is_gone_is_tried_again_with_patience() -> None:
    desk = Desk(Fleet(agents={}))
    tries = 0

    def gone(_line: str) -> None:
        nonlocal tries
        tries += 1
        raise BrokenPipeError(32, "Broken pipe")

    desk.notifier._console = gone
    desk.notifier.start()
    await desk.tell()
    await _until(lambda: tries >= 3)
    await desk.notifier.stop()
    (delivery,) = desk.to("console")
    assert 2 <= delivery.attempts <= tries <= 20
    assert delivery.error == "console: BrokenPipeError while sending"


async def test_a_service_that_never_answers_is_an_attempt_that_failed(service: Service) -> None:
    sender = AppriseSender(Path(), {"ops": service.url}, timeout_s=0.3)
    service.gate.clear()
    with pytest.raises(DeliveryError, match=r"ops: no answer within 0\.3 s") as caught:
        await sender.send("ops", "t", "b", "warning", over=False)
    assert not caught.value.permanent
    service.gate.set()


async def test_what_was_pending_when_the_hub_died_is_delivered_by_the_next_one(
    service: Service,
) -> None:
    fleet = Fleet(agents={}, notify={"ops": service.url})
    first = Desk(fleet)
    await first.tell()  # killed before its loop ever ran
    second = Desk(fleet, first.deliveries)
    second.notifier.start()
    await _until(lambda: service.got)
    await second.notifier.stop()
    assert service.got[0]["message"] == "prices: ran out of memory (i1)"


async def test_the_end_of_an_incident_is_good_news(service: Service) -> None:
    desk = Desk(Fleet(agents={}, notify={"ops": service.url}))
    desk.notifier.start()
    incident = await desk.tell()
    await _until(lambda: len(service.got) == 1)
    await desk.tell(state=IncidentState.RESOLVED, resolved_at=incident.opened_at + 60)
    await _until(lambda: len(service.got) == 2)
    await desk.notifier.stop()
    assert service.got[1]["type"] == "success"
    assert "Over after 1 minute" in service.got[1]["message"]


async def test_a_url_may_stand_in_a_file_that_is_read_for_every_message(
    service: Service, tmp_path: Path
) -> None:
    desk = Desk(Fleet(agents={}, notify={"ops": "file:ops.url"}, root=str(tmp_path)))
    desk.notifier.start()
    await desk.tell()
    await _until(lambda: desk.to("ops")[0].attempts >= 1)
    error = desk.to("ops")[0].error
    assert error is not None
    assert "ops.url" in error
    (tmp_path / "ops.url").write_text(f"\n{service.url}\n")
    await _until(lambda: service.got)
    await desk.notifier.stop()


@pytest.mark.parametrize(
    ("notify", "words"),
    [({}, "no target 'ops'"), ({"ops": "nonsense://x"}, "does not understand its URL")],
    ids=["unknown target", "unusable URL"],
)
async def test_what_can_never_be_delivered_is_given_up_at_once(
    notify: dict[str, str], words: str
) -> None:
    sender = AppriseSender(Path(), notify)
    with pytest.raises(DeliveryError, match=words) as caught:
        await sender.send("ops", "t", "b", "info", over=False)
    assert caught.value.permanent


def test_scrubbing_takes_out_every_part_of_a_url() -> None:
    url = "slack://bot@T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/%23ops?token=s3cr3t%21"
    text = "failed: T1JJ3T3L2 tiiajkdnlazkcoxridevi7fq and s3cr3t! at https://hooks.slack.com"
    assert scrub(text, url) == "failed: … … and … at https://hooks.slack.com"
