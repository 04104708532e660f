"""A model's client over plain HTTP, as small as can be: it finds address and key where every client does."""

import http.client
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

PATIENCE_S = 60


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any] = field(default_factory=dict)
    """Of an answer in one piece."""
    text: str = ""
    ended: bool = False
    """A stream came to its end mark."""
    error: dict[str, Any] = field(default_factory=dict)
    """Of a refusal, or within a stream."""
    last_at: float = 0.0
    """When the last piece of text came, Unix seconds."""

    def plain(self) -> dict[str, Any]:
        """Return what a note needs."""
        told = {n.removeprefix("x-midwatch-"): v for n, v in self.headers.items() if n in TOLD}
        return {
            "status": self.status,
            "text": self.text,
            "ended": self.ended,
            "error": self.error,
            **told,
        }


TOLD = {
    "retry-after", "x-should-retry", "x-midwatch-call", "x-midwatch-model", "x-midwatch-attempts",
    "x-midwatch-cost-usd",
}  # fmt: skip


def ask(text: str, **how: Any) -> Answer:
    """Ask once, and return what came: an answer, a refusal, or a stream's pieces together."""
    with Call(text, **how) as call:
        return call.finish()


class Call:
    """One call; the answer's head is there when it is made."""

    def __init__(
        self,
        text: str,
        *,
        model: str = "gpt-4o-mini",
        stream: bool = False,
        max_tokens: int = 50,
        system: str = "",
        key: str = "",
        messages: list[Any] | None = None,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        told = [{"role": "system", "content": system}] if system else []
        said = messages or [*told, {"role": "user", "content": text}]
        body = {
            "model": model,
            "max_tokens": max_tokens,
            "stream": stream,
            "messages": said,
            **more,
        }
        base = urlsplit(os.environ["OPENAI_BASE_URL"])
        self._line = http.client.HTTPConnection(base.netloc, timeout=PATIENCE_S)
        self._line.request(
            "POST",
            f"{base.path}/chat/completions",
            json.dumps(body),
            {
                "authorization": f"Bearer {key or os.environ['OPENAI_API_KEY']}",
                "content-type": "application/json",
                **(headers or {}),
            },
        )
        self._reply = self._line.getresponse()
        self.answer = Answer(
            self._reply.status, {name.lower(): value for name, value in self._reply.getheaders()}
        )

    def __enter__(self) -> "Call":
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    def pieces(self) -> Iterator[str]:
        """Yield the text of a stream as it comes."""
        answer = self.answer
        for line in self._reply:
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                answer.ended = True
                return
            event = json.loads(line[6:])
            answer.error = event.get("error") or answer.error
            for choice in event.get("choices", ()):
                piece = choice["delta"].get("content") or ""
                if piece:
                    answer.text += piece
                    answer.last_at = time.time()
                    yield piece

    def finish(self) -> Answer:
        """Read to the end."""
        answer = self.answer
        if "event-stream" in answer.headers.get("content-type", ""):
            for _ in self.pieces():
                pass
            return answer
        answer.body = json.loads(self._reply.read() or b"{}")
        answer.error = answer.body.get("error") or {}
        if answer.status == 200:
            answer.text = answer.body["choices"][0]["message"]["content"] or ""
        return answer
