"""Bodies: who is held is not read, what is large is read beside the loop, and no agent's bodies crowd out another's."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import Gate
from midwatch.core.calls.account import Payer
from midwatch.gateway import dialects, intake
from midwatch.gateway.dialects import bodies
from midwatch.gateway.holds import HoldKind
from midwatch.gateway.http.played import PlayedIncoming, PlayedOutgoing
from midwatch.gateway.http.port import BodyRefused
from midwatch.gateway.upstream.scripted import Answer, ScriptedUpstream

BODY = {
    "id": "x", "model": "gpt-4o-mini", "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
}  # fmt: skip
WHOLE = Answer(200, [json.dumps(BODY).encode()])


def question(prompt: str = "hi", **more: Any) -> bytes:
    body = {"model": "openai/gpt-4o-mini", "max_tokens": 5, **more}
    return json.dumps({**body, "messages": [{"role": "user", "content": prompt}]}).encode()


def request(body: bytes, *, announce: bool = True, **headers: str) -> PlayedIncoming:
    given = [("content-type", "application/json"), *((n.replace("_", "-"), v) for n, v in headers.items())]  # fmt: skip
    if announce:
        given.append(("content-length", str(len(body))))
    return PlayedIncoming("POST", "/v1/chat/completions", "", given, body)


async def ask(gate: Gate, incoming: PlayedIncoming, agent: str = "inbox") -> PlayedOutgoing:
    await gate.start()
    out = PlayedOutgoing()
    gate.payer = Payer(agent, "inbox", run="r1")
    await gate.gateway.handle(incoming, out)
    return out


def type_of(out: PlayedOutgoing) -> str:
    return json.loads(out.whole)["error"]["type"]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads in which bodies are read, by name."""
    seen: list[str] = []
    read = dialects.read

    def noted(route: dialects.Route, headers: Any, body: bytes) -> Any:
        seen.append(threading.current_thread().name)
        return read(route, headers, body)

    monkeypatch.setattr(dialects, "read", noted)
    return seen


async def test_the_body_of_a_held_agent_is_not_even_received(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    await gate.start()
    gate.holds.hold("inbox", HoldKind.SUSPENDED, "lunch")
    incoming = request(b"")
    incoming.fails = BodyRefused(413, "too_long", "somebody asked for it")
    for agent in ("inbox", "inbox:search"):
        out = await ask(gate, incoming, agent)
        assert (out.status, type_of(out)) == (403, "midwatch_suspended")
    assert (gate.counts["told.call"], gate.counts["refused.midwatch_suspended"]) == (2, 2)


async def test_a_large_body_and_one_of_many_values_are_read_beside_the_loop(
    tmp_path: Path, threads: list[str]
) -> None:
    gate = Gate(tmp_path, [WHOLE] * 4)
    many = question(stop=["x"] * 5_000)
    assert len(many) < intake.LARGE_BYTES
    for body, announce in (
        (question("a" * 300_000), True),
        (question("b" * 300_000), False),
        (many, True),
        (question("small"), True),
    ):
        assert (await ask(gate, request(body, announce=announce))).status == 200
    here = threading.current_thread().name
    assert [name.startswith("bodies") for name in threads] == [True, True, True, False]
    assert threads[3] == here


async def test_what_a_body_was_unpacked_to_counts_as_held(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [WHOLE])
    plain = question("a" * 5_000)
    incoming = request(gzip.compress(plain), content_encoding="gzip")
    assert (await ask(gate, incoming)).status == 200
    assert incoming.held == len(plain)
    assert gate.asked(0)["messages"][0]["content"] == "a" * 5_000


async def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    bomb = request(gzip.compress(question("a" * 20_000_000)), content_encoding="gzip")
    out = await ask(gate, bomb)
    assert (out.status, bomb.held) == (413, 0)
    assert "larger than 32 times what came" in json.loads(out.whole)["error"]["message"]


async def test_an_agents_large_bodies_are_bounded_together_and_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "AGENT_BYTES", 1_000_000)
    asked, answer = asyncio.Event(), asyncio.Event()

    class Waits(ScriptedUpstream):
        async def open(self, request: Any) -> Any:
            asked.set()
            await answer.wait()
            return await super().open(request)

    gate = Gate(tmp_path, Waits([WHOLE] * 4), real_time=True)
    first = asyncio.create_task(ask(gate, request(question("a" * 600_000)), "inbox:one"))
    async with asyncio.timeout(20):
        await asked.wait()
    for announce in (True, False):
        refused = await ask(gate, request(question("b" * 600_000), announce=announce), "inbox:two")
        assert (refused.status, type_of(refused)) == (429, "midwatch_limit")
        assert refused.headed["x-should-retry"] == "true"
    other = asyncio.create_task(ask(gate, request(question("c" * 600_000)), "other"))
    small = asyncio.create_task(ask(gate, request(question("small"))))
    answer.set()
    assert [(await one).status for one in (first, other, small)] == [200] * 3
    assert (await ask(gate, request(question("d" * 600_000)), "inbox:two")).status == 200


async def test_one_agents_bodies_are_read_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    may_go = threading.Event()
    read = dialects.read

    def slow(route: dialects.Route, headers: Any, body: bytes) -> Any:
        assert may_go.wait(20)
        found = read(route, headers, body)
        order.append(found.prompt[0])
        return found

    monkeypatch.setattr(dialects, "read", slow)
    gate = Gate(tmp_path, [WHOLE] * 4, real_time=True)
    loud = [asyncio.create_task(ask(gate, request(question("a" * 300_000)))) for _ in range(3)]
    while len(gate.gateway._intake._agents) < 1:
        await asyncio.sleep(0)
    quiet = asyncio.create_task(ask(gate, request(question("b" * 300_000)), "other"))
    while len(gate.gateway._intake._agents) < 2:
        await asyncio.sleep(0)
    may_go.set()
    assert [out.status for out in await asyncio.gather(*loud, quiet)] == [200] * 4
    assert order.index("b") <= 1, "it waits for one of the other's bodies at the most"
    assert gate.gateway._intake._agents == {}, "nothing is left of calls that are over"


async def test_an_agents_own_bound_for_bodies_holds(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [WHOLE], agent={"calls": {"limits": {"body": 1_024}}})
    assert (await ask(gate, request(question("a" * 2_000)))).status == 413
    assert (await ask(gate, request(question("small")))).status == 200


async def test_a_long_body_is_changed_for_its_provider_beside_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    outgoing = dialects.outgoing

    def noted(ask: Any, body: bytes, model: str, **more: Any) -> bytes:
        seen.append(threading.current_thread().name)
        return outgoing(ask, body, model, **more)

    monkeypatch.setattr(dialects, "outgoing", noted)
    gate = Gate(tmp_path, [WHOLE] * 2)
    for size in (300_000, 3):
        assert (await ask(gate, request(question("a" * size)))).status == 200
    here = threading.current_thread().name
    assert [name == here for name in seen] == [False, True]
    assert gate.asked(0)["model"] == "gpt-4o-mini"


async def test_commas_of_a_text_are_no_values(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [WHOLE])
    assert (await ask(gate, request(question("1,[2],{3}" * 200_000)))).status == 200
    many = await ask(gate, request(question(stop=[1] * 500_000)))
    assert (many.status, type_of(many)) == (413, "midwatch_bad_request")


def values(found: Any) -> int:
    """Return how many values there are besides the outermost, and how many of them hold others."""
    inner = list(found.values()) if isinstance(found, dict) else found if isinstance(found, list) else []  # fmt: skip
    return sum(1 + values(one) for one in inner)


TREE = st.recursive(
    st.none() | st.integers() | st.text(alphabet='a"\\,[]{}: \n'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet='a",[{\\'), inner, max_size=4),
    max_leaves=30,
)  # fmt: skip


@given(TREE, st.booleans())
def test_no_body_holds_more_values_than_were_counted(found: Any, spaced: bool) -> None:
    body = json.dumps(found, indent=1 if spaced else None).encode()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bodies, "MAX_VALUES", 0)
        assert bodies.values_of(body) <= 1, "it is enough to know that there are too many"
    counted = sum(1 for _ in bodies._VALUE.finditer(body))
    assert counted >= values(found)
    assert counted <= 2 * values(found) + 10


@given(st.binary(max_size=300))
def test_what_is_no_json_is_gone_over_once_too(body: bytes) -> None:
    ends = [match.end() for match in bodies._VALUE.finditer(body)]
    assert ends == sorted(ends)
    assert ends[-1:] == [len(body)]
