"""Answers that are given again, marks for the provider's prompt cache, and the word to a model that repeats itself."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import (
    CHAT,
    DIALECTS,
    HOME,
    MESSAGES,
    NEXT,
    Gate,
    Heard,
    answer,
    question,
    stream_of,
)
from midwatch.core.calls.account import Payer
from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.calls.charge import CallState
from midwatch.gateway import again, asking, cached, refusals
from midwatch.gateway.dialects import additions
from midwatch.gateway.holds import HoldKind
from midwatch.gateway.http.played import PlayedOutgoing
from midwatch.gateway.ledger.memory import MemoryLedger
from midwatch.gateway.upstream.scripted import Answer, Break

CACHE = {"calls": {"cache": 60.0}}
WORDS = ["a ", "b ", "c"]


def whole(text: str = "Yes.", finish: str = "stop", **message: Any) -> Answer:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    said = {"role": "assistant", "content": text, **message}
    body = {"id": "x", "model": "gpt-4o-mini", "choices": [{"index": 0, "message": said, "finish_reason": finish}], "usage": usage}  # fmt: skip
    return Answer(200, [json.dumps(body).encode()])


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_stream_is_given_again_as_the_stream_that_it_was(
    dialect: str, tmp_path: Path
) -> None:
    gate = Gate(tmp_path, [answer(dialect, stream_of(dialect, WORDS))], agent=CACHE)
    first = await gate.ask(dialect)
    again = await gate.ask(dialect)
    assert (first.headed["x-midwatch-cache"], again.headed["x-midwatch-cache"]) == ("miss", "hit")
    assert again.whole == first.whole
    assert len(again.pieces) == len(first.pieces) > 1
    assert Heard(dialect, again.whole).text == "a b c"
    assert again.headed["content-type"] == first.headed["content-type"]
    assert again.headed["x-midwatch-cost-usd"] == "0"
    assert again.headed["x-midwatch-call"] != first.headed["x-midwatch-call"]
    rows = await gate.rows()
    assert [row.outcome for row in rows] == ["ok", "cached"]
    assert (rows[1].state, rows[1].cost_nusd) == (CallState.SETTLED, 0)
    assert rows[1].saved_nusd == rows[0].cost_nusd > 0


async def test_spacing_and_the_order_of_keys_make_no_other_request(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [whole()], agent=CACHE)
    await gate.ask(CHAT, stream=False, temperature=0, seed=1)
    out = await gate.ask(CHAT, stream=False, seed=1, temperature=0)
    assert out.headed["x-midwatch-cache"] == "hit"


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "Another story."},
        {"temperature": 0.5},
        {"model": NEXT[CHAT]},
        {"headers": [("openai-beta", "x")]},
        {"stream": True},
    ],
)
async def test_whatever_changes_an_answer_makes_another_request(
    other: dict[str, Any], tmp_path: Path
) -> None:
    second = answer(CHAT, stream_of(CHAT, WORDS)) if other.get("stream") else whole("No.")
    gate = Gate(tmp_path, [whole(), second], agent=CACHE)
    await gate.ask(CHAT, stream=False)
    out = await gate.ask(CHAT, **{"stream": False, **other})
    assert out.headed["x-midwatch-cache"] == "miss"


async def test_another_agent_does_not_get_it(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [whole(), whole("No.")], agent=CACHE)
    await gate.ask(CHAT, stream=False)
    gate.payer = Payer("inbox", "inbox")
    assert (await gate.ask(CHAT, stream=False)).headed["x-midwatch-cache"] == "hit"
    gate.payer = Payer("inbox", "other")
    assert (await gate.ask(CHAT, stream=False)).headed.get("x-midwatch-cache") is None


async def test_it_is_over_when_its_time_is_over_and_off_unless_it_is_asked_for(
    tmp_path: Path,
) -> None:
    gate = Gate(tmp_path, [whole(), whole("No.")], agent=CACHE)
    await gate.ask(CHAT, stream=False)
    gate.clock.passed += 61
    assert (await gate.ask(CHAT, stream=False)).headed["x-midwatch-cache"] == "miss"
    gate = Gate(tmp_path, [whole(), whole("No.")])
    await gate.ask(CHAT, stream=False)
    out = await gate.ask(CHAT, stream=False)
    assert "x-midwatch-cache" not in out.headed
    assert b"No." in out.whole


async def test_the_client_may_want_a_fresh_answer_or_none_kept(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [whole("1"), whole("2"), whole("3"), whole("4")], agent=CACHE)
    none = [("cache-control", "no-store")]
    fresh = [("cache-control", "no-cache")]

    async def said(headers: list[tuple[str, str]]) -> str:
        out = await gate.ask(CHAT, stream=False, headers=headers)
        return str(json.loads(out.whole)["choices"][0]["message"]["content"])

    assert await said(none) == "1"
    assert await said([]) == "2", "the first was not kept"
    assert await said(fresh) == "3"
    assert await said([]) == "3", "the fresh one was"


@pytest.mark.parametrize(
    "bad",
    [
        [Answer(400, [b'{"error": {"message": "no"}}'])],
        [whole("", "content_filter")],
        [whole("", refusal="I will not.")],
        [answer(CHAT, [*stream_of(CHAT, WORDS)[:3], Break()])],
    ],
)
async def test_what_is_no_whole_good_answer_is_not_kept(bad: list[Answer], tmp_path: Path) -> None:
    stream = bad[0].headers[0][1].startswith("text")
    good = answer(CHAT, stream_of(CHAT, WORDS)) if stream else whole()
    gate = Gate(tmp_path, [*bad, good], agent=CACHE)
    await gate.ask(CHAT, stream=stream)
    assert (await gate.ask(CHAT, stream=stream)).headed["x-midwatch-cache"] == "miss"


async def test_what_a_fallback_or_a_cheaper_model_answered_is_not_kept(tmp_path: Path) -> None:
    chains = {"best": [HOME[CHAT], NEXT[CHAT]]}
    busy = Answer(503, [b'{"error": {"message": "busy"}}'])
    gate = Gate(tmp_path, [busy, whole("No."), whole()], agent=CACHE, models={"chains": chains})
    first = await gate.ask(CHAT, model="best", stream=False)
    assert first.headed["x-midwatch-fallback"] == "1"
    again = await gate.ask(CHAT, model="best", stream=False)
    assert (again.headed["x-midwatch-cache"], b"Yes." in again.whole) == ("miss", True)
    hit = await gate.ask(CHAT, model="best", stream=False)
    assert (hit.headed["x-midwatch-cache"], hit.headed["x-midwatch-model"]) == ("hit", HOME[CHAT])

    budget = {"per_call": "$0.001", "on_exhausted": HOME[CHAT]}
    gate = Gate(tmp_path, [whole("No."), whole()], agent={**CACHE, "budget": budget})
    dear: dict[str, Any] = {"model": "openai/gpt-4o", "stream": False, "max_tokens": 500}
    moved = await gate.ask(CHAT, **dear)
    assert moved.headed["x-midwatch-model"] == HOME[CHAT]
    assert (await gate.ask(CHAT, **dear)).headed["x-midwatch-cache"] == "miss"


async def test_while_the_ledger_is_down_nothing_is_given_and_nobody_is_asked(
    tmp_path: Path,
) -> None:
    gate = Gate(tmp_path, [whole()], agent=CACHE)
    await gate.ask(CHAT, stream=False)
    assert isinstance(gate.ledger, MemoryLedger)
    gate.ledger.down = "the disk is full"
    refused = await gate.ask(CHAT, stream=False)
    assert (refused.status, b"the disk is full" in refused.whole) == (503, True)
    gate.ledger.down = None
    assert (await gate.ask(CHAT, stream=False)).headed["x-midwatch-cache"] == "hit"
    assert [row.outcome for row in await gate.rows()] == ["ok", "cached"]


async def test_a_request_is_hashed_once_and_a_long_one_byte_by_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []
    real = again.key_of
    monkeypatch.setattr(again, "key_of", lambda *of: hashed.append(1) or real(*of))
    gate = Gate(tmp_path, [whole(), whole()], agent=CACHE)
    long = "word " * (cached.PARSED_BYTES // 4)
    await gate.ask(CHAT, stream=False, prompt=long, temperature=0, seed=1)
    assert len(hashed) == 1
    hit = await gate.ask(CHAT, stream=False, prompt=long, temperature=0, seed=1)
    other = await gate.ask(CHAT, stream=False, prompt=long, seed=1, temperature=0)
    assert [out.headed["x-midwatch-cache"] for out in (hit, other)] == ["hit", "miss"]


async def test_a_continued_answer_is_not_kept(tmp_path: Path) -> None:
    home = HOME[MESSAGES]
    script = [
        answer(MESSAGES, [*stream_of(MESSAGES, WORDS)[:3], Break()]),
        answer(MESSAGES, stream_of(MESSAGES, WORDS[2:])),
        answer(MESSAGES, stream_of(MESSAGES, WORDS)),
    ]
    models = {"retries": {"attempts": 1, "backoff": [0.001, 0.001]}, "about": {home.rpartition("/")[2]: {"prefill": True}}}  # fmt: skip
    gate = Gate(tmp_path, script, agent=CACHE, models=models)
    assert Heard(MESSAGES, (await gate.ask(MESSAGES)).whole).text == "a b c"
    assert (await gate.ask(MESSAGES)).headed["x-midwatch-cache"] == "miss"


async def test_answers_survive_the_process_and_nobody_else_may_read_them(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [answer(CHAT, stream_of(CHAT, WORDS))], agent=CACHE, disk=True)
    first = await gate.ask(CHAT)
    assert gate.house.answers is not None
    await gate.house.answers.close()
    for path in tmp_path.glob("answers.db*"):
        assert path.stat().st_mode & 0o077 == 0
    gate = Gate(tmp_path, [], agent=CACHE, disk=True)
    again = await gate.ask(CHAT)
    assert (again.headed["x-midwatch-cache"], again.whole) == ("hit", first.whole)
    assert gate.house.answers is not None
    await gate.house.answers.close()


async def test_a_broken_file_is_no_answer_and_no_failure(tmp_path: Path) -> None:
    (tmp_path / "answers.db").write_bytes(b"this is no database" * 100)
    gate = Gate(tmp_path, [whole(), whole("No.")], agent=CACHE, disk=True)
    for expected in ("miss", "hit"):
        out = await gate.ask(CHAT, stream=False)
        assert (out.status, out.headed["x-midwatch-cache"]) == (200, expected)
    assert gate.counts["cache.read_failed"] == 1
    assert gate.house.answers is not None
    await gate.house.answers.close()


async def test_memory_and_disk_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "MAX_MEMORY_BYTES", 5_000)
    monkeypatch.setattr(cached, "MAX_DISK_BYTES", 20_000)
    monkeypatch.setattr(cached, "SWEEP_EVERY", 1)
    gate = Gate(tmp_path, disk=True)
    cache = gate.house.answers
    assert cache is not None
    monkeypatch.setattr(cached, "SWEEP_EVERY", 2)
    for number in range(200):
        kept = cached.Kept(0.0, 100.0 + number, 200, (), (b"x" * 1_000,), False, "p", "m", 1)
        cache.put(f"{number}", kept)
    assert await cache.get("199", 50.0) is not None
    assert await cache.get("0", 50.0) is None
    await cache.close()
    sizes = sum(path.stat().st_size for path in tmp_path.glob("answers.db"))
    assert sizes < 400_000


async def test_a_budget_that_is_used_up_does_not_keep_from_what_is_free(tmp_path: Path) -> None:
    agent = {**CACHE, "budget": {"total": 500_000}}
    gate = Gate(tmp_path, [whole(), *[whole("No.")] * 50], agent=agent)
    more = {"max_tokens": 100}
    await gate.ask(CHAT, stream=False, **more)
    for number in range(50):
        if (await gate.ask(CHAT, stream=False, prompt=f"{number}" * 9_000, **more)).status == 403:
            break
    else:
        pytest.fail("the budget was never used up")
    out = await gate.ask(CHAT, stream=False, **more)
    assert (out.status, out.headed["x-midwatch-cache"]) == (200, "hit")


# -- marks for the provider's prompt cache -----------------------------------------------------------

LONG = "You are careful and say little. " * 300


@pytest.mark.parametrize("form", ["text", "blocks", "tools"])
async def test_the_stable_beginning_is_marked_and_the_saving_told(
    form: str, tmp_path: Path
) -> None:
    pieces = stream_of(MESSAGES, WORDS)
    usage = {"input_tokens": 20, "output_tokens": 1, "cache_read_input_tokens": 2_000}
    pieces[0] = pieces[0].replace(
        json.dumps({"input_tokens": 10, "output_tokens": 1}).encode(), json.dumps(usage).encode()
    )
    gate = Gate(tmp_path, [answer(MESSAGES, pieces)], agent={"calls": {"prompt_cache": True}})
    tool = {"name": "look", "description": LONG, "input_schema": {"type": "object"}}
    given: dict[str, Any] = {
        "text": {"system": LONG},
        "blocks": {"system": [{"type": "text", "text": LONG}, {"type": "text", "text": "x"}]},
        "tools": {"tools": [tool]},
    }[form]
    await gate.ask(MESSAGES, **given)
    asked = gate.asked(0)
    place = asked["tools"] if form == "tools" else asked["system"]
    assert place[-1]["cache_control"] == {"type": "ephemeral"}
    assert json.dumps(asked).count("cache_control") == 1
    _, _, sent = question(MESSAGES, **given)
    assert asked["messages"] == sent["messages"]
    [row] = await gate.rows()
    [attempt] = row.attempts
    # Haiku 4.5: $1 and $0.10 a million
    assert attempt["cache_saved_nusd"] == 2_000 * (1_000 - 100)


@pytest.mark.parametrize(
    "given",
    [
        {"system": "Short."},
        {"system": [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]},
        {},
    ],
)
async def test_nothing_is_marked_that_is_short_or_marked_by_the_client(
    given: dict[str, Any], tmp_path: Path
) -> None:
    gate = Gate(tmp_path, [answer(MESSAGES, stream_of(MESSAGES, WORDS))], agent={"calls": {"prompt_cache": True}})  # fmt: skip
    await gate.ask(MESSAGES, **given)
    assert gate.asked(0) == {**question(MESSAGES, **given)[2], "model": "claude-haiku-4-5"}


async def test_nothing_is_marked_unless_it_is_asked_for(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [answer(MESSAGES, stream_of(MESSAGES, WORDS))])
    await gate.ask(MESSAGES, system=LONG)
    assert gate.asked(0) == {**question(MESSAGES, system=LONG)[2], "model": "claude-haiku-4-5"}


# -- the word to a model that repeats itself ---------------------------------------------------------


def looked(times: int) -> list[dict[str, Any]]:
    """A conversation in which the same tool was called so often."""
    said: list[dict[str, Any]] = [{"role": "user", "content": "Find it."}]
    for number in range(times):
        call = {
            "id": f"c{number}",
            "type": "function",
            "function": {"name": "look", "arguments": "{}"},
        }
        said.append({"role": "assistant", "content": None, "tool_calls": [call]})
        said.append({"role": "tool", "tool_call_id": f"c{number}", "content": "nothing"})
    return said


async def test_a_row_of_the_same_call_is_told_to_the_model_once(tmp_path: Path) -> None:
    agent = {"calls": {"nudge": True}, "loop": {"same_call": 6}}
    gate = Gate(tmp_path, [whole() for _ in range(4)], agent=agent)
    for times in range(1, 5):
        await gate.ask(CHAT, stream=False, messages=looked(times))
    notes = [[m for m in gate.asked(n)["messages"] if m["role"] == "system"] for n in range(4)]
    assert [len(note) for note in notes] == [0, 0, 1, 0]
    assert "3 times in a row" in notes[2][0]["content"]
    assert gate.asked(2)["messages"][:-1] == looked(3)
    assert gate.counts["loop.nudged"] == 1


async def test_a_kill_ends_a_stream_that_is_given_again_to_a_client_that_does_not_read(
    tmp_path: Path,
) -> None:
    gate = Gate(tmp_path, [answer(CHAT, stream_of(CHAT, ["Yes."]))], agent=CACHE)
    await gate.ask(CHAT)
    out = PlayedOutgoing()
    out.room.clear()
    task = asyncio.create_task(gate.ask(CHAT, out=out))
    async with asyncio.timeout(30):
        while not out.begun:
            await asyncio.sleep(0)
        [call] = gate.gateway.calls_of("inbox")
        call.kill(refusals.stopping())
        await task
    assert (out.aborted, gate.gateway.under_way) == (True, {})


async def test_a_note_is_put_into_a_long_request_beside_the_event_loop_and_a_hold_meanwhile_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = {"calls": {"nudge": True}, "loop": {"same_call": 6}}
    gate = Gate(tmp_path, [whole() for _ in range(2)], agent=agent)
    here, added = threading.get_ident(), additions.with_note

    def holding(*given: Any) -> bytes:
        assert threading.get_ident() != here
        loop.call_soon_threadsafe(gate.holds.hold, "inbox", HoldKind.SUSPENDED, "enough")
        return added(*given)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(additions, "with_note", holding)
    for times in range(1, 4):
        said = looked(times)
        said[0]["content"] = "Find it. " * asking.LONG_BYTES
        out = await gate.ask(CHAT, stream=False, messages=said)
    assert (out.status, gate.counts["loop.nudged"]) == (403, 1)
    assert json.loads(out.whole)["error"]["type"] == "midwatch_suspended"


async def test_without_the_option_nothing_is_added(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [whole() for _ in range(4)], agent={"loop": {"same_call": 6}})
    for times in range(1, 5):
        await gate.ask(CHAT, stream=False, messages=looked(times))
        assert gate.asked(times - 1)["messages"] == looked(times)


@pytest.mark.parametrize("last", ["text", "blocks"])
def test_a_note_to_claude_stands_in_the_users_last_message(last: str) -> None:
    content: Any = (
        "Find it."
        if last == "text"
        else [{"type": "tool_result", "tool_use_id": "t", "content": "no"}]
    )
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()
    noted = json.loads(
        additions.with_note(Ask(Kind.ANTHROPIC, Dialect.MESSAGES, "m"), body, 'a "note"')
    )
    [message] = noted["messages"]
    assert message["content"][-1] == {"type": "text", "text": 'a "note"'}
    assert len(message["content"]) == 2


def test_notes_to_gemini_and_to_responses_stand_at_the_end() -> None:
    body = json.dumps({"contents": [{"role": "user", "parts": [{"text": "x"}]}]}).encode()
    noted = json.loads(additions.with_note(Ask(Kind.GEMINI, Dialect.GENERATE, "m"), body, "note"))
    assert noted["contents"][-1] == {"role": "user", "parts": [{"text": "note"}]}
    for given in ("Find it.", [{"role": "user", "content": "Find it."}]):
        body = json.dumps({"model": "m", "input": given}).encode()
        noted = json.loads(
            additions.with_note(Ask(Kind.OPENAI, Dialect.RESPONSES, "m"), body, "note")
        )
        assert noted["input"] == [
            {"role": "user", "content": "Find it."},
            {"role": "developer", "content": "note"},
        ]
