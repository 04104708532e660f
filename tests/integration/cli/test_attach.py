"""`midwatch attach`: looking, typing, sitting at a terminal, and giving it back on every way out."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

from midwatch.cli import attach
from midwatch.cli.client import Hub
from midwatch.cli.exits import CommandError
from midwatch.cli.glass import clip
from midwatch.cli.instance import find

DEADLINE_S = 30.0
SCREEN = "GET /api/agents/inbox/screen"
INPUT = "POST /api/agents/inbox/input"


def screen(*lines: str, **over: Any) -> dict[str, Any]:
    return {
        "agent": "inbox", "lines": list(lines), "cursor": [len(lines) - 1, 4], "at": "2026-01-01T00:00:00Z",
        "tty": True, "waiting": False, "running": True, **over,
    }  # fmt: skip


SENT = [{"agent": "inbox", "action": "input", "result": "sent", "state": "running"}]
QUESTION = "Do you trust the files in this folder? (y/N)"


# -- looking and sending ---------------------------------------------------------------------------


def test_the_screen_is_printed_once(hub: Any, midwatch: Any, data: Path) -> None:
    hub.routes[SCREEN] = screen("Welcome", QUESTION)
    ended = midwatch("attach", "inbox", "--screen", "--data", data)
    assert (ended.code, ended.out) == (0, f"Welcome\n{QUESTION}\n")


def test_the_screen_is_one_json_document(hub: Any, midwatch: Any, data: Path) -> None:
    hub.routes[SCREEN] = screen("Welcome")
    assert json.loads(midwatch("attach", "inbox", "--screen", "--json", "--data", data).out)[
        "lines"
    ] == ["Welcome"]


def test_a_hostile_screen_moves_no_cursor(hub: Any, midwatch: Any, data: Path) -> None:
    hub.routes[SCREEN] = screen("\x1b[2J\x1b]0;owned\x07one\ntwo", 7, None)  # type: ignore[arg-type]
    ended = midwatch("attach", "inbox", "--screen", "--data", data)
    assert (ended.code, ended.out) == (0, "one two\n7\nNone\n")


def test_a_line_is_sent_with_enter(hub: Any, midwatch: Any, data: Path) -> None:
    hub.routes[INPUT] = SENT
    ended = midwatch("attach", "inbox", "--send", "y", "--data", data)
    assert (ended.code, ended.out) == (0, "inbox: sent\n")
    assert hub.asked[-1][2] == {"text": "y", "enter": True}
    assert (
        json.loads(midwatch("attach", "inbox", "--send", "y", "--json", "--data", data).out) == SENT
    )


def test_an_empty_line_is_a_line(hub: Any, midwatch: Any, data: Path) -> None:
    hub.routes[INPUT] = SENT
    midwatch("attach", "inbox", "--send", "", "--data", data)
    assert hub.asked[-1][2] == {"text": "", "enter": True}


# -- what cannot be done ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--screen", "--send", "x"], 2, "exclude each other"),
        (["--json"], 2, "--json goes with"),
        ([], 2, "attach needs a terminal; use --screen"),
    ],
)
def test_what_makes_no_sense_is_told(
    hub: Any, midwatch: Any, data: Path, arguments: list[str], code: int, says: str
) -> None:
    hub.routes[SCREEN] = screen("x")
    ended = midwatch("attach", "inbox", *arguments, "--data", data)
    assert (ended.code, says in ended.err) == (code, True)


def test_an_unknown_agent_is_told_with_the_nearest_name(midwatch: Any, data: Path) -> None:
    ended = midwatch("attach", "inbax", "--screen", "--data", data)
    assert ended.code == 2
    assert "did you mean 'inbox'" in ended.err


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [(409, "no-terminal", 2), (409, "not-running", 1), (409, "full", 2), (503, "unavailable", 3)],
)
def test_a_refusal_ends_with_its_code(
    hub: Any, midwatch: Any, data: Path, status: int, reason: str, code: int
) -> None:
    hub.routes[INPUT] = (status, "because of that", reason)
    ended = midwatch("attach", "inbox", "--send", "y", "--data", data)
    assert ended.code == code
    assert "because of that" in ended.err
    assert ("midwatch start inbox" in ended.err) == (reason == "not-running")


def test_no_instance_is_told_like_for_every_command(midwatch: Any, tmp_path: Path) -> None:
    assert midwatch("attach", "inbox", "--data", tmp_path / "none").code == 3


# -- at a terminal -----------------------------------------------------------------------------------


class Seat:
    """A person at a terminal who runs `midwatch attach inbox`."""

    def __init__(self, data: Path, rows: int = 24, columns: int = 80) -> None:
        self.seen = b""
        self.ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(theirs)
        command = [sys.executable, "-m", "midwatch.cli", "attach", "inbox", "--data", str(data)]
        env = {**os.environ, "TERM": "xterm"}
        env.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
        )
        self.theirs = theirs

    def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, self.text()
            self.read()

    def read(self) -> None:
        if select.select([self.ours], [], [], 0.02)[0]:
            self.seen += os.read(self.ours, 65536)

    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.seen.decode("utf-8", "replace"))

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def wait(self) -> int:
        self.until(lambda: self.process.poll() is not None)
        self.read()
        return int(self.process.returncode)

    @property
    def is_given_back(self) -> bool:
        left = self.seen.endswith(b"\x1b[?1049l") or b"\x1b[?1049l" in self.seen
        return left and termios.tcgetattr(self.theirs) == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def sit(data: Path) -> Iterator[Callable[..., Seat]]:
    seats: list[Seat] = []

    def at(**size: int) -> Seat:
        seats.append(Seat(data, **size))
        return seats[-1]

    yield at
    for seat in seats:
        seat.close()


def typed(hub: Any) -> str:
    return "".join(body["text"] for route, _, body in hub.asked if route == INPUT)


def test_the_first_line_says_how_to_leave_and_keys_reach_the_agent(hub: Any, sit: Any) -> None:
    hub.routes[SCREEN] = lambda _: screen(QUESTION, f"you typed {typed(hub)!r}", waiting=True)
    hub.routes[INPUT] = SENT
    seat = sit()
    seat.until(lambda: "inbox: attached, Ctrl-] detaches; it waits for input" in seat.text())
    seat.until(lambda: QUESTION in seat.text())
    seat.type("yé\x03\r")  # Ctrl-C is the agent's
    seat.until(lambda: "you typed 'yé\\x03\\r'" in seat.text())
    seat.type("\x1d")
    assert seat.wait() == 0
    assert seat.is_given_back
    assert "Detached; inbox goes on." in seat.text()
    assert all(not body["enter"] for route, _, body in hub.asked if route == INPUT)


def test_what_is_typed_before_leaving_still_arrives(hub: Any, sit: Any) -> None:
    hub.routes[SCREEN] = screen("x")
    hub.routes[INPUT] = SENT
    seat = sit()
    seat.until(lambda: "detaches" in seat.text())
    seat.type("last\x1dlost")
    assert seat.wait() == 0
    assert typed(hub) == "last"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, None)]
)
def test_a_signal_gives_the_terminal_back(
    hub: Any, sit: Any, number: int, code: int | None
) -> None:
    hub.routes[SCREEN] = screen("x")
    seat = sit()
    seat.until(lambda: "detaches" in seat.text())
    seat.process.send_signal(number)
    ended = seat.wait()
    assert ended == code or code is None
    assert seat.is_given_back


def test_an_agent_without_a_terminal_leaves_ours_alone(hub: Any, sit: Any) -> None:
    hub.routes[SCREEN] = screen("x", tty=False)
    seat = sit()
    assert seat.wait() == 2
    assert "set `tty: true`" in seat.text()
    assert b"\x1b[?1049h" not in seat.seen


def test_an_agent_that_does_not_run_is_told(hub: Any, sit: Any) -> None:
    hub.routes[SCREEN] = screen("x", running=False)
    seat = sit()
    assert seat.wait() == 1
    assert "midwatch start inbox" in seat.text()


def test_an_agent_that_ends_meanwhile_is_told_and_waited_for(hub: Any, sit: Any) -> None:
    hub.routes[SCREEN] = screen("x")
    seat = sit()
    seat.until(lambda: "detaches" in seat.text())
    hub.routes[SCREEN] = screen("x", running=False)
    seat.until(lambda: "it does not run" in seat.text())
    hub.routes[INPUT] = (409, "inbox does not run: it is backing-off", "not-running")
    seat.type("y")
    seat.until(lambda: "inbox does not run: it is backing-off" in seat.text())
    hub.routes[SCREEN] = screen("back again")
    seat.until(lambda: "back again" in seat.text())
    seat.type("\x1d")
    assert seat.wait() == 0


def test_a_hub_that_stays_away_is_waited_for_a_while_and_then_ends_it_with_3(
    hub: Any, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "PATIENCE_S", 0.2)
    hub.routes[SCREEN] = screen("x")
    asked = Hub(find(data, None))
    seat = attach.Seat(asked, "inbox", attach.look(asked, "inbox"))
    hub.routes[SCREEN] = (503, "node 'here' is away", "unavailable")
    seat.turn("")
    assert "is away" in seat.headline()
    hub.routes[SCREEN] = screen("back")
    seat.turn("")
    assert (seat.screen.lines, "away" in seat.headline()) == (["back"], False)
    hub.routes[SCREEN] = (503, "node 'here' is away", "unavailable")
    deadline = time.monotonic() + DEADLINE_S

    def go_on() -> None:
        while time.monotonic() < deadline:
            seat.turn("")

    with pytest.raises(CommandError, match="is away") as ended:
        go_on()
    assert ended.value.code == 3


def test_a_small_terminal_shows_the_part_around_the_cursor(hub: Any, sit: Any) -> None:
    lines = [f"line {n} " + "x" * 300 for n in range(50)]
    hub.routes[SCREEN] = screen(*lines, cursor=[49, 0])
    seat = sit(rows=10, columns=40)
    seat.until(lambda: "line 49" in seat.text())
    assert "line 41" in seat.text()
    assert "line 40" not in seat.text()
    assert "x" * 40 not in seat.text()


@pytest.mark.parametrize(
    ("line", "columns", "shown"),
    [
        ("abc", 2, "ab"),
        ("漢字", 3, "漢"),
        ("é" * 3, 2, "é" * 2),
        ("e\u0301x", 1, "e\u0301"),
        ("", 5, ""),
    ],
)
def test_a_line_is_cut_where_the_terminal_ends(line: str, columns: int, shown: str) -> None:
    assert clip(line, columns) == shown
