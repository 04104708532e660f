"""What spans come to, added up by ClickHouse: by minute for `rollup`, by trace for `summary`.

The same numbers as `store.spans.sums` gives, in ClickHouse's words.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, cast

from midwatch.core.sketch import Sketch
from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import Rank, Role
from midwatch.core.spans.rollup import MILLION, Place, Rollup, Sum
from midwatch.core.spans.summary import Said, Share, Summary
from midwatch.store.clickhouse.dialect import ClickHouseWords
from midwatch.store.questions.dialect import Values

_ERROR: Final = 2
_SAY: Final = ClickHouseWords()
_CALLED, _TOLD, _PAID = (_SAY.has("counts", bit) for bit in (CALL, TOKENS, MONEY))
_TOOL: Final = f"role = {Role.TOOL.value}"

BUCKET: Final = (
    "if({0} < 128, greatest(0, {0}),"
    " (toInt64(floor(log2({0}))) - 6) * 64 + bitShiftRight({0}, greatest(0, toInt64(floor(log2({0}))) - 6)))"
)
"""`sketch.bucket` of a column of whole numbers."""


class Ask(Protocol):
    """Asks the database."""

    def __call__(self, sql: str, values: Mapping[str, Any], /) -> list[list[Any]]: ...


def _sums() -> str:
    # 128 bits, as numbers from outside may be as large as 64 take
    parts = [
        f"sumIf(toInt128(ifNull({name}, 0)), {_TOLD})"
        for name in ("input_tokens", "cached_tokens", "output_tokens")
    ]
    return ", ".join(
        [
            *parts,
            f"sumIf(toInt128(ifNull(cost_nusd, 0)), {_PAID})",
            f"countIf({_PAID} AND cost_nusd IS NOT NULL)",
        ]
    )


# -- minutes -----------------------------------------------------------------------------------------

_SOURCE: Final = "intDiv(start_ns, 60000000000) AS minute, agent, model, provider, tags"
_BY_SOURCE: Final = "GROUP BY minute, agent, model, provider, tags"


def minutes(
    ask: Ask,
    spans: str,
    into: Rollup,
    windows: Mapping[str, int] | None = None,
    *,
    first_token: bool = False,
) -> None:
    """Count the spans into a rollup, as `Rollup.add` does; traces are counted by `add_trace`. Sketches only where they
    are asked for: `windows` are the tokens of models' contexts."""
    over = f"{_TOOL} AND rank <> {Rank.OPEN.value}"
    for row in ask(
        f"SELECT {_SOURCE}, count(), countIf(status = {_ERROR}), countIf({_CALLED}), countIf({_TOLD}),"
        f" countIf({over}), countIf({over} AND status = {_ERROR}), {_sums()} FROM {spans} AS s {_BY_SOURCE}",
        {},
    ):
        spans_, errors, calls, told, tools, failed, given, cached, made, cost, priced = map(int, row[5:])  # fmt: skip
        into.put(
            cast("Place", tuple(row[:5])),
            Sum(
                spans=spans_, errors=errors, calls=calls, told=told, tools=tools, tool_errors=failed,
                input_tokens=given, cached_tokens=cached, output_tokens=made, cost_nusd=cost, priced=priced,
            ),
        )  # fmt: skip
    where = "first_token_ns IS NOT NULL"
    if first_token:
        for source, sketch in _sketches(ask, spans, "assumeNotNull(first_token_ns)", where, {}):
            into.put(source, Sum(first_token=sketch))
    known = {model: window for model, window in (windows or {}).items() if window > 0}
    if known:
        value = Values(_SAY)
        cases = " ".join(f"model = {value(model)}, {window}," for model, window in known.items())
        fill = f"intDiv(assumeNotNull(input_tokens) * {MILLION}, multiIf({cases} 1))"
        where = f"{_CALLED} AND {_TOLD} AND input_tokens IS NOT NULL AND model IN {value(sorted(known))}"
        for source, sketch in _sketches(ask, spans, fill, where, value.given):
            into.put(source, Sum(context_fill=sketch))


def _sketches(
    ask: Ask, spans: str, number: str, where: str, values: Mapping[str, Any]
) -> Iterable[tuple[Place, Sketch]]:
    inner = f"SELECT {_SOURCE}, {number} AS number FROM {spans} AS s WHERE {where}"
    rows = ask(
        f"SELECT minute, agent, model, provider, tags, {BUCKET.format('number')} AS bucket, count(),"
        f" sum(toInt128(greatest(number, 0))) FROM ({inner}) AS n {_BY_SOURCE}, bucket",
        values,
    )
    found: dict[Place, Sketch] = {}
    for *source, bucket, count, total in rows:
        found.setdefault(cast("Place", tuple(source)), Sketch()).merge(
            Sketch({int(bucket): int(count)}, int(total))
        )
    return found.items()


# -- traces ------------------------------------------------------------------------------------------

_LATEST: Final = ("session", "user", "outcome", "goal_met")


def summaries(ask: Ask, spans: str, values: Mapping[str, Any]) -> dict[bytes, Summary]:
    """Return what the spans of each trace come to, as `Summary.add` adds them up."""
    said = ", ".join(
        f'maxIf((start_ns, span_id, assumeNotNull("{name}")), "{name}" IS NOT NULL)'
        for name in _LATEST
    )
    rows = ask(
        "SELECT trace_id, min(start_ns), max(start_ns + ifNull(duration_ns, 0)),"
        " min((parent_id IS NOT NULL, start_ns, span_id, name, agent)), groupUniqArray(agent),"
        f" groupUniqArrayIf(assumeNotNull(turn), turn IS NOT NULL), max(escalated), {said},"
        f" count(), countIf(status = {_ERROR}), countIf(rank = {Rank.OPEN.value}), countIf(rank = {Rank.LOST.value}),"
        f" countIf({_CALLED}), countIf({_TOOL}), countIf({_TOOL} AND status = {_ERROR}), {_sums()}"
        f" FROM {spans} AS s GROUP BY trace_id",
        values,
    )
    found: dict[bytes, Summary] = {}
    for trace, first_ns, last_ns, root, agents, turns, escalated, *rest in rows:
        trace_id = bytes.fromhex(trace)
        numbers = [int(number) for number in rest[len(_LATEST) :]]
        made = Summary(
            first_ns,
            max(0, last_ns),
            *numbers,
            root=(bool(root[0]), root[1], bytes.fromhex(root[2]), root[3], root[4]),
            escalated=escalated,
        )
        for name, (start_ns, span, told) in zip(_LATEST, rest, strict=False):
            if span:
                setattr(made, name, Said((start_ns, bytes.fromhex(span)), told))
        made.name(agents)
        made.traces.add(trace_id)
        for turn in turns:
            made.turns.add(turn.encode(errors="replace"))
        found[trace_id] = made
    _add_models(ask, spans, values, found)
    _add_texts(ask, spans, values, found)
    return found


def _add_models(ask: Ask, spans: str, values: Mapping[str, Any], found: Mapping[bytes, Summary]) -> None:  # fmt: skip
    rows = ask(
        f"SELECT trace_id, model, min(provider), sumIf(toInt128(ifNull(cost_nusd, 0)), {_PAID}),"
        f" sumIf(toInt128(ifNull(input_tokens, 0)) + ifNull(output_tokens, 0), {_TOLD})"
        f" FROM {spans} AS s WHERE model IS NOT NULL AND counts <> 0 GROUP BY trace_id, model",
        values,
    )
    for trace, model, provider, cost, tokens in rows:
        found[bytes.fromhex(trace)].share(model, Share(provider, int(cost), int(tokens)))


def _add_texts(ask: Ask, spans: str, values: Mapping[str, Any], found: Mapping[bytes, Summary]) -> None:  # fmt: skip
    """Add tags and evaluations: of equal texts in a trace the latest is as good as all."""
    rows: Sequence[Any] = ask(
        f"SELECT trace_id, tags, max((start_ns, span_id)) FROM {spans} AS s"
        " WHERE tags IS NOT NULL GROUP BY trace_id, tags",
        values,
    )
    for trace, tags, (start_ns, span) in rows:
        found[bytes.fromhex(trace)].tag(tags, (start_ns, bytes.fromhex(span)))
    rows = ask(
        f"SELECT trace_id, start_ns, span_id, evaluations FROM {spans} AS s WHERE evaluations IS NOT NULL",
        values,
    )
    for trace, start_ns, span, text in rows:
        found[bytes.fromhex(trace)].judge((start_ns, bytes.fromhex(span)), text)
