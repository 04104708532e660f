"""Metric points: what each kind of metric says, in columns. Histograms and summaries keep OTLP's own words as JSON.

`Metric` and the three functions behind it are for all encodings; `read` is for protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from midwatch.core.spans.columns import POINT_KINDS
from midwatch.core.spans.dialect import Attribute, joined
from midwatch.core.spans.limits import MAX_ATTRIBUTES, MAX_BUCKETS
from midwatch.core.spans.values import Value, dump, dump_all
from midwatch.ingest.otlp import wire
from midwatch.ingest.otlp.rows import Known, Origin, Rows
from midwatch.ingest.otlp.values import Values
from midwatch.ingest.otlp.wire import DecodeError

MAX_EXEMPLARS: Final = 32
"""Exemplars of one point; what follows is dropped."""

NO_VALUE: Final = 1
"""The flag of a point that says that there is no value."""


class Metric(NamedTuple):
    """What all points of a metric have in common."""

    name: str | None
    unit: str | None
    about: str | None
    kind: int
    temporality: int
    monotonic: bool | None

    def said(self, attributes: Sequence[Attribute], rows: Rows) -> dict[str, Any]:
        """Return the columns of a point that it has with all others."""
        if len(attributes) > MAX_ATTRIBUTES:
            rows.lost["attribute"] += len(attributes) - MAX_ATTRIBUTES
            attributes = attributes[:MAX_ATTRIBUTES]
        temporality = self.temporality
        if not 0 <= temporality <= 2:
            rows.lost["temporality"] += 1
            temporality = 0
        return {
            "metric": self.name,
            "unit": self.unit,
            "about": self.about,
            "kind": self.kind,
            "temporality": temporality,
            "monotonic": self.monotonic,
            "attributes": joined(attributes),
        }


def few(rows: Rows, *lists: Sequence[object]) -> bool:
    """Tell whether a distribution has few enough buckets; refuses the point if not."""
    most = max(map(len, lists))
    if most <= MAX_BUCKETS:
        return True
    rows.refused.add("buckets", f"a point with {most} buckets, at most {MAX_BUCKETS}")
    return False


def shape(parts: Mapping[str, Any]) -> str | None:
    """Return bounds and counts, or quantiles, as JSON."""
    return dump_all(cast("Mapping[str, Value]", {k: v for k, v in parts.items() if v is not None}))


def examples(found: Sequence[Mapping[str, Any]]) -> str | None:
    """Return exemplars as JSON: times, values, hex ids, attributes."""
    if not found:
        return None
    plain = [{k: v for k, v in one.items() if v is not None} for one in found]
    return dump(cast("Value", plain))


# -- protobuf --------------------------------------------------------------------------------------


def read(raws: Sequence[bytes], known: Known, rows: Rows, values: Values) -> None:
    """Add the points of the metrics of one scope."""
    found: list[tuple[Metric, Sequence[bytes]]] = []
    for raw in raws[: rows.looks(len(raws), "metrics")]:
        try:
            metric = wire.Metric.FromString(raw)
            kind = next((k for k in POINT_KINDS if metric.HasField(k)), None)
            if kind is None:
                rows.refused.add("kind", "a metric of no kind that is known")
                continue
            data = wire.Data.FromString(getattr(metric, kind))
        except DecodeError:
            rows.refused.add("broken", "a metric that is no message")
            continue
        head = Metric(
            values.label(metric.name),
            values.label(metric.unit),
            values.label(metric.about),
            POINT_KINDS.index(kind),
            data.temporality,
            bool(data.monotonic) if kind == "sum" else None,
        )
        found.append((head, data.points))
    total = sum(len(points) for _, points in found)
    origin = rows.origin(known, total) if total else None
    if origin is None:
        return
    for head, points in found:
        for raw in points[: rows.may(len(points))]:
            if rows.fits(len(raw)):
                try:
                    _READERS[head.kind](raw, head, origin, rows, values)
                except DecodeError:
                    rows.refused.add("broken", "a point that is no message")


def _start(point: Any, head: Metric, rows: Rows, values: Values) -> dict[str, Any]:
    said = head.said(values.attributes(point.attributes), rows)
    said["start_ns"], said["time_ns"] = point.start or None, point.time or None
    said["flags"] = point.flags or None
    return said


def _given(point: Any, *names: str) -> list[Any]:
    return [getattr(point, name) if point.HasField(name) else None for name in names]


def _number(raw: bytes, head: Metric, origin: Origin, rows: Rows, values: Values) -> None:
    point = wire.Number.FromString(raw)
    said = _start(point, head, rows, values)
    real, whole = _given(point, "double", "int")
    if not point.flags & NO_VALUE:
        said["value"], said["whole"] = (
            (float(whole), whole) if real is None and whole is not None else (real, None)
        )
        if said["value"] is None:
            rows.refused.add("missing", "a point without a value")
            return
    said["exemplars"] = _exemplars(point.exemplars, rows, values)
    rows.point(origin, said)


def _histogram(raw: bytes, head: Metric, origin: Origin, rows: Rows, values: Values) -> None:
    point = wire.Histogram.FromString(raw)
    if not few(rows, point.bucket_counts):
        return
    said = _start(point, head, rows, values)
    said["count"] = point.count
    said["sum"], said["least"], said["most"] = _given(point, "sum", "min", "max")
    said["buckets"] = shape(
        {
            "explicit_bounds": list(point.explicit_bounds[:MAX_BUCKETS]),
            "bucket_counts": list(point.bucket_counts),
        }
    )
    said["exemplars"] = _exemplars(point.exemplars, rows, values)
    rows.point(origin, said)


def _exponential(raw: bytes, head: Metric, origin: Origin, rows: Rows, values: Values) -> None:
    point = wire.Exponential.FromString(raw)
    sides = [wire.Buckets.FromString(side) for side in (point.positive, point.negative)]
    if not few(rows, *(side.bucket_counts for side in sides)):
        return
    said = _start(point, head, rows, values)
    said["count"] = point.count
    said["sum"], said["least"], said["most"] = _given(point, "sum", "min", "max")
    positive, negative = (
        {"offset": side.offset, "bucket_counts": list(side.bucket_counts)} for side in sides
    )
    said["buckets"] = shape(
        {
            "scale": point.scale,
            "zero_count": point.zero_count,
            "zero_threshold": point.zero_threshold,
            "positive": positive,
            "negative": negative,
        }
    )
    said["exemplars"] = _exemplars(point.exemplars, rows, values)
    rows.point(origin, said)


def _summary(raw: bytes, head: Metric, origin: Origin, rows: Rows, values: Values) -> None:
    point = wire.Summary.FromString(raw)
    if not few(rows, point.quantiles):
        return
    said = _start(point, head, rows, values)
    said["count"], said["sum"] = point.count, point.sum
    quantiles = [wire.Quantile.FromString(one) for one in point.quantiles]
    said["buckets"] = shape(
        {"quantile_values": [{"quantile": q.quantile, "value": q.value} for q in quantiles]}
    )
    rows.point(origin, said)


def _exemplars(raws: Sequence[bytes], rows: Rows, values: Values) -> str | None:
    found: list[dict[str, Any]] = []
    for raw in raws[:MAX_EXEMPLARS]:
        one = wire.Exemplar.FromString(raw)
        real, whole = _given(one, "double", "int")
        attributes = values.plain(one.attributes)
        found.append(
            {
                "time_unix_nano": one.time or None,
                "as_double": real,
                "as_int": whole,
                "trace_id": one.trace_id.hex() or None,
                "span_id": one.span_id.hex() or None,
                "filtered_attributes": attributes or None,
            }
        )
    rows.lost["exemplar"] += max(0, len(raws) - MAX_EXEMPLARS)
    return examples(found)


_READERS: Final = (_number, _number, _histogram, _exponential, _summary)
