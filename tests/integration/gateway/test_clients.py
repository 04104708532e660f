"""The official clients before the gateway and without it: the same results, events, errors and headers.

Each row of `exchanges.py` is asked twice with the same client: of one rehearsal model directly, and of another one
behind a gateway. The two models are alike (same seed, same history, a clock that stands still), so that nothing
has to be normalised. Compared are what the client returns or raises, every event of a stream, the status, the
headers and the very bytes of the answer, and what the model received: path, query, headers, the body's SHA-256.

What may differ stands in `ADDED`, `MEASURED`, `UNDERWAY`, `UNPACKED` and `MENDED`, each with its reason, and
nowhere else; of a body nothing, but that streams of chat are asked for their usage (`expected`), which is taken
out of the answer again when the client did not ask. What is meant to be told otherwise stands in `DIFFERENT`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from google import genai

from midwatch.drills.rehearsal.model import Rehearsal
from midwatch.drills.rehearsal.thread import running

from .conftest import prepared  # noqa: TID252  there is no tests package
from .exchanges import EXCHANGES, GEMINI, GPT, Exchange, chat, generate, message, response  # noqa: TID252

NOW = 1_790_000_000.0

ADDED = {
    "date": "the rehearsal sends none; a server has to (RFC 9110 section 6.6.1)",
    "x-midwatch-": "what the gateway tells of the call",
}
"""Headers of an answer that only the gateway's answers have."""

MEASURED = {
    "openai-processing-ms": "how long the model took",
    "server-timing": "how long the model took",
}
"""Headers of an answer that both have, with a figure that is never the same twice."""

UNDERWAY = {
    "authorization": "the provider's key instead of the agent's",
    "x-api-key": "the same",
    "x-goog-api-key": "the same",
    "host": "another server is asked",
    "content-length": "of the body, which is compared itself",
    "connection": "of one connection alone",
    "accept-encoding": "answers are asked for unpacked, so that their usage can be read",
    "x-midwatch-call": "names the call on the rehearsal's bill; no real provider sees it",
}
"""Headers of a request that differ between client and model."""

UNPACKED = ("content-encoding", "content-length", "transfer-encoding")
"""Headers of an answer that came packed unasked: it goes on plain."""

MENDED = {
    "without its last line": "a complete stream is ended as its dialect ends one",
}
"""Streams whose bytes differ, while the client notices nothing."""

PLAIN: dict[str, Any] = {
    "models": {"retries": {"attempts": 0}, "breaker": {"failures": 100_000}, "on_cut": "error"},
    "agents": {"inbox": {"command": ["x"], "loop": {"action": "notify"}, "calls": {"same_request": 10_000}}},
}  # fmt: skip
"""A gateway that asks each question once, as a client with its retries switched off does."""


# -- both sides -------------------------------------------------------------------------------------


@dataclass
class Tape:
    """One answer as it came over the wire."""

    sent: bytes
    status: int
    headers: list[tuple[str, str]]
    pieces: list[bytes] = field(default_factory=list[bytes])


class Taped(httpx2.HTTPTransport):
    """Keeps what passes."""

    def __init__(self) -> None:
        super().__init__(verify=False)
        self.tapes: list[Tape] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        headers = [(k.decode().lower(), v.decode("latin-1")) for k, v in response.headers.raw]
        tape = Tape(request.read(), response.status_code, headers)
        self.tapes.append(tape)
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = _Tee(response.stream, tape.pieces)
        return response


class _Tee(httpx2.SyncByteStream):
    def __init__(self, inner: httpx2.SyncByteStream, pieces: list[bytes]) -> None:
        self._inner, self._pieces = inner, pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._inner:
            self._pieces.append(piece)
            yield piece

    def close(self) -> None:
        self._inner.close()


class Side:
    """The three clients, and the model that they reach in the end."""

    def __init__(self, url: str, key: str, model: Rehearsal) -> None:
        self.url, self.key, self.model = url, key, model
        self.transport = Taped()
        self.http = httpx2.Client(transport=self.transport, timeout=30.0)
        more: dict[str, Any] = {"api_key": key, "max_retries": 0, "http_client": self.http}
        self.gpt = openai.OpenAI(base_url=f"{url}/v1", **more)
        self.claude = anthropic.Anthropic(base_url=url, **more)
        options = genai.types.HttpOptions(base_url=url, httpx_client=self.http)
        self.google = genai.Client(api_key=key, http_options=options)

    def close(self) -> None:
        self.http.close()

    def last(self) -> dict[str, Any]:
        """Return what the model was asked last."""
        return self.model.calls.page(self.model.calls.total - 1, 1, None)["calls"][0]


@dataclass
class Sides:
    direct: Side
    through: Side


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Generator[Sides]:
    data = tmp_path_factory.mktemp("clients") / "data"
    with (
        running(clock=lambda: NOW) as bare,
        running(clock=lambda: NOW) as behind,
        prepared(data, behind.url) as gateway,
    ):
        gateway.fleet(**PLAIN)
        gateway.start()
        both = Sides(
            Side(bare.url, "rehearsal:inbox", bare), Side(gateway.url, gateway.key(), behind)
        )
        yield both
        both.direct.close()
        both.through.close()


# -- one exchange -----------------------------------------------------------------------------------

WAYS: dict[str, Any] = {
    "chat": lambda side: side.gpt.chat.completions.create,
    "chat.stream": lambda side: side.gpt.chat.completions.stream,
    "responses": lambda side: side.gpt.responses.create,
    "responses.stream": lambda side: side.gpt.responses.stream,
    "embeddings": lambda side: side.gpt.embeddings.create,
    "messages": lambda side: side.claude.messages.create,
    "messages.stream": lambda side: side.claude.messages.stream,
    "beta": lambda side: side.claude.beta.messages.create,
    "count": lambda side: side.claude.messages.count_tokens,
    "beta.count": lambda side: side.claude.beta.messages.count_tokens,
    "generate": lambda side: side.google.models.generate_content,
    "generate.stream": lambda side: side.google.models.generate_content_stream,
    "generate.count": lambda side: side.google.models.count_tokens,
}
FINALS = ("get_final_completion", "get_final_message", "get_final_response")


@dataclass
class Seen:
    """What one client saw of one exchange."""

    result: Any = None
    events: list[Any] = field(default_factory=list[Any])
    error: dict[str, Any] = field(default_factory=dict[str, Any])
    calls: int = 0
    """How often the model was asked."""


def see(side: Side, exchange: Exchange) -> Seen:
    """Ask, and keep whatever comes."""
    seen, before = Seen(), side.model.calls.total
    side.transport.tapes.clear()
    try:
        made = WAYS[exchange.way](side)(**arguments(exchange))
        if hasattr(made, "__enter__"):
            with made as stream:
                seen.events.extend(map(shown, stream))
                final = next(
                    (getattr(stream, name) for name in FINALS if hasattr(stream, name)), None
                )
                seen.result = shown(final()) if final is not None else None
        elif hasattr(made, "__next__"):
            seen.events.extend(map(shown, made))
        else:
            seen.result = shown(made)
    except Exception as error:
        seen.error = raised(error)
    seen.calls = side.model.calls.total - before
    return seen


def both(sides: Sides, exchange: Exchange) -> tuple[Seen, Seen]:
    """Ask on both sides. Where a busy machine reads a failure together with the first content, nothing has reached
    the client, and it gets a status: then both are asked once more."""
    patience = 5 if "between" in (exchange.fault or "") else 1
    for _ in range(patience):
        direct, through = see(sides.direct, exchange), see(sides.through, exchange)
        if through.error.get("class") == direct.error.get("class") or through.events:
            break
    return direct, through


def arguments(exchange: Exchange) -> dict[str, Any]:
    """Return the arguments of the client's call; what goes wrong is ordered by a header of it."""
    headers = dict(exchange.headers)
    if exchange.fault is not None:
        fault = exchange.fault
        headers["x-rehearsal-behave"] = fault if isinstance(fault, str) else json.dumps(fault)
    given = dict(exchange.given)
    if not headers:
        return given
    if exchange.way.startswith("generate"):
        return {**given, "config": {**given["config"], "http_options": {"headers": headers}}}
    return {**given, "extra_headers": headers}


def shown(value: Any) -> Any:
    """Return a result, or an event, with the class that it was parsed into."""
    if hasattr(value, "model_dump"):
        skipped = {"sdk_http_response"}  # the headers, which are compared by themselves
        return {
            "class": type(value).__name__,
            **value.model_dump(mode="json", exclude=skipped, warnings=False),
        }
    return repr(value)


def raised(error: Exception) -> dict[str, Any]:
    """Return all that a program can learn of an error."""
    names = (
        "message",
        "status_code",
        "code",
        "status",
        "type",
        "param",
        "body",
        "details",
        "request_id",
    )
    return {
        "class": type(error).__name__,
        "text": str(error),
        **{n: getattr(error, n, None) for n in names},
    }


def told(tape: Tape, *, unpacked: bool = False) -> list[tuple[str, str]]:
    """Return the headers of an answer, without those that differ for a reason."""
    kept = [
        (name, "measured" if name in MEASURED else value)
        for name, value in tape.headers
        if not name.startswith(tuple(ADDED)) and not (unpacked and name in UNPACKED)
    ]
    return sorted(kept)


def asked(record: dict[str, Any]) -> dict[str, Any]:
    """Return what a model received, without what differs for a reason; its body is compared by itself."""
    headers = {k: v for k, v in record["headers"].items() if k not in UNDERWAY}
    names = (
        "api",
        "path",
        "query",
        "model",
        "agent",
        "stream",
        "status",
        "behaviour",
        "request_id",
    )
    return {"headers": headers, **{name: record[name] for name in names}}


def expected(body: bytes) -> bytes:
    """Return the body of a chat as it is to reach the model: with the usage of a stream asked for, else byte for byte."""
    given = json.loads(body)
    if not given.get("stream"):
        return body
    if given.get("stream_options") is None:
        return b'{"stream_options":{"include_usage":true},' + body[1:]
    return body.replace(b'"include_usage":false', b'"include_usage":true')


# -- the same ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", EXCHANGES, ids=str)
def test_a_client_sees_the_same(sides: Sides, exchange: Exchange) -> None:
    direct, through = both(sides, exchange)
    (bare,), (carried,) = sides.direct.transport.tapes, sides.through.transport.tapes
    assert (bare.status, direct.error.get("class", "")) == (exchange.status, exchange.error)

    assert through == direct
    assert carried.status == bare.status
    packed = "content-encoding" in dict(bare.headers)
    assert told(carried, unpacked=packed) == told(bare, unpacked=packed)
    if not packed and exchange.name not in MENDED:
        assert b"".join(carried.pieces) == b"".join(bare.pieces)

    assert carried.sent == bare.sent
    if "count" not in exchange.way:  # the rehearsal keeps no record of what is free
        was, came = sides.direct.last(), sides.through.last()
        assert asked(came) == asked(was)
        chats = exchange.way.startswith("chat")
        body = expected(carried.sent) if chats else carried.sent
        assert came["body_sha256"] == hashlib.sha256(body).hexdigest()
        assert "x-midwatch-call" in dict(carried.headers)


def test_there_are_exchanges_enough_and_each_has_a_name_of_its_own() -> None:
    names = [str(exchange) for exchange in EXCHANGES]
    assert len(set(names)) == len(names) >= 60
    assert set(WAYS) == {exchange.way for exchange in EXCHANGES}
    assert set(MENDED) <= {exchange.name for exchange in EXCHANGES}


# -- and what is meant to differ --------------------------------------------------------------------

CUT = "without the gateway half an answer looks like a whole one"
BROKEN = "the connection is not broken off: the client is told why its answer ends"
UNSEEN = (
    "nothing of it had reached the client, and another place could have answered: it gets a status"
)
HIDDEN = "openai's client hands the documented event on as if it were content"

DIFFERENT: list[tuple[str, Exchange, str, str]] = [
    # why, exchange, what is raised without the gateway, and what with it
    (CUT, chat("ended in the middle", {"mode": "no-end", "drop": 4}, stream=True), "", "APIError"),
    (CUT, response("ended in the middle", {"mode": "no-end", "drop": 6}, stream=True), "", "APIError"),
    (CUT, message("ended in the middle", {"mode": "no-end", "drop": 4}, stream=True), "", "APIStatusError"),
    (CUT, generate("ended in the middle", {"mode": "no-end", "drop": 2}, way="generate.stream"), "", "ServerError"),
    (CUT, chat("no stream but a page", {"mode": "shape", "type": "text/html"}, stream=True), "", "InternalServerError"),
    (BROKEN, chat("cut in the middle", {"mode": "cut", "after_chunks": 4, "between": 0.03}, stream=True), "APIConnectionError", "APIError"),
    (BROKEN, message("cut in the middle", {"mode": "cut", "after_chunks": 5, "between": 0.03}, stream=True), "RemoteProtocolError", "APIStatusError"),
    (BROKEN, generate("cut in the middle", {"mode": "cut", "after_chunks": 3, "between": 0.03}, way="generate.stream"), "RemoteProtocolError", "ServerError"),
    (BROKEN, chat("an event that is no JSON", {"mode": "json", "after_chunks": 4, "between": 0.03}, stream=True), "JSONDecodeError", "APIError"),
    (BROKEN, chat("cut before the head", {"mode": "cut", "after_chunks": 0}), "APIConnectionError", "InternalServerError"),
    (UNSEEN, chat("an error as the first event", {"mode": "error", "after_chunks": 1}, stream=True), "APIError", "InternalServerError"),
    (UNSEEN, message("an error as the first event", {"mode": "error", "after_chunks": 1}, stream=True), "APIStatusError", "InternalServerError"),
    (HIDDEN, response("an error in mid-stream", {"mode": "error", "after_chunks": 6, "between": 0.03}, stream=True), "", "APIError"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("why", "exchange", "bare", "carried"),
    DIFFERENT,
    ids=lambda v: str(v) if isinstance(v, Exchange) else "",
)
def test_a_broken_answer_is_told_better_than_without_a_gateway(
    sides: Sides, why: str, exchange: Exchange, bare: str, carried: str
) -> None:
    direct, through = both(sides, exchange)
    assert (direct.error.get("class", ""), through.error.get("class", "")) == (bare, carried), why
    assert "midwatch_" in through.error["text"]
    shorter, longer = sorted((through.events, direct.events), key=len)
    assert longer[: len(shorter)] == shorter
    # on a kept connection that closes without a byte the gateway asks once more, on a new one
    allowed = (1, 2) if "before the head" in exchange.name else (1,)
    assert direct.calls == 1
    assert through.calls in allowed


def test_a_complete_message_without_its_last_event_gets_it(sides: Sides) -> None:
    exchange = message("without its last event", {"mode": "no-end"}, stream=True)
    direct, through = both(sides, exchange)
    assert (direct.error, through.error) == ({}, {})
    assert through.events[:-1] == direct.events
    assert through.events[-1] == {"class": "RawMessageStopEvent", "type": "message_stop"}


def test_a_redirect_leads_no_client_past_the_gateway(sides: Sides) -> None:
    fault = {"mode": "redirect", "location": sides.direct.url + "/v1/chat/completions"}
    before = sides.direct.model.calls.total
    through = see(sides.through, chat("elsewhere", fault))
    assert (through.error["class"], through.error["type"]) == (
        "InternalServerError",
        "midwatch_upstream",
    )
    assert "location" not in dict(sides.through.transport.tapes[0].headers)
    assert sides.direct.model.calls.total == before


def test_models_are_listed_by_the_gateway_itself_and_parsed_by_each_client(sides: Sides) -> None:
    """It lists what its agent may use at all providers, so the lists are not the same; their form is."""
    for side in (sides.direct, sides.through):
        assert GPT in [model.id for model in side.gpt.models.list()]
        assert side.gpt.models.retrieve(GPT).object == "model"
        assert {model.type for model in side.claude.models.list()} == {"model"}
        assert f"models/{GEMINI}" in [model.name for model in side.google.models.list()]
