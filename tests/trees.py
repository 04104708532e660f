"""Reads the corpus of counted trees: small tables of spans, and what they must come to.

A file of `tests/corpus/` is a list of trees. `spans` has one span a line, children indented below their parent:

    NAME ROLE [in=N out=N cached=N written=N hour=N thought=N] [model=M] [$COST] [KEY=VALUE …] [@DIALECT {attributes}]

`in` and `out` are by the standard (caches within the input, reasoning within the output); an emitter's own figures
are written as its attributes behind `@DIALECT`, and the role that stands there is the one that must be understood.
`ledger` and `ledger-embedding` are the gateway's spans. `trace NAME` begins another trace. `parent=NAME` and
`parent=?` (never came) win over the indentation. Words: `open`, `lost`, `error`. Times are `at=FROM-TO` in seconds,
otherwise a span begins at its line's number and ends after its last child.

`counted` has one line for each owner, session and trace with anything to count; `why` names verdicts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import yaml

from midwatch.core.calls.news import SCOPE as GATEWAY
from midwatch.core.pricing.cost import cost
from midwatch.core.pricing.price import MILLION, Price, Table
from midwatch.core.pricing.usage import Part
from midwatch.core.spans import form
from midwatch.core.spans.counted import Place, Sum
from midwatch.core.spans.dialect import attribute
from midwatch.core.spans.facts import Fact, fact
from midwatch.core.spans.form import NO_SPAN, SPANS, Batch, CostFrom, Rank, Role, Row
from midwatch.core.spans.understanding import Interpreter
from midwatch.core.spans.usage import parts

CORPUS: Final = Path(__file__).parent / "corpus"

SCOPES: Final = {
    "gen_ai": "my.instrumentation",
    "openinference": "openinference.instrumentation.langchain",
    "traceloop": "opentelemetry.instrumentation.anthropic",
    "vercel": "ai",
    "langfuse": "langfuse-sdk",
    "logfire": "pydantic-ai",
    "midwatch": "midwatch.sdk",
}


def _price(fresh: int, cached: int, written: int, hour: int, made: int) -> Price:
    """Return a price by its rates in nano-dollars per token."""
    rates = {
        Part.INPUT_TEXT: fresh,
        Part.CACHE_READ: cached,
        Part.CACHE_WRITE_5M: written,
        Part.CACHE_WRITE_1H: hour,
        Part.OUTPUT_TEXT: made,
        Part.REASONING: made,
    }
    return Price(Table({part: rate * MILLION for part, rate in rates.items()}))


PRICES: Final = {
    "small": _price(1_000, 100, 1_250, 2_000, 5_000),
    "large": _price(10_000, 1_000, 12_500, 20_000, 50_000),
}
"""Of any other model the price is not known."""

FIGURES: Final = {
    "in": form.INPUT_TOKENS,
    "cached": form.CACHED_TOKENS,
    "written": form.CACHE_WRITE_TOKENS,
    "hour": form.CACHE_WRITE_1H_TOKENS,
    "out": form.OUTPUT_TOKENS,
    "thought": form.REASONING_TOKENS,
}
TEXTS: Final = {
    "name": form.AGENT_NAME,
    "agent": form.AGENT,
    "run": form.RUN_ID,
    "session": form.SESSION,
    "answer": form.RESPONSE_ID,
    "began": form.FIRST_RESPONSE_ID,
    "call": form.CALL_ID,
    "model": form.MODEL,
}
COLUMNS: Final = [
    "owner",
    "session",
    "trace",
    "calls",
    "in",
    "cached",
    "written",
    "out",
    "thought",
    "dollars",
]

_TIMED: Final = 1
"""In the flags of spans whose times are given: their children do not stretch them."""

Where = tuple[str, str | None, str]
"""Owner, session, trace."""


@dataclass
class Tree:
    """One tree of the corpus."""

    title: str
    rows: dict[str, Row]
    """By the name of the span."""
    counted: dict[Where, Sum]
    why: dict[str, str]
    tags: frozenset[str] = frozenset()
    traces: dict[bytes, str] = field(default_factory=dict[bytes, str])

    @property
    def facts(self) -> list[Fact]:
        return [fact(row) for row in self.rows.values()]

    def found(self, sums: dict[Place, Sum]) -> dict[Where, Sum]:
        """Return sums as the corpus writes them: by owner, session and trace; what is unpriced is told apart."""
        totals: dict[Where, Sum] = {}
        for place, total in sums.items():
            where = (place.owner, place.session, self.traces[place.trace_id])
            totals[where] = totals.get(where, Sum()).plus(total._replace(unpriced=0))
        return totals


def trees() -> list[Tree]:
    """Return the whole corpus."""
    return [
        read_tree(entry)
        for path in sorted(CORPUS.glob("*.yaml"))
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))
    ]


def read_tree(entry: dict[str, Any]) -> Tree:
    """Return one tree of a file."""
    tree = Tree(entry["tree"], {}, _expected(entry["counted"]), entry.get("why", {}))
    lines = [line for line in entry["spans"].splitlines() if line.strip()]
    open_above: list[tuple[int, str]] = []
    trace = "t1"
    for number, line in enumerate(lines, 1):
        words = line.split()
        if words[0] == "trace":
            trace, open_above = words[1], []
            continue
        depth = len(line) - len(line.lstrip())
        open_above = [(d, name) for d, name in open_above if d < depth]
        row = _span(line.strip(), trace, open_above[-1][1] if open_above else None, number)
        tree.traces[row[form.TRACE_ID]] = trace
        for _, name in open_above:
            _stretch(tree.rows[name], row)
        open_above.append((depth, words[0]))
        tree.rows[words[0]] = row
    return tree


def _stretch(above: Row, row: Row) -> None:
    if above[form.DURATION_NS] is not None and above[form.FLAGS] != _TIMED:
        above[form.DURATION_NS] = row[form.START_NS] + 10**9 - above[form.START_NS]


def _span(line: str, trace: str, parent: str | None, number: int) -> Row:
    line, _, dialect = line.partition("@")
    name, role, *words = line.split()
    row = _understood(role, dialect) if dialect else NO_SPAN[:]
    row[form.NAME], row[form.AGENT] = name, row[form.AGENT] or "inbox"
    row[form.TRACE_ID], row[form.SPAN_ID] = _id(trace, 16), _id(name, 8)
    row[form.PARENT_ID] = None if parent is None else _id(parent, 8)
    row[form.START_NS], row[form.DURATION_NS] = number * 10**9, 10**9 // 2
    if not dialect:
        row[form.MODEL] = "small"
        row[form.ROLE] = Role[role.upper()] if "ledger" not in role else _ledger(row, role)
    _apply(row, words)
    if row[form.COST_NUSD] is None and (price := PRICES.get(row[form.MODEL])) and _has_usage(row):
        row[form.COST_NUSD], row[form.COST_FROM] = cost(parts(row), price), CostFrom.PRICED.value
    return row


def _ledger(row: Row, role: str) -> Role:
    row[form.SCOPE], row[form.COST_FROM] = GATEWAY, CostFrom.LEDGER.value
    return Role.EMBEDDING if role.endswith("embedding") else Role.CALL


def _apply(row: Row, words: list[str]) -> None:
    for word in words:
        key, is_set, value = word.partition("=")
        if word.startswith("$"):
            row[form.COST_NUSD] = nusd(word)
            row[form.COST_FROM] = row[form.COST_FROM] or CostFrom.REPORTED.value
        elif word in ("open", "lost"):
            row[form.RANK] = Rank[word.upper()].value
            row[form.DURATION_NS] = None if word == "open" else row[form.DURATION_NS]
        elif word == "error":
            row[form.STATUS] = 2
        elif key == "at" and is_set:
            begin, end = (float(second) for second in value.split("-"))
            row[form.START_NS], row[form.DURATION_NS] = int(begin * 1e9), int((end - begin) * 1e9)
            row[form.FLAGS] = _TIMED
        elif key == "parent":
            row[form.PARENT_ID] = _id(value, 8)
        elif key in FIGURES:
            row[FIGURES[key]] = int(value)
        else:
            row[TEXTS[key]] = value


def _understood(role: str, dialect: str) -> Row:
    """Return a row by an emitter's attributes."""
    name, _, said = dialect.partition(" ")
    row = SPANS.blank()
    row[:] = NO_SPAN
    row[form.SCOPE], row[form.NAME] = SCOPES[name], "span"
    attributes = [attribute(key, value) for key, value in yaml.safe_load(said).items()]
    Interpreter().scope(SCOPES[name], "", {}).span(row, attributes, (), Batch())
    assert Role(row[form.ROLE]).name.lower() == role, (dialect, Role(row[form.ROLE]))
    assert row[form.DIALECT] == name, (dialect, row[form.DIALECT])
    if row[form.MODEL] is None:
        row[form.MODEL] = row[form.RESPONSE_MODEL]
    return row


def _has_usage(row: Row) -> bool:
    return row[form.INPUT_TOKENS] is not None or row[form.OUTPUT_TOKENS] is not None


def _id(name: str, size: int) -> bytes:
    return blake2b(name.encode(), digest_size=size).digest()


def nusd(dollars: str) -> int:
    """Return nano-dollars of `$0.0002`."""
    whole, _, rest = dollars.removeprefix("$").partition(".")
    return int(whole) * 10**9 + int(rest.ljust(9, "0"))


def _expected(table: str) -> dict[Where, Sum]:
    header, *lines = [re.split(r"\s+", line.strip()) for line in table.strip().splitlines()]
    assert header == COLUMNS, header
    found: dict[Where, Sum] = {}
    for owner, session, trace, calls, given, cached, written, made, thought, dollars in lines:
        where = (owner, None if session == "-" else session, trace)
        found[where] = Sum(
            int(calls), int(given), int(cached), int(written), int(made), int(thought), nusd(dollars)
        )  # fmt: skip
    return found
