"""A small server that answers as OpenAI and Anthropic do, with usage that the tests know."""

from __future__ import annotations

import gzip
import http.server
import json
from typing import Any

CHAT_USAGE = {
    "prompt_tokens": 1_000,
    "completion_tokens": 100,
    "total_tokens": 1_100,
    "prompt_tokens_details": {"cached_tokens": 400},
}
CHAT_COST = (600 * 0.15 + 400 * 0.075 + 100 * 0.6) / 1e6

RESPONSE_USAGE = {
    "input_tokens": 1_000,
    "input_tokens_details": {"cached_tokens": 400},
    "output_tokens": 100,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 1_100,
}
CLAUDE_USAGE = {
    "input_tokens": 500,
    "cache_read_input_tokens": 400,
    "cache_creation_input_tokens": 100,
    "output_tokens": 100,
}
CLAUDE_COST = (500 * 1 + 400 * 0.1 + 100 * 1.25 + 100 * 5) / 1e6


def events(*pieces: Any, named: bool = False) -> bytes:
    lines: list[str] = []
    for piece in pieces:
        if named and isinstance(piece, dict):
            lines.append(f"event: {piece['type']}")
        lines.append(f"data: {piece if isinstance(piece, str) else json.dumps(piece)}\n")
    return ("\n".join(lines) + "\n").encode()


def chat_chunk(content: str | None, **more: Any) -> dict[str, Any]:
    choices = [] if content is None else [{"index": 0, "delta": {"content": content}}]
    chunk = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
    return {**chunk, "choices": choices, **more}


def chat(body: dict[str, Any]) -> Any:
    if body.get("stream"):
        pieces: list[Any] = [chat_chunk("good "), chat_chunk('"usage": evening')]
        if body.get("stream_options"):
            pieces.append(chat_chunk(None, usage=CHAT_USAGE))
        return events(*pieces, "[DONE]")
    message = {"role": "assistant", "content": "good evening"}
    return {
        "id": "c-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": CHAT_USAGE,
    }


def responses(body: dict[str, Any]) -> Any:
    answer: dict[str, Any] = {
        "id": "r-1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-4o-mini",
        "output": [],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "status": "completed",
    }
    if body.get("stream"):
        return events(
            {
                "type": "response.created",
                "sequence_number": 0,
                "response": {**answer, "usage": None},
            },
            {
                "type": "response.completed",
                "sequence_number": 1,
                "response": {**answer, "usage": RESPONSE_USAGE},
            },
            named=True,
        )
    return {**answer, "usage": RESPONSE_USAGE}


def messages(body: dict[str, Any]) -> Any:
    message = {
        "id": "m-1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5-20251001",
        "content": [{"type": "text", "text": "good evening"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": CLAUDE_USAGE,
    }
    if not body.get("stream"):
        return message
    start = {**message, "content": [], "usage": {**CLAUDE_USAGE, "output_tokens": 1}}
    return events(
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "good evening"},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 100},
        },
        {"type": "message_stop"},
        named=True,
    )


def embeddings(body: dict[str, Any]) -> Any:
    entry = {"object": "embedding", "index": 0, "embedding": [0.1]}
    used = {"prompt_tokens": 500, "total_tokens": 500}
    return {"object": "list", "data": [entry], "model": body["model"], "usage": used}


ROUTES: dict[str, Any] = {
    "/v1/chat/completions": chat,
    "/v1/responses": responses,
    "/v1/embeddings": embeddings,
    "/v1/messages": messages,
    "/v1/messages/count_tokens": lambda body: {"input_tokens": 7},
}


class Provider(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body.get("model") == "failing":
            self._send(400, {"error": {"message": "no", "type": "invalid_request_error"}})
            return
        self._send(200, ROUTES[self.path.partition("?")[0]](body))

    def _send(self, status: int, answer: Any) -> None:
        stream = isinstance(answer, bytes)
        content = gzip.compress(answer if stream else json.dumps(answer).encode())
        self.send_response(status)
        self.send_header("content-type", "text/event-stream" if stream else "application/json")
        self.send_header("content-encoding", "gzip")
        self.send_header("x-midwatch-call", "0192-77")  # as the gateway names its calls
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        for start in range(0, len(content), 50):  # pieces that end anywhere
            self.wfile.write(content[start : start + 50])

    def log_message(self, *args: Any) -> None:
        pass
