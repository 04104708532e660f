"""An answer that breaks off where no prefill is taken: a further request asks for the rest, only where the fleet file
says so; the seam is marked, and an answer that does not begin with the last words is none."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    stream_of,
)
from midwatch.core.calls.charge import CallState
from midwatch.gateway import mending, self_routes, spans
from midwatch.gateway.carried import Carried
from midwatch.gateway.counted import Counted
from midwatch.gateway.dialects import Route
from midwatch.gateway.http.played import PlayedOutgoing
from midwatch.gateway.mending import ANCHOR, Mending, Way
from midwatch.gateway.upstream.scripted import Answer, Break, Silence

WORDS = [f"w{n} " for n in range(60)]
WHOLE = "".join(WORDS)
ALL = (*DIALECTS, RESPONSES)
LAST = [f"w{n} " for n in range(20, 40)]
"""The last 80 characters of the first forty words."""
MARK = b'"midwatch":{"seam":"unproven"}'


def models(dialect: str, *, asked: bool = True, **more: Any) -> dict[str, Any]:
    """A chain of two of which neither takes a beginning; the second may be asked for the rest."""
    home, second = HOME[dialect], NEXT[dialect]
    name = home.rpartition("/")[2] if dialect in (GENERATE, ARRAY) else home
    about = {
        home.rpartition("/")[2]: {"prefill": False},
        second.rpartition("/")[2]: {"prefill": False, "continuation": asked},
    }
    return {"on_cut": "continue", "chains": {name: [home, second]}, "about": about, **more}


def cut(dialect: str, count: int, *how: Break | Silence) -> Answer:
    return answer(dialect, [*stream_of(dialect, WORDS)[: count + 1], *how])


def rest(dialect: str, *words: str, **more: Any) -> Answer:
    return answer(dialect, stream_of(dialect, words, ident="two", **more))


async def went_on(
    folder: Path, dialect: str, *script: Answer, ask: dict[str, Any] | None = None, **given: Any
) -> tuple[Gate, PlayedOutgoing, Heard]:
    gate = Gate(folder, script, models=models(dialect, **given))
    out = await gate.ask(dialect, **(ask or {}))
    return gate, out, Heard(dialect, out.whole)


def turns(asked: Any) -> list[Any]:
    return asked.get("messages") or asked.get("contents") or asked["input"]


def text_of(turn: Any) -> str:
    return turn["parts"][0]["text"] if "parts" in turn else turn["content"]


@pytest.mark.parametrize("dialect", ALL)
@pytest.mark.parametrize("how", ["closed", "reset", "silent"])
@pytest.mark.parametrize("before", ["", "\n\n"])
async def test_the_rest_is_asked_for_and_put_behind_what_the_client_has(
    dialect: str, how: str, before: str, tmp_path: Path
) -> None:
    ways: dict[str, tuple[Break | Silence, ...]] = {
        "closed": (),
        "reset": (Break(),),
        "silent": (Silence(),),
    }
    gate, out, heard = await went_on(
        tmp_path, dialect, cut(dialect, 40, *ways[how]), rest(dialect, before, *LAST, *WORDS[40:])
    )
    assert (heard.text, heard.errors, len(heard.finishes), out.ended) == (WHOLE, [], 1, True)
    assert heard.idents == ({"one"} if dialect != RESPONSES else {"one", "two"})
    assert out.whole.count(MARK) == 1, "behind the seam, once"
    rows = await gate.rows()
    assert [(row.state, row.outcome) for row in rows] == [
        (CallState.SETTLED, "cut"),
        (CallState.SETTLED, "ok"),
    ]
    assert [one.get("seam") for one in rows[1].attempts] == [None, "unproven"]
    assert gate.counts["stream.unproven"] == 1


@pytest.mark.parametrize("dialect", ALL)
async def test_the_model_is_shown_what_it_said_and_asked_for_the_rest(
    dialect: str, tmp_path: Path
) -> None:
    more = {RESPONSES: {"max_output_tokens": 500}, CHAT: {"max_tokens": 500}}.get(dialect, {})
    gate, _, _ = await went_on(
        tmp_path, dialect, cut(dialect, 40), rest(dialect, *LAST, *WORDS[40:]), ask=more
    )
    asked = gate.asked(1)
    user, said, note = turns(asked)
    assert text_of(user) == "Tell me a story."
    assert (said["role"], text_of(said)) == ("model" if "parts" in said else "assistant", "".join(WORDS[:40]).rstrip())  # fmt: skip
    assert note["role"] == "user"
    assert text_of(note).endswith("\n" + "".join(LAST).rstrip())
    for key in ("prefix", "partial", "continue_final_message"):
        assert key not in json.dumps(asked)
    bound = asked.get("max_tokens") or asked.get("max_output_tokens") or 560
    assert 460 < bound < 600, "what is left of the bound, and what is said again"


@pytest.mark.parametrize("dialect", ALL)
@pytest.mark.parametrize(
    "other",
    [["Here is the rest: ", *LAST], ["w39 w40 "], [*LAST[:5]], ["sorry"]],
    ids=["preamble", "short", "ends", "other"],
)
async def test_a_rest_that_does_not_begin_with_the_last_words_ends_with_an_error(
    dialect: str, other: list[str], tmp_path: Path
) -> None:
    gate, out, heard = await went_on(tmp_path, dialect, cut(dialect, 40), rest(dialect, *other))
    assert (heard.text, heard.errors, heard.finishes) == ("".join(WORDS[:40]), ["midwatch_cut"], [])
    assert MARK not in out.whole
    rows = await gate.rows()
    assert [row.state for row in rows] == [CallState.SETTLED] * 2, "made, and charged"
    assert gate.counts["stream.unproven"] == 0


@pytest.mark.parametrize("dialect", ALL)
async def test_nobody_is_asked_for_the_rest_of_whom_the_fleet_file_does_not_say_so(
    dialect: str, tmp_path: Path
) -> None:
    gate, _, heard = await went_on(tmp_path, dialect, cut(dialect, 20), asked=False)
    assert len(gate.upstream.asked) == 1  # type: ignore[union-attr]
    assert (heard.text, heard.errors) == ("".join(WORDS[:20]), ["midwatch_cut"])


@pytest.mark.parametrize("dialect", ALL)
async def test_a_model_that_rejects_the_request_is_asked_once(dialect: str, tmp_path: Path) -> None:
    body = {"error": {"type": "invalid_request_error", "code": 400, "status": "INVALID_ARGUMENT", "message": "no"}}  # fmt: skip
    no = Answer(400, [json.dumps(body).encode()])
    gate, _, heard = await went_on(
        tmp_path, dialect, cut(dialect, 20), no, no, no,
        retries={"attempts": 3, "backoff": [0.001, 0.001]},
    )  # fmt: skip
    assert len(gate.upstream.asked) == 2  # type: ignore[union-attr]
    assert heard.errors == ["midwatch_cut"]
    assert [row.state for row in await gate.rows()] == [CallState.SETTLED, CallState.RELEASED]


@pytest.mark.parametrize("dialect", ALL)
async def test_the_usage_told_is_what_all_attempts_are_charged(
    dialect: str, tmp_path: Path
) -> None:
    more = {"stream_options": {"include_usage": True}} if dialect == CHAT else {}
    gate, out, heard = await went_on(
        tmp_path, dialect, cut(dialect, 40), rest(dialect, *LAST, *WORDS[40:], usage=(300, 40)), ask=more
    )  # fmt: skip
    rows = await gate.rows()
    told = heard.usage or json.loads(out.whole.split(b"data: ")[-1])["response"]["usage"]
    output = next(told[k] for k in ("completion_tokens", "candidatesTokenCount", "output_tokens") if k in told)  # fmt: skip
    assert output == sum(row.output_tokens for row in rows)
    assert [row.cost_nusd > 0 for row in rows] == [True, True]


@pytest.mark.parametrize("dialect", ALL)
async def test_an_answer_may_break_off_twice(dialect: str, tmp_path: Path) -> None:
    script = [cut(dialect, 30)]
    script.append(answer(dialect, stream_of(dialect, [*WORDS[10:45]], ident="two")[:32]))
    script.append(rest(dialect, *WORDS[21:]))
    gate, out, heard = await went_on(
        tmp_path, dialect, *script, retries={"attempts": 1, "backoff": [0.001, 0.001]}
    )
    assert heard.errors == []
    assert heard.text == WHOLE
    assert out.whole.count(MARK) == 2, "two seams"
    assert len(await gate.rows()) == 3


async def test_a_model_that_takes_a_beginning_is_never_asked_otherwise(tmp_path: Path) -> None:
    given = models(CHAT)
    given["about"]["gpt-4o"]["prefill"] = True
    gate = Gate(tmp_path, [cut(CHAT, 40), rest(CHAT, *WORDS[40:])], models=given)
    out = await gate.ask(CHAT)
    assert Heard(CHAT, out.whole).text == WHOLE
    assert gate.asked(1)["messages"][-1]["prefix"] is True
    assert MARK not in out.whole
    assert not (await gate.rows())[1].attempts[1].get("seam")


async def test_all_that_tells_a_whole_response_has_the_whole_text(tmp_path: Path) -> None:
    _, out, _ = await went_on(
        tmp_path, RESPONSES, cut(RESPONSES, 40), rest(RESPONSES, *LAST, *WORDS[40:])
    )
    events = [json.loads(e.partition(b"data: ")[2]) for e in out.whole.strip().split(b"\n\n")]
    by_kind = {e["type"].removeprefix("response."): e for e in events}
    assert by_kind["output_text.done"]["text"] == WHOLE
    assert by_kind["content_part.done"]["part"]["text"] == WHOLE
    assert by_kind["output_item.done"]["item"]["content"][0]["text"] == WHOLE
    assert by_kind["completed"]["response"]["output"][0]["content"][0]["text"] == WHOLE
    assert [e["sequence_number"] for e in events] == list(range(len(events)))


async def test_a_response_whose_text_was_over_is_not_asked_for_more(tmp_path: Path) -> None:
    pieces = stream_of(RESPONSES, WORDS)
    pieces[-1] = b"\n\n".join(pieces[-1].split(b"\n\n")[:2]) + b"\n\n"
    gate, _, heard = await went_on(tmp_path, RESPONSES, answer(RESPONSES, [*pieces, Break()]))
    assert len(gate.upstream.asked) == 1  # type: ignore[union-attr]
    assert heard.errors == ["midwatch_cut"]


async def test_an_answer_that_must_have_a_form_is_not_asked_for_its_rest(tmp_path: Path) -> None:
    form = {"response_format": {"type": "json_object"}}
    gate, _, heard = await went_on(tmp_path, CHAT, cut(CHAT, 40), ask=form)
    assert len(gate.upstream.asked) == 1  # type: ignore[union-attr]
    assert heard.errors == ["midwatch_cut"]


async def test_a_budget_without_room_for_the_rest_ends_the_stream_with_its_own_error(
    tmp_path: Path,
) -> None:
    gate = Gate(
        tmp_path, [cut(MESSAGES, 40), rest(MESSAGES, *LAST, *WORDS[40:])], models=models(MESSAGES),
        agent={"budget": {"total": 4_000_000}},
    )  # fmt: skip
    heard = Heard(MESSAGES, (await gate.ask(MESSAGES)).whole)
    assert heard.errors == ["midwatch_budget"]
    assert heard.ends == 0


class Listening(Counted):
    """Keeps the calls that ended."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__(counts)
        self.ended_calls: list[Carried] = []

    def ended(self, call: Carried, *, cached: bool = False, saved_nusd: int = 0) -> None:
        self.ended_calls.append(call)


async def test_span_and_attempt_are_marked(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [cut(CHAT, 40), rest(CHAT, *LAST, *WORDS[40:])], models=models(CHAT))
    gate.house.tell = heard = Listening(gate.counts)
    await gate.ask(CHAT)
    [call] = heard.ended_calls
    told = spans.Told(
        call.id, call.at, 1.0, call.began, call.ask, call.payer, call.attempts, "", None
    )
    marked = [
        [a for a in span["attributes"] if a["key"] == "midwatch.seam"] for span in told.spans()
    ]
    assert [len(found) for found in marked] == [1, 0, 1], "the call, and the second attempt"
    rows = await gate.rows()
    shown = self_routes._sum(call.id, rows)["attempts"]  # pyright: ignore[reportPrivateUsage]
    assert [one.get("seam") for one in shown] == [None, "unproven"]


@given(st.text(max_size=300))
def test_the_last_words_are_the_end_of_what_was_said(said: str) -> None:
    one = Mending(Route.__new__(Route), restart=False, text=said)
    assert one.beginning.endswith(one.anchor)
    assert len(one.anchor) <= ANCHOR
    assert one.anchor.strip() == one.anchor
    assert bool(one.anchor) == bool(one.beginning)
    owed, loose = one.owed(Way.REQUEST)
    assert said.endswith(owed)
    assert len(owed) - loose == len(one.anchor)
    assert one.anchor in mending.note_of(one.anchor)
