"""The columns of the four tables of telemetry: name, type, and a sentence. Stores make their own types of these.

Additions stand at the end of a table or where they belong, as long as no released version has stored rows: stores
go by names, programs by the places that `form` takes from here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

MAX_INT: Final = 2**63 - 1


class Type(StrEnum):
    """How a column's values look in a row; None is always no data."""

    TRACE_ID = "trace_id"
    """16 bytes, not all zero; also ids of ours."""
    SPAN_ID = "span_id"
    """8 bytes."""
    TEXT = "text"
    """str that a store can encode."""
    WORD = "word"
    """The same with few distinct values: a store keeps a dictionary."""
    INT = "int"
    """From -2^63 to 2^63-1."""
    REAL = "real"
    """float; NaN and infinity are values."""
    FLAG = "flag"
    """True or False."""
    ENUM = "enum"
    """A place in the column's `words`."""
    JSON = "json"
    """str that holds JSON."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `words` are an enumeration's names by number; `required` ones are never None."""

    name: str
    type: Type
    about: str
    required: bool = False
    words: tuple[str, ...] = ()

    def wrong(self, value: Any) -> str | None:
        """Return why a row may not hold this value here, or None."""
        if value is None:
            return "missing" if self.required else None
        if not _FITS[self.type](value) or (self.words and not 0 <= value < len(self.words)):
            return f"expected {self.words or self.type.value}, got {value!r:.80}"
        return None

    def shown(self, value: Any) -> Any:
        """Return the value as JSON takes it: ids as hex, enumerations as words."""
        if self.words:
            return self.words[int(value)]
        if self.type in (Type.TRACE_ID, Type.SPAN_ID):
            return value.hex()
        return json.loads(value) if self.type is Type.JSON else value


def _is_text(value: Any) -> bool:
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_json(value: Any) -> bool:
    if not _is_text(value):
        return False
    try:
        json.loads(value)
    except ValueError:
        return False
    return True


def _is_int(value: Any) -> bool:
    return (
        isinstance(value, int) and not isinstance(value, bool) and -MAX_INT - 1 <= value <= MAX_INT
    )


def _is_trace_id(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == 16 and value != bytes(16)


_FITS: Final[dict[Type, Callable[[Any], bool]]] = {
    Type.TRACE_ID: _is_trace_id,
    Type.SPAN_ID: lambda value: isinstance(value, bytes) and len(value) == 8,
    Type.TEXT: _is_text,
    Type.WORD: _is_text,
    Type.INT: _is_int,
    Type.REAL: lambda value: isinstance(value, float),
    Type.FLAG: lambda value: isinstance(value, bool),
    Type.ENUM: _is_int,
    Type.JSON: _is_json,
}

_T = Type

RANKS: Final = ("open", "lost", "ended")
KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUSES: Final = ("unset", "ok", "error")
ROLES: Final = (
    "other", "agent", "turn", "cycle", "chain", "call", "embedding", "tool", "retrieval", "rerank", "decision",
    "handoff", "evaluation", "guard", "memory",
)  # fmt: skip
COSTS_FROM: Final = ("reported", "priced", "ledger")
CONTENT_KINDS: Final = (
    "other", "system", "input", "output", "tools", "arguments", "result", "documents", "state",
)  # fmt: skip
POINT_KINDS: Final = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
TEMPORALITIES: Final = ("unspecified", "delta", "cumulative")

_WHOSE: Final = "the agent whose it is, by its token or its resource"
_SCOPE: Final = (
    Column("scope", _T.WORD, "the instrumentation that made it"),
    Column("scope_version", _T.WORD, "that instrumentation's version"),
    Column("resource_id", _T.TRACE_ID, "16 bytes of a hash: where it comes from, in `resources`"),
)

SPAN_COLUMNS: Final = (
    Column("agent", _T.WORD, _WHOSE, required=True),
    Column("trace_id", _T.TRACE_ID, "the trace that it belongs to", required=True),
    Column("span_id", _T.SPAN_ID, "its own id", required=True),
    Column("parent_id", _T.SPAN_ID, "the span that it is a part of"),
    Column("rank", _T.ENUM, "open, lost or ended", required=True, words=RANKS),
    Column("start_ns", _T.INT, "when it began", required=True),
    Column("duration_ns", _T.INT, "how long it took; none while it is open"),
    Column("name", _T.TEXT, "its name", required=True),
    Column("kind", _T.ENUM, "OpenTelemetry's kind", required=True, words=KINDS),
    Column("status", _T.ENUM, "how it ended", required=True, words=STATUSES),
    Column("status_message", _T.TEXT, "what it says about its error"),
    Column("error_type", _T.WORD, "error.type"),
    Column("role", _T.ENUM, "what it is in the life of an agent", required=True, words=ROLES),
    Column("operation", _T.WORD, "gen_ai.operation.name, or what stands for it"),
    Column("agent_name", _T.WORD, "the agent that it names itself: a part of the process, or another"),
    Column("run_id", _T.WORD, "the run that it belongs to"),
    Column("session", _T.TEXT, "the session (conversation) that it belongs to"),
    Column("turn", _T.TEXT, "the turn of that session"),
    Column("user", _T.TEXT, "whom the agent works for"),
    Column("tags", _T.JSON, "names and values that are counted by: customer, task, version, environment"),
    Column("provider", _T.WORD, "gen_ai.provider.name, in the spelling of the price list"),
    Column("model", _T.WORD, "the model that was asked for"),
    Column("response_model", _T.WORD, "the model that answered"),
    Column("tool", _T.WORD, "the tool's name"),
    Column("tool_call_id", _T.TEXT, "the model's id of the tool call"),
    Column("response_id", _T.TEXT, "the provider's id of the answer"),
    Column("first_response_id", _T.TEXT, "the gateway's: the id that its client was told, where another attempt ended the answer"),
    Column("call_id", _T.TEXT, "the gateway's id of the call (x-midwatch-call)"),
    Column("finish", _T.WORD, "why the answer ended: stop, length, tool_calls, refusal"),
    Column("first_token_ns", _T.INT, "time to the first token"),
    Column("input_tokens", _T.INT, "all tokens sent, with those from and to a cache"),
    Column("cached_tokens", _T.INT, "those of them that were read from a cache"),
    Column("cache_write_tokens", _T.INT, "those of them that were written to a cache"),
    Column("cache_write_1h_tokens", _T.INT, "those of the written ones that are kept for an hour or longer"),
    Column("output_tokens", _T.INT, "all tokens received, with the reasoning"),
    Column("reasoning_tokens", _T.INT, "those of them that were reasoning"),
    Column("usage", _T.JSON, "the whole `pricing.Usage`, where the columns before do not say it all"),
    Column("cost_nusd", _T.INT, "what it cost; whether that counts is the verdict's word"),
    Column("cost_from", _T.ENUM, "who says so", words=COSTS_FROM),
    Column("price_version", _T.WORD, "the price list that it was reckoned with"),
    Column("outcome", _T.WORD, "how the work went, in the agent's word: success, failure"),
    Column("goal_met", _T.FLAG, "whether the goal was met"),
    Column("escalated", _T.FLAG, "whether it was handed to a person"),
    Column("side_effect", _T.FLAG, "whether the tool changes something outside"),
    Column("evaluations", _T.JSON, "a list of {name, score, label, by}: evaluations and feedback"),
    Column("input_hash", _T.SPAN_ID, "of a prompt or of arguments: equal input has an equal hash"),
    Column("output_hash", _T.SPAN_ID, "of an answer or a result"),
    Column("content_count", _T.INT, "how many contents it came with; those that are gone have expired"),
    Column("dialect", _T.WORD, "whose names it was read by"),
    *_SCOPE,
    Column("attributes", _T.JSON, "what no column gives back under the same key and value (`values.dump_all`)"),
    Column("events", _T.JSON, "a list of {name, time_ns, attributes}, without contents"),
    Column("links", _T.JSON, "a list of {trace_id, span_id, attributes}"),
    Column("flags", _T.INT, "OpenTelemetry's flags"),
    Column("envelope", _T.JSON, "the rest of what OTLP says: trace_state and dropped counts, where there are any"),
)  # fmt: skip

CONTENT_COLUMNS: Final = (
    Column("agent", _T.WORD, _WHOSE, required=True),
    Column("trace_id", _T.TRACE_ID, "its span's trace", required=True),
    Column("span_id", _T.SPAN_ID, "its span", required=True),
    Column("place", _T.INT, "its place among the contents that came with it, from 0", required=True),
    Column("start_ns", _T.INT, "when its span began", required=True),
    Column("kind", _T.ENUM, "what it was to its span", required=True, words=CONTENT_KINDS),
    Column("key", _T.TEXT, "what held it, of which a span has one: ATTRIBUTE, event/NUMBER/ATTRIBUTE, log/ID/ATTRIBUTE", required=True),
    Column("text", _T.TEXT, "the content: text as it came, or JSON of what was no text", required=True),
    Column("is_json", _T.FLAG, "whether `text` is JSON (`values.dump`) of what came", required=True),
    Column("characters", _T.INT, "its length before it was clipped", required=True),
    Column("hash", _T.SPAN_ID, "of the whole text: equal contents have an equal hash", required=True),
)  # fmt: skip

POINT_COLUMNS: Final = (
    Column("point_id", _T.TRACE_ID, "a hash of everything about it: the same point is stored once", required=True),
    Column("agent", _T.WORD, _WHOSE, required=True),
    Column("run_id", _T.WORD, "the run that it belongs to"),
    Column("metric", _T.WORD, "the metric's name", required=True),
    Column("unit", _T.WORD, "its unit, as it was sent"),
    Column("about", _T.WORD, "the metric's description"),
    Column("kind", _T.ENUM, "what kind of metric it is", required=True, words=POINT_KINDS),
    Column("temporality", _T.ENUM, "since when it counts", required=True, words=TEMPORALITIES),
    Column("monotonic", _T.FLAG, "whether a sum only rises"),
    Column("start_ns", _T.INT, "since when it counts"),
    Column("time_ns", _T.INT, "when it was taken", required=True),
    Column("value", _T.REAL, "a gauge's or a sum's value"),
    Column("whole", _T.INT, "the same, when it was sent as a whole number"),
    Column("count", _T.INT, "values of a distribution"),
    Column("sum", _T.REAL, "their sum"),
    Column("least", _T.REAL, "the least of them"),
    Column("most", _T.REAL, "the greatest of them"),
    Column("buckets", _T.JSON, "bounds and counts, or quantiles, in OTLP's words"),
    Column("attributes", _T.JSON, "what it is about (`values.dump_all`)"),
    Column("exemplars", _T.JSON, "examples, with their traces, in OTLP's words"),
    Column("flags", _T.INT, "OpenTelemetry's flags"),
    *_SCOPE,
)  # fmt: skip

LOG_COLUMNS: Final = (
    Column("log_id", _T.TRACE_ID, "a hash of everything about it: the same record is stored once", required=True),
    Column("agent", _T.WORD, _WHOSE, required=True),
    Column("run_id", _T.WORD, "the run that it belongs to"),
    Column("time_ns", _T.INT, "when it happened; when it was seen, if that is not said", required=True),
    Column("observed_ns", _T.INT, "when it was seen"),
    Column("severity", _T.INT, "OpenTelemetry's number, from 1 to 24"),
    Column("severity_text", _T.WORD, "the level in the sender's word"),
    Column("event", _T.WORD, "the event's name"),
    Column("body", _T.TEXT, "what it says"),
    Column("body_is_json", _T.FLAG, "whether `body` is JSON (`values.dump`) of what was no text"),
    Column("trace_id", _T.TRACE_ID, "the trace in which it was written"),
    Column("span_id", _T.SPAN_ID, "the span in which it was written"),
    Column("attributes", _T.JSON, "what else it says (`values.dump_all`)"),
    Column("flags", _T.INT, "OpenTelemetry's flags"),
    Column("envelope", _T.JSON, "dropped counts, where there are any"),
    *_SCOPE,
)  # fmt: skip
