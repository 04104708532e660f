"""How many values sums tell apart, as in the embedded store (`store.spans.bounding`): of each agent, model, provider and
tag a day's first `rollup.MAX_VALUES`, then OTHER.

What is told apart is written down before anything is counted by it, and stays so for its day; what came when a day was
full never gets a place, so that corrections go where the value went. An attempt that is not committed may have taken
places: the next one uses them. Two hubs that settle at once may bring a few more than there are places for.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from midwatch.core.spans.questions import OTHER
from midwatch.core.spans.rollup import DAY_S, MAX_VALUES, MINUTE_S
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.rows import encode
from midwatch.store.clickhouse.slices import LOOK_S

VALUES: Final = "midwatch_values"
"""What is told apart: day (its first minute since 1970), agent, by, name."""

_DAY: Final = DAY_S // MINUTE_S


def table(settings: str) -> str:
    """Return the statement that makes the table."""
    return (
        f"CREATE TABLE IF NOT EXISTS {VALUES} (day Int64, agent String, by String, name String) ENGINE = ReplacingMergeTree"
        f" PARTITION BY toYYYYMM(toDateTime(day * 60, 'UTC')) ORDER BY (day, agent, by, name) SETTINGS {settings}"
    )


@dataclass(frozen=True, slots=True)
class Places:
    """Where rows are counted, in words of SQL about one row; times are minutes since 1970."""

    minute: str
    agent: str
    model: str
    provider: str
    tags: Sequence[tuple[str, str]]
    """Placeholders of names, and the value or NULL."""
    there: str
    """Whether any tag may be there."""
    since: int
    until: int
    """Between which minutes the rows are."""

    @property
    def _known(self) -> str:
        first, last = self.since // _DAY * _DAY, self.until // _DAY * _DAY
        return f"SELECT day, agent, by, name FROM {VALUES} WHERE day BETWEEN {first} AND {last}"

    @property
    def _day(self) -> str:
        return f"intDiv({self.minute}, {_DAY}) * {_DAY}"

    def _each(self) -> list[tuple[str, str]]:
        """Return by what is split, as an expression, and the value."""
        own = [("'model'", self.model), ("'provider'", self.provider)]
        return own + [(f"concat('tag:', {name})", value) for name, value in self.tags]

    def _bounded(self, by: str, value: str) -> str:
        said = f"CAST({value} AS Nullable(String))"
        known = (
            f"({self._day}, toString({self.agent}), {by}, assumeNotNull({said})) IN ({self._known})"
        )
        return f"multiIf(isNull({said}), NULL, {known}, {said}, '{OTHER}')"

    @property
    def columns(self) -> str:
        """Minute, agent, model, provider, and tags as JSON or NULL; what has no place is OTHER."""
        model, provider, *tags = [self._bounded(by, value) for by, value in self._each()]
        said = "CAST(NULL AS Nullable(String))"
        if tags:
            pairs = ", ".join(f"({name}, {tag})" for (name, _), tag in zip(self.tags, tags, strict=True))  # fmt: skip
            some = f"arrayFilter(x -> isNotNull(x.2), [{pairs}])"
            whole = f"toJSONString(mapFromArrays(arrayMap(x -> x.1, {some}), arrayMap(x -> assumeNotNull(x.2), {some})))"
            said = f"if(NOT ({self.there}) OR empty({some}), NULL, {whole})"
        return f"{self.minute}, {self.agent}, {model}, {provider}, {said}"

    def give(self, client: ClickHouse, rows: str, values: dict[str, Any]) -> Counter[str]:
        """Give places to the values of rows (a query in parentheses) that have none yet, those with most rows first, of
        equal ones the first by name; return how many got none, by what they are of. Raises StoreError."""
        pairs = ", ".join(
            f"({by}, CAST({value} AS Nullable(String)))" for by, value in self._each()
        )
        each = f"SELECT {self._day} AS day, toString({self.agent}) AS who, arrayJoin([{pairs}]) AS said FROM {rows} AS r"
        fresh = client.ask(
            "SELECT day, who, by, count(), arraySlice(arrayMap(x -> x.2, arraySort(groupArray((-size, name)))), 1,"
            f" {MAX_VALUES}) FROM (SELECT day, who, said.1 AS by, assumeNotNull(said.2) AS name, toInt64(count()) AS size"
            f" FROM ({each}) AS e WHERE isNotNull(said.2) GROUP BY day, who, by, name) AS v"
            f" WHERE name <> '{OTHER}' AND (day, who, by, name) NOT IN ({self._known}) GROUP BY day, who, by",
            values,
            timeout_s=LOOK_S,
        ).rows
        folded = Counter[str]()
        if not fresh:
            return folded
        taken = {
            (day, agent, by): n
            for day, agent, by, n in client.ask(
                f"SELECT day, agent, by, uniqExact(name) FROM ({self._known}) AS k GROUP BY day, agent, by"
            ).rows
        }
        lines: list[str] = []
        for day, agent, by, count, names in fresh:
            told = names[: max(0, MAX_VALUES - taken.get((day, agent, by), 0))]
            lines += [encode([day, agent, by, name]) for name in told]
            if count > len(told):
                folded[by] += count - len(told)
        client.insert(VALUES, ["day", "agent", "by", "name"], lines, uuid.uuid4().hex)
        return folded
