"""The official clients understand what the dialects say: a refusal is asked once, an error in mid-stream raises.

google-genai 3.4 was tried by hand with bytes from the same functions (it is no dependency of the tests):
GOOGLE_GEMINI_BASE_URL is honoured; GOOGLE_API_KEY wins over GEMINI_API_KEY, and the key travels as
x-goog-api-key; paths begin with /v1/models and no longer with /v1beta; streams are asked for with alt=sse; a
refusal of 429, 403 or 503 is asked once and raises ClientError or ServerError with our message; an error event
in mid-stream raises ServerError; a clean end without a finishReason raises nothing, and neither does any other
clean end.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import openai
import pytest

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.gateway.dialects import (
    Refusal,
    Route,
    error_event,
    find,
    listener,
    outgoing,
    presented,
    read,
    refusal,
    sentinel,
)

CHAT = Route(Kind.OPENAI, Dialect.CHAT)
RESPONSES = Route(Kind.OPENAI, Dialect.RESPONSES)
MESSAGES = Route(Kind.ANTHROPIC, Dialect.MESSAGES)

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
SAID = b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'
STOP = SAID.replace(b'{"content":"Hi"},"finish_reason":null', b'{},"finish_reason":"stop"')
BEGUN = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"m1","type":"message","role":"assistant","content":[],"model":"m","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi"}}\n\n'
)
ENDING = (
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":2}}\n\n'
)
DELTA = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":4,"item_id":"i","output_index":0,"content_index":0,"delta":"Hi","logprobs":[]}\n\n'


@dataclass
class Desk:
    """Gives one answer to everything, and keeps what was asked."""

    url: str = ""
    status: int = 200
    headers: list[tuple[str, str]] = field(
        default_factory=lambda: [("content-type", "text/event-stream")]
    )
    body: bytes = b""
    asked: list[tuple[str, dict[str, str], bytes]] = field(
        default_factory=list[tuple[str, dict[str, str], bytes]]
    )

    def refuse(self, kind: Kind, refused: Refusal) -> None:
        self.status, self.headers, self.body = refusal(kind, refused)


@pytest.fixture
def desk() -> Iterator[Desk]:
    found = Desk()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            found.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(found.status)
            for name, value in found.headers:
                self.send_header(name, value)
            self.send_header("content-length", str(len(found.body)))
            self.end_headers()
            self.wfile.write(found.body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield found
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def gpt(desk: Desk) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{desk.url}/v1", api_key="mwk_test") as client:
        yield client


@pytest.fixture
def claude(desk: Desk) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=desk.url, api_key="mwk_test") as client:
        yield client


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, openai.RateLimitError),
        (403, openai.PermissionDeniedError),
        (401, openai.AuthenticationError),
        (400, openai.BadRequestError),
        (503, openai.InternalServerError),
    ],
)
def test_a_refused_call_of_openai_is_made_once(
    desk: Desk, gpt: openai.OpenAI, status: int, error: type[openai.APIStatusError]
) -> None:
    desk.refuse(
        Kind.OPENAI, Refusal("midwatch_budget", "The day's budget is used up.", status, 30.0)
    )
    with pytest.raises(error, match="used up") as caught:
        gpt.chat.completions.create(model="m", messages=HELLO)
    assert len(desk.asked) == 1
    assert (caught.value.type, caught.value.code) == ("midwatch_budget", "midwatch_budget")
    assert caught.value.response.headers["retry-after"] == "30"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, anthropic.RateLimitError),
        (403, anthropic.PermissionDeniedError),
        (401, anthropic.AuthenticationError),
        (400, anthropic.BadRequestError),
        (503, anthropic.InternalServerError),
    ],
)
def test_a_refused_call_of_anthropic_is_made_once_and_nobody_sleeps_until_midnight(
    desk: Desk, claude: anthropic.Anthropic, status: int, error: type[anthropic.APIStatusError]
) -> None:
    desk.refuse(
        Kind.ANTHROPIC, Refusal("midwatch_budget", "The day's budget is used up.", status, 40_000.0)
    )
    with pytest.raises(error, match="used up") as caught:
        claude.messages.create(model="m", max_tokens=5, messages=HELLO)
    assert len(desk.asked) == 1
    body: Any = caught.value.body
    assert body["error"]["type"] == "midwatch_budget"


def test_openai_raises_on_an_error_in_mid_stream(desk: Desk, gpt: openai.OpenAI) -> None:
    desk.body = SAID + error_event(CHAT, "midwatch_cut", "It broke off.")
    heard: list[str | None] = []
    with pytest.raises(openai.APIError, match="It broke off"), gpt.chat.completions.create(model="m", messages=HELLO, stream=True) as stream:  # fmt: skip
        heard.extend(chunk.choices[0].delta.content for chunk in stream)
    assert heard == ["Hi"]


def test_openai_raises_on_an_error_in_the_middle_of_a_response(
    desk: Desk, gpt: openai.OpenAI
) -> None:
    # the event that is documented, without an `error` of its own, is handed on as if it were content
    heard = listener(Ask(Kind.OPENAI, Dialect.RESPONSES, "m", stream=True))
    heard.feed(DELTA)
    desk.body = DELTA + error_event(RESPONSES, "midwatch_cut", "It broke off.", heard)
    seen: list[str] = []
    with pytest.raises(openai.APIError, match="It broke off"), gpt.responses.create(model="m", input="Hello", stream=True) as stream:  # fmt: skip
        seen.extend(event.type for event in stream)
    assert seen == ["response.output_text.delta"]


def test_anthropic_raises_on_an_error_in_mid_stream(
    desk: Desk, claude: anthropic.Anthropic
) -> None:
    desk.body = BEGUN + error_event(MESSAGES, "midwatch_cut", "It broke off.")
    heard: list[str] = []
    with pytest.raises(anthropic.APIStatusError, match="It broke off"), claude.messages.stream(model="m", max_tokens=5, messages=HELLO) as stream:  # fmt: skip
        heard.extend(stream.text_stream)
    assert heard == ["Hi"]


def test_a_stream_that_we_end_is_whole_for_openai(desk: Desk, gpt: openai.OpenAI) -> None:
    heard = listener(Ask(Kind.OPENAI, Dialect.CHAT, "m", stream=True), expects_usage=False)
    heard.feed(SAID + STOP)
    assert heard.complete
    desk.body = SAID + STOP + sentinel(CHAT, heard)
    with gpt.chat.completions.create(model="m", messages=HELLO, stream=True) as stream:
        assert [chunk.choices[0].finish_reason for chunk in stream] == [None, "stop"]


def test_a_stream_that_we_end_is_whole_for_anthropic(
    desk: Desk, claude: anthropic.Anthropic
) -> None:
    heard = listener(Ask(Kind.ANTHROPIC, Dialect.MESSAGES, "m", stream=True))
    heard.feed(BEGUN + ENDING)
    assert heard.complete
    desk.body = BEGUN + ENDING + sentinel(MESSAGES, heard)
    with claude.messages.stream(model="m", max_tokens=5, messages=HELLO) as stream:
        message = stream.get_final_message()
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 2)


def test_what_the_clients_send_is_read_and_goes_out_as_it_came(
    desk: Desk, gpt: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    tool: Any = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
    }
    calls = [
        lambda: gpt.chat.completions.create(model="m", messages=HELLO, tools=[tool]),
        lambda: gpt.responses.create(model="m", input="Hello", extra_body={"unknown": {"model": "x"}}),
        lambda: gpt.embeddings.create(model="m", input=["a", "b"]),
        lambda: claude.messages.create(model="m", max_tokens=5, messages=HELLO),
        lambda: claude.beta.messages.create(model="m", max_tokens=5, messages=HELLO, betas=["x-2025"]),
        lambda: claude.messages.count_tokens(model="m", messages=HELLO),
    ]  # fmt: skip
    desk.headers = [("content-type", "application/json")]
    desk.body = b'{"error":"enough"}'
    desk.status = 400
    for call in calls:
        with contextlib.suppress(openai.BadRequestError, anthropic.BadRequestError):
            call()
    dialects = [
        Dialect.CHAT,
        Dialect.RESPONSES,
        Dialect.EMBEDDINGS,
        Dialect.MESSAGES,
        Dialect.MESSAGES,
        Dialect.COUNT,
    ]
    assert len(desk.asked) == len(dialects)
    for (path, headers, body), dialect in zip(desk.asked, dialects, strict=True):
        where, _, query = path.partition("?")
        route = find("POST", where, query, headers)
        assert isinstance(route, Route)
        ask = read(route, headers, body)
        assert (ask.dialect, ask.model, presented(headers, query)) == (dialect, "m", "mwk_test")
        assert outgoing(ask, body, "m") == body
        assert ask.input_tokens > 0
