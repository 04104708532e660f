"""Providers that nobody else knows anything of are asked what they serve, once a minute and no longer than 3 s."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import Clock, Gate
from midwatch.core.calls.account import Payer
from midwatch.core.calls.ask import Kind
from midwatch.gateway import catalogue, listing
from midwatch.gateway.catalogue import KEPT_S, MAX_LISTS, MAX_MODELS, Catalogue, names_in
from midwatch.gateway.http.played import PlayedIncoming, PlayedOutgoing
from midwatch.gateway.listing import Listed
from midwatch.gateway.upstream.scripted import Answer, Refuse, ScriptedUpstream

PROVIDERS = {
    "openai": {},
    "ollama": {"base_url": "http://127.0.0.1:9/v1", "headers": {"x-tenant": "t"}},
}
LIST = Answer(
    200, [json.dumps({"object": "list", "data": [{"id": "llama3.2"}, {"id": "qwen3"}]}).encode()]
)


def gate(folder: Path, *script: Answer | Refuse) -> Gate:
    return Gate(folder, script, models={"providers": PROVIDERS})


async def get(night: Gate, path: str, **headers: str) -> tuple[int | None, Any]:
    out = PlayedOutgoing()
    given = [("authorization", "Bearer x"), *headers.items()]
    await night.gateway.handle(PlayedIncoming("GET", path, "", given, b""), out)
    return out.status, json.loads(out.whole)


def asked(night: Gate) -> int:
    assert isinstance(night.upstream, ScriptedUpstream)
    return len(night.upstream.asked)


def pass_(clock: Clock, seconds: float) -> None:
    clock.passed += seconds


async def test_what_a_server_of_ones_own_serves_is_listed(tmp_path: Path) -> None:
    night = gate(tmp_path, LIST)
    status, listed = await get(night, "/v1/models")
    owners = {one["id"]: one["owned_by"] for one in listed["data"]}
    assert (status, owners["ollama/qwen3"], owners["gpt-4o"]) == (200, "ollama", "openai")
    assert isinstance(night.upstream, ScriptedUpstream)
    request = night.upstream.asked[0]
    assert (request.method, request.url) == ("GET", "http://127.0.0.1:9/v1/models")
    assert ("x-tenant", "t") in request.headers


async def test_it_is_asked_once_a_minute_whoever_wants_to_know(tmp_path: Path) -> None:
    night = gate(tmp_path, LIST, LIST)
    await asyncio.gather(*(get(night, "/v1/models") for _ in range(5)))
    assert (await get(night, "/v1/models/ollama%2Fqwen3"))[0] == 200
    assert (await get(night, "/v1/models/ollama%2Fnonsense"))[0] == 404
    assert asked(night) == 1
    pass_(night.clock, KEPT_S)
    await get(night, "/v1/models")
    assert asked(night) == 2
    assert night.counts["models.asked"] == 2


async def test_a_name_that_nobody_gives_is_refused_in_the_clients_words(tmp_path: Path) -> None:
    night = gate(tmp_path, LIST)
    status, told = await get(night, "/v1/models/gpt-nonsense")
    assert (status, told["error"]["type"]) == (404, "midwatch_no_provider")
    status, told = await get(
        night, "/v1/models/gpt-nonsense", **{"anthropic-version": "2023-06-01"}
    )
    assert (status, told["type"], told["error"]["type"]) == (404, "error", "midwatch_no_provider")
    status, told = await get(night, "/v1beta/models/gpt-nonsense")
    assert (status, told["error"]["status"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "said", [Refuse(), Answer(404, [b"{}"]), Answer(200, [b"<html>"]), Answer(200, [b'{"data":7}'])]
)
async def test_a_provider_that_does_not_say_is_believed_to_serve_it(
    tmp_path: Path, said: Answer | Refuse
) -> None:
    night = gate(tmp_path, said)
    assert (await get(night, "/v1/models/ollama%2Fnew"))[0] == 200
    assert (await get(night, "/v1/models"))[0] == 200
    assert (asked(night), night.counts["models.untold"]) == (1, 1)


async def test_a_fault_while_a_provider_is_asked_is_no_answer_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = gate(tmp_path, LIST, LIST)
    read = catalogue.names_in
    monkeypatch.setattr(catalogue, "names_in", lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        await get(night, "/v1/models")
    monkeypatch.setattr(catalogue, "names_in", read)
    assert (await get(night, "/v1/models"))[0] == 200


async def test_new_settings_ask_anew(tmp_path: Path) -> None:
    night = gate(tmp_path, LIST, LIST)
    await get(night, "/v1/models")
    night.house.settings = Gate(tmp_path, models={"providers": PROVIDERS}).settings
    await get(night, "/v1/models")
    assert asked(night) == 2


async def test_a_list_is_kept_for_each_key_by_itself(tmp_path: Path) -> None:
    night = gate(tmp_path, LIST)
    made_for = night.gateway._catalogue  # pyright: ignore[reportPrivateUsage]
    everything = await made_for.models(night.payer, (), Kind.OPENAI)
    assert await made_for.models(night.payer, (), Kind.OPENAI) is everything
    bound = await made_for.models(night.payer, ("ollama/*",), Kind.OPENAI)
    assert [one.name for one in bound] == ["ollama/llama3.2", "ollama/qwen3"]


def noted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return, for each list that is made, how many are made at that time."""
    under_way: list[int] = []
    most: list[int] = []
    make = listing.models

    def noting(*given: Any) -> list[Listed]:
        under_way.append(1)
        most.append(len(under_way))
        try:
            return make(*given)
        finally:
            under_way.pop()

    monkeypatch.setattr(listing, "models", noting)
    return most


async def test_names_of_sub_agents_make_no_lists_of_their_own_where_no_rule_tells_them_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = noted(monkeypatch)
    made_for = Catalogue(Gate(tmp_path, models={"providers": {"openai": {}}}).house)
    lists = [await made_for.models(Payer(f"inbox:{n}"), (), Kind.OPENAI) for n in range(5)]
    assert len(made) == 1
    assert lists[0] == lists[4]


async def test_an_agents_lists_are_made_one_after_the_other_and_crowd_out_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = noted(monkeypatch)
    rules = [{"when": "agent == 'inbox:3' && model == 'gpt-4o'", "deny": "no"}]
    models = {"providers": {"openai": {"models": ["gpt-4o"]}}, "policy": rules}
    made_for = Catalogue(Gate(tmp_path, models=models).house)

    async def listed(agent: str) -> bool:
        found = await made_for.models(Payer(agent), (), Kind.OPENAI)
        return "gpt-4o" in [one.name for one in found]

    assert await listed("honest")
    found = await asyncio.gather(*(listed(f"inbox:{n}") for n in range(3 * MAX_LISTS)))
    assert [n for n, there in enumerate(found) if not there] == [3]
    assert max(made) == 1
    assert await listed("honest")
    assert len(made) == 1 + 3 * MAX_LISTS


def test_a_list_of_very_many_values_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "MAX_VALUES", 20)
    entry = {"id": "m", "description": "a, [b], {c}, " * 50}
    assert names_in(json.dumps({"data": [entry]}).encode()) == ("m",)
    assert names_in(json.dumps({"data": [{**entry, "more": [[]] * 30}]}).encode()) is None


def test_lists_of_every_kind_are_read_and_bounded() -> None:
    assert names_in(b'{"models":[{"name":"models/gemini-x"},{"name":"models/gemini-x"}]}') == (
        "gemini-x",
    )
    assert names_in(b'[{"id":"a"},{"id":" b"},{"id":"c\\n"},{"id":7},9,{"id":""}]') == ("a",)
    many = json.dumps({"data": [{"id": f"m{n}"} for n in range(MAX_MODELS + 5)]}).encode()
    assert len(names_in(many) or ()) == MAX_MODELS
    assert names_in(b"nonsense") is names_in(b"7") is None


@given(st.binary(max_size=60) | st.from_regex(rb'\{"(data|models)":\[.{0,40}\]\}', fullmatch=True))
def test_no_bytes_break_the_reading(body: bytes) -> None:
    found = names_in(body)
    assert found is None or all(name.isprintable() for name in found)
