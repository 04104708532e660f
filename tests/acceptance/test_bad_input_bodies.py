"""Bad requests against a running hub: each is one problem document, and nothing is harmed.

One instance for the whole file. After every refusal all that was stored is there unchanged, the hub
and the agent run on as the same processes, and what is good is still accepted. At the end the
databases are opened: they hold the good items and nothing else.
"""

from __future__ import annotations

import gzip
import json
import random
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pytest

from midwatch.core.access import mint_run
from midwatch.drills.instance import Instance

Problem = Callable[..., dict[str, Any]]

MEGABYTES_10 = 10_000_000
YEAR_S = 366 * 86_400
GZIP = {"content-encoding": "gzip"}
PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


@dataclass
class Running:
    """The instance, the admin's client, what was sent that is good, and so what must be stored."""

    instance: Instance
    client: Any
    sent: Counter[str] = field(default_factory=Counter)
    stored: dict[str, Any] = field(default_factory=dict)

    def accepts(self, *, spans_too: bool = False) -> None:
        """Send what is good; it must be accepted."""
        number = sum(self.sent.values())
        one = {"accepted": 1, "rejected": []}
        assert self.client.post("/api/beats", self.beat()).json == one
        if spans_too:
            event = {"agent": "outside", "kind": "probe", "data": {"n": number}}
            assert self.client.post("/api/events", event).json == one
            answer = self.client.post("/v1/traces", spans(span(number)), headers=JSON)
            assert (answer.status, answer.json) == (200, {})
            self.sent.update(("events", "spans"))
        assert self.client.get("/readyz").json["status"] == "ok"

    def beat(self) -> dict[str, Any]:
        """Return a good beat, and expect it to be stored."""
        name = f"beat-{sum(self.sent.values())}"
        self.sent.update(("beats",))
        if self.stored:
            self.stored["beats"] = sorted([*self.stored["beats"], name])
        return {"agent": "outside", "tokens": 7, "cost_usd": 0.01, "id": name}

    def is_unharmed(self) -> None:
        """Prove that what was stored is there, nothing else is, and the same processes run."""
        found, expected = self.client.stored(self.instance), self.stored
        self.stored = found  # what one request has harmed is not held against the next
        assert found == expected


def span(number: int, **other: Any) -> dict[str, Any]:
    now = time.time_ns()
    return {
        "traceId": f"{number + 1:032x}",
        "spanId": f"{number + 1:016x}",
        "name": "probe",
        "startTimeUnixNano": str(now),
        "endTimeUnixNano": str(now + 1),
        **other,
    }


def spans(*some: dict[str, Any], agent: str = "outside") -> dict[str, Any]:
    attributes = [{"key": "midwatch.agent", "value": {"stringValue": agent}}]
    group = {"resource": {"attributes": attributes}, "scopeSpans": [{"spans": list(some)}]}
    return {"resourceSpans": [group]}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, client_of: Callable[..., Any]
) -> Iterator[Running]:
    """The instance of this file; when it has ended, its databases must hold exactly what was good."""
    agents = {"inbox": {"command": ["sleep", "600"]}, "outside": {"external": True}}
    with Instance(tmp_path_factory.mktemp("bodies"), agents) as instance:
        assert instance.wait(lambda: (instance.agent("inbox") or {}).get("state") == "running", 40)
        one = Running(instance, client_of(instance))
        one.accepts(spans_too=True)
        one.stored = one.client.stored(instance)
        yield one
        one.accepts(spans_too=True)
        traces = one.client.get("/api/traces?limit=500").json["items"]
        assert sum(trace["spans"] for trace in traces) == one.sent.pop("spans")
    with duckdb.connect(str(instance.data / "hub/telemetry.duckdb"), read_only=True) as store:
        kept = {
            name: store.execute(f"SELECT count(*) FROM {name} WHERE {which}").fetchone()
            for name, which in (
                ("beats", "agent IN ('inbox', 'outside')"),
                ("events", "kind = 'probe'"),
            )
        }
        agents_kept = store.execute("SELECT DISTINCT agent FROM beats").fetchall()
    assert kept == {name: (count,) for name, count in one.sent.items()}
    assert agents_kept == [("outside",)]


@pytest.fixture
def hub(running: Running) -> Iterator[Any]:
    """The admin's client; what follows the test proves that nothing was harmed."""
    yield running.client
    running.is_unharmed()
    running.accepts()


def item(**fields: Any) -> bytes:
    return json.dumps({"agent": "outside", **fields}).encode()


def long(name: str) -> bytes:
    return item(**{name: "x" * MEGABYTES_10})


def nested(depth: int) -> bytes:
    return (
        b'{"agent": "outside", "kind": "k", "data": ' + b'{"a":' * depth + b"1" + b"}" * (depth + 1)
    )


BODIES: dict[str, tuple[str, bytes, int, tuple[str, ...]]] = {
    # name: (path, body, status, what the detail says)
    "nothing": ("/api/beats", b"", 400, ("the body is not JSON",)),
    "cut off": ("/api/beats", b'{"agent": "outside"', 400, ("not JSON", "line 1 column 19")),
    "a form": ("/api/beats", b"agent=outside&tokens=5", 400, ("not JSON", "line 1 column 1")),
    "xml": ("/api/events", b"<event/>", 400, ("not JSON",)),
    "not utf-8": ("/api/beats", b'{"agent": "\xff\xfe"}', 400, ("not JSON",)),
    "half a surrogate": ("/api/beats", b'{"agent": "outside", "error": "\\ud800"}', 400, ("JSON",)),
    "NaN": ("/api/beats", b'{"agent": "outside", "tokens": NaN}', 400, ("NaN", "not JSON")),
    "infinity": ("/api/samples", b'{"agent": "outside", "cpu_s": -Infinity}', 400, ("not JSON",)),
    "a text": ("/api/beats", b'"beat"', 422, ("expected an object",)),
    "a list of nothing good": ("/api/runs", b"[1, null, []]", 422, ("$[0]: expected an object",)),
    "wrong type of a count": (
        "/api/beats",
        item(tokens="many"),
        422,
        ("$.tokens", "expected a number", "'many'"),
    ),
    "wrong type of a flag": (
        "/api/beats",
        item(draining="yes"),
        422,
        ("$.draining", "expected true or false", "'yes'"),
    ),
    "wrong type of data": (
        "/api/events",
        item(kind="probe", data=[1]),
        422,
        ("$.data", "expected an object", "list"),
    ),
    "wrong type of a name": ("/api/beats", b'{"agent": 5}', 422, ("$.agent", "expected a name")),
    "negative tokens": ("/api/beats", item(tokens=-1), 422, ("$.tokens", "from 0 up", "-1")),
    "a number without end": (
        "/api/beats",
        b'{"agent": "outside", "tokens": ' + b"9" * 4000 + b"}",
        422,
        ("$",),
    ),
    "beyond any budget": ("/api/beats", item(cost_usd=1e14), 422, ("$.cost_usd", "at most")),
    "a year ahead": (
        "/api/beats",
        item(at=time.time() + YEAR_S),
        422,
        ("$.at", "more than 600 s ahead", "check the clock"),
    ),
    "a year ahead, in words": (
        "/api/runs",
        item(run_id="r", started_at="2099-01-01T00:00:00Z"),
        422,
        ("$.started_at", "'2099-01-01T00:00:00Z'", "check the clock"),
    ),
    "a year back": ("/api/beats", item(at=time.time() - YEAR_S), 422, ("$.at", "45 days back")),
    "no time at all": ("/api/beats", item(at="yesterday"), 422, ("$.at", "RFC 3339", "yesterday")),
    "no zone": ("/api/beats", item(at="2026-01-01T00:00:00"), 422, ("$.at", "end it with Z")),
    "a missing field": ("/api/events", item(), 422, ("$.kind is missing: what happened",)),
    "an unknown agent": (
        "/api/beats",
        b'{"agent": "outsider"}',
        404,
        ("'outsider'", "did you mean 'outside'?", "create=1"),
    ),
    "an agent without a name": ("/api/beats", b'{"agent": ""}', 422, ("$.agent", "1 to 128")),
    "control characters": ("/api/beats", b'{"agent": "a\\u0000b"}', 422, ("unprintable",)),
    "a 10 MB error": ("/api/beats", long("error"), 422, ("$.error", "10000000", "at most 65536")),
    "a 10 MB field of its own": ("/api/beats", long("other"), 422, ("at most 65536", "send less")),
    "a 10 MB agent": (
        "/api/beats",
        b'{"agent": "' + b"x" * MEGABYTES_10 + b'"}',
        422,
        ("1 to 128",),
    ),
    "a 10 MB kind": ("/api/events", long("kind"), 422, ("$.kind", "1 to 128")),
    "10 MB of data": (
        "/api/events",
        item(kind="probe", data={"a": "x" * MEGABYTES_10}),
        422,
        ("$.data", "at most 65536", "send less"),
    ),
    "17 MB": ("/api/beats", b" " * 17_000_000, 413, ("17000000 bytes", "at most 16777216")),
    "too many items": (
        "/api/beats",
        b"[" + b"{}," * 10_000 + b"{}]",
        413,
        ("10001", "at most 10000"),
    ),
    "nested without end": ("/api/events", b"[" * 200_000, 400, ("recursion limit",)),
    "an object nested 5,000 deep": ("/api/events", nested(5_000), 400, ("recursion limit",)),
    "a token without a name": ("/api/tokens", b"{}", 422, ("body.name", "required")),
    "a token with a wrong scope": (
        "/api/tokens",
        b'{"name": "t", "scopes": ["root"]}',
        422,
        ("body.scopes.0", "'read', 'write', 'act'"),
    ),
    "a token from a list": ("/api/tokens", b"[1]", 422, ("body",)),
    "a token that is not JSON": ("/api/tokens", b"{nonsense", 422, ("body",)),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_a_problem_document_that_says_where_and_what_to_do(
    name: str, hub: Any, is_problem: Problem
) -> None:
    path, body, status, says = BODIES[name]
    is_problem(hub.post(path, body, headers=JSON), status, *says)


OTLP = {
    "not JSON": b"{,}",
    "a list": b"[]",
    "nested without end": b'{"resourceSpans": ' + b"[" * 100_000,
}


def is_status(answer: Any, status: int, *says: str) -> None:
    """Prove an answer to be a google.rpc.Status in JSON, as OTLP demands of a refusal."""
    assert answer.status == status, answer.body[:500]
    assert answer.headers["content-type"] == "application/json"
    assert answer.json.keys() >= {"code", "message"}
    missing = [words for words in says if words not in answer.json["message"]]
    assert not missing, answer.json["message"]
    assert len(answer.body) < 20_000


@pytest.mark.parametrize("name", OTLP)
def test_a_bad_body_of_otlp_is_refused_in_its_own_form(name: str, hub: Any) -> None:
    answer = hub.post("/v1/traces", OTLP[name], headers=JSON)
    is_status(answer, 400, "the body is no OTLP request in JSON")


def test_of_a_list_what_is_good_is_kept_and_what_is_not_is_named(
    hub: Any, running: Running
) -> None:
    bad = {"agent": "outside", "tokens": None, "at": "soon"}
    answer = hub.post("/api/beats", [running.beat(), bad, {"agent": "nobody"}, running.beat()])
    assert answer.status == 200
    assert answer.json["accepted"] == 2
    assert [(r["index"], r["path"], r["reason"]) for r in answer.json["rejected"]] == [
        (1, "$[1].at", "time"),
        (2, "$[2].agent", "unknown_agent"),
    ]


def bomb(megabytes: int) -> bytes:
    """Return gzip that unpacks to so much."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    chunk = b" " * 1_000_000
    return b"".join(packer.compress(chunk) for _ in range(megabytes)) + packer.flush()


PACKED = {
    "a bomb": (bomb(100), 413, "unpacked body has more than 16777216 bytes"),
    "cut off": (gzip.compress(item(tokens=1))[:-6], 400, "the compressed body is cut off"),
    "only a header": (gzip.compress(b"")[:10], 400, "the compressed body is cut off"),
    "not packed at all": (item(tokens=1), 400, "the body cannot be unpacked"),
    "damaged": (gzip.compress(item(tokens=1))[:-8] + b"\0" * 8, 400, "cannot be unpacked"),
    "packed nonsense": (gzip.compress(b"nonsense"), 400, "the body is not JSON"),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_bad_gzip_body_is_refused_within_bounds(name: str, hub: Any, is_problem: Problem) -> None:
    body, status, says = PACKED[name]
    is_problem(hub.post("/api/beats", body, headers={**JSON, **GZIP}), status, says)
    says = says.replace("the body is not JSON", "no OTLP request in JSON")
    is_status(hub.post("/v1/traces", body, headers={**JSON, **GZIP}), status, says)


@pytest.mark.parametrize(
    ("path", "headers", "says"),
    [
        (
            "/api/beats",
            {**JSON, "content-encoding": "compress"},
            "'compress' is not known; send gzip",
        ),
        (
            "/api/beats",
            {**JSON, "content-encoding": "gzip, gzip"},
            "send gzip, deflate, zstd, or none",
        ),
    ],
)
def test_a_wrong_content_type_or_encoding_is_refused_with_the_right_ones(
    path: str, headers: dict[str, str], says: str, hub: Any, is_problem: Problem
) -> None:
    is_problem(hub.post(path, spans(span(9)), headers=headers), 415, says)


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"content-type": "text/plain"}, "OTLP is application/x-protobuf or"),
        ({}, "OTLP is application/x-protobuf or application/json"),
        ({"content-type": "multipart/form-data; boundary=x"}, "OTLP is"),
        ({**JSON, "content-encoding": "br"}, "send gzip, deflate, zstd, or none"),
    ],
)
def test_what_otlp_does_not_know_is_refused_with_what_it_does(
    headers: dict[str, str], says: str, hub: Any
) -> None:
    is_status(hub.post("/v1/traces", spans(span(9)), headers=headers), 415, says)


def test_random_bytes_as_protobuf_are_refused_in_otlp_s_own_form(hub: Any) -> None:
    """OTLP demands of a refusal: the request's content type, and a google.rpc.Status that says why."""
    dice = random.Random(7)
    for size in (1, 7, 64, 1_000, 100_000):
        # field 1, length-delimited, longer than the body: whatever follows, it is no message
        body = b"\x0a\xff\xff\xff\xff\x0f" + dice.randbytes(size)
        answer = hub.post("/v1/traces", body, headers=PROTOBUF)
        assert answer.status == 400, size
        assert answer.headers["content-type"] == "application/x-protobuf"
        assert answer.body[:3] == b"\x08\x03\x12", "google.rpc.Status: code 3, then its message"
        assert b"the body is no OTLP request for spans" in answer.body
        assert b"see its content-type" in answer.body


@pytest.mark.parametrize("name", ["a bomb", "cut off", "damaged"])
def test_bad_gzip_as_protobuf_is_refused_in_otlp_s_own_form(name: str, hub: Any) -> None:
    body, status, says = PACKED[name]
    answer = hub.post("/v1/traces", body, headers={**PROTOBUF, **GZIP})
    assert answer.status == status
    assert says.encode() in answer.body


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"traceId": "xyz"}, "a trace id of"),
        ({"spanId": "0" * 16}, "expected 8 bytes, not all 0"),
        ({"startTimeUnixNano": str(time.time_ns() + YEAR_S * 10**9)}, "more than 600 s ahead"),
        ({"startTimeUnixNano": "soon"}, "45 days back"),
    ],
)
def test_a_bad_span_is_refused_alone_as_partial_success(
    change: dict[str, Any], says: str, hub: Any
) -> None:
    answer = hub.post("/v1/traces", spans(span(8, **change)), headers=JSON)
    assert answer.status == 200
    partial = answer.json["partialSuccess"]
    assert partial["rejectedSpans"] == "1"
    assert says in partial["errorMessage"]


def test_spans_of_another_agent_are_refused_to_a_run(hub: Any, running: Running) -> None:
    secret = (running.instance.data / "secret").read_bytes()
    token = mint_run(secret, "inbox", "run-1")
    answer = hub.post("/v1/traces", spans(span(7)), headers=JSON, token=token)
    assert "this token writes for 'inbox' only" in answer.json["partialSuccess"]["errorMessage"]


def test_spans_of_an_agent_that_cannot_be_named_are_refused(hub: Any) -> None:
    answer = hub.post("/v1/traces", spans(span(8), agent="..."), headers=JSON)
    assert answer.json["partialSuccess"]["rejectedSpans"] == "1"
    assert (
        "neither midwatch.agent nor service.name" in answer.json["partialSuccess"]["errorMessage"]
    )


ADDRESSES = [
    ("GET", "/api/nothing", 404, "/api/openapi.json lists the routes"),
    ("GET", "/api/agents/inbix", 404, "did you mean 'inbox'?"),
    ("GET", "/api/agents/..%2f..%2ftoken/logs", 404, "no"),
    ("GET", "/api/incidents/nonsense", 404, "no incident has the id 'nonsense'"),
    ("GET", "/api/traces/%00", 404, "no trace has the id"),
    ("GET", "/api/beats?limit=-1", 422, "query.limit"),
    ("GET", "/api/beats?limit=many", 422, "query.limit"),
    ("GET", "/api/cost?by=nonsense", 422, "query.by"),
    ("GET", "/api/cost?since=nan", 422, "query.since"),
    ("GET", "/api/incidents?state=sleeping", 422, "'open', 'acked' or 'resolved'"),
    ("PUT", "/api/beats", 405, "PUT is not for '/api/beats'"),
    ("DELETE", "/api/agents/inbox", 405, "DELETE is not for '/api/agents/inbox'"),
    ("POST", "/api/agents/inbox/explode", 422, "path.do"),
    ("POST", "/api/agents/inbix/stop", 404, "did you mean 'inbox'?"),
    ("POST", "/api/incidents/nonsense/ack", 404, "no incident has the id 'nonsense'"),
    ("DELETE", "/api/tokens/nonsense", 404, "no valid token is named 'nonsense'"),
    ("GET", "/ping/nobody", 404, "create=1"),
    ("GET", "/ping/outside/256", 404, "an exit status of 0 to 255"),
    ("PUT", "/ping/outside", 405, "use GET, HEAD or POST"),
]


@pytest.mark.parametrize(("method", "path", "status", "says"), ADDRESSES)
def test_a_bad_address_is_a_problem_document_too(
    method: str, path: str, status: int, says: str, hub: Any, is_problem: Problem
) -> None:
    is_problem(hub.ask(method, path), status, says)
