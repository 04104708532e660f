"""Which open spans are announced, and what an announcement says."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

import midwatch as mw
from midwatch.sdk import announce, span, start
from midwatch.sdk.announce import Announcer
from midwatch.sdk.span import Span
from midwatch.sdk.testing import Recording


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(announce, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_what_has_been_open_for_a_second_is_announced_once(clock: list[float]) -> None:
    rung: list[int] = []
    book = Announcer(lambda: rung.append(1))
    first, second = Span("first", {}), Span("second", {})
    book.opened(first)
    clock[0] += 0.5
    book.opened(second)
    assert rung == [1]
    assert book.due_s() == pytest.approx(0.5)
    assert book.take() == []
    clock[0] += 0.5
    assert book.take() == [first]
    assert book.take() == []
    assert book.due_s() == pytest.approx(0.5)
    book.ended(second)
    assert book.due_s() == float("inf")
    clock[0] += 9
    assert book.take() == []


def test_the_worker_is_woken_only_when_it_watches_nothing(clock: list[float]) -> None:
    rung: list[int] = []
    book = Announcer(lambda: rung.append(1))
    for _ in range(3):
        one = Span("x", {})
        book.opened(one)
        book.ended(one)
    assert len(rung) == 1
    assert book.due_s() == float("inf")
    book.opened(Span("y", {}))
    assert len(rung) == 2
    book.due_s()
    book.opened(Span("z", {}))
    assert len(rung) == 2


def test_spans_beyond_the_bound_are_not_kept_in_mind(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announce, "MAX_YOUNG", 2)
    book = Announcer(lambda: None)
    spans = [Span(f"s{n}", {}) for n in range(3)]
    for one in spans:
        book.opened(one)
    clock[0] += 2
    assert book.take() == spans[:2]
    book.opened(spans[2])
    book.forget()
    clock[0] += 2
    assert book.take() == []


def test_an_announcement_has_the_ids_of_its_end_and_neither_end_nor_status(seen: Recording) -> None:
    parent = Span("cycle", {"midwatch.span": "cycle"})
    token = span.current.set(parent)
    try:
        one = Span("execute_tool x", {"gen_ai.tool.name": "x"})
    finally:
        span.current.reset(token)
    early = one.render("run")
    assert "endTimeUnixNano" not in early
    assert "status" not in early
    one.attributes["more"] = 1
    one.ended_ns = one.started_ns + 5
    late = one.render("run")
    assert {key: late[key] for key in early if key != "attributes"} == {
        key: early[key] for key in early if key != "attributes"
    }
    assert early["parentSpanId"] == parent.span_id
    assert len(late["attributes"]) == len(early["attributes"]) + 1


def test_every_span_is_told_to_the_announcer_and_taken_back(
    seen: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Announcer(lambda: None)
    monkeypatch.setattr(span, "announcer", book)

    @mw.tool
    def look() -> int:
        return len(book._young)

    with mw.session("s"), mw.turn(), mw.cycle():
        assert look() == 4
    mw.state({"memory": 1})
    assert book._young == {}
    assert len(seen.spans) == 5


def test_two_threads_draw_one_id() -> None:
    for _ in range(50):
        one, found = Span("x", {}), list[str]()
        gate = threading.Barrier(2)

        def draw(one: Span = one, found: list[str] = found, gate: threading.Barrier = gate) -> None:
            gate.wait()
            found.append(one.trace_id + one.span_id)

        threads = [threading.Thread(target=draw) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found[0] == found[1]


@pytest.mark.parametrize(
    ("traces", "hub", "same"),
    [
        ("http://127.0.0.1:8700/v1/traces", "http://127.0.0.1:8700", True),
        ("http://127.0.0.1:8700/v1/traces", "http://127.0.0.1:8700/", True),
        ("http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:8700", False),
        ("https://127.0.0.1:8700/v1/traces", "http://127.0.0.1:8700", False),
        ("http://127.0.0.1:8700/v1/traces", None, False),
    ],
)
def test_a_collector_that_is_not_ours_is_told_of_no_open_span(
    traces: str, hub: str | None, same: bool
) -> None:
    assert start._same_place(traces, hub) is same
