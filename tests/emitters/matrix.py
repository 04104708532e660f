"""What a recording says in the normal form, beside what it must say; as a table for people.

python tests/emitters/matrix.py [FOLDER]
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from expected import EXPECTED, Call, Expected, cost_nusd
from recorded import RECORDINGS, about, read, request

from midwatch.core.pricing.shelf import Shelf
from midwatch.core.spans import form
from midwatch.core.spans.form import Role, Row
from midwatch.core.spans.usage import parts

COLUMNS = ("agent", "session", "turns", "calls", "tools", "tokens", "cost", "told", "others")
_SHELF = Shelf()
_OTHERS = (
    Role.DECISION,
    Role.RETRIEVAL,
    Role.EVALUATION,
    Role.CYCLE,
    Role.HANDOFF,
    Role.GUARD,
    Role.MEMORY,
)


def said(rows: list[Row], like: Expected) -> dict[str, object]:
    """Return what the rows say, by column of the table.

    A turn is a span that says so, or an agent's span within no other. A call that two instrumentations tell is one:
    by its answer's id, as the one that knows it best tells it, which is the one that began last.
    """
    by_id = {row[form.SPAN_ID]: row for row in rows}
    calls: dict[object, Row] = {}
    for row in rows:
        if row[form.ROLE] == Role.CALL:
            calls[row[form.RESPONSE_ID] or row[form.SPAN_ID]] = row
    told = sorted(calls.values(), key=lambda row: row[form.START_NS])
    known = [(row, want) for row, want in zip(told, like.calls, strict=False)]
    return {
        "agent": frozenset(n for row in rows if (n := row[form.AGENT_NAME]) is not None),
        "session": frozenset(s for row in rows if (s := row[form.SESSION]) is not None),
        "turns": sum(_is_turn(row, by_id) for row in rows),
        "calls": [
            (
                row[form.RESPONSE_MODEL] or row[form.MODEL],
                row[form.PROVIDER],
                row[form.RESPONSE_ID] is not None,
            )
            for row in told
        ],
        "tools": tuple(row[form.TOOL] for row in rows if row[form.ROLE] == Role.TOOL),
        "tokens": [_tokens(row, want) for row, want in known],
        "cost": [_price(row) for row in told],
        "told": tuple(row[form.COST_NUSD] for row in told if row[form.COST_NUSD] is not None),
        "others": dict(
            Counter(Role(row[form.ROLE]).name.lower() for row in rows if row[form.ROLE] in _OTHERS)
        ),
    }


def _tokens(row: Row, want: Call) -> Call:
    return Call(
        want.model,
        want.provider,
        row[form.INPUT_TOKENS],
        row[form.OUTPUT_TOKENS],
        row[form.CACHED_TOKENS],
        row[form.CACHE_WRITE_TOKENS],
        row[form.REASONING_TOKENS],
        want.has_id,
    )


def _price(row: Row) -> int | None:
    seller, model = row[form.PROVIDER] or "", row[form.RESPONSE_MODEL] or row[form.MODEL]
    return _SHELF.quote(parts(row), seller, seller, model, row[form.START_NS] / 1e9).nusd


def _is_turn(row: Row, by_id: dict[bytes, Row]) -> bool:
    if row[form.ROLE] not in (Role.AGENT, Role.TURN):
        return False
    parent = by_id.get(row[form.PARENT_ID])
    while parent is not None:
        if parent[form.ROLE] in (Role.AGENT, Role.TURN):
            return False
        parent = by_id.get(parent[form.PARENT_ID])
    return True


def wanted(want: Expected) -> dict[str, object]:
    """Return what it must say, by column."""
    return {
        "agent": want.agents,
        "session": want.sessions,
        "turns": want.turns,
        "calls": [(call.model, call.provider, call.has_id) for call in want.calls],
        "tools": want.tools,
        "tokens": list(want.calls),
        "cost": [cost_nusd(call) for call in want.calls],
        "told": want.reported,
        "others": want.others,
    }


def aligned(lines: Sequence[tuple[str, ...]]) -> str:
    """Return a table for people: each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main() -> int:
    """Print the table of a folder's recordings; return 1 when a cell is wrong. `told` is what an emitter itself says
    of costs."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RECORDINGS
    wrong: list[str] = []
    lines: list[tuple[str, ...]] = [("emitter", *COLUMNS, "of")]
    for name, want in EXPECTED.items():
        got, should = said(read(request(name, folder)).rows, want), wanted(want)
        cells: list[str] = []
        for column in COLUMNS:
            right = got[column] == should[column]
            nothing = not should[column]
            cells.append(("-" if nothing else "ok") if right else "WRONG")
            if not right:
                wrong.append(f"{name} {column}: expected {should[column]}, got {got[column]}")
        versions = ", ".join(
            f"{package} {version}" for package, version in about(name, folder)["versions"].items()
        )
        lines.append((name, *cells, versions))
    print(aligned(lines))
    print(
        "- : the emitter has no such thing to say, or does not say it; told: what it says a call costs"
    )
    for one in wrong:
        print(one)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
