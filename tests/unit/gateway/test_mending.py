"""What follows when a stream breaks off: one whole answer for its client, or an error; never a part as the whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import (
    ARRAY,
    CHAT,
    DIALECTS,
    GENERATE,
    HOME,
    MESSAGES,
    NEXT,
    RESPONSES,
    Gate,
    Heard,
    answer,
    event,
    stream_of,
)
from midwatch.core.calls.charge import CallState
from midwatch.gateway.http.played import PlayedOutgoing
from midwatch.gateway.upstream.scripted import Answer, Break, Refuse, Silence

WORDS = [f"w{n} " for n in range(60)]
WHOLE = "".join(WORDS)


def models(
    dialect: str, policy: str = "continue", *, able: bool = True, **more: Any
) -> dict[str, Any]:
    """A chain of two, the second of which is, or is not, known to continue."""
    home, second = HOME[dialect], NEXT[dialect]
    name = home if dialect in (CHAT, MESSAGES) else home.rpartition("/")[2]
    about = {
        home.rpartition("/")[2]: {"prefill": False},
        second.rpartition("/")[2]: {"prefill": able},
    }
    return {"on_cut": policy, "chains": {name: [home, second]}, "about": about, **more}


def cut(dialect: str, count: int, *how: Break | Silence) -> Answer:
    return answer(dialect, [*stream_of(dialect, WORDS)[: count + 1], *how])


async def went_on(
    folder: Path, dialect: str, first: Answer, second: Answer | Refuse, **given: Any
) -> tuple[Gate, PlayedOutgoing, Heard]:
    gate = Gate(folder, [first, second], models=models(dialect, **given))
    out = await gate.ask(dialect)
    return gate, out, Heard(dialect, out.whole)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("how", ["closed", "reset", "silent"])
async def test_an_answer_that_breaks_off_is_gone_on_with_where_it_stopped(
    dialect: str, how: str, tmp_path: Path
) -> None:
    ways: dict[str, tuple[Break | Silence, ...]] = {
        "closed": (),
        "reset": (Break(),),
        "silent": (Silence(),),
    }
    rest = answer(dialect, stream_of(dialect, WORDS[40:], ident="two", usage=(300, 20)))
    gate, out, heard = await went_on(tmp_path, dialect, cut(dialect, 40, *ways[how]), rest)
    assert out.ended
    assert heard.text == WHOLE
    assert heard.errors == []
    assert heard.idents == {"one"}
    assert len(heard.finishes) == 1
    assert heard.ends == (1 if dialect in (CHAT, MESSAGES) else 0)
    assert heard.starts == (1 if dialect in (CHAT, MESSAGES) else 0)
    rows = await gate.rows()
    assert [(row.state, row.outcome) for row in rows] == [
        (CallState.SETTLED, "cut"),
        (CallState.SETTLED, "ok"),
    ]
    assert rows[0].estimated
    assert not rows[1].estimated
    assert rows[1].call_id == f"{rows[0].call_id}.2"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_beginning_is_given_to_the_model_as_its_own(dialect: str, tmp_path: Path) -> None:
    rest = answer(dialect, stream_of(dialect, [" ", *WORDS[40:]]))
    gate, _, heard = await went_on(tmp_path, dialect, cut(dialect, 40), rest)
    assert heard.text == WHOLE, "the blank that was cut off the beginning comes once"
    asked = gate.asked(1)
    last = (asked["contents"] if dialect in (GENERATE, ARRAY) else asked["messages"])[-1]
    text = last["parts"][0]["text"] if "parts" in last else last["content"]
    text = text[0]["text"] if isinstance(text, list) else text
    assert text == "".join(WORDS[:40]).rstrip()
    if dialect == CHAT:
        assert last["prefix"] is True
    if dialect == MESSAGES:
        assert asked["max_tokens"] == 500 - 40, "the whole is no longer than was asked for"


async def test_messages_keep_the_number_of_their_block_and_name_each_event(tmp_path: Path) -> None:
    rest = answer(MESSAGES, stream_of(MESSAGES, WORDS[40:], ident="two"))
    _, out, heard = await went_on(tmp_path, MESSAGES, cut(MESSAGES, 40), rest)
    assert heard.blocks[0] == ("start", 0)
    assert heard.blocks[-1] == ("stop", 0)
    assert {kind for kind, _ in heard.blocks[1:-1]} == {"delta"}
    for block in out.whole.decode().strip().split("\n\n"):
        name, data = block.split("\n")
        assert name.removeprefix("event: ") == json.loads(data.removeprefix("data: "))["type"]


async def test_what_follows_the_text_gets_the_next_number(tmp_path: Path) -> None:
    tool = {"type": "tool_use", "id": "t", "name": "look", "input": {}}
    pieces = stream_of(MESSAGES, ["rest"])
    pieces[-1] = (
        event({"type": "content_block_stop", "index": 0}, "content_block_stop")
        + event({"type": "content_block_start", "index": 1, "content_block": tool}, "content_block_start")
        + event({"type": "content_block_stop", "index": 1}, "content_block_stop")
        + event({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}}, "message_delta")
        + event({"type": "message_stop"}, "message_stop")
    )  # fmt: skip
    _, _, heard = await went_on(tmp_path, MESSAGES, cut(MESSAGES, 40), answer(MESSAGES, pieces))
    assert heard.blocks[-3:] == [("stop", 0), ("start", 1), ("stop", 1)]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_usage_told_is_what_all_attempts_are_charged(
    dialect: str, tmp_path: Path
) -> None:
    rest = answer(dialect, stream_of(dialect, WORDS[40:], usage=(300, 20)))
    gate = Gate(tmp_path, [cut(dialect, 40), rest], models=models(dialect))
    more = {"stream_options": {"include_usage": True}} if dialect == CHAT else {}
    heard = Heard(dialect, (await gate.ask(dialect, **more)).whole)
    rows = await gate.rows()
    spent = (sum(row.input_tokens for row in rows), sum(row.output_tokens for row in rows))
    told = {
        CHAT: ("prompt_tokens", "completion_tokens"),
        MESSAGES: ("output_tokens", "output_tokens"),
    }.get(dialect, ("promptTokenCount", "candidatesTokenCount"))
    assert heard.usage[told[1]] == spent[1]
    assert rows[0].output_tokens >= 40
    if dialect != MESSAGES:  # whose input was told at the beginning
        assert heard.usage[told[0]] == spent[0]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("able", [True, False])
async def test_an_event_that_cannot_be_read_is_a_cut_since_it_may_have_said_something(
    dialect: str, able: bool, tmp_path: Path
) -> None:
    pieces = stream_of(dialect, WORDS)
    pieces.insert(10, b",{nonsense}" if dialect == ARRAY else b"data: {nonsense\n\n")
    rest = answer(dialect, stream_of(dialect, WORDS[9:]))
    gate = Gate(tmp_path, [answer(dialect, pieces), rest], models=models(dialect, able=able))
    out = await gate.ask(dialect)
    heard = Heard(dialect, out.whole)
    assert heard.errors == ([] if able else ["midwatch_cut"])
    assert heard.text == (WHOLE if able else "".join(WORDS[:9]))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("why", ["unable", "policy"])
async def test_who_is_not_known_to_continue_is_not_asked(
    dialect: str, why: str, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"able": False} if why == "unable" else {"policy": "error"}
    gate = Gate(tmp_path, [cut(dialect, 20)], models=models(dialect, **given))
    out = await gate.ask(dialect)
    heard = Heard(dialect, out.whole)
    assert len(gate.upstream.asked) == 1  # type: ignore[union-attr]
    assert heard.errors == ["midwatch_cut"]
    assert heard.finishes == []
    assert heard.ends == 0
    assert heard.text == "".join(WORDS[:20])


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_model_that_rejects_the_beginning_is_asked_once_and_the_error_is_told(
    dialect: str, tmp_path: Path
) -> None:
    body = {"error": {"type": "invalid_request_error", "code": 400, "status": "INVALID_ARGUMENT", "message": "no prefill"}}  # fmt: skip
    no = Answer(400, [json.dumps(body).encode()])
    gate = Gate(
        tmp_path, [cut(dialect, 20), no],
        models=models(dialect, retries={"attempts": 3, "backoff": [0.001, 0.001]}),
    )  # fmt: skip
    heard = Heard(dialect, (await gate.ask(dialect)).whole)
    assert len(gate.upstream.asked) == 2  # type: ignore[union-attr]
    assert heard.errors == ["midwatch_cut"]
    assert [row.state for row in await gate.rows()] == [CallState.SETTLED, CallState.RELEASED]


async def test_a_continuation_that_fails_before_it_says_anything_is_tried_again_within_the_bounds(
    tmp_path: Path,
) -> None:
    rest = answer(CHAT, stream_of(CHAT, WORDS[20:]))
    gate = Gate(
        tmp_path, [cut(CHAT, 20), Refuse(), Answer(503), rest],
        models=models(CHAT, retries={"attempts": 2, "backoff": [0.001, 0.001]}),
    )  # fmt: skip
    out = await gate.ask(CHAT)
    assert Heard(CHAT, out.whole).text == WHOLE
    gate = Gate(
        tmp_path, [cut(CHAT, 20), Refuse(), Answer(503)],
        models=models(CHAT, retries={"attempts": 1, "backoff": [0.001, 0.001]}),
    )  # fmt: skip
    assert Heard(CHAT, (await gate.ask(CHAT)).whole).errors == ["midwatch_cut"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_answer_may_break_off_twice(dialect: str, tmp_path: Path) -> None:
    second = answer(dialect, stream_of(dialect, WORDS[20:], ident="two")[:21])
    third = answer(dialect, stream_of(dialect, WORDS[40:], ident="three"))
    gate = Gate(
        tmp_path, [cut(dialect, 20), second, third],
        models=models(dialect, retries={"attempts": 1, "backoff": [0.001, 0.001]}),
    )  # fmt: skip
    heard = Heard(dialect, (await gate.ask(dialect)).whole)
    assert (heard.text, heard.idents, heard.errors) == (WHOLE, {"one"}, [])
    assert len(await gate.rows()) == 3


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_restart_goes_on_when_the_new_answer_begins_alike(
    dialect: str, tmp_path: Path
) -> None:
    again = answer(dialect, stream_of(dialect, ["w0 w1 ", *WORDS[2:]], ident="two"))
    gate, out, heard = await went_on(
        tmp_path, dialect, cut(dialect, 40), again, policy="restart", able=False
    )
    assert (heard.text, heard.errors, heard.idents, out.ended) == (WHOLE, [], {"one"}, True)
    assert "prefix" not in json.dumps(gate.asked(1))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("other", [["w0 ", "but ", "otherwise"], WORDS[:20]])
async def test_restart_ends_with_an_error_when_the_new_answer_is_another(
    dialect: str, other: list[str], tmp_path: Path
) -> None:
    gate, _, heard = await went_on(
        tmp_path, dialect, cut(dialect, 40), answer(dialect, stream_of(dialect, other)), policy="restart"
    )  # fmt: skip
    assert heard.errors == ["midwatch_cut"]
    assert heard.text == "".join(WORDS[:40])
    assert heard.finishes == []
    assert len(await gate.rows()) == 2


async def test_a_tool_call_that_was_begun_is_not_gone_on_with(tmp_path: Path) -> None:
    call = {"index": 0, "id": "c", "function": {"name": "look", "arguments": '{"a'}}
    chunk = event(
        {
            "id": "one",
            "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}],
        }
    )
    gate = Gate(tmp_path, [answer(CHAT, [chunk])], models=models(CHAT))
    assert Heard(CHAT, (await gate.ask(CHAT)).whole).errors == ["midwatch_cut"]


async def test_a_budget_that_has_no_room_for_the_rest_ends_the_stream_with_its_own_error(
    tmp_path: Path,
) -> None:
    gate = Gate(
        tmp_path, [cut(MESSAGES, 40)], models=models(MESSAGES), agent={"budget": {"total": 4_000_000}}
    )  # fmt: skip
    heard = Heard(MESSAGES, (await gate.ask(MESSAGES)).whole)
    assert heard.errors == ["midwatch_budget"]
    assert heard.ends == 0


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_complete_answer_whose_end_is_cut_off_is_no_cut(
    dialect: str, tmp_path: Path
) -> None:
    pieces: list[Any] = list(stream_of(dialect, WORDS[:5]))
    end = {CHAT: b"data: [DONE]\n\n", ARRAY: b"]"}.get(dialect, b"")
    pieces[-1] = pieces[-1].removesuffix(end)
    if dialect == MESSAGES:
        pieces[-1] = pieces[-1][: pieces[-1].index(b"event: message_stop")]
    gate = Gate(tmp_path, [answer(dialect, [*pieces, Break()])], models=models(dialect))
    out = await gate.ask(dialect)
    heard = Heard(dialect, out.whole)
    assert (heard.errors, out.ended, len(heard.finishes)) == ([], True, 1)
    assert heard.ends == (1 if dialect in (CHAT, MESSAGES) else 0)
    [row] = await gate.rows()
    assert not row.estimated


# -- responses: restarted, never continued ---------------------------------------------------------


def restarting(policy: str = "restart") -> dict[str, Any]:
    chain = {HOME[RESPONSES]: [HOME[RESPONSES], NEXT[RESPONSES]]}
    return {"on_cut": policy, "chains": chain}


@pytest.mark.parametrize("count", [1, 40, 60, "done"])
async def test_a_response_is_restarted_as_one_response(count: int | str, tmp_path: Path) -> None:
    pieces = stream_of(RESPONSES, WORDS)
    if count == "done":  # all is there but the response itself
        parts = pieces[-1].split(b"\n\n")
        pieces[-1] = b"\n\n".join(parts[:3]) + b"\n\n"
        begun = pieces
    else:
        begun = pieces[: int(count) + 1]
    again = answer(RESPONSES, stream_of(RESPONSES, ["w0 w1 ", *WORDS[2:]], ident="two"))
    gate = Gate(tmp_path, [answer(RESPONSES, [*begun, Break()]), again], models=restarting())
    out = await gate.ask(RESPONSES)
    heard = Heard(RESPONSES, out.whole)
    assert (heard.text, heard.errors, heard.finishes, out.ended) == (WHOLE, [], ["completed"], True)
    events = [json.loads(e.partition(b"data: ")[2]) for e in out.whole.strip().split(b"\n\n")]
    assert [e["sequence_number"] for e in events] == list(range(len(events)))
    kinds = [e["type"] for e in events]
    for kind in ("created", "content_part.added", "output_text.done", "content_part.done", "completed"):  # fmt: skip
        assert kinds.count(f"response.{kind}") == 1, kind
    assert {e["item_id"] for e in events if "item_id" in e} == {"msg_one"}
    assert {e["output_index"] for e in events if "item_id" in e} == {1}
    assert [e["item"]["id"] for e in events if "item" in e] == ["rs", "rs", "msg_one", "msg_one"]
    rows = await gate.rows()
    usage = events[-1]["response"]["usage"]
    assert usage["output_tokens"] == sum(row.output_tokens for row in rows)
    assert events[-1]["response"]["id"] == "two", "to which alone a further request can refer"


async def test_a_response_may_break_off_twice(tmp_path: Path) -> None:
    second = answer(RESPONSES, stream_of(RESPONSES, WORDS, ident="two")[:41])
    third = answer(RESPONSES, stream_of(RESPONSES, WORDS, ident="three"))
    script = [answer(RESPONSES, stream_of(RESPONSES, WORDS)[:21]), second, third]
    models = {**restarting(), "retries": {"attempts": 1, "backoff": [0.001, 0.001]}}
    gate = Gate(tmp_path, script, models=models)
    heard = Heard(RESPONSES, (await gate.ask(RESPONSES)).whole)
    assert (heard.text, heard.errors) == (WHOLE, [])


async def test_a_response_that_begins_otherwise_ends_with_an_error_behind_the_last_number(
    tmp_path: Path,
) -> None:
    other = answer(RESPONSES, stream_of(RESPONSES, ["w0 ", "but"], ident="two"))
    begun = stream_of(RESPONSES, WORDS)[:21]
    gate = Gate(tmp_path, [answer(RESPONSES, begun), other], models=restarting())
    out = await gate.ask(RESPONSES)
    heard = Heard(RESPONSES, out.whole)
    assert (heard.text, heard.errors) == ("".join(WORDS[:20]), ["midwatch_cut"])
    events = [json.loads(e.partition(b"data: ")[2]) for e in out.whole.strip().split(b"\n\n")]
    assert [e["sequence_number"] for e in events] == list(range(len(events)))


async def test_the_error_of_a_response_that_broke_off_twice_stands_behind_the_last_number(
    tmp_path: Path,
) -> None:
    parts = {"one": 21, "two": 31}
    begun = [answer(RESPONSES, stream_of(RESPONSES, WORDS, ident=i)[:n]) for i, n in parts.items()]
    gate = Gate(tmp_path, begun, models=restarting())
    out = await gate.ask(RESPONSES)
    heard = Heard(RESPONSES, out.whole)
    assert (heard.text, heard.errors) == ("".join(WORDS[:30]), ["midwatch_cut"])
    events = [json.loads(e.partition(b"data: ")[2]) for e in out.whole.strip().split(b"\n\n")]
    assert [e["sequence_number"] for e in events] == list(range(len(events)))


@pytest.mark.parametrize("begun", [1, 21])
async def test_a_response_is_not_continued_and_its_client_knows_why(
    begun: int, tmp_path: Path
) -> None:
    pieces = stream_of(RESPONSES, WORDS)[:begun]
    gate = Gate(tmp_path, [answer(RESPONSES, pieces)] * 9, models=restarting("continue"))
    out = await gate.ask(RESPONSES)
    if begun == 1:
        assert out.status == 502, "nothing of it had reached the client"
    else:
        assert b"responses cannot be continued, only restarted" in out.whole
        assert len(await gate.rows()) == 1
