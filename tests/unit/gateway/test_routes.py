"""The table of the gateway's own routes: what is not there, not JSON, or not an object is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from midwatch.gateway.http.played import PlayedIncoming, PlayedOutgoing
from midwatch.gateway.ledger.engine import LedgerDown
from midwatch.gateway.routes import MAX_BYTES, Asked, Json, Table, Wrong, choice


async def echo(asked: Asked) -> tuple[int, Json]:
    return 200, {"names": dict(asked.names), "query": dict(asked.query), "body": asked.body}


async def refuse(asked: Asked) -> tuple[int, Json]:
    raise Wrong(409, f"not {asked.text('what')}")


async def down(_: Asked) -> tuple[int, Json]:
    raise LedgerDown("the disk is full", "full")


TABLE = Table(
    ("GET", "/things/{name}", echo),
    ("POST", "/things/{name}", echo),
    ("POST", "/refuse", refuse),
    ("GET", "/down", down),
)


async def ask(method: str, path: str, body: bytes = b"", query: str = "") -> tuple[int | None, Any]:
    out = PlayedOutgoing()
    await TABLE.answer(PlayedIncoming(method, path, query, payload=body), out)
    return out.status, json.loads(out.whole)


async def test_names_query_and_body_arrive() -> None:
    status, said = await ask("POST", "/things/a%2Fb", b'{"x": 1}', "y=2&z=")
    assert (status, said) == (200, {"names": {"name": "a/b"}, "query": {"y": "2", "z": ""}, "body": {"x": 1}})  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("GET", "/nothing", b"", 404, "nothing here"),
        ("GET", "/things/", b"", 404, "nothing here"),
        ("GET", "/things/a/b", b"", 404, "nothing here"),
        ("PUT", "/things/a", b"", 405, "expected GET or POST here, got PUT"),
        ("POST", "/things/a", b"{", 400, "the body is not JSON"),
        ("POST", "/things/a", b"[" * 100_000, 400, "the body is not JSON"),
        ("POST", "/things/a", b"[]", 400, "expected an object, got list"),
        ("POST", "/refuse", b'{"what": "now"}', 409, "not now"),
        ("POST", "/refuse", b"", 422, "what: expected a text"),
        ("POST", "/refuse", b'{"what": 5}', 422, "got 5"),
        ("GET", "/down", b"", 503, "the ledger does not answer: the disk is full"),
    ],
)  # fmt: skip
async def test_what_cannot_be_answered_is_told(method: str, path: str, body: bytes, status: int, says: str) -> None:  # fmt: skip
    answered, said = await ask(method, path, body)
    assert (answered, says in said["error"]["message"]) == (status, True)


async def test_a_body_that_is_too_long_is_refused_by_whoever_reads_it() -> None:
    with pytest.raises(Exception, match="longer than"):
        await ask("POST", "/refuse", b" " * (MAX_BYTES + 1))


def test_too_many_fields_are_no_memory() -> None:
    asked = Asked({}, {}, {"n": float("nan"), "b": True})
    for field in ("n", "b"):
        with pytest.raises(Wrong, match="expected a number"):
            asked.number(field, 0.0)
    assert asked.number("other", 2) == 2.0
    with pytest.raises(Wrong, match="expected one of a, b, got 'c'"):
        choice("c", ["a", "b"], "field")
