"""The rehearsal model itself: routes, who asks, what is answered, and how it goes wrong.

One call: read the body in its dialect → choose a behaviour (header, then the model's suffix, then
orders) → choose the answer (script, sample fleet, built-in) → count tokens → send, whole or streamed.
The same question gets the same answer; only usage changes, when the prompt cache helps.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import math
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Final, Protocol, Self

from midwatch.drills.rehearsal import (
    anthropic_api,
    behave,
    builtin,
    openai_api,
    openai_chat,
    openai_responses,
    script,
    tokens,
)
from midwatch.drills.rehearsal.behave import Behaviour, Mode
from midwatch.drills.rehearsal.calls import MAX_SHOWN, Calls, Record, show_key
from midwatch.drills.rehearsal.control import Control
from midwatch.drills.rehearsal.http import Cut, HTTPServer, Reply, Request, json_reply
from midwatch.drills.rehearsal.question import BadQuestion, Call, Json, Question, Turn, as_object
from midwatch.drills.rehearsal.rendering import Rendering, end_text

MAX_RESPONSES: Final = 1_000
"""Responses that `previous_response_id` can refer to; older ones are forgotten."""
BEHAVE_HEADER: Final = "x-rehearsal-behave"
"""A request header that tells how this one call is to go wrong."""


class Dialect(Protocol):
    """What a provider's module must offer to carry answers."""

    def error(self, status: int, message: str, param: str | None = None) -> Json: ...
    def whole(self, r: Rendering) -> Json: ...
    def events(self, r: Rendering) -> Iterator[bytes]: ...
    def stream_error(self, status: int, message: str) -> bytes: ...


class Refused(Exception):
    """The call is answered with an error status in the dialect's own body."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.retry_after_s = retry_after_s


class Rehearsal:
    """The server. `url` is its base: OpenAI clients add /v1, Anthropic's add nothing."""

    def __init__(
        self,
        playing: script.Script | None = None,
        *,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.seed = seed
        self.calls = Calls()
        self.orders = behave.Orders(seed)
        self.url = ""
        self._playing = playing or script.Script()
        self._players = [script.Player(self._playing), script.Player(script.load(script.SAMPLE))]
        for order in self._playing.behave:
            self.orders.add(order, last=True)
        self._cache = tokens.PromptCache()
        self._responses: OrderedDict[str, tuple[tuple[Turn, ...], dict[str, str]]] = OrderedDict()
        self._clock = clock
        self._server = HTTPServer(self.handle)
        self._routes: dict[tuple[str, str], Callable[[Request], Awaitable[Reply]]] = {
            ("GET", "/healthz"): self._healthz,
            ("HEAD", "/healthz"): self._healthz,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/responses"): self._response,
            ("POST", "/v1/embeddings"): self._embeddings,
            ("POST", "/v1/messages"): self._message,
            ("POST", "/v1/messages/count_tokens"): self._count,
            **Control(self.calls, self.orders).routes,
        }

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen and return the base URL. Raises OSError when the address cannot be used."""
        bound = await self._server.start(host, port)
        self.url = f"http://[{host}]:{bound}" if ":" in host else f"http://{host}:{bound}"
        return self.url

    async def close(self) -> None:
        """Stop at once; calls under way break off."""
        await self._server.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # --- routes ---

    async def handle(self, request: Request) -> Reply:
        """Answer one request."""
        route = self._routes.get((request.method, request.path))
        if route is not None:
            return await route(request)
        if request.method == "GET" and request.path.startswith("/v1/models/"):
            return await self._models(request)
        known = sorted({path for _, path in self._routes})
        message = f"{request.method} {request.path} is not here; there are: {', '.join(known)}"
        return json_reply(_listing(request).error(404, message), 404)

    async def _healthz(self, _request: Request) -> Reply:
        return json_reply({"status": "ok", "calls": self.calls.total, "bugs": self._server.bugs})

    async def _models(self, request: Request) -> Reply:
        api = _listing(request)
        if not _key(request):
            return json_reply(api.error(401, _NO_KEY), 401)
        created = 1_735_689_600
        name = request.path.removeprefix("/v1/models").strip("/")
        return json_reply(api.model(name, created) if name else api.models(created))

    async def _chat(self, request: Request) -> Reply:
        return await self._call(request, "chat", openai_chat, openai_chat.read)

    async def _response(self, request: Request) -> Reply:
        return await self._call(request, "responses", openai_responses, self._read_response)

    async def _message(self, request: Request) -> Reply:
        return await self._call(request, "messages", anthropic_api, anthropic_api.read)

    async def _embeddings(self, request: Request) -> Reply:
        return await self._call(request, "embeddings", openai_chat, openai_api.read_embeddings)

    async def _count(self, request: Request) -> Reply:
        try:
            _require_key(request)
            question = anthropic_api.read(_body(request), counting=True)
        except (BadQuestion, Refused) as refused:
            return json_reply(anthropic_api.error(refused.status, str(refused)), refused.status)
        return json_reply({"input_tokens": sum(block.tokens() for block in question.blocks())})

    def _read_response(self, body: Json) -> Question:
        previous = body.get("previous_response_id")
        if previous is None:
            return openai_responses.read(body)
        if previous not in self._responses:
            raise BadQuestion(
                f"Previous response with id {previous!r} not found.", "previous_response_id", 404
            )
        turns, names = self._responses[previous]
        return openai_responses.read(body, turns, names)

    # --- one model call ---

    async def _call(
        self, request: Request, api: str, dialect: Dialect, read: Callable[[Json], Question]
    ) -> Reply:
        record = self.calls.open(self._clock(), api, request.path)
        started = time.monotonic()
        token = ""
        reply: Reply | None = None
        try:
            question, behaviour, token = self._understand(request, read, record)
            record.behaviour = behaviour.mode.value if behaviour is not None else ""
            reply = await self._respond(question, behaviour, dialect, record, token)
        except (BadQuestion, Refused) as refused:
            reply = _refusal(refused, dialect)
            record.end = "refused"
        except Cut:
            record.end = "cut"
            raise
        except asyncio.CancelledError:
            record.end = "stalled" if record.end == "stalled" else "left"
            raise
        finally:
            record.duration_s = time.monotonic() - started
        record.status = reply.status
        request_id = f"req_{token or record.number}"
        reply.headers |= {"x-request-id": request_id, "request-id": request_id}
        if isinstance(reply.body, bytes):
            record.end = "done" if record.end == "under-way" else record.end
        return reply

    def _understand(
        self, request: Request, read: Callable[[Json], Question], record: Record
    ) -> tuple[Question, Behaviour | None, str]:
        """Return what is asked, how it is to go wrong, and the unique part of the answer's ids."""
        headers = request.headers
        record.key = show_key(_key(request))
        _, _, of_key = record.key.partition(":")
        record.agent = headers.get("x-midwatch-agent", of_key)
        record.task = headers.get("x-midwatch-task", "")
        record.session = headers.get("x-midwatch-session", "")
        _require_key(request)
        question = read(_body(request))
        name, of_suffix = behave.split_model(question.model)
        question = dataclasses.replace(question, model=name)
        record.model, record.stream, record.turn = name, question.stream, question.turn
        record.system, record.user = question.system[:MAX_SHOWN], question.user[:MAX_SHOWN]
        record.tools = [t.name for t in question.tools]
        repeat = self.orders.count(question.fingerprint)
        asked = behave.Asked(
            record.api, name, record.agent, _key(request), record.task, question.fingerprint
        )
        try:
            told = (
                behave.read_header(headers[BEHAVE_HEADER])
                if BEHAVE_HEADER in headers
                else of_suffix
            )
        except ValueError as error:
            raise BadQuestion(f"{BEHAVE_HEADER}: {error}", BEHAVE_HEADER) from None
        behaviour = told or self.orders.choose(asked, repeat)
        unique = f"{self.seed}:{question.fingerprint}:{repeat}"
        return question, behaviour, hashlib.blake2b(unique.encode(), digest_size=12).hexdigest()

    async def _respond(
        self,
        question: Question,
        behaviour: Behaviour | None,
        dialect: Dialect,
        record: Record,
        token: str,
    ) -> Reply:
        answer = (
            None if question.api == "embeddings" else self._answer(question, behaviour, record.task)
        )
        if behaviour is None and answer is not None:
            behaviour = answer.behave
        await self._before(behaviour, question, record)
        if answer is None:
            return self._spoil(json_reply(openai_api.embeddings(question)), behaviour)
        rendering = self._render(question, answer, behaviour, record, token)
        if question.api == "responses":
            self._remember(rendering)
        if not question.stream:
            return self._spoil(json_reply(dialect.whole(rendering)), behaviour)
        headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        return Reply(
            200, self._stream(list(dialect.events(rendering)), behaviour, dialect, record), headers
        )

    async def _before(
        self, behaviour: Behaviour | None, question: Question, record: Record
    ) -> None:
        """Do what goes wrong before the first byte. Raises Refused and Cut."""
        if behaviour is None:
            return
        early = not question.stream or behaviour.chunks == 0
        match behaviour.mode:
            case Mode.SLOW:
                await asyncio.sleep(behaviour.first_token)
            case Mode.RATE_LIMIT:
                wait = behaviour.retry_after
                raise Refused(
                    429,
                    f"Rate limit reached for {question.model}; try again in {wait:g} s.",
                    None,
                    wait,
                )
            case Mode.ERROR if early:
                raise Refused(
                    500, "The server had an error while processing your request (rehearsed)."
                )
            case Mode.OVERLOADED:
                raise Refused(529 if question.api == "messages" else 503, "Overloaded")
            case Mode.REFUSE:
                raise Refused(401, "Incorrect API key provided (rehearsed); check the key.")
            case Mode.CUT if early:
                raise Cut
            case Mode.STALL if early:
                record.end = "stalled"
                await asyncio.Event().wait()  # until the client leaves
            case _:
                pass

    def _answer(self, question: Question, behaviour: Behaviour | None, task: str) -> script.Answer:
        if behaviour is not None and behaviour.mode is Mode.LOOP:
            return builtin.loop(question, self.seed, same=behaviour.same)
        for player in self._players:
            answer = player.answer(question, task)
            if answer is not None:
                return answer
            if player.script.otherwise == "error":
                raise BadQuestion(
                    f"no rule of the script matches: turn {question.turn}, user {question.user[:80]!r}"
                )
        return builtin.answer(question, self.seed)

    def _render(
        self,
        question: Question,
        answer: script.Answer,
        behaviour: Behaviour | None,
        record: Record,
        token: str,
    ) -> Rendering:
        """Bound the answer, count its tokens, and write both down."""
        text, stop, long = end_text(answer.text, question.stops, question.max_tokens)
        calls = () if long else answer.calls
        if behaviour is not None and behaviour.mode is Mode.ARGUMENTS:
            calls = tuple(Call(c.tool, c.arguments()[:-1] + ', "oops": ') for c in calls)
        usage = self._cache.look(
            f"{question.model}\x00{record.key}", question.blocks(), explicit=question.explicit_cache
        )
        said = tokens.count(text) + sum(tokens.count(c.tool + c.arguments()) + 4 for c in calls)
        usage = _insist(dataclasses.replace(usage, output=max(said, 1)), answer.counts)
        record.rule, record.text, record.called = (
            answer.rule,
            text[:MAX_SHOWN],
            [c.tool for c in calls],
        )
        record.input_tokens, record.cached_tokens, record.output_tokens = (
            usage.input,
            usage.cached,
            usage.output,
        )
        return Rendering(
            token=token,
            created=int(self._clock()),
            model=question.model,
            text=text,
            calls=calls,
            finish="length"
            if long
            else "calls"
            if calls
            else "stop"
            if stop is not None
            else "end",
            stop=stop,
            usage=usage,
            include_usage=question.include_usage,
            question=question,
        )

    def _remember(self, rendering: Rendering) -> None:
        turns = (*rendering.question.turns, Turn("assistant", rendering.text, rendering.calls))
        names = {
            f"call_{rendering.token}{index}": call.tool
            for index, call in enumerate(rendering.calls)
        }
        self._responses[f"resp_{rendering.token}"] = (turns, names)
        if len(self._responses) > MAX_RESPONSES:
            self._responses.popitem(last=False)

    def _spoil(self, reply: Reply, behaviour: Behaviour | None) -> Reply:
        """Cut a whole body short when that is the order."""
        if behaviour is not None and behaviour.mode is Mode.JSON and isinstance(reply.body, bytes):
            reply.body = reply.body[: max(len(reply.body) // 2, 1)]
        return reply

    async def _stream(
        self, events: list[bytes], behaviour: Behaviour | None, dialect: Dialect, record: Record
    ) -> AsyncGenerator[bytes]:
        """Yield the events, and go wrong after as many as ordered; at the latest before the last one."""
        mode = behaviour.mode if behaviour is not None else Mode.OK
        wrong_at = min(behaviour.chunks, len(events) - 1) if behaviour is not None else len(events)
        record.end = "left"
        for number, event in enumerate(events):
            if behaviour is not None and mode is Mode.SLOW and number:
                await asyncio.sleep(behaviour.between)
            if number == wrong_at and mode in _MIDSTREAM:
                record.end = "stalled" if mode is Mode.STALL else "cut"
                if mode is Mode.STALL:
                    await asyncio.Event().wait()
                if mode is Mode.CUT:
                    raise Cut
                status = 529 if record.api == "messages" else 500
                yield (
                    event[:-8] + b"\n\n"
                    if mode is Mode.JSON
                    else dialect.stream_error(status, "Overloaded")
                )
                return
            yield event
        record.end = "done"


_NO_KEY: Final = "You didn't provide an API key; any key will do, for example `rehearsal`."
_MIDSTREAM: Final = frozenset({Mode.CUT, Mode.STALL, Mode.ERROR, Mode.JSON})


class _Listing(Protocol):
    def error(self, status: int, message: str, param: str | None = None) -> Json: ...
    def model(self, name: str, created: int) -> Json: ...
    def models(self, created: int) -> Json: ...


def _listing(request: Request) -> _Listing:
    """Return whose list of models is asked for: Anthropic's clients always name their version."""
    return anthropic_api if "anthropic-version" in request.headers else openai_api


def _key(request: Request) -> str:
    bearer = request.headers.get("authorization", "")
    return request.headers.get("x-api-key") or bearer.removeprefix("Bearer ").strip()


def _require_key(request: Request) -> None:
    if not _key(request):
        raise Refused(401, _NO_KEY)


def _body(request: Request) -> Json:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise BadQuestion(
            "content-encoding: the rehearsal model reads plain JSON; send it uncompressed"
        )
    try:
        return as_object(json.loads(request.body), "body")
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadQuestion):
            raise
        raise BadQuestion(f"We could not parse the JSON body of your request: {error}") from None


def _refusal(refused: BadQuestion | Refused, dialect: Dialect) -> Reply:
    reply = json_reply(dialect.error(refused.status, str(refused), refused.param), refused.status)
    wait = refused.retry_after_s if isinstance(refused, Refused) else None
    if wait is not None:  # the header is whole seconds by its definition; clients read both
        reply.headers |= {
            "retry-after": str(math.ceil(wait)),
            "retry-after-ms": str(round(wait * 1000)),
        }
    return reply


def _insist(usage: tokens.Usage, counts: script.Counts | None) -> tokens.Usage:
    if counts is None:
        return usage
    given = {name: value for name, value in counts.model_dump().items() if value is not None}
    usage = dataclasses.replace(usage, **given)
    cached = min(usage.cached, usage.input)
    return dataclasses.replace(
        usage, cached=cached, written=min(usage.written, usage.input - cached)
    )
