"""`POST /api/forget`: whole traces go from every file, and only an admin may ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from midwatch.sdk import otlp

WORD = "heliotrope-7714"
"""What nobody else says: looked for in every file."""


def spans(session: str, word: str, number: int, now: float) -> list[dict[str, Any]]:
    trace = f"{number:032x}"
    begun = str(round((now - 60) * 1e9))
    ended = str(round((now - 50) * 1e9))
    return [
        {
            "traceId": trace,
            "spanId": f"{number * 10 + at + 1:016x}",
            **({"parentSpanId": f"{number * 10 + 1:016x}"} if at else {}),
            "name": "chat",
            "startTimeUnixNano": begun,
            "endTimeUnixNano": ended,
            # only the first says whose session it is; the others belong to it
            "attributes": otlp.attributes(
                {"gen_ai.conversation.id": session} if at == 0 else {"gen_ai.input.messages": word}
            ),
        }
        for at in range(3)
    ]


def files_with(folder: Path, word: str) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and word.encode() in p.read_bytes()]


async def test_a_session_is_gone_from_every_file_and_its_neighbours_stay(hub: Any) -> None:
    now = hub.hub.clock()
    body = [*spans("s1", WORD, 1, now), *spans("s2", "another-word-4411", 2, now)]
    wrapped = otlp.wrap(body, {"service.name": "inbox"}, "test")
    sent = await hub.client.post(
        "/v1/traces", wrapped, headers={"content-type": "application/json"}
    )
    assert sent.status == 200, sent.body
    assert files_with(hub.data / "hub", WORD), "it can be found"
    answer = (await hub.client.post("/api/forget", {"sessions": ["s1"]})).json()
    assert answer["complete"] is True
    assert (answer["before"]["spans"], answer["before"]["contents"]) == (3, 2)
    assert answer["after"] == dict.fromkeys(("spans", "contents", "points", "logs"), 0)
    assert (await hub.client.get(f"/api/traces/{1:032x}")).status == 404
    left = (await hub.client.get(f"/api/traces/{2:032x}")).json()
    assert len(left["spans"]) == 3
    assert files_with(hub.data / "hub", WORD) == []


async def test_what_names_nothing_or_no_trace_is_refused(hub: Any) -> None:
    for order, said in (
        ({}, "everything would be selected"),
        ({"signals": [], "sessions": ["s1"]}, "nothing is selected"),
        ({"traces": ["xyz"]}, "no trace id"),
    ):
        answer = await hub.client.post("/api/forget", order)
        assert answer.status == 422
        assert said in str(answer.json())


async def test_only_an_admin_may_delete(hub: Any) -> None:
    made = await hub.client.post(
        "/api/tokens", {"name": "acting", "scopes": ["read", "write", "act"]}
    )
    token = made.json()["token"]
    refused = await hub.client.post("/api/forget", {"sessions": ["s1"]}, token=token)
    assert refused.status == 403


async def test_an_admin_says_that_the_clock_is_right_and_nobody_else(hub: Any) -> None:
    await hub.hub._spans.life.round()
    known = hub.hub._spans.life.trust.now
    assert known is not None
    assert known.believed
    answer = await hub.client.post("/api/clock/trust")
    assert answer.status == 200, answer.body
    assert answer.json()["believed"] is True
    assert abs(answer.json()["aged"] - hub.hub.clock()) < 60.0
    made = (await hub.client.post("/api/tokens", {"name": "w", "scopes": ["write", "act"]})).json()
    refused = await hub.client.ask("POST", "/api/clock/trust", token=made["token"])
    assert refused.status == 403
