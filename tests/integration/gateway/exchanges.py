"""What official clients ask, as data: each row is one call, what goes wrong with it, and how it ends without a gateway.

`way` names the client's method (`WAYS` in test_clients.py), `given` its arguments, `fault` what the rehearsal model
is told to do. `status` and `error` are what the client gets, so that a row cannot quietly test something else.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

GPT, THINKING, CLAUDE, GEMINI = "gpt-4o-mini", "o4-mini", "claude-haiku-4-5", "gemini-2.5-flash"


@dataclass(frozen=True)
class Exchange:
    name: str
    way: str
    given: dict[str, Any]
    fault: dict[str, Any] | str | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    status: int = 200
    error: str = ""
    """The class of what is raised."""

    def __str__(self) -> str:
        return f"{self.way}-{self.name}".replace(" ", "-")


ASK = "What did the harbour master say about the 3 ships? Write to ann@example.com."
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()
SOUND = base64.b64encode(b"RIFF" + bytes(60)).decode()
PDF = base64.b64encode(b"%PDF-1.7\n" + bytes(60)).decode()
LONG = "The tide tables of the northern harbours, read aloud by night. " * 120
ODD = 'naïve café \u2028 \U0001f6a2 \u05e9\u05dc\u05d5\u05dd \\ " \t </script> \u0000'
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


def _users(text: Any = ASK) -> list[Any]:
    return [{"role": "user", "content": text}]


# -- OpenAI: chat ------------------------------------------------------------------------------------


def chat(name: str, fault: Any = None, way: str = "chat", status: int = 200, error: str = "", *, headers: Any = None, **given: Any) -> Exchange:  # fmt: skip
    base = {"model": GPT, "messages": _users()}
    return Exchange(name, way, {**base, **given}, fault, headers or {}, status, error)


FUNCTION = {
    "type": "function",
    "function": {"name": "weather", "description": "Look", "parameters": SCHEMA, "strict": True},
}
OTHER_FUNCTION = {"type": "function", "function": {"name": "mail", "parameters": SCHEMA}}
CALLED = [
    *_users(),
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city": "Oslo",  "days": 3}'},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "rain, 4 degrees"},
]
FORM = {"type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA, "strict": True}}
USAGE = {"include_usage": True}

CHATS = [
    chat("plain"),
    chat("roles and numbers", messages=[{"role": "system", "content": "Be brief."}, {"role": "developer", "content": "In verse."}, *_users()], temperature=0.25, top_p=1, seed=7, presence_penalty=0, logit_bias={"50256": -100}),
    chat("odd text", messages=_users(ODD)),
    chat("streamed", stream=True),
    chat("streamed, odd text", stream=True, messages=_users(ODD)),
    chat("streamed with usage", stream=True, stream_options=USAGE),
    chat("streamed, usage declined", stream=True, stream_options={"include_usage": False, "include_obfuscation": False}),
    chat("streamed by the helper", way="chat.stream"),
    chat("streamed by the helper, tools", way="chat.stream", tools=[FUNCTION], tool_choice="required"),
    chat("tools", tools=[FUNCTION, OTHER_FUNCTION], tool_choice="auto", parallel_tool_calls=False),
    chat("tools, streamed", stream=True, tools=[FUNCTION, OTHER_FUNCTION], tool_choice="required"),
    chat("a tool by name", tools=[FUNCTION, OTHER_FUNCTION], tool_choice={"type": "function", "function": {"name": "mail"}}),
    chat("a tool's result", messages=CALLED, tools=[FUNCTION]),
    chat("a picture", messages=_users([{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}", "detail": "low"}}])),
    chat("a sound", messages=_users([{"type": "text", "text": "Who speaks?"}, {"type": "input_audio", "input_audio": {"data": SOUND, "format": "wav"}}])),
    chat("a file", messages=_users([{"type": "text", "text": "Sum it up"}, {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}}])),
    chat("a schema", response_format=FORM),
    chat("any JSON, streamed", stream=True, response_format={"type": "json_object"}),
    chat("reasoning", model=THINKING, reasoning_effort="high", max_completion_tokens=9_000),
    chat("reasoning, streamed", model=THINKING, reasoning_effort="low", stream=True),
    chat("cut off by max_tokens", max_tokens=5),
    chat("cut off by max_tokens, streamed", max_tokens=5, stream=True),
    chat("stopped by a word", stop=["this", "\n\n"]),
    chat("service tier", service_tier="flex"),
    chat("a prefix for the cache", messages=[{"role": "system", "content": LONG}, *_users()], prompt_cache_key="harbour", extra_body={"prompt_cache_retention": "24h"}),
    chat("the same from the cache", messages=[{"role": "system", "content": LONG}, *_users()], prompt_cache_key="harbour", extra_body={"prompt_cache_retention": "24h"}),
    chat("fields of tomorrow", extra_body={"unheard_of": {"model": "no", "stream": True, "n": [1, None, 2.5e-3]}, "usage": None}, metadata={"night": "watch"}, store=True, safety_identifier="u1"),
    chat("headers of tomorrow", headers={"OpenAI-Beta": "assistants=v2", "X-Unheard-Of": "a, b", "Idempotency-Key": "k1"}, extra_query={"version": "2", "empty": ""}),
    chat("another model answers", {"mode": "shape", "served": "gpt-4o-mini-2024-07-18"}),
    chat("no usage", "no-usage"),
    chat("part of the usage", "part-usage"),
    chat("usage of zero", {"mode": "shape", "usage": "zero"}),
    chat("usage that is text, streamed", {"mode": "shape", "usage": "text"}, stream=True, stream_options=USAGE),
    chat("packed unasked", "gzip"),
    chat("packed unasked, streamed", "gzip", stream=True),
    chat("filtered", {"mode": "refusal"}),
    chat("filtered, streamed", {"mode": "refusal"}, stream=True),
    chat("arguments that are no JSON", {"mode": "arguments"}, tools=[FUNCTION], tool_choice="required", stream=True),
    chat("without its last line", {"mode": "no-end"}, stream=True),
    chat("more headers", {"mode": "shape", "headers": {"x-request-cost": "1", "cf-ray": "abc", "warning": "299 - old"}}),
    *(
        chat(f"a stream in the form {form}", {"mode": "shape", "sse": form}, stream=True, stream_options=USAGE)
        for form in ("crlf", "cr", "comments", "split", "packed", "bytes", "lines", "no-space", "ids", "long-line")
    ),
    chat("several answers, which the model declines", n=2, status=400, error="BadRequestError"),
    chat("a bad request", {"mode": "400"}, status=400, error="BadRequestError"),
    chat("an unknown parameter", {"mode": "unknown-parameter", "param": "top_z"}, status=400, error="BadRequestError"),
    chat("too long a context", {"mode": "context-length"}, status=400, error="BadRequestError"),
    chat("content policy", {"mode": "content-policy"}, status=400, error="BadRequestError"),
    chat("a bad request, streamed", {"mode": "400"}, status=400, error="BadRequestError", stream=True),
    chat("a refused key", {"mode": "401"}, status=401, error="AuthenticationError"),
    chat("no money", {"mode": "402"}, status=402, error="APIStatusError"),
    chat("not allowed", {"mode": "403"}, status=403, error="PermissionDeniedError"),
    chat("no such model", {"mode": "404"}, status=404, error="NotFoundError"),
    chat("a conflict", {"mode": "status", "status": 409}, status=409, error="ConflictError"),
    chat("too large", {"mode": "413"}, status=413, error="APIStatusError"),
    chat("unprocessable", {"mode": "status", "status": 422, "message": "no"}, status=422, error="UnprocessableEntityError"),
    chat("a teapot", {"mode": "status", "status": 418}, status=418, error="APIStatusError"),
    *(
        chat(f"too often, told as {form}", {"mode": "429", "retry_after": 7.2, "retry_form": form}, status=429, error="RateLimitError")
        for form in ("both", "seconds", "ms", "date", "none")
    ),
    chat("too often, streamed", {"mode": "429"}, status=429, error="RateLimitError", stream=True),
    chat("the quota is used up", {"mode": "quota"}, status=429, error="RateLimitError"),
    chat("a server's error", {"mode": "500"}, status=500, error="InternalServerError"),
    chat("a server's error, streamed", {"mode": "500"}, status=500, error="InternalServerError", stream=True),
    chat("a page for people", {"mode": "502"}, status=502, error="InternalServerError"),
    chat("overloaded", {"mode": "503"}, status=503, error="InternalServerError"),
    chat("timed out over there", {"mode": "504"}, status=504, error="InternalServerError"),
    chat("a status of its own", {"mode": "status", "status": 529}, status=529, error="InternalServerError"),
    chat("an error in mid-stream", {"mode": "error", "after_chunks": 4, "between": 0.03}, error="APIError", stream=True),
    chat("an error in mid-stream, by the helper", {"mode": "error", "after_chunks": 4, "between": 0.03}, way="chat.stream", error="APIError"),
]  # fmt: skip


# -- OpenAI: responses and embeddings -------------------------------------------------------------------


def response(name: str, fault: Any = None, way: str = "responses", status: int = 200, error: str = "", **given: Any) -> Exchange:  # fmt: skip
    return Exchange(name, way, {"model": GPT, "input": ASK, **given}, fault, {}, status, error)


FLAT = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}
ITEMS = [
    {"role": "user", "content": ASK},
    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c1", "output": "rain"},
]

RESPONSES = [
    response("plain", instructions="Be brief.", store=False, metadata={"a": "b"}, truncation="auto"),
    response("streamed", stream=True),
    response("streamed by the helper", way="responses.stream"),
    response("tools", tools=[FLAT], tool_choice="required"),
    response("tools, streamed", tools=[FLAT], tool_choice="required", stream=True),
    response("a tool's result", input=ITEMS, tools=[FLAT]),
    response("a picture", input=_users([{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"}])),
    response("a schema", text={"format": {"type": "json_schema", "name": "trip", "schema": SCHEMA}}),
    response("reasoning", model=THINKING, reasoning={"effort": "medium", "summary": "auto"}, include=["reasoning.encrypted_content"]),
    response("reasoning, streamed", model=THINKING, reasoning={"effort": "low", "summary": "auto"}, stream=True),
    response("cut off", max_output_tokens=16, input=ASK * 8),
    response("cut off, streamed", max_output_tokens=16, input=ASK * 8, stream=True),
    response("tier and fields of tomorrow", service_tier="flex", extra_body={"unheard_of": [1]}),
    response("filtered, streamed", {"mode": "refusal"}, stream=True),
    response("a response that nobody knows", previous_response_id="resp_nobody", status=404, error="NotFoundError"),
    response("content policy", {"mode": "content-policy"}, status=400, error="BadRequestError"),
    response("too long a context", {"mode": "context-length"}, status=400, error="BadRequestError"),
    response("too often, streamed", {"mode": "429"}, status=429, error="RateLimitError", stream=True),
    response("a server's error", {"mode": "500"}, status=500, error="InternalServerError"),
]  # fmt: skip

EMBEDDINGS = [
    Exchange("packed in base64", "embeddings", {"model": "text-embedding-3-small", "input": ASK}),
    Exchange("numbers of several texts", "embeddings", {"model": "text-embedding-3-small", "input": [ASK, ODD], "encoding_format": "float", "dimensions": 8, "user": "u1"}),
    Exchange("tokens", "embeddings", {"model": "text-embedding-3-small", "input": [[1, 2, 3], [4]], "dimensions": 4}),
    Exchange("too often", "embeddings", {"model": "text-embedding-3-small", "input": "x"}, {"mode": "429"}, status=429, error="RateLimitError"),
]  # fmt: skip


# -- Anthropic ------------------------------------------------------------------------------------------


def message(name: str, fault: Any = None, way: str = "messages", status: int = 200, error: str = "", *, headers: Any = None, **given: Any) -> Exchange:  # fmt: skip
    base: dict[str, Any] = {"model": CLAUDE, "messages": _users()}
    if not way.endswith("count"):
        base["max_tokens"] = 200
    return Exchange(name, way, {**base, **given}, fault, headers or {}, status, error)


TOOL = {"name": "weather", "description": "Look", "input_schema": SCHEMA}
MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
BLOCKS = [
    {"type": "text", "text": LONG, "cache_control": HOUR},
    {"type": "text", "text": LONG[:4000], "cache_control": MARK},
]
USED = [
    *_users(),
    {"role": "assistant", "content": [{"type": "text", "text": "I look."}, {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo", "days": 3}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "rain"}], "is_error": False}]},
]  # fmt: skip
THINK = {"type": "enabled", "budget_tokens": 1_024}

MESSAGES = [
    message("plain"),
    message("odd text", messages=_users(ODD), system="Be brief."),
    message("streamed", stream=True),
    message("streamed by the helper", way="messages.stream"),
    message("tools", tools=[TOOL], tool_choice={"type": "any", "disable_parallel_tool_use": True}),
    message("tools, streamed", tools=[TOOL], tool_choice={"type": "any"}, stream=True),
    message("tools, streamed by the helper", way="messages.stream", tools=[TOOL], tool_choice={"type": "tool", "name": "weather"}),
    message("a tool's result", messages=USED, tools=[TOOL]),
    message("a picture", messages=_users([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}, {"type": "text", "text": "What is it?"}])),
    message("a picture by its address", messages=_users([{"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}, {"type": "text", "text": "What is it?"}])),
    message("a document", messages=_users([{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}, "citations": {"enabled": True}}, {"type": "text", "text": "Sum it up"}])),
    message("thinking", thinking=THINK, max_tokens=4_000),
    message("thinking, streamed", thinking=THINK, max_tokens=4_000, stream=True),
    message("thinking, streamed by the helper", way="messages.stream", thinking=THINK, max_tokens=4_000),
    message("marks for the cache, written", system=BLOCKS),
    message("marks for the cache, read", system=BLOCKS, stream=True),
    message("betas", way="beta", betas=["context-1m-2025-08-07", "fine-grained-tool-streaming-2025-05-14"]),
    message("betas, streamed", way="beta", betas=["interleaved-thinking-2025-05-14"], stream=True),
    message("begun by the client", messages=[*_users(), {"role": "assistant", "content": "In short:"}]),
    message("stopped by a word", stop_sequences=["this"], extra_body={"temperature": 0.5, "top_k": 5}),
    message("cut off", max_tokens=3),
    message("cut off, streamed", max_tokens=3, stream=True),
    message("tier and fields of tomorrow", service_tier="standard_only", metadata={"user_id": "u1"}, extra_body={"unheard_of": {"stream": True}}),
    message("headers of tomorrow", headers={"anthropic-beta": "a-1,b-2", "x-unheard-of": "1"}),
    message("filtered, streamed", {"mode": "refusal"}, stream=True),
    message("packed unasked", "gzip"),
    *(
        message(f"a stream in the form {form}", {"mode": "shape", "sse": form}, stream=True)
        for form in ("crlf", "comments", "split", "packed", "bytes", "ids")
    ),
    message("tokens are counted", way="count", system="Be brief.", tools=[TOOL]),
    message("tokens are counted, beta", way="beta.count", betas=["token-counting-2024-11-01"]),
    message("a bad request", {"mode": "400"}, status=400, error="BadRequestError"),
    message("a bad request, streamed", {"mode": "400"}, status=400, error="BadRequestError", stream=True),
    message("a prompt that is too long", {"mode": "context-length"}, status=400, error="BadRequestError"),
    message("no credit", {"mode": "quota"}, status=400, error="BadRequestError"),
    message("a refused key", {"mode": "401"}, status=401, error="AuthenticationError"),
    message("not allowed", {"mode": "403"}, status=403, error="PermissionDeniedError"),
    message("no such model", {"mode": "404"}, status=404, error="NotFoundError"),
    message("too large", {"mode": "413"}, status=413, error="ContentTooLargeError"),
    message("unprocessable", {"mode": "status", "status": 422}, status=422, error="UnprocessableEntityError"),
    message("too often", {"mode": "429", "retry_after": 7.2}, status=429, error="RateLimitError"),
    message("too often, streamed", {"mode": "429", "retry_after": 7.2}, status=429, error="RateLimitError", stream=True),
    message("a server's error", {"mode": "500"}, status=500, error="InternalServerError"),
    message("overloaded", {"mode": "529"}, status=529, error="OverloadedError"),
    message("overloaded, by the helper", {"mode": "529"}, way="messages.stream", status=529, error="OverloadedError"),
    message("an error in mid-stream", {"mode": "error", "after_chunks": 5, "between": 0.03}, error="APIStatusError", stream=True),
    message("an error in mid-stream, by the helper", {"mode": "error", "after_chunks": 5, "between": 0.03}, way="messages.stream", error="APIStatusError"),
]  # fmt: skip


# -- Google ---------------------------------------------------------------------------------------------


def generate(name: str, fault: Any = None, way: str = "generate", status: int = 200, error: str = "", *, headers: Any = None, contents: Any = ASK, model: str = GEMINI, **config: Any) -> Exchange:  # fmt: skip
    given = {"model": model, "contents": contents, "config": config}
    return Exchange(name, way, given, fault, headers or {}, status, error)


DECLARED = {"function_declarations": [{"name": "weather", "description": "Look", "parameters": {"type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]}}]}  # fmt: skip
ANY = {"function_calling_config": {"mode": "ANY"}}
BLOB = {"inline_data": {"mime_type": "image/png", "data": PNG}}
DONE = [
    {"role": "user", "parts": [{"text": ASK}]},
    {"role": "model", "parts": [{"function_call": {"name": "weather", "args": {"city": "Oslo"}}}]},
    {"role": "user", "parts": [{"function_response": {"name": "weather", "response": {"said": "rain"}}}]},
]  # fmt: skip
SAFE = [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_ONLY_HIGH"}]
STREAMED = "generate.stream"

GENERATES = [
    generate("plain", system_instruction="Be brief.", temperature=0.2, top_k=4, seed=3),
    generate("odd text", contents=ODD.replace("\x00", "")),
    generate("streamed", way=STREAMED),
    generate("tools", tools=[DECLARED], tool_config=ANY),
    generate("tools, streamed", way=STREAMED, tools=[DECLARED], tool_config=ANY),
    generate("a tool's result", contents=DONE, tools=[DECLARED]),
    generate("a picture", contents=[{"role": "user", "parts": [BLOB, {"text": "What is it?"}]}]),
    generate("thinking", thinking_config={"thinking_budget": 512, "include_thoughts": True}),
    generate("thinking, streamed", way=STREAMED, thinking_config={"thinking_budget": 512, "include_thoughts": True}),
    generate("a schema", response_mime_type="application/json", response_schema={"type": "OBJECT", "properties": {"city": {"type": "STRING"}}}),
    generate("cut off", max_output_tokens=4, stop_sequences=["zzz"], safety_settings=SAFE),
    generate("cut off, streamed", way=STREAMED, max_output_tokens=4),
    generate("fields and headers of tomorrow", headers={"x-unheard-of": "1", "x-goog-api-client": "mine"}),
    generate("tokens are counted", way="generate.count"),
    generate("blocked by policy", {"mode": "content-policy"}),
    generate("blocked by policy, streamed", {"mode": "content-policy"}, way=STREAMED),
    generate("filtered, streamed", {"mode": "refusal"}, way=STREAMED),
    generate("a stream in pieces", {"mode": "shape", "sse": "split"}, way=STREAMED),
    generate("packed unasked", "gzip"),
    generate("a bad request", {"mode": "400"}, status=400, error="ClientError"),
    generate("a refused key", {"mode": "401"}, status=400, error="ClientError"),
    generate("not allowed", {"mode": "403"}, status=403, error="ClientError"),
    generate("no such model", {"mode": "404"}, status=404, error="ClientError"),
    generate("too large", {"mode": "413"}, status=413, error="ClientError"),
    generate("too often", {"mode": "429", "retry_after": 7}, status=429, error="ClientError"),
    generate("too often, streamed", {"mode": "429"}, way=STREAMED, status=429, error="ClientError"),
    generate("the day's quota is used up", {"mode": "quota"}, status=429, error="ClientError"),
    generate("a server's error", {"mode": "500"}, status=500, error="ServerError"),
    generate("a model with a colon in its name", model=f"{GEMINI}:503", status=503, error="ServerError"),
    generate("a model with a colon in its name, streamed", model=f"{GEMINI}:ok", way=STREAMED),
    generate("overloaded, streamed", {"mode": "503"}, way=STREAMED, status=503, error="ServerError"),
    generate("an error in mid-stream", {"mode": "error", "after_chunks": 3, "between": 0.03}, way=STREAMED, error="ServerError"),
]  # fmt: skip

EXCHANGES = [*CHATS, *RESPONSES, *EMBEDDINGS, *MESSAGES, *GENERATES]
