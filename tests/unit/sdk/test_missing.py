"""An agent under watch that forgot `init` is told so, once; nobody else is told anything."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Callable

import pytest

import midwatch as mw
from midwatch.sdk import runtime
from midwatch.sdk.testing import recording


def in_a(scope: object) -> None:
    with scope:  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        pass


VERBS: dict[str, Callable[[], object]] = {
    "beat": mw.beat,
    "cycle": lambda: in_a(mw.cycle()),
    "session": lambda: in_a(mw.session("s")),
    "turn": lambda: in_a(mw.turn()),
    "step": lambda: mw.step("x"),
    "progress": lambda: mw.progress(1),
    "outcome": lambda: mw.outcome("success"),
    "event": lambda: mw.event("x"),
    "draining": mw.draining,
    "spawn": lambda: mw.spawn([sys.executable, "-c", ""], name="x").wait(),
}


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIDWATCH_URL", "http://127.0.0.1:9")


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_without_init_says_once_that_nothing_is_recorded(
    verb: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        VERBS[verb]()
    mw.beat()
    assert capfd.readouterr() == (
        "",
        f"midwatch: {verb}() before init(): nothing is recorded; call midwatch.init() first\n",
    )


def test_where_nobody_watches_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MIDWATCH_URL", raising=False)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    for verb in VERBS.values():
        verb()
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("watched")
def test_after_init_nothing_is_said_also_when_it_came_to_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with recording():
        mw.beat()
    monkeypatch.delenv("MIDWATCH_URL")
    mw.init()
    monkeypatch.setenv("MIDWATCH_URL", "http://127.0.0.1:9")
    assert runtime.current is None
    mw.beat()
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("watched")
def test_a_stderr_that_nobody_reads_or_that_is_none_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, b"x" * 4096):
            pass
    os.set_blocking(writer, True)
    with os.fdopen(writer, "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        worker = threading.Thread(target=mw.beat, daemon=True)
        worker.start()
        worker.join(10)
        assert not worker.is_alive()
        os.close(reader)
    for stream in (None, io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr(runtime, "_missed", False)
        mw.beat()
    assert isinstance(stream, io.StringIO)
    assert stream.getvalue().startswith("midwatch: beat() before init()")
