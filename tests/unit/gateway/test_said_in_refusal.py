"""What a provider says in refusal reaches nobody with a key in it; what it is shown is the fleet's word alone."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, GENERATE, MESSAGES, Gate, answer, stream_of
from midwatch.core.redact import strike
from midwatch.gateway.carried import Attempted, Carried
from midwatch.gateway.counted import Counted
from midwatch.gateway.upstream.scripted import Answer

KEY = "Zm9v/c2VjcmV0K2tleQ=="
"""In no shape that is known: Azure's, Mistral's and one's own are like that."""
TENANT = "tenant-token-0001"


class Heard(Counted):
    """Keeps what is told of calls, which goes to spans and events."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__(counts)
        self.calls: list[Carried] = []

    def ended(self, call: Carried, *, cached: bool = False, saved_nusd: int = 0) -> None:
        self.calls.append(call)


def told_of(night: Gate) -> list[Attempted]:
    heard = night.house.tell
    assert isinstance(heard, Heard)
    assert heard.calls
    return [attempt for call in heard.calls for attempt in call.attempts]


def gate(folder: Path, *script: Answer, **models: Any) -> Gate:
    made = Gate(folder, script, models=models)
    made.house.tell = Heard(made.counts)
    providers = cast("dict[str, Any]", made.settings.providers)
    for name, provided in providers.items():
        providers[name] = replace(provided, secrets={"main": KEY})
    return made


def echo(status: int) -> Answer:
    """An answer of a server that repeats what it was shown."""
    said = {
        "error": {"message": f"bad request from Bearer {KEY}, see log", "code": "x", "type": "y"}
    }
    escaped = json.dumps(said).replace("/", "\\/")
    headers = (("content-type", "application/json"), ("x-debug", f"authorization={KEY}"))
    return Answer(status, [escaped.encode()], headers)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 200])
@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, GENERATE])
async def test_a_key_that_a_provider_repeats_reaches_nobody(
    tmp_path: Path, status: int, dialect: str
) -> None:
    night = gate(tmp_path, echo(status))
    out = await night.ask(dialect, stream=False)
    told = repr((out.headers, out.whole)).replace("\\\\/", "/")
    assert KEY not in told
    assert "[redacted]" in told
    assert all(KEY not in repr(attempt) for attempt in told_of(night))


async def test_a_key_in_an_error_in_mid_stream_reaches_nobody(tmp_path: Path) -> None:
    begun = stream_of(CHAT, ["Once", " upon"])[:2]
    error = f'data: {{"error":{{"message":"worker {KEY} died","type":"server_error"}}}}\n\n'
    night = gate(tmp_path, answer(CHAT, [*begun, error.encode()]), on_cut="error")
    out = await night.ask(CHAT)
    assert b"Once" in out.whole
    assert b"worker [redacted] died" in out.whole
    assert KEY not in repr((out.whole, await night.rows()))


async def test_the_fleets_headers_win_over_the_clients(tmp_path: Path) -> None:
    given = {"X-Tenant": TENANT, "Authorization": f"Bearer {TENANT}"}
    providers = {"openai": {"kind": "openai", "headers": given}}
    night = gate(tmp_path, echo(400), providers=providers)
    await night.ask(CHAT, stream=False, headers=[("x-tenant", "mine"), ("x-other", "mine")])
    sent = [(n.lower(), v) for n, v in night.upstream.asked[0].headers]  # type: ignore[union-attr]
    assert [v for n, v in sent if n == "x-tenant"] == [TENANT]
    assert [v for n, v in sent if n == "authorization"] == [f"Bearer {TENANT}"]
    assert ("x-other", "mine") in sent


def test_secrets_of_headers_are_known_by_their_names(tmp_path: Path) -> None:
    given = {"X-Api-Token": TENANT, "HTTP-Referer": "https://example.com"}
    night = gate(tmp_path, providers={"openai": {"kind": "openai", "headers": given}})
    assert night.settings.providers["openai"].shown == [KEY, TENANT]


def test_what_is_too_short_to_be_a_key_takes_no_words_with_it() -> None:
    assert strike(b"a test of tests", ["test"]) == b"a test of tests"
    assert strike(b"key=longenough", ["longenough"]) == b"key=[redacted]"
