"""The transport against a hub that is away, slow, rude, or comes back."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midwatch.sdk import lane, post, spool, transport
from midwatch.sdk.transport import Transport

Until = Callable[..., None]


@pytest.fixture
def make(tmp_path: Path) -> Any:
    made: list[Transport] = []

    def one(url: str, spool_dir: Any = tmp_path / "spool", **more: Any) -> Transport:
        made.append(Transport(url, more.pop("token", "secret"), spool_dir, "inbox", **more))
        return made[-1]

    yield one
    for each in made:
        each.close(0.5)


def numbers(items: list[dict[str, Any]]) -> list[int]:
    return [item["items"] for item in items]


def test_a_beat_arrives_complete_and_with_the_token(hub: Any, make: Any) -> None:
    way = make(hub.url, run_id="run-1")
    assert way.submit("beat", {"items": 3})
    assert way.flush(5)
    (beat,) = hub.beats
    assert beat["items"] == 3
    assert beat["agent"] == "inbox"
    assert beat["run_id"] == "run-1"
    assert len(beat["id"]) == 36
    assert abs(beat["at"] - time.time()) < 10
    assert hub.requests[0][1]["Authorization"] == "Bearer secret"


def test_events_go_out_at_once_and_beats_gather(
    hub: Any, make: Any, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "BATCH_WAIT_S", 1.0)
    way = make(hub.url)
    way.submit("event", {"kind": "first"})
    until(lambda: hub.events, "the worker has started")
    for number in range(50):
        way.submit("beat", {"items": number})
    until(lambda: len(hub.beats) == 50, "all beats are there")
    posts = [path for path, _, _ in hub.requests if path == "/api/beats"]
    assert len(posts) <= 3
    monkeypatch.setattr(transport, "BATCH_WAIT_S", 600.0)
    way.submit("event", {"kind": "second"})
    until(lambda: len(hub.events) == 2, "the event is there, long before a beat would be")


def test_order_is_kept_per_path_and_batches_are_bounded(hub: Any, make: Any) -> None:
    way = make(hub.url)
    for number in range(1_700):
        way.submit("beat", {"items": number})
    assert way.flush(10)
    assert numbers(hub.beats) == list(range(1_700))
    assert max(len(body) for _, _, body in hub.requests) <= 500


def test_what_waits_while_the_hub_is_away_arrives_in_order_when_it_is_back(
    make: Any, new_hub: Any, free_port: int, until: Until, tmp_path: Path
) -> None:
    way = make(f"http://127.0.0.1:{free_port}")
    for number in range(1_000):
        way.submit("beat", {"items": number})
    until(lambda: way.statistics()["spooled"] == 1_000, "all is in the spool")
    for number in range(1_000, 1_100):
        way.submit("beat", {"items": number})
    hub = new_hub(free_port)
    assert way.flush(10)
    assert numbers(hub.beats) == list(range(1_100))
    assert len({beat["id"] for beat in hub.beats}) == 1_100
    way.close(1)
    assert list((tmp_path / "spool").iterdir()) == []  # nothing waits, nothing is left


def test_a_hub_that_fails_gets_every_item_again(hub: Any, make: Any, until: Until) -> None:
    hub.answer = lambda path, body: (500, {}, {})
    way = make(hub.url)
    way.submit("beat", {"items": 1})
    until(lambda: way.statistics()["posts"] >= 1 and way.statistics()["spooled"], "it failed once")
    first = hub.requests[0][2][0]["id"]
    hub.answer = hub.accept
    assert way.flush(10)
    assert [beat["id"] for beat in hub.beats] == [first]
    assert way.statistics()["lost"] == {}


def test_retry_after_is_honoured_even_when_flushed(hub: Any, make: Any, until: Until) -> None:
    hub.answer = lambda path, body: (429, {"retry-after": "3"}, {})
    way = make(hub.url)
    way.submit("beat", {"items": 1})
    until(lambda: way.statistics()["spooled"] == 1, "it was refused once")
    refused_at = time.monotonic()
    hub.answer = hub.accept
    assert not way.flush(0.3)
    assert len(hub.requests) == 1
    until(lambda: hub.beats, "it was sent again")
    assert time.monotonic() - refused_at > 1.5


def test_a_hub_that_hangs_does_not_hold_the_caller(
    make: Any, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(lane, "ANSWER_TIMEOUT_S", 2.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        way = make(f"http://127.0.0.1:{silent.getsockname()[1]}")
        slowest_s = 0.0
        for number in range(200):
            began = time.perf_counter()
            way.submit("beat", {"items": number})
            slowest_s = max(slowest_s, time.perf_counter() - began)
            time.sleep(0.001)
        assert slowest_s < 1.0, "it waited for the hub"
        until(lambda: way.statistics()["spooled"] == 200, "all is in the spool")


def test_closing_interrupts_a_post_that_hangs_and_keeps_what_it_carried(
    make: Any, until: Until, tmp_path: Path, new_hub: Any
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        way = make(f"http://127.0.0.1:{silent.getsockname()[1]}")
        way.submit("event", {"kind": "kept"})
        until(lambda: way.statistics()["posts"] == 1, "the post hangs")
        began = time.monotonic()
        way.close(0.3)
        assert time.monotonic() - began < 4.0, "it waited for the answer"
    hub = new_hub()
    later = make(hub.url)
    later.start()
    until(lambda: hub.events, "the next run delivers it")
    assert [event["kind"] for event in hub.events] == ["kept"]


def test_items_that_the_hub_refuses_are_counted_and_not_sent_again(
    hub: Any, make: Any, until: Until
) -> None:
    def refuse_one(path: str, body: Any) -> Any:
        if path == "/api/beats":
            rejected = [{"index": 1, "reason": "future", "message": "check the clock"}]
            return 200, {}, {"accepted": len(body) - 1, "rejected": rejected}
        return hub.accept(path, body)

    hub.answer = refuse_one
    way = make(hub.url)
    for number in range(3):
        way.submit("beat", {"items": number})
    assert way.flush(5)
    assert way.statistics()["lost"] == {"rejected_future": 1}
    way.submit("event", {"kind": "later"})
    until(lambda: "sdk.lost" in [event["kind"] for event in hub.events], "the loss is told")
    told = next(event for event in hub.events if event["kind"] == "sdk.lost")
    assert told["data"]["counts"] == {"rejected_future": 1}
    assert told["agent"] == "inbox"
    assert len([path for path, _, _ in hub.requests if path == "/api/beats"]) == 1


def test_a_body_that_the_hub_refuses_whole_is_given_up(hub: Any, make: Any) -> None:
    hub.answer = lambda path, body: (403, {}, {"title": "no"})
    way = make(hub.url)
    way.submit("beat", {"items": 1})
    assert way.flush(5)
    assert way.statistics()["lost"] == {"http_403": 1}


def test_what_a_wrong_token_cannot_deliver_waits_until_the_token_is_mended(
    hub: Any, make: Any
) -> None:
    hub.answer = lambda path, body: (401, {}, {"title": "no"})
    way = make(hub.url)
    way.submit("beat", {"items": 7})
    assert not way.flush(0.5)
    assert way.statistics()["lost"] == {}
    hub.answer = hub.accept
    assert way.flush(5)
    assert numbers(hub.beats) == [7]


def test_a_body_that_is_too_large_is_halved(hub: Any, make: Any) -> None:
    hub.answer = lambda path, body: (413, {}, {}) if len(body) > 3 else hub.accept(path, body)
    way = make(hub.url)
    for number in range(10):
        way.submit("beat", {"items": number})
    assert way.flush(5)
    assert numbers(hub.beats) == list(range(10))


def test_a_connection_that_the_hub_closed_while_idle_is_opened_again(
    make: Any, new_hub: Any, free_port: int
) -> None:
    first = new_hub(free_port)
    way = make(first.url)
    way.submit("beat", {"items": 1})
    assert way.flush(5)
    first.close()
    second = new_hub(free_port)
    way.submit("beat", {"items": 2})
    assert way.flush(5)
    assert numbers(second.beats) == [2]
    assert way.statistics()["spooled"] == 0


def test_the_queue_is_bounded_and_says_what_it_dropped(
    make: Any, monkeypatch: pytest.MonkeyPatch, new_hub: Any, free_port: int
) -> None:
    monkeypatch.setattr(transport, "QUEUE_ITEMS", 100)
    way = make(f"http://127.0.0.1:{free_port}")
    way._starting.acquire()  # the worker cannot start
    for number in range(250):
        way.submit("beat", {"items": number})
    assert way.statistics()["queued"] == 100
    assert way.statistics()["lost"] == {"queue_full": 150}
    way._starting.release()
    hub = new_hub(free_port)
    way.start()
    assert way.flush(10)
    assert numbers(hub.beats) == list(range(150, 250))


def test_the_spool_is_capped_and_drops_the_oldest(
    make: Any, monkeypatch: pytest.MonkeyPatch, until: Until, new_hub: Any, free_port: int
) -> None:
    monkeypatch.setattr(spool, "SEGMENT_BYTES", 4_000)
    monkeypatch.setattr(spool, "CAP_BYTES", 40_000)
    monkeypatch.setattr(transport, "BATCH_WAIT_S", 0.005)
    way = make(f"http://127.0.0.1:{free_port}")
    for number in range(1_000):
        way.submit("beat", {"items": number})
        if number % 20 == 19:
            until(lambda: way.statistics()["queued"] == 0, "the worker keeps up")
    until(lambda: way.statistics()["spooled"] == 1_000, "all went through the spool")
    statistics = way.statistics()
    assert statistics["spool_bytes"] <= 30_000 + 4_000
    dropped = statistics["lost"]["spool_full"]
    hub = new_hub(free_port)
    assert way.flush(10)
    assert numbers(hub.beats) == list(range(dropped, 1_000))
    until(lambda: hub.events, "the loss is told")
    assert hub.events[0]["data"]["counts"] == {"spool_full": dropped}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_keeps_items_in_memory(
    make: Any, monkeypatch: pytest.MonkeyPatch, until: Until, new_hub: Any, free_port: int
) -> None:
    def open_full(self: Any) -> Any:
        self._segments.append(spool._Segment("/dev/full.segment", 0, 0))
        self._output = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
        return self._output

    monkeypatch.setattr(spool.Spool, "_open_output", open_full)
    way = make(f"http://127.0.0.1:{free_port}")
    for number in range(10):
        way.submit("beat", {"items": number})
    until(lambda: way.statistics()["held"] == 10, "they wait in memory")
    hub = new_hub(free_port)
    assert way.flush(10)
    assert numbers(hub.beats) == list(range(10))


def test_an_agent_that_has_used_up_its_files_keeps_its_spool(tmp_path: Path) -> None:
    lost: list[tuple[str, int]] = []
    kept = spool.Spool(str(tmp_path), "items", lambda reason, count: lost.append((reason, count)))
    kept.append([("/api/beats", {"items": 1})])
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            kept.peek(10)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert kept.peek(10) == [("/api/beats", {"items": 1})]
    assert lost == []
    kept.close()


def test_a_spool_directory_that_cannot_be_made_is_no_harm(
    make: Any, tmp_path: Path, until: Until, new_hub: Any, free_port: int
) -> None:
    (tmp_path / "file").write_text("not a directory")
    way = make(f"http://127.0.0.1:{free_port}", spool_dir=tmp_path / "file" / "spool")
    way.submit("beat", {"items": 1})
    until(lambda: way.statistics()["held"] == 1, "it waits in memory")
    hub = new_hub(free_port)
    assert way.flush(10)
    assert numbers(hub.beats) == [1]


def test_two_instances_do_not_deliver_each_others_spool(
    make: Any, until: Until, new_hub: Any, free_port: int
) -> None:
    away = make(f"http://127.0.0.1:{free_port}")
    away.submit("beat", {"items": 1})
    until(lambda: away.statistics()["spooled"] == 1, "it is in the spool")
    hub = new_hub()
    other = make(hub.url)
    other.submit("beat", {"items": 2})
    assert other.flush(5)
    assert numbers(hub.beats) == [2]
    away.close(0.1)  # its run ends, what it had is free
    third = make(hub.url)
    third.start()
    until(lambda: len(hub.beats) == 2, "the next run delivers it")
    assert numbers(hub.beats) == [2, 1]


def test_a_dead_trace_collector_does_not_hold_up_beats(
    hub: Any, make: Any, free_port: int, until: Until
) -> None:
    way = make(hub.url, traces_url=f"http://127.0.0.1:{free_port}/v1/traces")
    way.submit("/v1/traces", {"name": "span"})
    way.submit("beat", {"items": 1})
    until(lambda: hub.beats, "the beat is there")
    until(lambda: way.statistics()["spooled"] == 1, "the span waits")


def test_many_threads_lose_nothing(hub: Any, make: Any) -> None:
    way = make(hub.url)

    def work(base: int) -> None:
        for number in range(250):
            way.submit("beat", {"items": base + number})

    threads = [threading.Thread(target=work, args=(base,)) for base in range(0, 2_000, 250)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert way.flush(10)
    assert sorted(numbers(hub.beats)) == list(range(2_000))


def test_after_closing_items_are_refused_and_counted(hub: Any, make: Any) -> None:
    way = make(hub.url)
    way.close(1)
    assert not way.submit("beat", {"items": 1})
    assert way.statistics()["lost"] == {"closed": 1}


@pytest.mark.parametrize("address", ["", "nonsense", "ftp://host", "http://", "/path"])
def test_an_address_that_cannot_be_used_is_refused_with_what_was_expected(address: str) -> None:
    with pytest.raises(ValueError, match="expected http"):
        post.Poster(address, {})


def test_a_token_with_a_line_break_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line break"):
        Transport("http://127.0.0.1:1", "secret\n", tmp_path)


@pytest.mark.parametrize("name", ["", "x:y", "clé", "a\nb"])
def test_a_header_that_http_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot carry"):
        post.Poster("http://127.0.0.1:1", {name: "value"})


def test_the_longest_body_of_an_answer_is_read_in_part(hub: Any, make: Any) -> None:
    hub.answer = lambda path, body: (200, {}, "x" * (2 * post.MAX_ANSWER_BYTES))
    way = make(hub.url)
    way.submit("beat", {"items": 1})
    assert not way.flush(0.3)
    hub.answer = hub.accept
    way.submit("beat", {"items": 2})
    assert way.flush(5)
    assert numbers(hub.beats) == [1, 2]


@pytest.mark.parametrize(
    ("status", "headers", "content"),
    [
        (200, {}, b"<html>It works!</html>"),
        (200, {}, b"[" * 200_000),
        (200, {}, b""),
        (503, {"Retry-After": "\xb2"}, b""),
    ],
    ids=["a page", "nested without end", "nothing", "a date that is none"],
)
def test_an_answer_that_is_not_a_hubs_loses_nothing(
    hub: Any, make: Any, until: Until, status: int, headers: dict[str, str], content: bytes
) -> None:
    hub.answer = lambda path, body: (status, headers, content)
    way = make(hub.url, None)
    way.submit("beat", {"items": 1})
    until(lambda: way.statistics()["held"] == 1, "the beat waits")
    assert way.statistics()["delivered"] == 0
    hub.answer = hub.accept
    assert way.flush(5)
    assert numbers(hub.beats) == [1]


def test_a_trace_collector_may_answer_as_it_likes(hub: Any, make: Any) -> None:
    hub.answer = lambda path, body: (200, {}, b"OK")
    way = make(hub.url)
    way.submit(transport.TRACES_PATH, {"name": "cycle"})
    assert way.flush(5)
    assert way.statistics()["delivered"] == 1


def test_the_child_of_a_fork_sends_its_own_items_only(hub: Any, make: Any, until: Until) -> None:
    way = make(hub.url)
    way._starting.acquire()  # so that the parent's item is still queued when it forks
    way.submit("beat", {"items": 1})
    child = os.fork()
    if child == 0:
        way.submit("beat", {"items": 2})
        delivered = way.flush(10)
        os._exit(0 if delivered else 1)
    way._starting.release()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert numbers(hub.beats) == [2]
    way.start()
    assert way.flush(5)
    assert numbers(hub.beats) == [2, 1]


def test_a_sender_of_many_kinds_makes_few_requests(
    make: Any, new_hub: Any, free_port: int, until: Until
) -> None:
    way = make(f"http://127.0.0.1:{free_port}", gather=True)
    for number in range(300):
        way.submit("beat", {"items": number})
        way.submit("event", {"kind": "made", "data": {"n": number}})
    until(lambda: way.statistics()["spooled"] == 600, "all is in the spool")
    hub = new_hub(free_port)
    assert way.flush(10)
    assert numbers(hub.beats) == list(range(300))
    assert [event["data"]["n"] for event in hub.events] == list(range(300))
    assert len(hub.requests) <= 6  # it would be 600 in the order in which they came
