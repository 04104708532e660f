"""All that is known of one span: its columns, the attributes as its sender wrote them, and where it comes from.

Values are JSON as `values.dump` writes them: bytes stand as `{"$bytes": …}`, so that whoever reads them has all of
them. Contents stand apart (`Questions.contents`): they expire alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from midwatch.core.spans.dialect import Dialect, load
from midwatch.core.spans.form import ATTRIBUTES, SPANS, Row
from midwatch.core.spans.questions import Item
from midwatch.core.spans.understanding import restored
from midwatch.core.spans.values import dump


def detail_of(row: Row, resource: str | None) -> Item:
    """Return the item of a span with `original` (attributes under the keys that they came with, contents left out)
    and `resource` (`attributes`, `schema_url`, `scope_attributes`). `resource` is `form.resource_text`, or None."""
    plain = row[:]
    plain[ATTRIBUTES] = None
    found = SPANS.item(plain)
    found["original"] = {key: json.loads(dump(value)) for key, value in restored(row, (), _dialects()).items()}  # fmt: skip
    read: object = json.loads(resource) if resource else {}
    found["resource"] = cast("dict[str, Any]", read) if isinstance(read, dict) else {}
    return found


@cache
def _dialects() -> Mapping[str, Dialect]:
    return load()
