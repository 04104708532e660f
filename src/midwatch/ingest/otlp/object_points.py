"""Metric points from JSON, into the same columns as those from protobuf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from midwatch.core.spans.columns import MAX_INT
from midwatch.ingest.otlp.objects import (
    Object,
    attributes_of,
    each,
    flags,
    hex_id,
    inner,
    label,
    natural,
    real,
    temporality,
    whole,
)
from midwatch.ingest.otlp.points import MAX_EXEMPLARS, NO_VALUE, Metric, examples, few, shape
from midwatch.ingest.otlp.rows import Known, Origin, Rows

_KINDS: Final = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")


def read(metrics: Sequence[Object], known: Known, rows: Rows) -> None:
    """Add the points of the metrics of one scope."""
    found: list[tuple[Metric, list[Object]]] = []
    for metric in metrics:
        kind = next((k for k in _KINDS if isinstance(metric.get(k), dict)), None)
        if kind is None:
            rows.refused.add("kind", "a metric of no kind that is known")
            continue
        data = inner(metric, kind)
        head = Metric(
            label(metric, "name"),
            label(metric, "unit"),
            label(metric, "description"),
            _KINDS.index(kind),
            temporality(data.get("aggregationTemporality")),
            data.get("isMonotonic") is True if kind == "sum" else None,
        )
        found.append((head, each(data, "dataPoints", rows)))
    total = sum(len(points) for _, points in found)
    origin = rows.origin(known, total) if total else None
    if origin is None:
        return
    for head, points in found:
        for point in points[: rows.may(len(points))]:
            _point(point, head, origin, rows)


def _point(point: Object, head: Metric, origin: Origin, rows: Rows) -> None:
    said = head.said(attributes_of(point, rows), rows)
    said["start_ns"] = natural(point.get("startTimeUnixNano")) or None
    said["time_ns"] = natural(point.get("timeUnixNano")) or None
    said["flags"] = flags(point) or None
    said["exemplars"] = _exemplars(point, rows)
    add = _number if head.kind < 2 else (_histogram, _exponential, _summary)[head.kind - 2]
    if add(point, said, rows):
        rows.point(origin, said)


def _number(point: Object, said: dict[str, Any], rows: Rows) -> bool:
    if (said["flags"] or 0) & NO_VALUE:
        return True
    number = whole(point.get("asInt"))
    if number is not None and number <= MAX_INT:
        said["value"], said["whole"] = float(number), number
    else:
        said["value"] = real(point.get("asDouble"))
    if said["value"] is None:
        rows.refused.add("missing", "a point without a value")
        return False
    return True


def _spread(point: Object, said: dict[str, Any]) -> None:
    said["count"] = natural(point.get("count")) or 0
    said["sum"], said["least"], said["most"] = (
        real(point.get(key)) for key in ("sum", "min", "max")
    )


def _histogram(point: Object, said: dict[str, Any], rows: Rows) -> bool:
    counts, bounds = _list(point, "bucketCounts"), _list(point, "explicitBounds")
    if not few(rows, counts, bounds):
        return False
    _spread(point, said)
    said["buckets"] = shape(
        {
            "explicit_bounds": [real(one) for one in bounds],
            "bucket_counts": [natural(one) for one in counts],
        }
    )
    return True


def _exponential(point: Object, said: dict[str, Any], rows: Rows) -> bool:
    sides = {name: inner(point, name) for name in ("positive", "negative")}
    counts = {name: _list(side, "bucketCounts") for name, side in sides.items()}
    if not few(rows, *counts.values()):
        return False
    _spread(point, said)
    said["buckets"] = shape(
        {
            "scale": whole(point.get("scale")) or 0,
            "zero_count": natural(point.get("zeroCount")) or 0,
            "zero_threshold": _real(point, "zeroThreshold"),
            **{
                name: {
                    "offset": whole(side.get("offset")) or 0,
                    "bucket_counts": [natural(one) for one in counts[name]],
                }
                for name, side in sides.items()
            },
        }
    )
    return True


def _summary(point: Object, said: dict[str, Any], rows: Rows) -> bool:
    quantiles = each(point, "quantileValues", rows, refuse=False)
    if not few(rows, quantiles):
        return False
    said["count"] = natural(point.get("count")) or 0
    said["sum"] = _real(point, "sum")
    said["buckets"] = shape(
        {
            "quantile_values": [
                {"quantile": _real(one, "quantile"), "value": _real(one, "value")}
                for one in quantiles
            ]
        }
    )
    return True


def _real(holder: Object, key: str) -> float:
    found = real(holder.get(key))
    return 0.0 if found is None else found


def _list(holder: Object, key: str) -> list[Any]:
    found = holder.get(key)
    return cast("list[Any]", found) if isinstance(found, list) else []


def _exemplars(point: Object, rows: Rows) -> str | None:
    given = each(point, "exemplars", rows, refuse=False)
    rows.lost["exemplar"] += max(0, len(given) - MAX_EXEMPLARS)
    found: list[Object] = []
    for one in given[:MAX_EXEMPLARS]:
        attributes = {a.key: a.value for a in attributes_of(one, rows, "filteredAttributes")}
        found.append(
            {
                "time_unix_nano": natural(one.get("timeUnixNano")) or None,
                "as_double": real(one.get("asDouble")),
                "as_int": whole(one.get("asInt")),
                "trace_id": hex_id(one, "traceId", rows).hex() or None,
                "span_id": hex_id(one, "spanId", rows).hex() or None,
                "filtered_attributes": attributes or None,
            }
        )
    return examples(found)
