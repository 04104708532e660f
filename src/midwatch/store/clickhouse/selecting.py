"""What a `Selector` means in ClickHouse's words."""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from typing import Any

from midwatch.core.spans.form import Signal
from midwatch.core.spans.store import Selector
from midwatch.store.clickhouse.schema import NAMES, TIME

SPANS = NAMES[Signal.SPANS]


class Selection:
    """The condition for the rows of each table; `values` are what it binds."""

    def __init__(self, what: Selector) -> None:
        self._what = what
        self.values: dict[str, Any] = {}
        for name, several in (
            ("agents", what.agents), ("runs", what.runs), ("sessions", what.sessions), ("users", what.users),
            ("traces", what.traces),
        ):  # fmt: skip
            if several:
                self.values[name] = sorted(several)
        for number, (name, value) in enumerate(what.tags.items()):
            self.values |= {f"tag{number}": name, f"value{number}": value}
        if what.before_ns is not None:
            self.values["before"] = what.before_ns

    def rows(self, signal: Signal) -> str:
        """Return the condition for rows of a table. What they do not say themselves, their span says."""
        if signal is Signal.SPANS:
            return self._spans()
        parts: list[str] = []
        if not self._what.by_trace and (own := self._direct(signal)) is not None:
            parts.append(own)
        if signal is not Signal.POINTS:
            parts.append(
                f"(agent, trace_id, span_id) IN (SELECT agent, toNullable(trace_id), toNullable(span_id)"
                f" FROM {SPANS} FINAL WHERE {self._spans()})"
                if signal is Signal.LOGS
                else f"(agent, trace_id, span_id) IN (SELECT agent, trace_id, span_id"
                f" FROM {SPANS} FINAL WHERE {self._spans()})"
            )
        return f"({' OR '.join(parts)})" if parts else "0"

    def _direct(self, signal: Signal) -> str | None:
        what = self._what
        parts = ["1"]
        if what.agents:
            parts.append("agent IN {agents:Array(String)}")
        if what.runs:
            if signal is Signal.CONTENTS:
                return None
            parts.append("run_id IN {runs:Array(String)}")
        if what.traces:
            if signal is Signal.POINTS:
                return None
            parts.append("trace_id IN {traces:Array(String)}")
        if what.before_ns is not None:
            parts.append(f"{TIME[signal]} < {{before:Int64}}")
        return " AND ".join(parts)

    def _spans(self) -> str:
        direct = self._direct(Signal.SPANS)
        assert direct is not None
        if not self._what.by_trace:
            return f"({direct})"
        return f"({direct} AND trace_id IN ({self.saying()}))"

    def lines(self) -> str:
        """Return the condition for lines of traces that sampling let go (`gone`): they say themselves what they are of."""
        what = self._what
        parts = [
            f"hasAny({name}, {{{name}:Array(String)}})"
            for name, wanted in (
                ("agents", what.agents), ("runs", what.runs), ("sessions", what.sessions), ("users", what.users),
            )
            if wanted
        ]  # fmt: skip
        if what.traces:
            parts.append("trace_id IN {traces:Array(String)}")
        parts += [
            f"arrayExists(x -> {self._tagged('x', n)}, tag_texts)" for n in range(len(what.tags))
        ]
        if what.before_ns is not None:
            parts.append("first_ns < {before:Int64}")
        return " AND ".join(parts) if parts else "0"

    @staticmethod
    def _tagged(text: str, number: int) -> str:
        # what is not there is read as an empty text, which a tag may be
        return (
            f"JSONHas({text}, {{tag{number}:String}})"
            f" AND JSONExtractString({text}, {{tag{number}:String}}) = {{value{number}:String}}"
        )

    def saying(self) -> str:
        """Return the query for the traces in which a span says the session, user and tags that are asked for."""
        says = ["1"]
        if self._what.sessions:
            says.append("session IN {sessions:Array(String)}")
        if self._what.users:
            says.append("user IN {users:Array(String)}")
        says += [self._tagged("ifNull(tags, '')", n) for n in range(len(self._what.tags))]
        return f"SELECT DISTINCT trace_id FROM {SPANS} FINAL WHERE {' AND '.join(says)}"
