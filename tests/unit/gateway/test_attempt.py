"""Attempts whose time passes by the clock: what follows a time-out with no setting at all, and what refusals, and
answers that are none, are charged. After each of them nothing is reserved any more."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from midwatch.gateway import asking, dialects
from midwatch.gateway.sending import Recorder
from midwatch.gateway.telling import Telling

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, HOME, MESSAGES, NEXT, RESPONSES, SSE, Heard, event, stream_of
from timed import (
    ANSWER,
    JSON,
    WHOLE,
    WORDS,
    Broken,
    Forever,
    Piece,
    Says,
    Timed,
    able,
    books,
    gate,
    hosts,
)

# -- time, with all defaults --------------------------------------------------------------------


async def test_a_place_that_hangs_is_left_for_the_next_one(tmp_path: Path) -> None:
    house = gate(tmp_path, Forever(), Says(stream_of(CHAT, WORDS)))
    out = await house.ask(CHAT)
    assert (Heard(CHAT, out.whole).text, house.clock.passed) == (WHOLE, 60.0)
    assert hosts(house) == ["gpt-4o-mini", "gpt-4o"]
    assert await books(house) == [("settled", "transient"), ("settled", "ok")]


async def test_a_head_and_nothing_behind_it_takes_no_longer_than_the_first_token(
    tmp_path: Path,
) -> None:
    house = gate(tmp_path, Says([Forever()], head_after=59.0), Says(stream_of(CHAT, WORDS)))
    out = await house.ask(CHAT)
    assert (Heard(CHAT, out.whole).text, house.clock.passed) == (WHOLE, 60.0)


async def test_a_whole_answer_that_does_not_begin_leaves_half_of_the_time_to_the_next_place(
    tmp_path: Path,
) -> None:
    house = gate(tmp_path, Forever(), Says([ANSWER], headers=JSON, head_after=200.0))
    out = await house.ask(CHAT, stream=False)
    assert (out.status, out.headed["x-midwatch-model"]) == (200, NEXT[CHAT])
    assert house.clock.passed == 500.0
    house = gate(tmp_path, Says([ANSWER], headers=JSON, head_after=599.0), chains={})
    assert (await house.ask(CHAT, stream=False)).status == 200


async def test_no_time_is_kept_for_places_that_cannot_be_asked_in_the_calls_dialect(
    tmp_path: Path,
) -> None:
    chains = {HOME[RESPONSES]: [HOME[RESPONSES], HOME[MESSAGES]]}
    body = (
        b'{"id":"r","status":"completed","output":[],"usage":{"input_tokens":1,"output_tokens":1}}'
    )
    house = gate(tmp_path, Says([body], headers=JSON, head_after=599.0), chains=chains)
    assert (await house.ask(RESPONSES, stream=False)).status == 200


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES])
@pytest.mark.parametrize("how", [Forever(), Broken()])
async def test_a_stream_that_stalls_or_breaks_off_when_it_is_old_is_mended(
    dialect: str, how: Piece, tmp_path: Path
) -> None:
    pieces = stream_of(dialect, WORDS)
    old: list[Piece] = [*pieces[:6], 50.0, pieces[6], 50.0, pieces[7], 50.0, pieces[8], how]
    rest = Says(stream_of(dialect, WORDS[8:], ident="two"))
    house = gate(tmp_path, Says(old), rest, about=able(dialect))
    out = await house.ask(dialect)
    heard = Heard(dialect, out.whole)
    assert (heard.text, heard.errors, out.ended) == (WHOLE, [], True)
    assert house.clock.passed >= 150.0
    assert await books(house) == [("settled", "cut"), ("settled", "ok")]


async def test_the_span_of_a_mended_stream_tells_the_id_that_its_client_saw(tmp_path: Path) -> None:
    cut: list[Piece] = [*stream_of(CHAT, WORDS, ident="one")[:6], Broken()]
    rest = Says(stream_of(CHAT, WORDS, ident="two"))
    house = gate(tmp_path, Says(cut), rest, on_cut="restart")
    sent = Recorder()
    house.house.tell = Telling(sent, now=house.clock.now)
    out = await house.ask(CHAT)
    heard = Heard(CHAT, out.whole)
    (span,) = [span for span in sent.spans if not span["name"].startswith("attempt")]
    told = {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}
    assert (heard.text, heard.idents) == (WHOLE, {told["midwatch.first_response_id"]})
    assert told["gen_ai.response.id"] not in heard.idents


async def test_the_span_of_a_mended_stream_counts_what_the_ledger_counts(tmp_path: Path) -> None:
    cut: list[Piece] = [*stream_of(CHAT, WORDS, ident="one")[:6], Broken()]
    rest = Says(stream_of(CHAT, WORDS, ident="two"))
    house = gate(tmp_path, Says(cut), rest, on_cut="restart")
    sent = Recorder()
    house.house.tell = Telling(sent, now=house.clock.now)
    assert Heard(CHAT, (await house.ask(CHAT)).whole).text == WHOLE
    (span,) = [span for span in sent.spans if not span["name"].startswith("attempt")]
    told = {one["key"]: one["value"].get("intValue") for one in span["attributes"]}
    rows = await house.rows()
    assert len(rows) == 2
    assert all(row.input_tokens and row.output_tokens and row.cost_nusd for row in rows)
    assert int(told["gen_ai.usage.input_tokens"]) == sum(row.input_tokens for row in rows)
    assert int(told["gen_ai.usage.output_tokens"]) == sum(row.output_tokens for row in rows)
    assert int(told["midwatch.cost_nusd"]) == sum(row.cost_nusd for row in rows)


async def test_without_a_chain_the_same_place_goes_on_with_an_old_stream(tmp_path: Path) -> None:
    pieces = stream_of(CHAT, WORDS)
    old: list[Piece] = [*pieces[:6], 55.0, pieces[6], 55.0, Broken()]
    about = {"gpt-4o-mini": {"prefill": True}}
    script = [Says(old), Says(stream_of(CHAT, WORDS[6:]))]
    house = gate(tmp_path, *script, chains={}, about=about, retries={"backoff": [0.001, 0.001]})
    assert Heard(CHAT, (await house.ask(CHAT)).whole).text == WHOLE


async def test_no_connection_is_waited_for_beyond_the_deadline_of_the_call(tmp_path: Path) -> None:
    house = gate(tmp_path, Forever(), Says(stream_of(CHAT, WORDS)), timeouts={"connect": 90.0, "total": 100.0})  # fmt: skip
    await house.ask(CHAT)
    assert isinstance(house.upstream, Timed)
    assert [request.total_s for request in house.upstream.asked] == [100.0, 40.0]


async def test_nothing_begins_after_the_deadline_of_the_call(tmp_path: Path) -> None:
    house = gate(tmp_path, Forever(), timeouts={"total": 50.0})
    out = await house.ask(CHAT)
    assert (out.status, house.clock.passed, len(hosts(house))) == (504, 50.0, 1)


async def test_a_place_with_a_shorter_time_leaves_the_rest_of_it_to_the_next(
    tmp_path: Path,
) -> None:
    quick = {"gpt-4o-mini": {"timeouts": {"total": 20.0}}}
    script = [Forever(), Says([ANSWER], headers=JSON, head_after=100.0)]
    house = gate(tmp_path, *script, about=quick, retries={"attempts": 0})
    out = await house.ask(CHAT, stream=False)
    assert (out.status, house.clock.passed) == (200, 120.0)


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [[b'{"err', Broken()], [Forever()], [b"x" * 300_000]])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_whose_words_break_off_keeps_its_class_and_costs_nothing(
    how: list[Piece], stream: bool, tmp_path: Path
) -> None:
    house = gate(tmp_path, Says(how, 400, JSON))
    out = await house.ask(CHAT, stream=stream)
    assert out.status == 400
    assert json.loads(out.whole)["error"]["type"] == "invalid_request_error"
    assert await books(house) == [("released", "bad_request")]
    assert (await house.rows())[0].cost_nusd == 0


async def test_a_rate_limit_whose_words_break_off_keeps_its_retry_after(tmp_path: Path) -> None:
    headers = (*JSON, ("retry-after", "90"))
    house = gate(tmp_path, Says([Broken()], 429, headers), chains={})
    out = await house.ask(CHAT)
    assert (out.status, out.headed["retry-after"]) == (429, "90")
    assert await books(house) == [("released", "rate_limit")]


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_usage_of_nothing_is_not_believed_of_an_answer_that_says_something(
    streamed: bool, tmp_path: Path
) -> None:
    told = json.loads(ANSWER)
    told["usage"] = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    whole = Says([json.dumps(told).encode()], headers=JSON)
    house = gate(tmp_path, Says(stream_of(CHAT, WORDS, usage=(0, 0))) if streamed else whole)
    assert (await house.ask(CHAT, stream=streamed)).status == 200
    [row] = await house.rows()
    assert row.estimated
    assert row.input_tokens > 0
    assert row.output_tokens >= len(WHOLE) // 2
    assert row.cost_nusd > 0


async def test_a_long_answer_is_read_beside_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    read = dialects.answer

    def noting(*given: Any, **named: Any) -> Any:
        threads.append(threading.get_ident())
        return read(*given, **named)

    monkeypatch.setattr(dialects, "answer", noting)
    padded = ANSWER + b" " * asking.LONG_BYTES
    for answer in (ANSWER, padded):
        house = gate(tmp_path / str(len(answer)), Says([answer], headers=JSON))
        assert (await house.ask(CHAT, stream=False)).status == 200
    assert [one == threading.get_ident() for one in threads] == [True, False]


# -- a success behind which there is no answer ----------------------------------------------------


async def test_a_whole_answer_for_a_stream_is_charged_and_the_next_place_asked(
    tmp_path: Path,
) -> None:
    house = gate(tmp_path, Says([ANSWER], headers=JSON), Says(stream_of(CHAT, WORDS)))
    out = await house.ask(CHAT)
    assert Heard(CHAT, out.whole).text == WHOLE
    assert await books(house) == [("settled", "unreadable"), ("settled", "ok")]
    first, second = await house.rows()
    assert (first.input_tokens, first.output_tokens, first.estimated) == (10, 5, False)
    assert first.cost_nusd > 0
    assert second.cost_nusd > 0
    [home] = [b for n, b in house.house.health.breakers.items() if n[0] == "openai"]
    assert home.blank, "what an agent can bring about closes no place to others"


async def test_a_whole_answer_for_a_stream_is_not_waited_for_beyond_the_calls_time(
    tmp_path: Path,
) -> None:
    house = gate(tmp_path, Says([Forever()], headers=JSON, head_after=4.0), timeouts={"total": 5.0})
    out = await house.ask(CHAT)
    assert (out.status >= 500, house.clock.passed) == (True, 5.0)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_page_of_a_proxy_costs_nothing_and_is_no_answer(
    stream: bool, tmp_path: Path
) -> None:
    page = Says([b"<!DOCTYPE html><p>login</p>"], headers=(("content-type", "text/html"),))
    good = stream_of(CHAT, WORDS) if stream else [ANSWER]
    script = [page, Says(good, headers=SSE if stream else JSON)]
    house = gate(tmp_path, *script, retries={"attempts": 0})
    out = await house.ask(CHAT, stream=stream)
    assert out.status == 200
    assert await books(house) == [("released", "transient"), ("settled", "ok")]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"x({});", "text/javascript"), (b"\x0a\x02hi", "application/x-protobuf"), (b"[]", "application/json")],
)  # fmt: skip
async def test_what_cannot_be_read_is_charged_its_worst_case_once_and_not_passed_on(
    body: bytes, kind: str, stream: bool, tmp_path: Path
) -> None:
    odd = (("content-type", kind),)
    house = gate(tmp_path, Says([body], headers=odd), Says([body], headers=odd))
    out = await house.ask(CHAT, stream=stream, max_tokens=7_000)
    assert out.status == 502
    assert body not in out.whole
    assert hosts(house) == ["gpt-4o-mini", "gpt-4o"], "each place once"
    rows = await house.rows()
    assert {row.outcome for row in rows} == {"unreadable"}
    assert [row.output_tokens for row in rows] == [7_000, 7_000]
    assert all(row.estimated for row in rows)


# -- what is said of a cut --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "policy", "why"),
    [
        (CHAT, "error", "models.on_cut says so"),
        (RESPONSES, "continue", "responses cannot be continued, only restarted"),
        (CHAT, "continue", "nobody was there to go on with it"),
    ],
)
async def test_a_cut_says_why_nobody_goes_on_with_it(
    dialect: str, policy: str, why: str, tmp_path: Path
) -> None:
    pieces: list[Piece] = [*stream_of(CHAT, WORDS)[:4], Broken()]
    if dialect == RESPONSES:
        delta = {"type": "response.output_text.delta", "delta": "w0 ", "sequence_number": 4}
        pieces = [event(delta, delta["type"]), Broken()]  # type: ignore[arg-type]
    house = gate(tmp_path, Says(pieces), chains={}, on_cut=policy)
    out = await house.ask(dialect)
    assert why in out.whole.decode()
