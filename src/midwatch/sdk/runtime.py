"""What `init` sets up for this process, and what every other name of the SDK asks for.

There is one `Runtime` or none. None means that no hub and no supervisor is named: then every
public function returns at once, no thread runs, and no socket is open.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time

from midwatch.sdk import shield, span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    class Sender(Protocol):
        """What a runtime needs of a transport; `midwatch.testing` has another one."""

        def submit(
            self, kind: str, item: dict[str, Any] | Callable[[], dict[str, Any]]
        ) -> bool: ...
        def start(self) -> None: ...
        def flush(self, timeout_s: float) -> bool: ...
        def close(self, timeout_s: float) -> None: ...
        def lose(self, reason: str, count: int = 1) -> None: ...
        def statistics(self) -> dict[str, Any]: ...

    class Teller(Protocol):
        """What a runtime needs of a notifier."""

        def beat(self) -> None: ...
        def ready(self) -> None: ...
        def draining(self) -> None: ...
        def done(self) -> None: ...
        def step(self, text: str, expect_s: float | None) -> None: ...
        def call_opened(self) -> None: ...
        def call_done(self) -> None: ...
        def called(self) -> None: ...
        def child(self, told: dict[str, Any]) -> None: ...
        def forget(self) -> None: ...


EXIT_WAIT_S = 2.0
"""How long the end of the process may be put off for delivery; the rest goes to the spool."""

TRACES_PATH = "/v1/traces"


class Runtime:
    """The process's transport, notifier and names."""

    __slots__ = (
        "agent",
        "beat_at",
        "draining",
        "family",
        "notifier",
        "run_id",
        "traces",
        "transport",
    )

    def __init__(
        self,
        agent: str,
        run_id: str | None,
        transport: Sender | None,
        notifier: Teller | None,
        family: Teller | None = None,
        *,
        traces: bool,
    ) -> None:
        self.agent = agent
        self.run_id = run_id
        self.transport = transport
        self.notifier = notifier
        self.family = family if family is not None else notifier
        """Where sub-agents are told of; a sub-agent has this and no notifier."""
        self.traces = traces and transport is not None
        self.draining = False
        self.beat_at = time.monotonic()

    def submit(self, kind: str, item: dict[str, Any] | Callable[[], dict[str, Any]]) -> None:
        """Hand an item over, if there is somebody to take it."""
        if self.transport is not None:
            self.transport.submit(kind, item)

    def event(self, kind: str, data: dict[str, Any]) -> None:
        """Send an event of this agent; `data` must be plain."""
        self.submit("event", {"kind": kind, "data": data, "at": time.time()})

    def end_span(self, ended: span.Span) -> None:
        """Mark the end of a span and send it."""
        ended.ended_ns = time.time_ns()
        if span.announcer is not None:
            span.announcer.ended(ended)
        if self.traces:
            run_id = self.run_id
            self.submit(TRACES_PATH, lambda: ended.render(run_id))

    def beat(self) -> None:
        """Tell the supervisor that the work loop has come round."""
        if self.notifier is not None:
            self.notifier.beat()

    def lose(self, reason: str, count: int = 1) -> None:
        if self.transport is not None:
            self.transport.lose(reason, count)


current: Runtime | None = None
"""None: nothing is done."""

asked = False
"""`init` was called, whatever came of it: that nothing is done is then as it should be."""

_missed = False


def missing(verb: str) -> None:
    """Say once in this process that what the agent tells is lost, because `init` was forgotten.

    Only where somebody would hear it: without a hub and a supervisor `init` would change nothing.
    There is no worker yet that could say it, so it is said here, and never waited for.
    """
    global _missed
    if asked or _missed:
        return
    _missed = True
    with shield.kept("missing"):
        if any(os.environ.get(name) for name in ("MIDWATCH_URL", "NOTIFY_SOCKET")):
            _write(
                f"midwatch: {verb}() before init(): nothing is recorded; call midwatch.init() first\n"
            )


def _write(line: str) -> None:
    stream = sys.stderr
    if stream is None:  # pyright: ignore[reportUnnecessaryComparison]  # as under pythonw
        return
    try:
        number = stream.fileno()
    except (OSError, ValueError, AttributeError):  # a test's, or an editor's: in memory
        stream.write(line)
        return
    import select

    # a pipe that nobody reads would make the agent wait; one that takes anything takes a line
    if select.select((), (number,), (), 0)[1]:
        os.write(number, line.encode())


_arranged = False


def begin(runtime: Runtime) -> None:
    """Make `runtime` the one of this process."""
    global current, _arranged
    earlier, current = current, runtime
    if earlier is not None and earlier.transport is not None:
        # in a thread: what was queued still goes out, and `init` does not wait for it
        threading.Thread(
            target=earlier.transport.close, args=(EXIT_WAIT_S,), daemon=True, name="midwatch-close"
        ).start()
    if not _arranged:
        _arranged = True
        atexit.register(at_exit)
        os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            _arrange_child_exit(None)


@shield.shielded
def at_exit() -> None:
    """Deliver what waits, with a short bound; what is left waits in the spool."""
    if current is None:
        return
    if current.transport is not None:
        current.transport.close(EXIT_WAIT_S)
    if current.family is not None:
        current.family.forget()  # closed here, not by the interpreter, which would complain


_known_to_multiprocessing = False


def _before_fork() -> None:
    """Draw the ids of the span that goes on in both; see to the exit of the child.

    Children of multiprocessing skip atexit, but run its own finalizers.
    """
    global _known_to_multiprocessing
    shared = span.current.get()
    if shared is not None:
        _ = shared.trace_id, shared.span_id
    util = sys.modules.get("multiprocessing.util")
    if util is None or _known_to_multiprocessing:
        return
    _known_to_multiprocessing = True
    util.register_after_fork(at_exit, _arrange_child_exit)


def _arrange_child_exit(_: object) -> None:
    sys.modules["multiprocessing.util"].Finalize(None, at_exit, exitpriority=-100)


def _after_fork() -> None:
    shield.reset()
    if current is not None:
        current.beat_at = time.monotonic()
        if current.family is not None:
            current.family.forget()
