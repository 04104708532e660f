"""For tests of agents: what the SDK would send is kept in memory instead.

    from midwatch.testing import recording

    def test_each_mail_is_one_cycle():
        with recording() as seen:
            work_through(inbox)
        assert [beat["result"] for beat in seen.beats] == ["ok", "ok"]

No thread runs, no socket is opened, and what was set up before is put back afterwards.
"""

from __future__ import annotations

import contextlib
import time

from midwatch.sdk import runtime, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    Item = dict[str, Any]


class MemoryTransport:
    """Keeps what is submitted, complete, by path or kind, in order."""

    def __init__(self, agent: str | None = None, run_id: str | None = None) -> None:
        self.agent = agent
        self.run_id = run_id
        self.items: list[tuple[str, Item]] = []
        self.lost: dict[str, int] = {}
        self.closed = False

    def submit(self, kind: str, item: Item | Callable[[], Item]) -> bool:
        complete = item() if callable(item) else dict(item)
        if kind != runtime.TRACES_PATH:
            complete.setdefault("at", time.time())
            for name, value in (("agent", self.agent), ("run_id", self.run_id)):
                if value is not None:
                    complete.setdefault(name, value)
        self.items.append((kind, complete))
        return True

    def start(self) -> None:
        """Nothing to start."""

    def flush(self, timeout_s: float) -> bool:  # noqa: ARG002
        return True

    def close(self, timeout_s: float) -> None:  # noqa: ARG002
        self.closed = True

    def lose(self, reason: str, count: int = 1) -> None:
        self.lost[reason] = self.lost.get(reason, 0) + count

    def statistics(self) -> Item:
        return {"submitted": len(self.items), "lost": dict(self.lost)}


class MemoryNotifier:
    """Keeps what the supervisor would be told: `beat`, `ready`, `draining`, `done`, …"""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.steps: list[tuple[str, float | None]] = []
        self.children: list[dict[str, Any]] = []

    def beat(self) -> None:
        self.told.append("beat")

    def ready(self) -> None:
        self.told.append("ready")

    def draining(self) -> None:
        self.told.append("draining")

    def done(self) -> None:
        self.told.append("done")

    def step(self, text: str, expect_s: float | None) -> None:
        self.told.append("step")
        self.steps.append((text, expect_s))

    def call_opened(self) -> None:
        self.told.append("call opened")

    def call_done(self) -> None:
        self.told.append("call done")

    def called(self) -> None:
        self.told.append("called")

    def child(self, told: dict[str, Any]) -> None:
        self.told.append("child")
        self.children.append(told)

    def forget(self) -> None:
        """Nothing to forget."""


class Recording:
    """What an agent said, as JSON values."""

    def __init__(self, transport: MemoryTransport, notifier: MemoryNotifier) -> None:
        self.transport = transport
        self.notifier = notifier

    @property
    def beats(self) -> list[Item]:
        return self._of("beat")

    @property
    def events(self) -> list[Item]:
        return self._of("event")

    @property
    def spans(self) -> list[Item]:
        """OTLP spans with `attributes` as one plain object, in the order in which they ended."""
        return [
            {**span, "attributes": _plain_attributes(span)}
            for span in self._of(runtime.TRACES_PATH)
        ]

    @property
    def told(self) -> list[str]:
        """What the supervisor was told, in order."""
        return self.notifier.told

    @property
    def lost(self) -> dict[str, int]:
        """What would not have arrived, by reason."""
        return self.transport.lost

    def event_kinds(self) -> list[str]:
        return [event["kind"] for event in self.events]

    def _of(self, kind: str) -> list[Item]:
        return [item for found, item in self.transport.items if found == kind]


@contextlib.contextmanager
def recording(agent: str = "agent", run_id: str | None = "run") -> Generator[Recording]:
    """Record what the SDK sends while the block runs; yields a `Recording`."""
    seen = Recording(MemoryTransport(agent, run_id), MemoryNotifier())
    earlier = runtime.current
    usage.loose.clear()
    runtime.current = runtime.Runtime(agent, run_id, seen.transport, seen.notifier, traces=True)
    try:
        yield seen
    finally:
        runtime.current = earlier
        usage.loose.clear()


def _plain_attributes(span: Item) -> Item:
    return {pair["key"]: _plain_value(pair["value"]) for pair in span["attributes"]}


def _plain_value(value: Item) -> Any:
    if "intValue" in value:
        return int(value["intValue"])
    if "arrayValue" in value:
        return [_plain_value(entry) for entry in value["arrayValue"]["values"]]
    return next(iter(value.values()))
