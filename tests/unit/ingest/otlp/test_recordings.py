"""What real emitters sent, through the edge: the same rows as by the official parser, nothing refused or clipped."""

from __future__ import annotations

from typing import Any

import pytest
from tests.edges import NODE, Names
from tests.emitters.recorded import RECORDINGS, read, request

from midwatch.core.spans import form
from midwatch.core.spans.form import CONTENTS, SPANS, Rank, Row, Signal
from midwatch.ingest.otlp.intake import Decoder
from midwatch.ingest.otlp.rows import Rows

# what the official parser's reading leaves out, and the agent, whose name that takes as it comes
OURS = {
    form.AGENT, form.RUN_ID, form.RESOURCE_ID, form.LINKS, form.FLAGS, form.ENVELOPE, form.STATUS_MESSAGE, form.RANK,
    form.DURATION_NS,
}  # fmt: skip
_TEXT, _KEY = CONTENTS.at["text"], CONTENTS.at["key"]
_SPAN = CONTENTS.at["span_id"]


def decoded(name: str) -> Rows:
    sent = request(name)
    newest_ns = max(
        one.start_time_unix_nano
        for group in sent.resource_spans
        for scoped in group.scope_spans
        for one in scoped.spans
    )
    now = newest_ns / 1e9 + 1
    raw = sent.SerializeToString()
    return Decoder().read(Signal.SPANS, raw, NODE, Names(), now, as_json=False)


def best(rows: list[Row]) -> dict[bytes, Row]:
    """Return of each span the row of the highest rank, the first of two alike."""
    found: dict[bytes, Row] = {}
    for row in rows:
        before = found.get(row[form.SPAN_ID])
        if before is None or before[form.RANK] < row[form.RANK]:
            found[row[form.SPAN_ID]] = row
    return found


@pytest.mark.parametrize("name", sorted(one.name[:-6] for one in RECORDINGS.glob("*.pb.gz")))
def test_a_recording_becomes_what_the_official_parser_makes_of_it(name: str) -> None:
    rows = decoded(name)
    assert rows.refused.message == ""
    assert +rows.lost == {}
    wanted: dict[bytes, Row] = {row[form.SPAN_ID]: row for row in read(request(name)).rows}
    found = best(rows.batch.spans)
    assert found.keys() == wanted.keys()
    for span_id, row in found.items():
        assert SPANS.wrong(row) is None
        told = {
            c.name: v for n, (c, v) in enumerate(zip(SPANS.row, row, strict=True)) if n not in OURS
        }
        expected = {
            c.name: v
            for n, (c, v) in enumerate(zip(SPANS.row, wanted[span_id], strict=True))
            if n not in OURS
        }
        assert told == expected
        if row[form.RANK] == Rank.ENDED:
            assert row[form.DURATION_NS] == wanted[span_id][form.DURATION_NS]


@pytest.mark.parametrize("name", ["otel-openai", "traceloop-anthropic", "vercel"])
def test_a_recordings_contents_are_those_of_the_official_parser(name: str) -> None:
    def texts(found: list[Row]) -> dict[tuple[Any, Any], str]:
        return {(row[_SPAN], row[_KEY]): row[_TEXT] for row in found}

    assert texts(decoded(name).batch.contents) == texts(read(request(name)).batch.contents)
