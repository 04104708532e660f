"""What the supervisor tells the hub (docs/design.md, "What the supervisor reports").

`Reporter` is the shape of the SDK's transport; `Reports` gives each report its name. Telemetry
fails open: nothing here raises or waits, and a report that could not be queued is counted.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from midwatch.core.family import Slight
from midwatch.wire.ids import new_id
from midwatch.wire.items import Item, Kind

INSTANCE: Final = "midwatch"
"""The name under which the instance reports about itself."""


class Reporter(Protocol):
    """Where items go: the SDK's transport, or a list in tests."""

    def submit(self, kind: Kind, item: Item) -> bool:
        """Queue an item; False when it was dropped."""
        ...

    def hasten(self) -> None:
        """The hub is there again: send now what waits for a better time."""
        ...


class Silence:
    """A Reporter for an instance without a hub: there is nobody to tell."""

    def submit(self, kind: Kind, item: Item) -> bool:  # noqa: ARG002
        return True

    def hasten(self) -> None:
        pass


class Recorder:
    """A Reporter that keeps what it is given, for tests."""

    def __init__(self) -> None:
        self.items: list[tuple[Kind, Item]] = []

    def submit(self, kind: Kind, item: Item) -> bool:
        self.items.append((kind, item))
        return True

    def hasten(self) -> None:
        pass

    def events(self, kind: str, agent: str | None = None) -> list[dict[str, Any]]:
        """Return the data of all events of a kind, oldest first."""
        return [
            item["data"]
            for what, item in self.items
            if what is Kind.EVENT and item["kind"] == kind and agent in (None, item["agent"])
        ]


class Reports:
    """Every report by name. `node` is added where the design says so."""

    def __init__(self, reporter: Reporter, node: str) -> None:
        self.node = node
        self.sent = 0
        self.dropped = 0
        self.withheld = dict.fromkeys(map(str, Slight), 0)
        """What was not told although it happened, by reason."""
        self._reporter = reporter

    def event(
        self, agent: str, kind: str, at: float, data: dict[str, Any], run_id: str | None = None
    ) -> None:
        item: Item = {"agent": agent, "kind": kind, "data": _known(data)}
        self._submit(Kind.EVENT, at, item, run_id)

    def run(self, agent: str, run_id: str, at: float, fields: dict[str, Any]) -> None:
        self._submit(Kind.RUN, at, {"agent": agent, "node": self.node, **_known(fields)}, run_id)

    def sample(self, agent: str, at: float, fields: dict[str, Any], run_id: str | None) -> None:
        self._submit(Kind.SAMPLE, at, {"agent": agent, **_known(fields)}, run_id)

    def _submit(self, kind: Kind, at: float, item: Item, run_id: str | None) -> None:
        item["id"] = new_id()
        item["at"] = at
        if run_id is not None:
            item["run_id"] = run_id
        if self._reporter.submit(kind, item):
            self.sent += 1
        else:
            self.dropped += 1


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    """No data is no field, never 0 or null."""
    return {name: value for name, value in fields.items() if value is not None}
