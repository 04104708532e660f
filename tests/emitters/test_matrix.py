"""What real emitters sent becomes the normal form that their scripts must give, cell by cell, and goes out again
as it came."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from expected import EXPECTED
from matrix import COLUMNS, said, wanted
from recorded import RECORDINGS, Read, about, plain, read, request

from emitters import EMITTERS
from midwatch.core.spans import contents, form
from midwatch.core.spans.dialect import load
from midwatch.core.spans.form import CONTENTS, SPANS, ContentKind, Rank, Role
from midwatch.core.spans.understanding import Interpreter, restored
from midwatch.core.spans.values import load as load_value

NAMES = sorted(EXPECTED)
_TEXT = CONTENTS.at["text"]
_READ: dict[str, Read] = {}


def of(name: str) -> Read:
    if name not in _READ:
        _READ[name] = read(request(name))
    return _READ[name]


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("name", NAMES)
def test_a_recording_says_what_its_script_did(name: str, column: str) -> None:
    assert said(of(name).rows, EXPECTED[name])[column] == wanted(EXPECTED[name])[column]


def test_every_emitter_is_recorded_and_every_recording_is_expected() -> None:
    recorded = {path.name.removesuffix(".pb.gz") for path in RECORDINGS.glob("*.pb.gz")}
    assert recorded == set(EXPECTED) == {emitter.name for emitter in EMITTERS}


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_says_which_versions_made_it_and_fits_into_a_few_kilobytes(name: str) -> None:
    told = about(name)
    assert told["versions"]
    assert all(version[0].isdigit() for version in told["versions"].values())
    assert len(told["recorded"]) == len("2026-01-01")
    assert (RECORDINGS / f"{name}.pb.gz").stat().st_size < 8_192


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_tells_nothing_of_the_machine_it_was_made_on(name: str) -> None:
    body = request(name).SerializeToString()
    assert b"/home/" not in body
    assert b"/" + b"root/" not in body
    assert b"site-packages" not in body


@pytest.mark.parametrize("name", NAMES)
def test_rows_and_contents_are_ones_that_stores_take(name: str) -> None:
    found = of(name)
    assert [why for row in found.rows if (why := SPANS.wrong(row))] == []
    assert [why for row in found.batch.contents if (why := CONTENTS.wrong(row))] == []
    # what a span said when it began is said again at its end
    texts: dict[object, str] = {}
    for row in found.batch.contents:
        assert texts.setdefault(form.content_key(row), row[_TEXT]) == row[_TEXT]


@pytest.mark.parametrize("name", NAMES)
def test_attributes_and_events_go_out_as_they_came(name: str) -> None:
    found, families = of(name), load()
    whole = request(name)
    spans = [s for g in whole.resource_spans for sc in g.scope_spans for s in sc.spans]
    for span in spans:
        row = found.sent[span.span_id]
        if row[form.RANK] == Rank.OPEN:
            continue
        own = [c for c in found.batch.contents if c[:3] == row[:3]]
        assert restored(row, own, families) == found.came[span.span_id]
        back = contents.events(own)
        events = load_value(row[form.EVENTS]) if row[form.EVENTS] else []
        assert isinstance(events, list)
        assert [
            {**event.get("attributes", {}), **back.get(number, {})}
            for number, event in enumerate(events)
        ] == [{a.key: plain(a.value) for a in event.attributes} for event in span.events]


@pytest.mark.parametrize("name", NAMES)
def test_what_was_said_stands_in_contents_alone(name: str) -> None:
    """The answer of the last turn is found in contents, and in no column of any span."""
    # Traceloop writes down the objects of Google's stream, not what they say
    answers = {"otel-plain": "It is sunny", "traceloop-google": "It is 21 degrees"}
    answer = answers.get(name, "You are welcome")
    found = of(name)
    told = [row[_TEXT] for row in found.batch.contents if answer in row[_TEXT]]
    columns = [value for row in found.rows for value in row if isinstance(value, str)]
    if name in ("mcp", "midwatch"):
        assert told == []  # they send no contents
    else:
        assert told
        assert [value for value in columns if answer in value and "raw" not in value[:4]] == []


def test_pending_spans_are_the_open_ones_of_the_spans_that_end() -> None:
    found = of("logfire-pydantic-ai")
    pending = [row for row in found.sent.values() if row[form.RANK] == Rank.OPEN]
    ended = {row[form.SPAN_ID]: row for row in found.rows}
    assert len(pending) == len(ended) == 6
    for row in pending:
        whole = ended[row[form.SPAN_ID]]
        assert row[form.DURATION_NS] is None
        assert row[form.PARENT_ID] == whole[form.PARENT_ID]
        assert row[form.ROLE] == whole[form.ROLE]
        assert row[form.SESSION] == whole[form.SESSION]
        assert row[form.START_NS] == whole[form.START_NS]
    assert {row[form.RANK] for row in found.rows} == {Rank.ENDED}


def test_the_hash_of_equal_arguments_is_equal_whoever_tells_them() -> None:
    """Only the emitters that write the arguments alike: JSON has many spellings."""
    hashes = {
        name: row[form.INPUT_HASH]
        for name in ("openinference-agents", "logfire-agents", "traceloop-agents")
        for row in of(name).rows
        if row[form.ROLE] == Role.TOOL
    }
    assert len(hashes) == 3
    assert len(set(hashes.values())) == 1


def test_a_tools_input_is_arguments_and_its_output_a_result() -> None:
    found = of("langfuse")
    (tool,) = [row for row in found.rows if row[form.ROLE] == Role.TOOL]
    own = [c for c in found.batch.contents if c[:3] == tool[:3]]
    assert {(ContentKind(c[5]), c[_TEXT]) for c in own} == {
        (ContentKind.ARGUMENTS, '{"args": [], "kwargs": {"city": "Paris"}}'),
        (ContentKind.RESULT, "21 degrees, sunny (Paris)"),
    }


def test_streams_tell_when_their_first_token_came() -> None:
    """Of the emitters that say it: the last call is the streamed one."""
    for name in ("openinference-openai", "vercel", "langfuse", "otel-google", "traceloop-openai",
                 "logfire-pydantic-ai"):  # fmt: skip
        calls = [row for row in of(name).rows if row[form.ROLE] == Role.CALL]
        waited = calls[-1][form.FIRST_TOKEN_NS]
        assert waited is not None, name
        assert 0 < waited < 10**10, name
        assert {row[form.FIRST_TOKEN_NS] for row in calls[:-1]} == {None}, name


def test_an_evaluation_that_an_event_tells_is_a_column() -> None:
    told = [row[form.EVALUATIONS] for row in of("otel-plain").rows if row[form.EVALUATIONS]]
    assert told == ['[{"name":"helpful","score":0.9,"label":"pass"}]']


def test_one_interpreter_reads_all_recordings_alike() -> None:
    """Plans are kept by scope and keys: what one emitter sent changes nothing for the next."""
    one = Interpreter()
    for _ in range(2):
        for name in NAMES:
            assert read(request(name), one).rows == of(name).rows
    assert one.lost == {}
