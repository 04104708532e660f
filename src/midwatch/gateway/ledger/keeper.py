"""The ledger's process: the same work as the ledger's thread (`durable`), beside the gateway and not within it.

`fork` begins it; `python -m midwatch.gateway.ledger.keeper FD` is one on a socket that is there. It hears orders on a line, decides them in batches, and answers when they are committed. It ends with the line: what
was ordered and nobody waits for is written all the same, what somebody waited for is not done any more.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final, cast

from midwatch.core.calls.budget import Notice
from midwatch.core.calls.period import Calendar
from midwatch.core.pace import Pace
from midwatch.gateway.ledger.asked import Ask
from midwatch.gateway.ledger.books import Answer
from midwatch.gateway.ledger.durable import LINGER_S, STOP_S, DurableLedger
from midwatch.gateway.ledger.engine import BadRow, LedgerDown, LedgerUnusable
from midwatch.gateway.ledger.packing import (
    Frames,
    Unpacker,
    answer_out,
    calendar_in,
    ended_out,
    frame,
)
from midwatch.gateway.ledger.sqlite import Disk, SqliteEngine

PIECE_BYTES: Final = 262_144

INTERVAL_S: Final = 0.001
"""Distance of transactions under load: half of the thread's, since what they cost is not the event loop's time."""

SOON_S: Final = 0.001
"""How long settlements wait for company while there is little to do: what is written between two calls is not in the
way of the next one's reservation. That was 0.3 of the 1.7 ms that the gateway adds at 200 calls/s."""

AWAKE_S: Final = 0.001
"""How long a reservation that was announced is waited for without falling asleep. Not on a machine of one processor,
where it would keep the gateway from making the reservation."""

_PR_SET_NAME: Final = 15

log = logging.getLogger(__name__)


class Beside:
    """A process that was begun and waits for its ledger."""

    def __init__(self, line: socket.socket, pid: int) -> None:
        self.line = line
        self.pid = pid

    def dismiss(self) -> None:
        """End it: no ledger wants it."""
        self.line.close()
        self.reap()

    def reap(self, within_s: float = 1.0) -> bool:
        """Take note of its end; False when it has not come. Blocking."""
        deadline = time.monotonic() + within_s
        while True:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                    if time.monotonic() > deadline:
                        return False
                    time.sleep(0.01)
                    continue
            return True


def fork() -> Beside:
    """Begin the ledger's process: before there is any thread, and before secrets are known to this one."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return Beside(ours, pid)
    status = 1
    try:
        named(b"midwatch ledger")
        kept = theirs.fileno()
        os.closerange(3, kept)
        os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the gateway says when it is over
        serve(theirs)
        status = 0
    except Exception:
        # the gateway goes on without this process; why, is to be found
        log.exception("the ledger's process failed")
    finally:
        os._exit(status)


def named(name: bytes) -> None:
    """Have this process shown by a name of at most 15 bytes instead of its parent's command line, by which it would be
    taken for the gateway, and killed for it."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name, 0, 0, 0)
    shown = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(shown[45]), int(shown[46])  # of the arguments (proc_pid_stat(5), 48 and 49)
    if 0 < start < end - len(name):
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, name, len(name))


def serve(line: socket.socket) -> None:
    """Keep one ledger, until its gateway says so or is gone."""
    frames = Frames()
    begun: list[Any] = []
    while not begun:
        piece = line.recv(PIECE_BYTES)
        if not piece:
            return
        begun += frames.take(piece)
    path, calendar = begun[0]["begin"]
    Keeper(line, frames, Path(path), calendar_in(calendar)).keep(begun[1:])


class Keeper(DurableLedger):
    """The ledger's other half. Of what it inherits, the thread's part is run, by the process itself."""

    interval_s = INTERVAL_S

    def __init__(self, line: socket.socket, frames: Frames, path: Path, calendar: Calendar) -> None:
        engine = SqliteEngine(path)
        super().__init__(engine, engine, calendar, disk=Disk(path))
        self._line = line
        self._frames = frames
        self._unpacker = Unpacker()
        self._poll = select.poll()
        self._poll.register(line, select.POLLIN)
        self._sqlite = engine
        self._expected = False
        """A reservation is about to come."""
        self._awake_s = AWAKE_S if _processors() > 1 else 0.0

    def keep(self, heard: list[Any]) -> None:
        """Work until it is over."""
        try:
            self._engine.open()
            self._is_open = True
        except LedgerDown as error:
            self._fail(error)
        except LedgerUnusable as error:
            self._say([], [], str(error), unusable=True)
            return
        assert self._disk is not None
        self._disk.start()
        self._say([], [], self.down)
        for message in heard:
            self._take_in(message)
        self._run()
        self._disk.stop()
        self._say([], [], self.down)

    @property
    def down(self) -> str | None:
        return None if self._is_open else str(self._why)

    # -- hearing ----------------------------------------------------------------------------------

    def _hear(self, within_s: float | None) -> None:
        """Take in what has come, or comes within the time; for ever when None."""
        if self._stopping:
            return
        ready = self._await_awake() if self._expected else None
        ready = ready or self._poll.poll(None if within_s is None else max(0.0, within_s) * 1e3)
        if not ready:
            return
        hung_up = ready[0][1] & (select.POLLHUP | select.POLLERR)
        while True:
            try:
                piece = self._line.recv(PIECE_BYTES)
            except OSError:
                piece = b""
            for message in self._frames.take(piece):
                self._take_in(message)
            if not piece:
                self._left_alone()
                return
            if not hung_up:
                return  # otherwise all that is left, so that nothing is done for somebody who is gone

    def _await_awake(self) -> list[tuple[int, int]] | None:
        """A reservation is about to come: have the books at hand, and do not fall asleep before it.

        For that it waits for no other gateway's transaction: whoever makes the reservation is to have all of `BUSY_S`.
        """
        self._expected = False
        with contextlib.suppress(LedgerDown, BadRow), self._sqlite.impatient():
            self._books.apply(())  # what is wrong, the reservation will find out
        until = self._clock() + self._awake_s
        while not (ready := self._poll.poll(0)) and self._clock() < until:
            pass
        return ready

    def _take_in(self, message: dict[str, Any]) -> None:
        for number, awaited, packed in message.get("orders", ()):
            ask = _Heard(self._unpacker.order(packed), number, awaited=awaited)
            self._orders.append(ask)
            self._awaited = self._awaited or awaited
        if "soon" in message:
            self._expected = self._is_open
        if self._orders:
            self._expected = False  # it has come, or there is something to do
        if "calendar" in message:
            self.calendar = calendar_in(message["calendar"])
        if "stop" in message:
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        self._stop_by = self._clock() + STOP_S

    def _left_alone(self) -> None:
        """The gateway is gone: whoever waited is gone with it."""
        kept = [ask for ask in self._orders if ask.future is None]
        self._orders.clear()
        self._orders.extend(kept)
        self._stop()

    def _take(self, pace: Pace) -> list[Ask]:
        if self._orders or self._kept:
            self._hear(0)
        return super()._take(pace)

    def _linger(self, pace: Pace) -> None:
        self._sleep(SOON_S)
        if not self._awaited and not pace.is_full(self._clock()):
            self._sleep(
                LINGER_S
            )  # under load they go with the next reservation: half as many transactions

    def _sleep(self, at_most_s: float | None) -> None:
        until = None if at_most_s is None else self._clock() + at_most_s
        while not (self._stopping or self._awaited or (until is None and self._orders)):
            left = None if until is None else until - self._clock()
            if left is not None and left <= 0:
                return
            self._hear(left)

    def _pause_for(self, seconds: float) -> None:
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0 and not self._stopping:
            self._hear(left)

    # -- answering --------------------------------------------------------------------------------

    def _call(self, what: Callable[..., Any], *values: Any) -> None:
        assert what == self._deliver
        answers, told = cast("tuple[list[tuple[_Heard, Answer]], list[Notice]]", values)
        packed = [
            (ask.number, (ended_out if ask.future is None else answer_out)(ask.order, answer))
            for ask, answer in answers
        ]
        self._say(packed, told, self.down)

    def _say(
        self,
        answers: list[tuple[int, object]],
        told: list[Notice],
        down: str | None,
        *,
        unusable: bool = False,
    ) -> None:
        counted = [(name, label, count) for (name, label), count in self.counts.items()]
        self.counts.clear()
        message = (answers, [astuple(one) for one in told], counted, down, unusable)
        with contextlib.suppress(
            OSError
        ):  # nobody is there any more: it is known at the next hearing
            self._line.sendall(frame(message))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class _Heard(Ask):
    __slots__ = ("number",)

    def __init__(self, order: Any, number: int, *, awaited: bool) -> None:
        super().__init__(order, cast("Any", True) if awaited else None, 0.0)
        self.number = number


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
