"""The one way in which a wait of a call ends before what it waits for has come: somebody kills the call, or its
client leaves.

with Waiting(call, out):
    reply = await upstream.open(request)

`Interrupted` comes out of the block then, once what it called has let go (a connection is closed by that time).
A callback and no task: a task for each piece of a stream would cost more than the piece. Blocks are not nested.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from midwatch.gateway.carried import Carried
from midwatch.gateway.http.port import ClientGone, Outgoing


class Interrupted(Exception):
    """The call was killed (`Carried.killed` says why), or its client left."""


class Waiting:
    """While it is open, a kill of the call ends what the task waits for; with `leaving`, a client that leaves does,
    too. Raises Interrupted, at its beginning when there is nothing to wait for any more."""

    __slots__ = ("_call", "_cancelled", "_gone", "_task")

    def __init__(self, call: Carried, out: Outgoing, *, leaving: bool = True) -> None:
        self._call = call
        self._gone = out.gone if leaving else None
        self._cancelled = False
        self._task: asyncio.Task[object] | None = None
        """None: it is not open."""

    def __enter__(self) -> None:
        call, gone = self._call, self._gone
        if call.killed is not None or (gone is not None and gone.done()):
            raise Interrupted
        self._task = call.task or asyncio.current_task()
        call.interrupt = self._end
        if gone is not None:
            gone.add_done_callback(self._end)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        self._call.interrupt = None
        if self._gone is not None:
            self._gone.remove_done_callback(self._end)
        if kind is not None and issubclass(kind, ClientGone):
            raise Interrupted from None
        if not self._cancelled:
            return
        assert task is not None
        others = task.uncancel()
        if kind is not None and issubclass(kind, asyncio.CancelledError) and not others:
            raise Interrupted from None

    def _end(self, _: object = None) -> None:
        # a callback that was on its way when the block was left comes too late
        if self._task is not None and not self._cancelled:
            self._cancelled = True
            self._task.cancel()
