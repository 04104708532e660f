"""From decoded values to rows: every rule of what is kept, clipped and refused, once for all encodings.

A reader (`protobuf`, `json`) walks its encoding and tells this what it finds. A bad span, point or record is refused
alone, by a reason that is counted; what can be mended is, and that is counted, too.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from midwatch.core.spans import form
from midwatch.core.spans.columns import MAX_INT
from midwatch.core.spans.dialect import Attribute, Event, ScopeReading, Understanding, joined
from midwatch.core.spans.form import (
    AGENT,
    DURATION_NS,
    ENVELOPE,
    FLAGS,
    KIND,
    LINKS,
    LOGS,
    NAME,
    NO_SPAN,
    PARENT_ID,
    POINTS,
    RANK,
    RESOURCE_ID,
    RUN_ID,
    SCOPE,
    SCOPE_VERSION,
    SPAN_ID,
    START_NS,
    STATUS,
    STATUS_MESSAGE,
    TRACE_ID,
    Batch,
    Rank,
    Row,
)
from midwatch.core.spans.limits import MAX_CONTENT, MAX_DURATION_NS, MAX_SPAN_BYTES, MAX_SPANS
from midwatch.core.spans.values import Value, dump, dump_all
from midwatch.ingest.otlp.owners import Names, Sender, Unfit, owner
from midwatch.wire.limits import MAX_FUTURE_S, MAX_PAST_S

MAX_ORIGINS: Final = 256
"""Resources and scopes that are remembered between requests; one more and all are forgotten."""

MAX_HOLDERS: Final = 30_000
"""Resources, scopes and metrics of one request together: empty ones are two bytes long, and each takes its time."""

_NO_TRACE: Final = bytes(16)
_NO_SPAN: Final = bytes(8)
_OPEN: Final = Rank.OPEN.value


class Known(NamedTuple):
    """What a request says of where rows come from."""

    resource: dict[str, Value]
    scope: str
    version: str
    resource_id: bytes
    text: str
    """What `resources` keeps of it."""


class Origin(NamedTuple):
    """Where rows come from: one instrumentation of one resource of one owner."""

    agent: str
    run_id: str | None
    """What the sender's token says; nothing that a span says overrides it."""
    said_run: str | None
    """What the resource says."""
    scope: str | None
    version: str | None
    resource_id: bytes
    reading: ScopeReading


class Refused:
    """What was refused of a request: how many by which reason, and for each reason the first in words."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.said: dict[str, str] = {}

    def add(self, reason: str, message: str, n: int = 1) -> None:
        """Refuse so many spans, points or records."""
        self.counts[reason] += n
        self.said.setdefault(reason, message)

    def __len__(self) -> int:
        return self.counts.total()

    @property
    def message(self) -> str:
        """Return all reasons in one line, the commonest first."""
        return "; ".join(f"{n} {why}: {self.said[why]}" for why, n in self.counts.most_common())


class Rows:
    """Makes the rows of one request."""

    def __init__(
        self, sender: Sender, names: Names, understanding: Understanding, now: float
    ) -> None:
        self.batch = Batch()
        self.refused = Refused()
        self.strangers: set[str] = set()
        """Agents that must be registered, or their rows be taken out."""
        self.lost: Counter[str] = Counter()
        self.redacted: Counter[str] = Counter()
        """Secrets that were taken out: by their `name`, or by their `shape`."""
        self.not_looked: Counter[str] = Counter()
        """Characters of tools' results that were not looked at (`core.spans.looking`)."""
        self._sender = sender
        self._names = names
        self._understanding = understanding
        self._now_ns = round(now * 1e9)
        self._oldest_ns = round((now - MAX_PAST_S) * 1e9)
        self._newest_ns = round((now + MAX_FUTURE_S) * 1e9)
        self._taken = 0
        self._looked = 0

    def may(self, items: int) -> int:
        """Return how many of so many spans, points or records are read; the rest are refused."""
        fit = min(items, MAX_SPANS - self._taken)
        self._taken += fit
        if fit < items:
            self.refused.add(
                "count", f"a request has at most {MAX_SPANS} of them; send fewer", items - fit
            )
        return fit

    def looks(self, holders: int, what: str) -> int:
        """Return how many of so many resources, scopes or metrics are looked into; the rest are refused."""
        fit = min(holders, MAX_HOLDERS - self._looked)
        self._looked += fit
        if fit < holders:
            self.refused.add("count", f"more than {MAX_HOLDERS} {what}; send fewer", holders - fit)
        return fit

    def fits(self, size: int) -> bool:
        """Tell whether one span, point or record is not too large; refuses it if it is."""
        if size <= MAX_SPAN_BYTES:
            return True
        self.refused.add("size", f"one of {size} bytes, at most {MAX_SPAN_BYTES}; record less")
        return False

    def origin(self, known: Known, items: int) -> Origin | None:
        """Return where so many rows come from, or refuse them all."""
        whose = owner(self._sender, self._names, known.resource, known.scope)
        if isinstance(whose, Unfit):
            self.refused.add(whose.reason, whose.message, items)
            return None
        if whose.stranger:
            self.strangers.add(whose.agent)
        self.batch.resources[known.resource_id] = known.text
        said = known.resource.get("midwatch.run_id")
        return Origin(
            whose.agent,
            whose.run_id,
            said[:128].replace("\0", "") or None if isinstance(said, str) else None,
            known.scope or None,
            known.version or None,
            known.resource_id,
            self._understanding.scope(known.scope, known.version, known.resource),
        )

    # -- spans -------------------------------------------------------------------------------

    def span(
        self,
        origin: Origin,
        ids: tuple[bytes, bytes, bytes],
        name: str,
        kind: int,
        start_ns: int,
        end_ns: int,
        attributes: Sequence[Attribute],
        events: Sequence[Event],
    ) -> Row | None:
        """Add a span and return its row, of which the reader may set what few spans have; None when it is refused.

        `ids` are the trace's, its own and its parent's. An end of 0 says that it is still open.
        """
        trace_id, span_id, parent_id = ids
        if len(trace_id) != 16 or trace_id == _NO_TRACE:
            self.refused.add("id", f"a trace id of {_hex(trace_id)}: expected 16 bytes, not all 0")
            return None
        if len(span_id) != 8 or span_id == _NO_SPAN:
            self.refused.add("id", f"a span id of {_hex(span_id)}: expected 8 bytes, not all 0")
            return None
        if not self._oldest_ns <= start_ns <= self._newest_ns:
            self._refuse_time(start_ns)
            return None
        row = NO_SPAN[:]
        row[AGENT], row[TRACE_ID], row[SPAN_ID] = origin.agent, trace_id, span_id
        if parent_id and parent_id != _NO_SPAN:
            if len(parent_id) == 8 and parent_id != span_id:
                row[PARENT_ID] = parent_id
            else:
                self.lost["parent"] += 1
        row[START_NS], row[NAME] = start_ns, name
        if 0 <= kind <= 5:
            row[KIND] = kind
        else:
            self.lost["kind"] += 1
        if end_ns == 0:
            row[RANK] = _OPEN
        else:
            duration = end_ns - start_ns
            if not 0 <= duration <= MAX_DURATION_NS:
                self.lost["end"] += 1
                duration = min(max(duration, 0), MAX_DURATION_NS)
            row[DURATION_NS] = duration
        row[SCOPE], row[SCOPE_VERSION] = origin.scope, origin.version
        row[RESOURCE_ID] = origin.resource_id
        origin.reading.span(row, attributes, events, self.batch)
        if origin.run_id is not None:
            row[RUN_ID] = origin.run_id
        elif row[RUN_ID] is None:
            row[RUN_ID] = origin.said_run
        self.batch.spans.append(row)
        return row

    def moment(self, time_ns: int) -> int:
        """Return when an event was; what is said to come later than anything may is clipped."""
        if time_ns <= self._newest_ns:
            return time_ns
        self.lost["event_time"] += 1
        return self._newest_ns

    def status(self, row: Row, code: int, message: str) -> None:
        """Set how a span ended."""
        if 0 <= code <= 2:
            row[STATUS] = code
        else:
            self.lost["status"] += 1
        row[STATUS_MESSAGE] = message or None

    def more(
        self, row: Row, links: Sequence[Mapping[str, Any]], flags: int, rest: Mapping[str, Any]
    ) -> None:
        """Set what few spans have: links, flags, and what else OTLP says (trace state, dropped counts)."""
        if links:
            row[LINKS] = "[" + ",".join(map(_link, links)) + "]"
        row[FLAGS] = flags or None
        row[ENVELOPE] = envelope(rest)

    def _refuse_time(self, time_ns: int) -> None:
        self.refused.add(
            "time",
            f"a time of {time_ns} ns: more than {MAX_FUTURE_S:.0f} s ahead or {MAX_PAST_S / 86_400:.0f} days back",
        )

    def _timely(self, time_ns: int) -> bool:
        if self._oldest_ns <= time_ns <= self._newest_ns:
            return True
        self._refuse_time(time_ns)
        return False

    # -- logs --------------------------------------------------------------------------------

    def log(
        self, origin: Origin, said: Mapping[str, Any], body: Value, attributes: Sequence[Attribute]
    ) -> None:
        """Add a log record. `said` are columns of it; `trace_id` and `span_id` as they came."""
        row = LOGS.blank()
        for column, value in said.items():
            row[_L[column]] = value
        row[_L_AGENT], row[_L_RUN] = origin.agent, origin.run_id or origin.said_run
        row[_L_SCOPE], row[_L_VERSION] = origin.scope, origin.version
        row[_L_RESOURCE] = origin.resource_id
        self._ids(row, _L_TRACE, _L_SPAN)
        if isinstance(body, str):
            row[_L_BODY], row[_L_IS_JSON] = body, False
        elif body is not None:
            row[_L_BODY], row[_L_IS_JSON] = dump(body), True
        if row[_L_BODY] is not None and len(row[_L_BODY]) > MAX_CONTENT:
            # what is left of JSON is none
            row[_L_BODY], row[_L_IS_JSON] = row[_L_BODY][:MAX_CONTENT], False
            self.lost["body"] += 1
        if not 0 <= (row[_L_SEVERITY] or 0) <= 24:
            row[_L_SEVERITY] = None
            self.lost["severity"] += 1
        # what says when it came is left out: the same record is the same when it is sent again
        row[_L_ID] = mark(row, joined(attributes))
        if row[_L_TIME] is None:
            row[_L_TIME] = row[_L_OBSERVED] or self._now_ns
        if not self._timely(row[_L_TIME]):
            return
        if row[_L_OBSERVED] is not None and row[_L_OBSERVED] > MAX_INT:
            row[_L_OBSERVED] = None
        origin.reading.log(row, attributes, self.batch)
        self.batch.logs.append(row)

    def _ids(self, row: Row, trace: int, span: int) -> None:
        for place, size in ((trace, 16), (span, 8)):
            value = row[place]
            if not value or value == bytes(len(value)):
                row[place] = None
            elif len(value) != size:
                row[place] = None
                self.lost["id"] += 1

    # -- points ------------------------------------------------------------------------------

    def point(self, origin: Origin, said: Mapping[str, Any]) -> None:
        """Add a metric point. `said` are columns of it; what must not be NaN is not."""
        row = POINTS.blank()
        for column, value in said.items():
            row[_P[column]] = value
        row[_P_AGENT], row[_P_RUN] = origin.agent, origin.run_id or origin.said_run
        row[_P_SCOPE], row[_P_VERSION] = origin.scope, origin.version
        row[_P_RESOURCE] = origin.resource_id
        if not row[_P_METRIC]:
            self.refused.add("name", "a metric without a name")
            return
        for place in _P_WHOLE:
            if row[place] is not None and not 0 <= row[place] <= MAX_INT:
                self.refused.add("range", f"a point with {row[place]}: more than 63 bits")
                return
        if (row[_P_VALUE] is not None and row[_P_VALUE] != row[_P_VALUE]) or (
            row[_P_SUM] is not None and row[_P_SUM] != row[_P_SUM]
        ):
            self.refused.add("nan", f"a point of {row[_P_METRIC]!r:.80} is not a number")
            return
        row[_P_ID] = mark(row)
        if row[_P_TIME] is None:
            row[_P_TIME] = self._now_ns
        if self._timely(row[_P_TIME]):
            self.batch.points.append(row)


# -- pieces ----------------------------------------------------------------------------------------


def envelope(rest: Mapping[str, Any]) -> str | None:
    """Return what else OTLP says, without zeros and empty texts."""
    return dump_all({key: value for key, value in rest.items() if value})


def mark(row: Row, *more: str | None) -> bytes:
    """Return 16 bytes of a hash of everything that a point or a record says."""
    return hashlib.blake2b(repr((row, more)).encode(errors="replace"), digest_size=16).digest()


def resource_of(
    attributes: Mapping[str, Value], schema_url: str, scope: Mapping[str, Value], scope_url: str
) -> tuple[bytes, str]:
    """Return the id and the text of where rows come from."""
    text = form.resource_text(
        dump_all(attributes), schema_url, dump_all(scope) if scope else None, scope_url
    )
    return hashlib.blake2b(text.encode(), digest_size=16).digest(), text


def _link(link: Mapping[str, Any]) -> str:
    attributes: Sequence[Attribute] = link["attributes"]
    inner = joined(attributes)
    more = "".join(f',"{key}":{dump(link[key])}' for key in ("trace_state", "flags") if link[key])
    if inner is not None:
        more += f',"attributes":{inner}'
    return f'{{"trace_id":"{link["trace_id"].hex()}","span_id":"{link["span_id"].hex()}"{more}}}'


def _hex(raw: bytes) -> str:
    return f"{len(raw)} bytes ({raw[:20].hex()})"


_L = LOGS.at
_L_ID, _L_AGENT, _L_RUN, _L_TIME = _L["log_id"], _L["agent"], _L["run_id"], _L["time_ns"]
_L_OBSERVED, _L_SEVERITY, _L_BODY = _L["observed_ns"], _L["severity"], _L["body"]
_L_IS_JSON, _L_TRACE, _L_SPAN = _L["body_is_json"], _L["trace_id"], _L["span_id"]
_L_SCOPE, _L_VERSION, _L_RESOURCE = _L["scope"], _L["scope_version"], _L["resource_id"]

_P = POINTS.at
_P_ID, _P_AGENT, _P_RUN, _P_TIME = _P["point_id"], _P["agent"], _P["run_id"], _P["time_ns"]
_P_METRIC, _P_VALUE, _P_SUM = _P["metric"], _P["value"], _P["sum"]
_P_SCOPE, _P_VERSION, _P_RESOURCE = _P["scope"], _P["scope_version"], _P["resource_id"]
_P_WHOLE = (_P["count"], _P["start_ns"])
