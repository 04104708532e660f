"""What spans come to by minute, kept: one addition for each settled slice, so that series read no spans.

A slice's rows carry its attempt. They are in force from the moment in which the slice that was committed with that attempt
is applied (`slices`), all at once, and those of an attempt that was not committed are never seen: a slice is counted once, however often
and by however many hubs it was tried. Nothing in here changes: what is judged anew later is a difference in a later slice.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, cast

from midwatch.core.sketch import Sketch
from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import Rank, Role
from midwatch.core.spans.rollup import MILLION, Place, Sum
from midwatch.store.clickhouse.dialect import ClickHouseWords
from midwatch.store.clickhouse.slices import SLICES
from midwatch.store.clickhouse.sums import BUCKET
from midwatch.store.clickhouse.traces import MODEL_OF, OBSERVED, PROVIDER_OF, Ask, tag_of
from midwatch.store.questions.dialect import Values

MINUTES: Final = "midwatch_minutes"

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
_SKETCHES: Final = ("first_token", "context_fill")
_OF_TRACES_SKETCHES: Final = ("trace_latency", "cost_per_trace", "tokens_per_task", "chain_length")
_EVERY_SKETCH: Final = (*_SKETCHES, *_OF_TRACES_SKETCHES)
NUMBERS: Final = tuple(name for name, _ in (*_PLAIN, *_USAGE, *_OF_TRACES))

_BUCKETS: Final = "Map(UInt16, Int64)"
_NUMERIC: Final = (
    *((name, "Int128") for name in NUMBERS),
    *((f"{n}_{end}", kind) for n in _EVERY_SKETCH for end, kind in (("total", "Int128"), ("buckets", _BUCKETS))),
)  # fmt: skip
"""All columns that are added up, and their types."""


def table(settings: str) -> str:
    """Return the statement that makes the table."""
    columns = ", ".join(f"{name} {kind} CODEC(ZSTD(1))" for name, kind in _NUMERIC)
    return (
        f"CREATE TABLE IF NOT EXISTS {MINUTES} (minute Int64 CODEC(Delta(8), ZSTD(1)), agent LowCardinality(String),"
        " model LowCardinality(Nullable(String)), provider LowCardinality(Nullable(String)), tags Nullable(String)"
        f" CODEC(ZSTD(1)), slice UInt64 CODEC(ZSTD(1)), attempt UInt64 CODEC(ZSTD(1)), {columns})"
        " ENGINE = MergeTree PARTITION BY toYYYYMM(toDateTime(minute * 60, 'UTC')) ORDER BY (minute, agent, slice)"
        f" SETTINGS {settings}"
    )


def older() -> list[str]:
    """Return the statements that bring the table of an older version to this one's columns; they may be repeated."""
    return [
        f"ALTER TABLE {MINUTES} ADD COLUMN IF NOT EXISTS {name} {kind} CODEC(ZSTD(1))" for name, kind in _NUMERIC
    ]  # fmt: skip


# -- filling -----------------------------------------------------------------------------------------


class Adding:
    """The statements that add one slice. `tags` are those that are counted by, `windows` model → tokens of context."""

    def __init__(
        self, number: int, attempt: int, tags: Collection[str], windows: Mapping[str, int]
    ) -> None:
        self._of = f"{number}, {attempt}"
        self._tags = sorted(tags)
        self._windows = {model: window for model, window in windows.items() if window > 0}

    def spans(self, counted: str) -> tuple[str, dict[str, Any]]:
        """Return what counts span rows (a query with `counts`), and the values that it binds."""
        return self._insert(counted, 1, usage_alone=False)

    def usage(self, counted: str, weight: int) -> tuple[str, dict[str, Any]]:
        """Return what counts their usage alone: with weight -1 by what they counted for, with 1 by what they do."""
        return self._insert(counted, weight, usage_alone=True)

    def traces(self, chosen: str) -> tuple[str, dict[str, Any]]:
        """Return what counts rows of kept traces (a query), by the model that cost most in each and the tags said last."""
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
        pairs = [(value(name), tag_of(value(name))) for name in self._tags]
        place = f"intDiv(first_ns, 60000000000), root.5, {MODEL_OF}, {PROVIDER_OF}, {_json(pairs, 'notEmpty(said_tags)')}"
        return self._statement(place, shown, chosen), value.given

    def _insert(self, counted: str, weight: int, *, usage_alone: bool) -> tuple[str, dict[str, Any]]:  # fmt: skip
        value = Values(_SAY)
        shown = {name: f"{weight} * {text}" for name, text in _USAGE}
        if not usage_alone:
            shown |= {name: f"{weight} * {text}" for name, text in _PLAIN}
            there = "first_token_ns IS NOT NULL"
            shown |= _sketch("first_token", "assumeNotNull(first_token_ns)", there, weight)
        fill, told = self._fill(value)
        shown |= _sketch("context_fill", fill, told, weight)
        pairs = [(name, _SAY.tag("tags", name)) for name in map(value, self._tags)]
        place = f"intDiv(start_ns, 60000000000), agent, model, provider, {_json(pairs, 'tags IS NOT NULL')}"
        return self._statement(place, shown, counted), value.given

    def _statement(self, place: str, shown: Mapping[str, str], rows: str) -> str:
        """Return what adds up rows by their place (five columns); numbers that are not shown are 0."""
        sums = ", ".join(f"{text} AS n_{name}" for name, text in shown.items())
        inner = f"SELECT *, tuple({place}) AS place FROM {rows} AS r"
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


def _json(pairs: Sequence[tuple[str, str]], there: str) -> str:
    """Return names and values of tags as JSON, or NULL when there is none; `there` says whether any may be."""
    if not pairs:
        return "CAST(NULL AS Nullable(String))"
    said = f"arrayFilter(x -> isNotNull(x.2), [{', '.join(f'({name}, {tag})' for name, tag in pairs)}])"
    whole = f"toJSONString(mapFromArrays(arrayMap(x -> x.1, {said}), arrayMap(x -> assumeNotNull(x.2), {said})))"
    return f"if(NOT ({there}) OR empty({said}), NULL, {whole})"


def _sketch(name: str, number: str, where: str, weight: int) -> dict[str, str]:
    bucket = BUCKET.format(number)
    return {
        f"{name}_total": f"{weight} * sumIf(toInt128(greatest({number}, 0)), {where})",
        f"{name}_buckets": f"sumMapIf(map(toUInt16({bucket}), toInt64({weight})), {where})",
    }


# -- reading -----------------------------------------------------------------------------------------

_IN_FORCE: Final = (
    "slice <= {upto:UInt64} AND"
    f" (slice, attempt) IN (SELECT slice, argMin(attempt, (told, attempt)) FROM {SLICES} GROUP BY slice)"
)


def read(
    ask: Ask,
    upto: int,
    first: int,
    last: int,
    step: int,
    split: Collection[str],
    wanted: Sequence[str],
    agents: Sequence[str] = (),
) -> Iterable[tuple[Place, Sum]]:
    """Yield sums of the minutes since 1970 from `first` to before `last`, put together by `step` minutes, of what is
    settled up to the slice `upto`.

    `split` says which of model, provider and tags are told apart, `wanted` which of NUMBERS and sketches are read.
    """
    if first >= last:
        return
    by = [
        n if n in split else f"CAST(NULL AS Nullable(String)) AS {n}"
        for n in ("model", "provider", "tags")
    ]
    numbers = [name for name in wanted if name in NUMBERS]
    sketches = [name for name in wanted if name in _EVERY_SKETCH]
    shown = [f"sum({name})" for name in numbers]
    shown += [f"sum({n}_total), sumMap({n}_buckets)" for n in sketches]
    if not shown:
        return
    where = "minute >= {first:Int64} AND minute < {last:Int64}"
    values: dict[str, Any] = {"first": first, "last": last, "upto": upto}
    if agents:
        where += " AND agent IN {agents:Array(String)}"
        values["agents"] = list(agents)
    groups = ", ".join(["at", "agent", *(n for n in ("model", "provider", "tags") if n in split)])
    # a step that began before the window is that of the window's beginning
    at = f"greatest(intDiv(minute, {step}) * {step}, {{first:Int64}}) AS at"
    rows = ask(
        f"SELECT {at}, agent, {', '.join(by)}, {', '.join(shown)} FROM {MINUTES}"
        f" WHERE {where} AND {_IN_FORCE} GROUP BY {groups}",
        values,
    )
    for row in rows:
        one = Sum()
        for name, number in zip(numbers, row[5:], strict=False):
            setattr(one, name, int(number))
        rest = row[5 + len(numbers) :]
        for n, name in enumerate(sketches):
            buckets = cast("Mapping[str, int]", rest[2 * n + 1])
            counts = {int(bucket): int(count) for bucket, count in buckets.items()}
            setattr(one, name, Sketch(counts, int(rest[2 * n])))
        yield cast("Place", tuple(row[:5])), one
