"""Open spans against a hub: seen while they are open, also when their process dies."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

import pytest

import midwatch as mw
from midwatch.sdk import runtime, span

Until = Callable[..., None]


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span, "announcer", None)
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def opened(hub: Any) -> list[str]:
    return [one["name"] for one in hub.spans if "endTimeUnixNano" not in one]


def ended(hub: Any) -> list[str]:
    return [one["name"] for one in hub.spans if "endTimeUnixNano" in one]


def test_what_stays_open_is_seen_with_its_parents_and_what_is_short_only_when_it_ends(
    hub: Any, until: Until
) -> None:
    mw.init("inbox", url=hub.url, run_id="run-1")
    began = time.monotonic()
    with mw.session("s1"), mw.turn():
        until(lambda: len(opened(hub)) == 2, "both are announced")
        assert time.monotonic() - began >= 0.9
        with mw.cycle():
            pass
    assert mw.flush(5)
    assert opened(hub) == ["session", "invoke_agent inbox"]
    assert ended(hub) == ["cycle", "invoke_agent inbox", "session"]
    ids = {(one["traceId"], one["spanId"]) for one in hub.spans}
    assert len(ids) == 3
    assert hub.spans[1]["parentSpanId"] == hub.spans[0]["spanId"]


def test_an_open_span_is_announced_once_however_long_it_lasts(hub: Any, until: Until) -> None:
    mw.init("inbox", url=hub.url)
    with mw.cycle():
        until(lambda: opened(hub) == ["cycle"], "it is announced")
        with mw.turn():
            until(lambda: len(opened(hub)) == 2, "the next one is announced")
    assert mw.flush(5)
    assert opened(hub) == ["cycle", "invoke_agent inbox"]


def test_the_spans_of_a_process_that_is_killed_are_known(hub: Any, until: Until) -> None:
    program = f"""
        import time, midwatch as mw
        mw.init("inbox", url={hub.url!r}, run_id="run-1")
        with mw.session("s1"), mw.turn():
            print("open", flush=True)
            time.sleep(600)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE
    ) as agent:
        try:
            assert agent.stdout is not None
            assert agent.stdout.readline() == b"open\n"
            until(lambda: len(opened(hub)) == 2, "both are announced")
        finally:
            agent.kill()
    assert ended(hub) == []
    path, _, body = next(one for one in hub.requests if one[0] == "/v1/traces")
    (block,) = body["resourceSpans"]
    assert path == "/v1/traces"
    assert {"key": "midwatch.run_id", "value": {"stringValue": "run-1"}} in block["resource"]["attributes"]  # fmt: skip


def test_another_collector_is_told_only_of_what_ended(
    hub: Any, new_hub: Any, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = new_hub()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    mw.init("inbox", url=hub.url)
    assert span.announcer is None
    with mw.cycle():
        pass
    assert mw.flush(5)
    assert (opened(collector), ended(collector)) == ([], ["cycle"])
    assert runtime.current is not None


def test_a_large_state_does_not_make_one_large_post(hub: Any) -> None:
    mw.init("inbox", url=hub.url)
    for number in range(60):
        mw.state({"context": "x" * 40_000, "number": number})
    assert mw.flush(10)
    assert len(hub.spans) == 60
    sizes = [len(str(body)) for path, _, body in hub.requests if path == "/v1/traces"]
    assert max(sizes) < 1_300_000
