"""Records of requests and answers: kept by a thread, without keys, bounded, and gone in time."""

from __future__ import annotations

import json
import queue
import stat
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.calls.account import Payer
from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.fleet import Fleet
from midwatch.core.models import Calls
from midwatch.gateway import dialects, recording
from midwatch.gateway import settings as made
from midwatch.gateway.carried import Carried
from midwatch.gateway.http.played import PlayedOutgoing
from midwatch.gateway.recording import (
    BLOCK_BYTES,
    MAX_BODY_BYTES,
    Records,
    Tape,
    day_of,
    fair_share,
    folder_of,
    read,
)
from midwatch.wire.ids import new_id

SETTINGS = made.build(Fleet(fleet="night", agents={}), {"OPENAI_API_KEY": "sk-one"})
DAY_S = 86_400.0


def carried(
    body: bytes = b"{}", agent: str = "inbox", at: float | None = None, *, record: bool = True
) -> Carried:
    route = dialects.find("POST", "/v1/chat/completions", "", {})
    assert isinstance(route, dialects.Route)
    moment = time.time() if at is None else at
    return Carried(
        id=new_id(int(moment * 1000)),
        route=route,
        ask=Ask(Kind.OPENAI, Dialect.CHAT, "gpt-4o-mini", task="mail"),
        body=body,
        headers=[("authorization", "Bearer mwk_abcdefghijklmnopqrstuvwxyz")],
        query="",
        payer=Payer(agent, run="run-1", session="s-1", tags={"customer": "acme"}),
        limits=(),
        settings=SETTINGS,
        calls=Calls(record=record),
        at=moment,
        began=0.0,
    )


class Shelf:
    """Records in a directory, with a disk and a clock by choice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.free = 10**12
        self.at = time.time()
        self.kept_s = 14 * DAY_S
        self.records = self.fresh()

    def fresh(self, **given: Any) -> Records:
        return Records(
            self.folder,
            lambda _: self.kept_s,
            wall=lambda: self.at,
            free=lambda _: self.free,
            **given,
        )

    def record(self, call: Carried, answer: bytes = b"{}") -> Carried:
        out = self.records.tape(call, PlayedOutgoing())
        out.answer(200, [], answer)
        self.records.keep(call, out)
        return call

    def read(self, call: Carried) -> dict[str, Any] | None:
        """Return the record, once the thread has done with it."""
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            found = read(self.folder, call.id)
            if found is not None:
                return found
            time.sleep(0.005)
        return None

    def counted(self, reason: str, count: int = 1) -> bool:
        deadline = time.monotonic() + 40
        while self.records.counts[f"record.{reason}"] < count and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.records.counts[f"record.{reason}"] == count


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    made_ = Shelf(tmp_path / "recorded")
    yield made_
    made_.records.close()


async def test_a_call_is_kept_with_what_was_asked_and_answered(shelf: Shelf) -> None:
    call = shelf.record(carried(b'{"messages": []}'), b'{"choices": []}')
    found = shelf.read(call)
    assert found is not None
    assert found == {
        "v": 1,
        "call": call.id,
        "at": call.at,
        "agent": "inbox",
        "run": "run-1",
        "session": "s-1",
        "task": "mail",
        "tags": {"customer": "acme"},
        "dialect": "chat",
        "model": "gpt-4o-mini",
        "stream": False,
        "served": None,
        "status": 200,
        "complete": True,
        "refused": None,
        "cost_nusd": 0,
        "request": {"bytes": 16, "clipped": False, "text": '{"messages": []}'},
        "answer": {"bytes": 15, "clipped": False, "text": '{"choices": []}'},
        "redacted": 0,
    }


async def test_an_agent_that_is_not_recorded_has_no_tape_and_no_file(shelf: Shelf) -> None:
    call, out = carried(record=False), PlayedOutgoing()
    assert shelf.records.tape(call, out) is out
    shelf.records.keep(call, out)
    shelf.records.close()
    assert not shelf.folder.exists()


async def test_a_stream_is_kept_as_it_passed_and_one_that_broke_off_says_so(shelf: Shelf) -> None:
    call, client = carried(), PlayedOutgoing()
    tape = shelf.records.tape(call, client)
    tape.begin(200, [])
    await tape.send(b"data: one\n\n")
    await tape.send(b"data: two\n\n")
    shelf.records.keep(call, tape)
    found = shelf.read(call)
    assert found is not None
    assert found["answer"]["text"] == "data: one\n\ndata: two\n\n"
    assert found["complete"] is False
    assert client.pieces == [b"data: one\n\n", b"data: two\n\n"]


async def test_keys_are_taken_out_and_headers_are_never_kept(shelf: Shelf) -> None:
    secret = b"sk-proj-" + b"a1B2" * 12
    call = shelf.record(carried(b'{"content": "my key is ' + secret + b'"}'), b"again " + secret)
    found = shelf.read(call)
    assert found is not None
    assert found["redacted"] == 2
    text = json.dumps(found)
    assert secret.decode() not in text
    assert "mwk_" not in text


async def test_a_key_on_the_edge_of_what_is_kept_is_not_cut_in_two(shelf: Shelf) -> None:
    secret = b"sk-proj-" + b"a1B2" * 12
    body = b" " * (MAX_BODY_BYTES - 20) + secret + b" " * 5_000
    found = shelf.read(shelf.record(carried(body)))
    assert found is not None
    assert found["request"]["clipped"]
    assert "a1B2" not in found["request"]["text"]


async def test_what_is_long_is_clipped_and_what_is_no_text_is_kept_as_it_is(shelf: Shelf) -> None:
    found = shelf.read(shelf.record(carried(b"\xff\x00\xfe"), b"x" * (MAX_BODY_BYTES + 5)))
    assert found is not None
    assert found["request"] == {"bytes": 3, "clipped": False, "base64": "/wD+"}
    assert found["answer"]["bytes"] == MAX_BODY_BYTES + 5
    assert len(found["answer"]["text"]) == MAX_BODY_BYTES


async def test_records_are_their_owners_alone(shelf: Shelf) -> None:
    call = shelf.record(carried())
    assert shelf.read(call) is not None
    (path,) = shelf.folder.rglob("*.json.gz")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(shelf.folder.stat().st_mode) == 0o700
    assert list(shelf.folder.rglob("*.part")) == []


@pytest.mark.parametrize(
    "agent", ["inbox:search", "../../etc", "..", ".", "", "a/b", "x" * 400, "ä\n"]
)
async def test_an_agents_name_never_leads_out_of_the_folder(shelf: Shelf, agent: str) -> None:
    call = shelf.record(carried(agent=agent))
    found = shelf.read(call)
    assert found is not None
    assert found["agent"] == agent
    (path,) = shelf.folder.rglob("*.json.gz")
    assert path.parent.parent.parent == shelf.folder
    assert path.resolve().is_relative_to(shelf.folder.resolve())
    assert folder_of(agent) not in (".", "..", "")


@pytest.mark.parametrize(
    "call", ["", "..", "../../secret", "*", "0" * 36, "01900000-0000-4000-8000-000000000000"]
)
def test_what_is_no_id_finds_nothing(tmp_path: Path, call: str) -> None:
    assert read(tmp_path, call) is None


def test_a_damaged_record_is_none(tmp_path: Path) -> None:
    call = new_id()
    place = tmp_path / "inbox" / day_of(call)
    place.mkdir(parents=True)
    (place / f"{call}.json.gz").write_bytes(b"\x1f\x8b half of it")
    assert read(tmp_path, call) is None


async def test_a_full_disk_keeps_nothing_and_is_counted(shelf: Shelf) -> None:
    shelf.free = recording.MIN_FREE_BYTES - 1
    shelf.record(carried())
    assert shelf.counted("disk_full")
    assert list(shelf.folder.rglob("*.json.gz")) == []


async def test_a_disk_that_refuses_is_counted_and_the_next_record_is_kept(shelf: Shelf) -> None:
    shelf.folder.write_text("in the way")
    shelf.record(carried())
    assert shelf.counted("disk")
    shelf.folder.unlink()
    assert shelf.read(shelf.record(carried())) is not None


async def test_more_than_may_wait_is_dropped_and_counted(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MAX_WAITING_BYTES", 10)
    shelf.record(carried(b"x" * 11))
    assert shelf.records.counts["record.crowded"] == 1


async def test_old_days_go_and_then_the_oldest_of_what_is_too_much(shelf: Shelf) -> None:
    calls = [carried(b"x" * 500, at=shelf.at - back * DAY_S) for back in (0, 1, 2, 20)]
    for call in calls:
        shelf.record(call)
        assert shelf.read(call) is not None
    shelf.records.sweep()
    assert [read(shelf.folder, call.id) is not None for call in calls] == [True, True, True, False]
    assert shelf.records.counts["record.expired"] == 1
    narrow = shelf.fresh(total_bytes=3 * BLOCK_BYTES - 1)
    narrow.sweep()
    assert [read(shelf.folder, call.id) is not None for call in calls] == [True, True, False, False]
    assert narrow.counts["record.too_much"] == 1


async def test_who_sends_a_lot_loses_its_own_records_and_nobody_elses(shelf: Shelf) -> None:
    evidence = carried(b"x" * 500, "victim", at=shelf.at - 3 * DAY_S)
    small = carried(b"x" * 500, "victim:search", at=shelf.at)
    loud = [carried(b"x" * 500, f"loud:{n % 3}", at=shelf.at + n * 0.002) for n in range(12)]
    for call in (evidence, small, *loud):
        shelf.record(call)
        assert shelf.read(call) is not None
    narrow = shelf.fresh(total_bytes=8 * BLOCK_BYTES)
    narrow.sweep()
    assert shelf.read(evidence) is not None
    assert shelf.read(small) is not None
    assert sum(read(shelf.folder, call.id) is not None for call in loud) == 6
    assert read(shelf.folder, loud[-1].id) is not None, "the newest stay"
    assert narrow.counts["record.too_much"] == 6


async def test_who_sends_a_lot_leaves_room_for_others_to_be_written(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MAX_WAITING_BYTES", 1_000)
    monkeypatch.setattr(shelf.records, "_queue", queue.SimpleQueue())
    monkeypatch.setattr(shelf.records, "_thread", threading.current_thread())  # nobody writes
    for number in range(10):
        shelf.record(carried(b"x" * 100, f"loud:{number}"))
    crowded = shelf.records.counts["record.crowded"]
    assert crowded >= 5
    shelf.record(carried(b"x" * 100, "quiet"))
    assert shelf.records.counts["record.crowded"] == crowded
    monkeypatch.setattr(shelf.records, "_thread", None)


@given(st.lists(st.integers(0, 1_000), max_size=30), st.integers(0, 5_000))
def test_shares_are_fair(sizes: list[int], limit: int) -> None:
    share = fair_share(sizes, limit)
    kept = [min(size, share) for size in sizes]
    assert sum(kept) <= limit or sum(sizes) <= limit
    if sum(sizes) <= limit:
        assert kept == sizes
    else:
        assert sum(kept) > limit - len(sizes), "no more is taken than must be"


async def test_the_end_writes_what_waits(shelf: Shelf) -> None:
    calls = [shelf.record(carried()) for _ in range(50)]
    shelf.records.close(20.0)
    assert all(read(shelf.folder, call.id) for call in calls)
    late = carried()
    assert not isinstance(shelf.records.tape(late, PlayedOutgoing()), Tape)


def test_a_call_is_found_by_the_day_of_its_id() -> None:
    at = datetime(2026, 3, 29, 23, 59, 59, tzinfo=UTC).timestamp()
    assert day_of(new_id(int(at * 1000))) == "2026-03-29"
