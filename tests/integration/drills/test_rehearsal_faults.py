"""What goes wrong, goes wrong on the wire as ordered: at each phase, in each dialect."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from midwatch.drills.rehearsal import Rehearsal, running

from .rehearsed import (  # noqa: TID252  there is no tests package
    PATHS,
    STREAMED,
    Answer,
    ask,
    call,
    control,
    open_stream,
    post,
)


@pytest.fixture(scope="module")
def model() -> Iterator[Rehearsal]:
    with running() as model:
        yield model
        assert control(model, "GET", "/healthz")["bugs"] == 0


def text_of(api: str, events: list[Any]) -> str:
    """Return what a stream said."""
    found: list[str] = []
    for event in events:
        if event == "[DONE]" or "error" in event:
            continue
        match api:
            case "chat":
                found += [c["delta"].get("content") or "" for c in event["choices"]]
            case "messages":
                found.append(event.get("delta", {}).get("text", ""))
            case "responses":
                found.append(event["delta"] if event["type"].endswith("text.delta") else "")
            case _:
                found.append(event["candidates"][0]["content"]["parts"][0]["text"])
    return "".join(found)


def ended(api: str, events: list[Any]) -> bool:
    """Tell whether a stream has its sentinel."""
    last = events[-1] if events else {}
    match api:
        case "chat":
            return last == "[DONE]"
        case "messages":
            return last["type"] == "message_stop"
        case "responses":
            return last["type"] == "response.completed"
        case _:
            return "finishReason" in last["candidates"][0]


@pytest.mark.parametrize("api", PATHS)
@pytest.mark.parametrize(
    ("order", "status"),
    [
        ("context-length", 400),
        ("not-found", 404),
        ("too-large", 413),
        ("402", 402),
        ("timeout", 504),
        ({"mode": "status", "status": 418}, 418),
    ],
)
def test_a_refusal_has_its_status_in_every_dialect(
    model: Rehearsal, api: str, order: Any, status: int
) -> None:
    reply = call(model, api, order)
    assert (reply.status, bool(reply.json["error"]["message"])) == (status, True)


def test_a_page_for_people_and_a_redirect_stand_before_the_model(model: Rehearsal) -> None:
    page = call(model, "chat", "html")
    assert (page.status, page.headers["content-type"]) == (502, "text/html")
    assert page.body.startswith(b"<html>")
    away = call(model, "chat", {"mode": "redirect", "location": "http://127.0.0.1:1/", "status": 302})  # fmt: skip
    assert (away.status, away.headers["location"], away.body) == (302, "http://127.0.0.1:1/", b"")


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("api", STREAMED)
def test_a_cut_stream_is_no_whole_body(model: Rehearsal, api: str, how: str) -> None:
    order = {"mode": "cut", "how": how, "after_chunks": 3, "between": "20ms"}
    reply = call(model, api, order, stream=True)
    assert reply.status == 200
    assert reply.broke == {"close": "IncompleteRead", "reset": "ConnectionResetError"}[how]
    assert b'"error"' not in reply.body.replace(b'"error":null', b"")


def test_a_cut_behind_the_head_leaves_half_of_a_whole_body(model: Rehearsal) -> None:
    whole = call(model, "chat").body
    reply = call(model, "chat", {"mode": "cut", "head_first": True})
    assert (reply.status, reply.broke) == (200, "short")
    assert len(reply.body) == int(reply.headers["content-length"]) // 2
    assert abs(int(reply.headers["content-length"]) - len(whole)) < 5


@pytest.mark.parametrize("api", STREAMED)
def test_a_stall_that_ends_goes_on_to_the_end(model: Rehearsal, api: str) -> None:
    reply = call(model, api, {"mode": "stall", "lasts": "50ms"}, stream=True)
    assert text_of(api, reply.events) == text_of(api, call(model, api, stream=True).events)
    assert ended(api, reply.events)


@pytest.mark.parametrize("api", STREAMED)
def test_a_stream_may_lack_nothing_but_its_sentinel(model: Rehearsal, api: str) -> None:
    good = call(model, api, stream=True)
    for then, broke in (("end", ""), ("close", "IncompleteRead")):
        reply = call(model, api, {"mode": "no-end", "then": then}, stream=True)
        assert reply.broke == broke
        assert not ended(api, reply.events)
        assert text_of(api, reply.events) == text_of(api, good.events)


def test_a_stream_without_its_sentinel_may_stay_open(model: Rehearsal) -> None:
    reply = call(model, "chat", "hang", stream=True, timeout=0.3)
    assert reply.broke == "TimeoutError"
    assert reply.events[-1]["choices"][0]["finish_reason"] == "stop"


def test_more_than_the_sentinel_may_be_missing(model: Rehearsal) -> None:
    reply = call(model, "chat", {"mode": "no-end", "drop": 2}, stream=True)
    assert reply.events[-1]["choices"][0]["finish_reason"] is None


@pytest.mark.parametrize("api", STREAMED)
@pytest.mark.parametrize("sse", ["crlf", "split", "packed", "bytes", "long-line"])
def test_an_odd_stream_says_the_same(model: Rehearsal, api: str, sse: str) -> None:
    good = call(model, api, stream=True)
    order = {"mode": "shape", "sse": sse, "padding": 1_000_000}
    reply = call(model, api, order, stream=True)
    assert text_of(api, reply.events) == text_of(api, good.events)
    assert ended(api, reply.events)
    assert (len(reply.body) > 1_000_000) is (sse == "long-line")


@pytest.mark.parametrize("api", STREAMED)
def test_an_error_in_mid_stream_is_the_dialects_own(model: Rehearsal, api: str) -> None:
    order = {"mode": "error", "after_chunks": 3, "status": 429, "message": "slow down"}
    reply = call(model, api, order, stream=True)
    assert (reply.status, reply.broke) == (200, "")
    last = reply.events[-1]
    assert (last.get("error") or last)["message"] == "slow down"
    assert last != "[DONE]"


@pytest.mark.parametrize(("off", "broke"), [(50, True), (-20, False)])
def test_a_declared_length_may_be_wrong(model: Rehearsal, off: int, broke: bool) -> None:
    reply = call(model, "chat", {"mode": "shape", "length_off": off})
    declared = int(reply.headers["content-length"])
    assert bool(reply.broke) is broke
    assert len(reply.body) == (declared - off if off > 0 else declared)


@pytest.mark.parametrize("stream", [False, True])
def test_a_body_may_be_compressed_unasked_and_of_another_type(
    model: Rehearsal, stream: bool
) -> None:
    order = {"mode": "shape", "gzip": True, "type": "text/html", "headers": {"X-Odd": "1"}}
    reply = call(model, "chat", order, stream=stream)
    assert reply.headers["content-encoding"] == "gzip"
    assert (reply.headers["content-type"], reply.headers["x-odd"]) == ("text/html", "1")
    plain = gzip.decompress(reply.body)
    assert Answer(200, {}, plain, "").events[-1] == "[DONE]" if stream else json.loads(plain)["id"]


def test_usage_may_be_missing_in_part_or_wholly_and_the_model_another(model: Rehearsal) -> None:
    assert "usage" not in call(model, "chat", "no-usage").json
    assert set(call(model, "messages", "part-usage").json["usage"]) == {"input_tokens"}
    assert "usageMetadata" not in call(model, "generate", "no-usage").json
    options = {"include_usage": True}
    events = call(model, "chat", "no-usage", stream=True, stream_options=options).events
    assert all("usage" not in e and e["choices"] for e in events[:-1])
    order = {"mode": "shape", "served": "cheap-1", "tier": "flex"}
    body = call(model, "chat", order, service_tier="priority").json
    assert (body["model"], body["service_tier"]) == ("cheap-1", "flex")


@pytest.mark.parametrize(
    ("api", "reason"),
    [("chat", "content_filter"), ("messages", "refusal"), ("generate", "SAFETY")],
)
def test_a_filter_may_end_an_answer_in_the_middle(model: Rehearsal, api: str, reason: str) -> None:
    body = call(model, api, "refusal").body
    assert reason in body.decode()
    assert len(body) < len(call(model, api).body)


@pytest.mark.parametrize("stream", [False, True])
def test_an_endless_answer_never_ends(model: Rehearsal, stream: bool) -> None:
    with open_stream(model, "chat", {"mode": "endless"}, stream=stream) as client:
        got = 0
        while got < 2_000_000:
            part = client.recv(1 << 16)
            assert part
            got += len(part)


def test_several_providers_share_a_server_behind_prefixes(model: Rehearsal) -> None:
    path, body = ask("chat")
    control(model, "POST", "/rehearsal/behave", {"mode": "overloaded", "path": "/first/*"})
    try:
        assert post(model, f"/first{path}", body).status == 503
        assert post(model, f"/second/api{path}", body).status == 200
        assert post(model, "/deep/chat/completions", body).status == 200
    finally:
        control(model, "DELETE", "/rehearsal/behave")


def test_an_order_may_be_about_a_field_of_the_body(model: Rehearsal) -> None:
    order = {"mode": "unknown-parameter", "has": "top_k", "param": "top_k"}
    control(model, "POST", "/rehearsal/behave", order)
    try:
        refused = call(model, "chat", top_k=3)
        assert (refused.status, refused.json["error"]["param"]) == (400, "top_k")
        assert call(model, "chat").status == 200
    finally:
        control(model, "DELETE", "/rehearsal/behave")
