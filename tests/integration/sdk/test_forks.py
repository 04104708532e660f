"""The SDK across a fork: no lock is inherited, nothing is counted twice, nothing is forgotten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import midwatch as mw
from midwatch.sdk import cycle, usage


def _in_child(work: Any) -> int:
    """Fork, run `work` in the child, and return how the child ended; a hung one is killed."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_fork_while_other_threads_count_does_not_hang_the_child(hub: Any) -> None:
    mw.init("inbox", url=hub.url)
    held, release = threading.Event(), threading.Event()

    def count() -> None:
        with usage._lock:
            held.set()
            release.wait(20)

    counting = threading.Thread(target=count)
    counting.start()
    try:
        assert held.wait(5)
        assert _in_child(lambda: mw.beat(tokens=1)) == 0
    finally:
        release.set()
        counting.join()


def test_what_was_counted_before_a_fork_is_told_by_the_parent_alone(hub: Any) -> None:
    mw.init("inbox", url=hub.url)
    cycle.tally_now().add(tokens=1000)  # as a tracked call outside of any cycle does

    def work() -> None:
        mw.beat(tokens=5)
        assert mw.flush(5)

    assert _in_child(work) == 0
    mw.beat()
    assert mw.flush(5)
    assert [beat["tokens"] for beat in hub.beats] == [5, 1000]


def test_a_cycle_that_is_open_at_a_fork_ends_once_and_children_beat_for_themselves(
    hub: Any,
) -> None:
    mw.init("inbox", url=hub.url)

    with mw.cycle() as outer:
        outer.usage(tokens=100)

        def work() -> None:
            mw.beat(tokens=5)
            outer.usage(tokens=7)
            outer.__exit__(None, None, None)  # as a child does that runs on to the end
            assert mw.flush(5)

        assert _in_child(work) == 0
    assert mw.flush(5)
    assert [beat["tokens"] for beat in hub.beats] == [5, 100]


def test_spans_of_a_child_hang_below_the_span_that_the_parent_was_in(hub: Any) -> None:
    mw.init("inbox", url=hub.url)

    @mw.tool
    def search() -> None: ...

    def work() -> None:
        search()
        assert mw.flush(5)

    with mw.cycle():
        assert _in_child(work) == 0
    assert mw.flush(5)
    below, above = hub.spans
    assert (below["traceId"], below["parentSpanId"]) == (above["traceId"], above["spanId"])


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_child_of_multiprocessing_that_calls_init_itself_delivers(
    hub: Any, tmp_path: Path, method: str
) -> None:
    program = tmp_path / "workers.py"
    program.write_text(
        textwrap.dedent(f"""
        import multiprocessing
        def work():
            import midwatch as mw
            mw.init()
            mw.beat(items=7)
        if __name__ == "__main__":
            worker = multiprocessing.get_context({method!r}).Process(target=work)
            worker.start()
            worker.join()
        """)
    )
    environ = os.environ | {"MIDWATCH_URL": hub.url, "MIDWATCH_SPOOL": str(tmp_path / "spool")}
    ended = subprocess.run(
        [sys.executable, str(program)], env=environ, capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [beat["items"] for beat in hub.beats] == [7]
