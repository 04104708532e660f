"""One model call, from its body to its answer.

Read the body in its dialect → choose a behaviour (header, then the model's suffix, then orders) →
choose the answer (script, sample fleet, built-in) → count tokens → send, whole or streamed → bill.
The same question gets the same answer; only usage changes, when the prompt cache helps.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from midwatch.drills.rehearsal import (
    behave,
    gemini_api,
    headers,
    openai_api,
    refusals,
    script,
    sending,
    shapes,
)
from midwatch.drills.rehearsal.behave import REFUSALS, Behaviour, Mode
from midwatch.drills.rehearsal.billed import Bill, Billed
from midwatch.drills.rehearsal.calls import (
    MAX_SHOWN,
    Calls,
    Record,
    show_headers,
    show_key,
    show_query,
)
from midwatch.drills.rehearsal.composing import Composer, begin
from midwatch.drills.rehearsal.http import Cut, Reply, Request
from midwatch.drills.rehearsal.orders import Orders
from midwatch.drills.rehearsal.question import (
    Api,
    BadQuestion,
    Json,
    Question,
    Turn,
    as_object,
)
from midwatch.drills.rehearsal.refusals import Kind, Refused
from midwatch.drills.rehearsal.rendering import Event, Rendering
from midwatch.drills.rehearsal.sending import Meter

MAX_RESPONSES: Final = 1_000
"""Responses that `previous_response_id` can refer to; older ones are forgotten."""
BEHAVE_HEADER: Final = "x-rehearsal-behave"
"""A request header that tells how this one call is to go wrong."""
CALL_HEADER: Final = "x-midwatch-call"
"""The request header by which a client names its call, for the bill; another can be told."""


class Dialect(Protocol):
    """What a provider's module must offer to carry answers."""

    def whole(self, r: Rendering) -> Json: ...
    def events(self, r: Rendering) -> Iterator[Event]: ...
    def stream_error(self, question: Question, refused: Refused) -> bytes: ...


@dataclasses.dataclass(slots=True)
class _Exchange:
    """A call under way."""

    dialect: Dialect
    question: Question
    order: Behaviour | None
    record: Record
    token: str


class Answering:
    """What the model knows and remembers: scripts, orders, prompt cache, calls, and the invoice."""

    def __init__(
        self,
        playing: script.Script,
        seed: int,
        clock: Callable[[], float],
        call_header: str = CALL_HEADER,
    ) -> None:
        self.seed = seed
        self.clock = clock
        self.calls = Calls()
        self.billed = Billed()
        self.orders = Orders(seed)
        self.rates = headers.Rates()
        self._call_header = call_header.lower()
        self._composer = Composer(playing, seed)
        for order in playing.behave:
            self.orders.add(order, last=True)
        self._responses: OrderedDict[str, tuple[tuple[Turn, ...], dict[str, str]]] = OrderedDict()

    def recall(self, response_id: str) -> tuple[tuple[Turn, ...], dict[str, str]]:
        """Return the turns and tool names of an earlier response. Raises BadQuestion."""
        if response_id not in self._responses:
            raise BadQuestion(
                f"Previous response with id {response_id!r} not found.",
                "previous_response_id",
                404,
            )
        return self._responses[response_id]

    async def call(
        self, request: Request, api: Api, dialect: Dialect, read: Callable[[Json], Question]
    ) -> Reply:
        """Answer one call. Raises Cut when the connection is to break instead."""
        record = self._open(request, api)
        started = time.monotonic()
        reply: Reply | None = None
        try:
            exchange = self._understand(request, read, record, dialect)
            reply = await self._respond(exchange)
            if isinstance(reply.body, bytes) and record.end == "under-way":
                record.end = "done"
        except (BadQuestion, Refused) as refused:
            if isinstance(refused, BadQuestion):
                refused = Refused.of(refused)
            reply = refusals.reply(refused, api, record.request_id, self.clock())
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
        now = self.clock()
        left = self.rates.use(record.key, record.input_tokens + record.output_tokens, now)
        own = headers.of_answer(api, record.request_id, record.duration_s, left, now)
        reply.headers = own | reply.headers
        return reply

    def _open(self, request: Request, api: Api) -> Record:
        """Begin the record with all that can be known without the body."""
        record = self.calls.open(self.clock(), api, request.path[:MAX_SHOWN])
        got = request.headers
        record.request_id = f"req_{record.number}"
        record.call = got.get(self._call_header, "")[:200]
        record.headers = show_headers(got)
        record.query = show_query(request.query)
        record.body_bytes = len(request.body)
        record.body_sha256 = hashlib.sha256(request.body).hexdigest()
        record.key = show_key(key_of(request))
        _, _, of_key = record.key.partition(":")
        record.agent = got.get("x-midwatch-agent", of_key)
        record.task = got.get("x-midwatch-task", "")
        record.session = got.get("x-midwatch-session", "")
        return record

    def _understand(
        self,
        request: Request,
        read: Callable[[Json], Question],
        record: Record,
        dialect: Dialect,
    ) -> _Exchange:
        """Return what is asked, how it is to go wrong, and the unique part of the answer's ids."""
        require_key(request)
        body = body_of(request)
        question = read(body)
        model, order = behave.split_model(question.model)
        question = dataclasses.replace(question, model=model)
        told = request.headers.get(BEHAVE_HEADER)
        if told is not None:
            try:
                order = behave.read_header(told)
            except ValueError as error:
                raise BadQuestion(f"{BEHAVE_HEADER}: {error}", BEHAVE_HEADER) from None
        record.model, record.stream = question.model, question.stream
        record.turn, record.tools = question.turn, [tool.name for tool in question.tools][:100]
        record.system, record.user = question.system[:MAX_SHOWN], question.user[:MAX_SHOWN]
        repeat = self.orders.count(question.fingerprint)
        if order is None:
            order = self.orders.choose(_asked(question, record, body), repeat)
        elif order.mode is Mode.OK:
            order = None
        record.behaviour = order.mode.value if order is not None else ""
        unique = f"{self.seed}:{question.fingerprint}:{repeat}"
        token = hashlib.blake2b(unique.encode(), digest_size=12).hexdigest()
        record.request_id = f"req_{token}"
        return _Exchange(dialect, question, order, record, token)

    async def _respond(self, exchange: _Exchange) -> Reply:
        question, record = exchange.question, exchange.record
        begun, beginning = begin(question)
        answer = None
        if question.api != "embeddings":
            answer = self._composer.answer(begun, exchange.order, record.task)
            exchange.order = exchange.order or answer.behave
        order = exchange.order
        if order is not None:
            record.behaviour = order.mode.value
            refused = await _refused(order, question)
            if refused is not None:
                return refused
        if answer is None:
            body, meter = openai_api.embeddings(question), Meter(openai_api.embedded(question))
            record.input_tokens = meter.usage.input
            await self._before(exchange, meter)
            return self._whole(exchange, body, meter)
        now = self.clock()
        rendering = self._composer.render(
            question, answer, order, beginning, f"{question.model}\x00{record.key}", now
        )
        rendering = dataclasses.replace(rendering, token=exchange.token)
        _note(record, rendering, answer.rule)
        meter = Meter(rendering.usage)
        if question.api == "responses":
            self._remember(rendering)
        await self._before(exchange, meter)
        if question.api == "generate" and order is not None and order.mode is Mode.CONTENT_POLICY:
            return self._blocked(exchange, rendering)
        if not question.stream:
            return self._whole(exchange, exchange.dialect.whole(rendering), meter)
        return self._streamed(exchange, rendering, meter)

    async def _before(self, exchange: _Exchange, meter: Meter) -> None:
        """Do what goes wrong between the question and the head. Raises Cut."""
        order, record = exchange.order, exchange.record
        if order is None:
            return
        early = sending.early(order, stream=exchange.question.stream)
        if order.mode in {Mode.CUT, Mode.STALL} and early:
            if order.bill is not None:
                meter.end = "cut" if order.mode is Mode.CUT else "stalled"
                self._settle(exchange, meter)
            if order.sets("first_token"):
                await asyncio.sleep(order.first_token)
            if order.mode is Mode.CUT:
                raise Cut(reset=order.how == "reset")
            record.end = "stalled"
            await sending.stall(order)
            record.end = "under-way"
        elif order.sets("first_token") and not order.head_first:
            try:
                await asyncio.sleep(order.first_token)
            except asyncio.CancelledError:
                self._settle(exchange, meter)
                raise

    def _whole(self, exchange: _Exchange, body: Json, meter: Meter) -> Reply:
        order = exchange.order
        reply, meter.end = sending.whole(body, order)
        self._settle(exchange, meter, all_of_it=True)
        return _decorated(reply, order)

    def _streamed(self, exchange: _Exchange, rendering: Rendering, meter: Meter) -> Reply:
        question, order = exchange.question, exchange.order
        events = list(exchange.dialect.events(rendering))

        def error() -> bytes:
            kind = Kind.OVERLOADED if order is None or order.status is None else None
            refused = Refused(
                kind or refusals.kind_of(order.status if order and order.status else 503),
                order.message if order is not None else None,
                status=order.status if order is not None else None,
                model=question.model,
            )
            return exchange.dialect.stream_error(question, refused)

        body = sending.stream(events, order, error, meter, lambda: self._settle(exchange, meter))
        reply = Reply(200, body, {"content-type": "text/event-stream; charset=utf-8"})
        if question.as_array:
            reply.headers["content-type"] = "application/json; charset=UTF-8"
        reply.headers["cache-control"] = "no-cache"
        if order is not None and order.gzip:
            reply.body = shapes.compressed(body)
            reply.headers["content-encoding"] = "gzip"
        return _decorated(reply, order)

    def _blocked(self, exchange: _Exchange, rendering: Rendering) -> Reply:
        """Return Google's answer to a prompt that its policy forbids: a good one without candidates."""
        rendering = dataclasses.replace(
            rendering, usage=dataclasses.replace(rendering.usage, output=0, reasoning=0)
        )
        body, question = gemini_api.blocked(rendering), exchange.question
        meter = Meter(rendering.usage)
        if not question.stream:
            return self._whole(exchange, body, meter)
        exchange.dialect = _OneEvent(gemini_api.framed(question, body, first=True))
        return self._streamed(exchange, rendering, meter)

    def _settle(self, exchange: _Exchange, meter: Meter, *, all_of_it: bool = False) -> None:
        """Put the call on the invoice, and write down how it ended."""
        record, order = exchange.record, exchange.order
        if record.end == "under-way" or meter.end != "left":
            record.end = meter.end
        how = order.bill if order is not None else None
        usage = meter.usage if how == "whole" or all_of_it else meter.bill()
        record.output_tokens = usage.output
        if how == "nothing":
            return
        tier = order.tier if order is not None and order.tier else exchange.question.tier
        served = order.served if order is not None and order.served else record.model
        self.billed.add(
            Bill(
                call=record.call,
                request_id=record.request_id,
                api=record.api,
                model=record.model[:200],
                served=served[:200],
                tier=tier[:100],
                stream=record.stream,
                end=record.end,
                usage=usage,
            )
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


def _note(record: Record, rendering: Rendering, rule: str) -> None:
    usage = rendering.usage
    record.rule, record.text = rule, rendering.text[:MAX_SHOWN]
    record.called = [call.tool for call in rendering.calls]
    record.input_tokens, record.cached_tokens = usage.input, usage.cached
    record.written_tokens, record.reasoning_tokens = usage.written, usage.reasoning
    record.output_tokens = usage.output


@dataclasses.dataclass(frozen=True, slots=True)
class _OneEvent:
    """A dialect whose stream is one event."""

    data: bytes

    def whole(self, r: Rendering) -> Json:
        return gemini_api.blocked(r)

    def events(self, r: Rendering) -> Iterator[Event]:
        yield Event(self.data + (b"]" if r.question.as_array else b""))

    def stream_error(self, question: Question, refused: Refused) -> bytes:
        return gemini_api.stream_error(question, refused)


def _asked(question: Question, record: Record, body: Json) -> behave.Asked:
    return behave.Asked(
        question.api,
        question.model,
        record.agent,
        record.key,
        record.task,
        question.fingerprint,
        record.path,
        question.stream,
        question.prefill is not None,
        frozenset(body),
    )


async def _refused(order: Behaviour, question: Question) -> Reply | None:
    """Raise Refused, or return the answer of something that stands before the model, or None."""
    kind = REFUSALS.get(order.mode)
    if order.mode is Mode.STATUS and order.status is not None:
        kind = refusals.kind_of(order.status)
    if order.mode is Mode.ERROR and not sending.early(order, stream=question.stream):
        return None
    if order.mode is Mode.CONTENT_POLICY and question.api == "generate" and order.status is None:
        return None  # it says so in a good answer
    if kind is None and order.mode not in {Mode.HTML, Mode.REDIRECT}:
        return None
    if order.sets("first_token"):
        await asyncio.sleep(order.first_token)
    if order.mode is Mode.HTML:
        page = (
            b"<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"
        )
        return _decorated(Reply(order.status or 502, page, {"content-type": "text/html"}), order)
    if kind is None:
        return _decorated(Reply(order.status or 307, b"", {"location": order.location}), order)
    waits = kind is Kind.RATE_LIMIT or order.sets("retry_after")
    raise Refused(
        kind,
        order.message,
        status=order.status,
        param=order.param,
        model=question.model,
        retry_after_s=order.retry_after if waits else None,
        retry_form=order.retry_form,
    )


def _decorated(reply: Reply, order: Behaviour | None) -> Reply:
    if order is not None:
        if order.type is not None:
            reply.headers["content-type"] = order.type
        reply.headers |= {name.lower(): value for name, value in order.headers.items()}
    return reply


def key_of(request: Request) -> str:
    """Return the key that a request carries, wherever its provider's clients put it."""
    got = request.headers
    bearer = got.get("authorization", "").removeprefix("Bearer ").strip()
    named = got.get("x-api-key") or got.get("x-goog-api-key") or got.get("api-key")
    return named or bearer or request.query.get("key", "")


def require_key(request: Request) -> None:
    """Raise Refused when a request has no key at all."""
    if not key_of(request):
        raise Refused(Kind.NO_KEY)


def body_of(request: Request) -> Json:
    """Return the request's JSON object. Raises BadQuestion."""
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
