"""What spans come to by minute, kept: one addition for each settled slice, so that series read no spans.

A slice's rows carry its attempt. They are in force from the moment in which the slice that was committed with that attempt
is applied (`slices`), all at once, and those of an attempt that was not committed are never seen: a slice is counted once, however often
and by however many hubs it was tried. Nothing in here changes: what is judged anew later is a difference in a later slice.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import Rank, Role
from midwatch.core.spans.rollup import MILLION, MINUTE_S
from midwatch.store.clickhouse.bounding import Places
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.dialect import ClickHouseWords
from midwatch.store.clickhouse.slices import LOOK_S, Slice
from midwatch.store.clickhouse.sums import BUCKET
from midwatch.store.clickhouse.traces import MODEL_OF, OBSERVED, PROVIDER_OF, tag_of
from midwatch.store.questions.dialect import Values

MINUTES: Final = "midwatch_minutes"

_MINUTE_NS: Final = MINUTE_S * 10**9

_SAY: Final = ClickHouseWords()
_ERROR: Final = 2
_CALLED, _TOLD, _PAID = (_SAY.has("counts", bit) for bit in (CALL, TOKENS, MONEY))
_TOOL: Final = f"role = {Role.TOOL.value} AND rank <> {Rank.OPEN.value}"

_PLAIN: Final = (
    ("spans", "count()"),
    ("errors", f"countIf(status = {_ERROR})"),
    ("tools", f"countIf({_TOOL})"),
    ("tool_errors", f"countIf({_TOOL} AND status = {_ERROR})"),
)
_USAGE: Final = (
    ("calls", f"countIf({_CALLED})"),
    ("told", f"countIf({_TOLD})"),
    *((n, f"sumIf(toInt128(ifNull({n}, 0)), {_TOLD})") for n in ("input_tokens", "cached_tokens", "output_tokens")),
    ("cost_nusd", f"sumIf(toInt128(ifNull(cost_nusd, 0)), {_PAID})"),
    ("priced", f"countIf({_PAID} AND cost_nusd IS NOT NULL)"),
)  # fmt: skip
_OF_TRACES: Final = (
    ("traces", "count()"),
    ("judged", "countIf({there:goal_completion})"),
    ("goals", "countIf({there:goal_completion} AND {goal_completion})"),
    ("escalated", "countIf({escalation})"),
)
"""Of traces; with `{METRIC}` for what is observed, and `{there:METRIC}` for whether anything is."""
_OF_SPANS_SKETCHES: Final = ("first_token", "context_fill")
_OF_TRACES_SKETCHES: Final = ("trace_latency", "cost_per_trace", "tokens_per_task", "chain_length")
SKETCHES: Final = (*_OF_SPANS_SKETCHES, *_OF_TRACES_SKETCHES)
NUMBERS: Final = tuple(name for name, _ in (*_PLAIN, *_USAGE, *_OF_TRACES))

_BUCKETS: Final = "Map(UInt16, Int64)"
NUMERIC: Final = (
    *((name, "Int128") for name in NUMBERS),
    *((f"{n}_{end}", kind) for n in SKETCHES for end, kind in (("total", "Int128"), ("buckets", _BUCKETS))),
)  # fmt: skip
"""All columns that are added up, and their types."""


def columns() -> str:
    """Return the columns of a table of sums."""
    numeric = ", ".join(f"{name} {kind} CODEC(ZSTD(1))" for name, kind in NUMERIC)
    return (
        "minute Int64 CODEC(Delta(8), ZSTD(1)), agent LowCardinality(String), model LowCardinality(Nullable(String)),"
        " provider LowCardinality(Nullable(String)), tags Nullable(String) CODEC(ZSTD(1)), slice UInt64 CODEC(ZSTD(1)),"
        f" attempt UInt64 CODEC(ZSTD(1)), {numeric}"
    )


def table(settings: str) -> str:
    """Return the statement that makes the table."""
    return (
        f"CREATE TABLE IF NOT EXISTS {MINUTES} ({columns()}) ENGINE = MergeTree"
        " PARTITION BY toYYYYMM(toDateTime(minute * 60, 'UTC')) ORDER BY (minute, agent, slice)"
        f" SETTINGS {settings}"
    )


def older() -> list[str]:
    """Return the statements that bring the table of an older version to this one's columns; they may be repeated."""
    return [
        f"ALTER TABLE {MINUTES} ADD COLUMN IF NOT EXISTS {name} {kind} CODEC(ZSTD(1))" for name, kind in NUMERIC
    ]  # fmt: skip


# -- filling -----------------------------------------------------------------------------------------


class Adding:
    """The statements that add one slice, whose rows are from `since_ns` to `until_ns`. `tags` are those that are counted
    by, `windows` model → tokens of context."""

    def __init__(
        self,
        of: Slice,
        tags: Collection[str],
        windows: Mapping[str, int],
        since_ns: int,
        until_ns: int,
    ) -> None:
        self._of = f"{of.number}, {of.attempt}"
        self._tags = sorted(tags)
        self._windows = {model: window for model, window in windows.items() if window > 0}
        self._within = since_ns // _MINUTE_NS, until_ns // _MINUTE_NS
        self.folded = Counter[str]()
        """Values that got no place, by what they are of."""

    def spans(self, client: ClickHouse, counted: str) -> None:
        """Count span rows (a query with `counts`). Raises StoreError, as all of these."""
        self._add(client, counted, 1, usage_alone=False)

    def usage(self, client: ClickHouse, counted: str, weight: int) -> None:
        """Count their usage alone: with weight -1 by what they counted for, with 1 by what they do."""
        self._add(client, counted, weight, usage_alone=True)

    def traces(self, client: ClickHouse, chosen: str) -> None:
        """Count rows of kept traces (a query), by the model that cost most in each and the tags said last."""
        value = Values(_SAY)
        asked = {f"{{{metric.value}}}": text for metric, (text, _) in OBSERVED.items()}
        asked |= {f"{{there:{metric.value}}}": there for metric, (_, there) in OBSERVED.items()}

        def told(text: str) -> str:
            for placeholder, meant in asked.items():
                text = text.replace(placeholder, f"({meant})")
            return text

        shown = {name: told(text) for name, text in _OF_TRACES}
        for name in _OF_TRACES_SKETCHES:
            number = told(f"toInt64({{{name}}})")
            shown |= _sketch(name, number, told(f"{{there:{name}}}"), 1)
        tags = [(name, tag_of(name)) for name in map(value, self._tags)]
        places = Places(
            f"intDiv(first_ns, {_MINUTE_NS})", "root.5", MODEL_OF, PROVIDER_OF, tags, "notEmpty(said_tags)", *self._within
        )  # fmt: skip
        self.folded += places.give(client, chosen, value.given)
        client.run(self._statement(places, shown, chosen), value.given, timeout_s=LOOK_S)

    def _add(self, client: ClickHouse, counted: str, weight: int, *, usage_alone: bool) -> None:
        value = Values(_SAY)
        shown = {name: f"{weight} * {text}" for name, text in _USAGE}
        if not usage_alone:
            shown |= {name: f"{weight} * {text}" for name, text in _PLAIN}
            there = "first_token_ns IS NOT NULL"
            shown |= _sketch("first_token", "assumeNotNull(first_token_ns)", there, weight)
        fill, told = self._fill(value)
        shown |= _sketch("context_fill", fill, told, weight)
        tags = [(name, _SAY.tag("tags", name)) for name in map(value, self._tags)]
        places = Places(
            f"intDiv(start_ns, {_MINUTE_NS})", "agent", "model", "provider", tags, "tags IS NOT NULL", *self._within
        )  # fmt: skip
        if not usage_alone:  # else they have been counted before, and have their places
            self.folded += places.give(client, counted, value.given)
        client.run(self._statement(places, shown, counted), value.given, timeout_s=LOOK_S)

    def _statement(self, places: Places, shown: Mapping[str, str], rows: str) -> str:
        """Return what adds up rows by their places; numbers that are not shown are 0."""
        sums = ", ".join(f"{text} AS n_{name}" for name, text in shown.items())
        inner = f"SELECT *, tuple({places.columns}) AS place FROM {rows} AS r"
        return (
            f"INSERT INTO {MINUTES} (minute, agent, model, provider, tags, slice, attempt, {', '.join(shown)})"
            f" SELECT place.1, place.2, place.3, place.4, place.5, {self._of}, {sums} FROM ({inner}) AS s GROUP BY place"
            " SETTINGS max_partitions_per_insert_block = 1000"
        )

    def _fill(self, value: Values) -> tuple[str, str]:
        if not self._windows:
            return "toInt64(0)", "0"
        cases = " ".join(f"model = {value(model)}, {window}," for model, window in self._windows.items())  # fmt: skip
        fill = f"intDiv(assumeNotNull(input_tokens) * {MILLION}, multiIf({cases} 1))"
        known = f"ifNull(model IN {value(sorted(self._windows))}, 0)"
        return fill, f"{_CALLED} AND {_TOLD} AND input_tokens IS NOT NULL AND {known}"


def _sketch(name: str, number: str, where: str, weight: int) -> dict[str, str]:
    bucket = BUCKET.format(number)
    return {
        f"{name}_total": f"{weight} * sumIf(toInt128(greatest({number}, 0)), {where})",
        f"{name}_buckets": f"sumMapIf(map(toUInt16({bucket}), toInt64({weight})), {where})",
    }
