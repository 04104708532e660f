"""The rehearsal model itself: a server, and which path is whose dialect.

Paths may stand behind any prefix, as with the many providers that speak OpenAI's dialect
(`/openai/v1`, `/api/v1`, `/v1beta/openai`), so that one server can stand in for several of them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, Self

from midwatch.drills.rehearsal import (
    anthropic_api,
    gemini_api,
    gemini_read,
    headers,
    openai_api,
    openai_chat,
    openai_responses,
    refusals,
    script,
)
from midwatch.drills.rehearsal.answering import (
    CALL_HEADER,
    Answering,
    body_of,
    require_key,
)
from midwatch.drills.rehearsal.control import Control
from midwatch.drills.rehearsal.http import HTTPServer, Reply, Request, json_reply
from midwatch.drills.rehearsal.question import Api, BadQuestion, Json, Question
from midwatch.drills.rehearsal.refusals import Kind, Refused

CREATED: Final = 1_735_689_600
"""When all models were made."""
Route = Callable[[Request], Awaitable[Reply]]


class _Listing(Protocol):
    def model(self, name: str, created: int) -> Json: ...
    def models(self, created: int) -> Json: ...


_LISTINGS: Final[dict[Api, _Listing]] = {"messages": anthropic_api, "generate": gemini_api}


class Rehearsal:
    """The server. `url` is its base: OpenAI clients add /v1, Anthropic's and Google's add nothing."""

    def __init__(
        self,
        playing: script.Script | None = None,
        *,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
        call_header: str = CALL_HEADER,
    ) -> None:
        self.seed = seed
        self.url = ""
        self._answering = Answering(playing or script.Script(), seed, clock, call_header)
        self.calls, self.orders = self._answering.calls, self._answering.orders
        self.billed = self._answering.billed
        self._server = HTTPServer(self.handle)
        control = Control(self.calls, self.orders, self.billed)
        self._routes: dict[tuple[str, str], Route] = {
            ("GET", "/healthz"): self._healthz,
            ("HEAD", "/healthz"): self._healthz,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/responses"): self._response,
            ("POST", "/v1/embeddings"): self._embeddings,
            ("POST", "/v1/messages"): self._message,
            ("POST", "/v1/messages/count_tokens"): self._count,
            ("GET", "/v1beta/models"): self._models,
            **control.routes,
        }
        self._ends: dict[str, Route] = {
            "/messages/count_tokens": self._count,
            "/chat/completions": self._chat,
            "/responses": self._response,
            "/embeddings": self._embeddings,
            "/messages": self._message,
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

    async def handle(self, request: Request) -> Reply:
        """Answer one request."""
        route = self._routes.get((request.method, request.path)) or self._behind_prefix(request)
        if route is not None:
            return await route(request)
        known = sorted({path for _, path in self._routes})
        message = f"{request.method} {request.path} is not here; there are: {', '.join(known)}"
        refused = Refused(Kind.NOT_FOUND, message)
        return refusals.reply(refused, _api_of(request), "req_none", 0.0)

    def _behind_prefix(self, request: Request) -> Route | None:
        path = request.path
        if request.method == "POST":
            if "/models/" in path and ":" in path.rpartition("/")[2]:
                return self._generate
            return next((route for end, route in self._ends.items() if path.endswith(end)), None)
        if request.method == "GET" and _model_of(path) is not None:
            return self._models
        return None

    async def _healthz(self, _request: Request) -> Reply:
        return json_reply({"status": "ok", "calls": self.calls.total, "bugs": self._server.bugs})

    async def _models(self, request: Request) -> Reply:
        """Answer with one model, or all, of the provider whose client asks."""
        api = _api_of(request)
        shown = _LISTINGS.get(api, openai_api)
        name = _model_of(request.path)
        return self._listed(
            request, api, lambda: shown.model(name, CREATED) if name else shown.models(CREATED)
        )

    async def _chat(self, request: Request) -> Reply:
        return await self._answering.call(request, "chat", openai_chat, openai_chat.read)

    async def _response(self, request: Request) -> Reply:
        return await self._answering.call(
            request, "responses", openai_responses, self._read_response
        )

    async def _message(self, request: Request) -> Reply:
        return await self._answering.call(request, "messages", anthropic_api, anthropic_api.read)

    async def _embeddings(self, request: Request) -> Reply:
        return await self._answering.call(
            request, "embeddings", openai_chat, openai_api.read_embeddings
        )

    async def _generate(self, request: Request) -> Reply:
        """Answer generateContent, its stream, and countTokens; the model is in the path."""
        try:
            model, method = gemini_api.split(request.path.partition("/models/")[2])
        except BadQuestion as bad:
            return refusals.reply(Refused.of(bad), "generate", "", 0.0)
        if method == "countTokens":

            def counted() -> Json:
                question = gemini_read.read_count(body_of(request), model)
                return gemini_api.counted(question.blocks())

            return self._listed(request, "generate", counted)
        stream = method == "streamGenerateContent"
        as_array = stream and request.query.get("alt") != "sse"

        def read(body: Json) -> Question:
            return gemini_read.read(body, model, stream=stream, as_array=as_array)

        return await self._answering.call(request, "generate", gemini_api, read)

    async def _count(self, request: Request) -> Reply:
        def counted() -> Json:
            question = anthropic_api.read(body_of(request), counting=True)
            return {"input_tokens": sum(block.tokens() for block in question.blocks())}

        return self._listed(request, "messages", counted)

    def _listed(self, request: Request, api: Api, make: Callable[[], Json]) -> Reply:
        """Answer what is no model call: nothing is charged, recorded or spoiled."""
        try:
            require_key(request)
            reply = json_reply(make())
        except BadQuestion as bad:
            reply = refusals.reply(Refused.of(bad), api, "req_none", 0.0)
        except Refused as refused:
            reply = refusals.reply(refused, api, "req_none", 0.0)
        reply.headers |= headers.of_answer(api, "req_none", 0.0, None, 0.0)
        return reply

    def _read_response(self, body: Json) -> Question:
        previous = body.get("previous_response_id")
        if previous is None:
            return openai_responses.read(body)
        turns, names = self._answering.recall(str(previous))
        return openai_responses.read(body, turns, names)


def _model_of(path: str) -> str | None:
    """Return the model that a path of models names, nothing for all of them, or None."""
    _, found, name = path.rpartition("/models")
    return name.strip("/") if found and name[:1] in {"", "/"} else None


def _api_of(request: Request) -> Api:
    """Return whose client asks: Anthropic's names its version, Google's its key in its own way."""
    if "anthropic-version" in request.headers:
        return "messages"
    google = "x-goog-api-key" in request.headers or "key" in request.query
    return "generate" if google or "/v1beta/models" in request.path else "chat"
