"""The seam between decoding and understanding: attributes in, columns and contents out.

The decoder (`ingest/otlp`) sets what OTLP itself says: ids, times, name, kind, status, scope, resource, owner. All
else is a dialect's: a table of keys, and a function for what needs two keys at once. A dialect is found like a
detector: a module of `core/spans/dialects` that holds one. `Understanding` is what the decoder calls.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple, Protocol

from midwatch.core.spans.form import ATTRIBUTES, DIALECT, EVENTS, LOGS, Batch, ContentKind, Row
from midwatch.core.spans.values import Value, dump


class Attribute(NamedTuple):
    """One attribute, decoded once for all spans that repeat it."""

    key: str
    value: Value
    text: str
    """`"key":value` as JSON: a piece of what `values.dump_all` writes."""


def attribute(key: str, value: Value) -> Attribute:
    """Return the attribute with its JSON."""
    return Attribute(key, value, f"{dump(key)}:{dump(value)}")


class Event(NamedTuple):
    """A span's event, decoded."""

    name: str
    time_ns: int
    attributes: Sequence[Attribute]


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a key's value goes: into a column, or among the contents.

    `read` returns what the column holds, or None for a value of another kind, which then stays an attribute. With
    `gives_back` the dialect can tell key and value from the column again, so that the attribute itself is not kept.
    """

    column: int | None
    read: Callable[[Value], object]
    content: ContentKind | None = None
    gives_back: bool = False


class Dialect(Protocol):
    """One family of names. `name` is what the column `dialect` says."""

    name: str
    slots: Mapping[str, Slot]

    def claims(self, scope: str, version: str, keys: Collection[str]) -> bool:
        """Tell whether spans of this instrumentation, or with these keys, speak it."""
        ...

    def finish(self, row: Row) -> None:
        """Set what needs two columns at once: the role, usage by the standard (input with what was cached)."""
        ...


class ScopeReading(Protocol):
    """Understands what one instrumentation of one resource sent."""

    def span(
        self, row: Row, attributes: Sequence[Attribute], events: Sequence[Event], batch: Batch
    ) -> None:
        """Fill the row: columns, `attributes`, `events`; put its contents into the batch. Never raises."""
        ...

    def log(self, row: Row, attributes: Sequence[Attribute], batch: Batch) -> None:
        """The same of a log record: the contents of one that speaks of a span are that span's."""
        ...


class Understanding(Protocol):
    """What the decoder hands attributes to. It keeps nothing of one request for the next but what it can forget."""

    def scope(self, name: str, version: str, resource: Mapping[str, Value]) -> ScopeReading:
        """Return the reading for one scope of a request."""
        ...


class AsItCame:
    """An understanding that understands nothing: every attribute stays one, every span is `other`."""

    def scope(self, name: str, version: str, resource: Mapping[str, Value]) -> AsItCame:  # noqa: ARG002  the port
        return self

    def span(
        self,
        row: Row,
        attributes: Sequence[Attribute],
        events: Sequence[Event],
        batch: Batch,  # noqa: ARG002  the port
    ) -> None:
        row[DIALECT] = "none"
        row[ATTRIBUTES] = joined(attributes)
        row[EVENTS] = events_text(events)

    def log(self, row: Row, attributes: Sequence[Attribute], batch: Batch) -> None:  # noqa: ARG002  the port
        row[_LOG_ATTRIBUTES] = joined(attributes)


_LOG_ATTRIBUTES = LOGS.at["attributes"]


def joined(attributes: Sequence[Attribute]) -> str | None:
    """Return attributes as the column `attributes` holds them; of two with one key the last stays."""
    if not attributes:
        return None
    texts = {one.key: one.text for one in attributes}
    return "{" + ",".join(texts.values()) + "}"


def events_text(events: Sequence[Event]) -> str | None:
    """Return events as the column `events` holds them."""
    if not events:
        return None
    return "[" + ",".join(_event_text(event) for event in events) + "]"


def _event_text(event: Event) -> str:
    inner = joined(event.attributes)
    more = f',"attributes":{inner}' if inner is not None else ""
    return f'{{"name":{dump(event.name)},"time_ns":{event.time_ns}{more}}}'


def load(package: ModuleType | None = None) -> dict[str, Dialect]:
    """Return the dialects of all modules in `package` (default `core.spans.dialects`), by name.

    Each module holds one under the name `dialect`. Raises ValueError for one that does not, and for two of a name.
    """
    if package is None:
        package = importlib.import_module("midwatch.core.spans.dialects")
    found: dict[str, Dialect] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda one: one.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        own: Dialect | None = vars(module).get("dialect")
        if own is None:
            raise ValueError(f"{module.__name__} holds no dialect; name one `dialect`")
        if own.name in found:
            raise ValueError(f"two dialects are called {own.name!r}; give each its own name")
        found[own.name] = own
    return found
