from __future__ import annotations

import pytest

from midwatch.ingest.ping import MAX_TIMERS, Ping, Timers, read, to_raw
from midwatch.wire.items import Kind


@pytest.mark.parametrize(
    ("path", "ping"),
    [
        ("/ping/a", Ping("a", "success")),
        ("/ping/a/", Ping("a", "success")),
        ("/ping/a/start", Ping("a", "start")),
        ("/ping/a/fail", Ping("a", "fail")),
        ("/ping/a/log", Ping("a", "log")),
        ("/ping/a/0", Ping("a", "success", 0)),
        ("/ping/a/255", Ping("a", "fail", 255)),
        ("/ping/a/256", None),
        ("/ping/a/stop", None),
        ("/ping/", None),
        ("/ping/a/b/c", None),
        ("/ping/a/٣", None),
    ],
)
def test_paths_mean_what_healthchecks_made_of_them(path: str, ping: Ping | None) -> None:
    assert read(path) == ping


def test_a_cycle_that_was_started_has_a_duration_by_its_own_id() -> None:
    timers = Timers()
    to_raw(Ping("a", "start"), "", "one", 100.0, timers)
    to_raw(Ping("a", "start"), "", "two", 105.0, timers)
    ((kind, beat),) = to_raw(Ping("a", "success"), "", "", 110.0, timers)
    assert (kind, "duration_s" in beat) == (Kind.BEAT, False)
    for rid, took in (("two", 5.0), ("one", 10.0)):
        items = to_raw(Ping("a", "success"), "", rid, 110.0, timers)
        assert items[0][1]["duration_s"] == took


def test_a_failure_keeps_the_end_of_its_body_and_the_exit_status() -> None:
    (_, beat), (kind, event) = to_raw(Ping("a", "fail", 3), "why", "", 1.0, Timers())
    assert (beat["result"], beat["error"]) == ("failed", "why")
    assert (kind, event["kind"], event["data"]) == (
        Kind.EVENT,
        "ping.fail",
        {"body": "why", "exit_code": 3},
    )


def test_timers_are_bounded() -> None:
    timers = Timers()
    for number in range(MAX_TIMERS + 1):
        timers.start("a", str(number), 1.0)
    assert timers.stop("a", "0", 2.0) is None
    assert timers.stop("a", "1", 2.0) == 1.0
