"""One span, said in a few words, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from midwatch.core.spans import form
from midwatch.core.spans.dialect import Event, attribute, load
from midwatch.core.spans.form import CONTENTS, SPANS, Batch, ContentKind, Role, Row
from midwatch.core.spans.understanding import Interpreter, restored

KNOWN = Interpreter()
FAMILIES = load()
TRACE, SPAN, PARENT = b"\1" * 16, b"\2" * 8, b"\3" * 8
START_NS = 1_795_291_509_000_000_000


@dataclass
class Heard:
    """A span that was understood."""

    row: Row
    batch: Batch
    came: dict[str, Any]

    def __getitem__(self, column: str) -> Any:
        return self.row[SPANS.at[column]]

    @property
    def role(self) -> Role:
        return Role(self["role"])

    @property
    def usage(self) -> tuple[int | None, ...]:
        """Input, from a cache, to a cache, output, reasoning."""
        names = ("input", "cached", "cache_write", "output", "reasoning")
        return tuple(self[f"{name}_tokens"] for name in names)

    @property
    def contents(self) -> list[tuple[ContentKind, str, str]]:
        """Kind, key and text of each."""
        at = CONTENTS.at
        return [
            (ContentKind(c[at["kind"]]), c[at["key"]], c[at["text"]]) for c in self.batch.contents
        ]

    def is_whole(self) -> bool:
        """Tell whether the span can go out with the attributes that it came with."""
        return restored(self.row, self.batch.contents, FAMILIES) == self.came


def hear(
    attributes: dict[str, Any],
    *,
    scope: str = "somebody",
    version: str = "1.0",
    name: str = "work",
    kind: int = 1,
    parent: bytes | None = None,
    events: tuple[tuple[str, dict[str, Any]], ...] = (),
    resource: dict[str, Any] | None = None,
    known: Interpreter = KNOWN,
) -> Heard:
    """Return what becomes of a span with these attributes."""
    row = form.NO_SPAN[:]
    row[form.AGENT], row[form.TRACE_ID], row[form.SPAN_ID] = "clerk", TRACE, SPAN
    row[form.PARENT_ID], row[form.START_NS], row[form.DURATION_NS] = parent, START_NS, 10**9
    row[form.NAME], row[form.KIND] = name, kind
    row[form.SCOPE], row[form.SCOPE_VERSION] = scope, version
    batch = Batch()
    known.scope(scope, version, resource or {}).span(
        row,
        [attribute(key, value) for key, value in attributes.items()],
        [
            Event(event, START_NS + 5 * 10**6, [attribute(k, v) for k, v in inner.items()])
            for event, inner in events
        ],
        batch,
    )
    assert SPANS.wrong(row) is None
    assert [why for content in batch.contents if (why := CONTENTS.wrong(content))] == []
    return Heard(row, batch, attributes)
