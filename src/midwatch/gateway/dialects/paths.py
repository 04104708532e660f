"""Which dialect a request speaks: a table of paths. What is known and not carried is refused by name.

A path that is not metered is never forwarded: what goes past the ledger goes past the budget.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from midwatch.core.calls.ask import Dialect, Kind
from midwatch.core.sealed import sealed
from midwatch.gateway.dialects.bodies import BadRequest


@sealed
class Route:
    """Where a request belongs."""

    kind: Kind
    dialect: Dialect
    model: str = ""
    """From the path: Gemini's, or the one model that is asked about."""
    stream: bool = False
    """Gemini's streamGenerateContent."""
    array: bool = False
    """That stream as one JSON array instead of server-sent events."""
    version: str = "v1beta"
    """Of Gemini's interface, as the client wrote it."""


@dataclass(frozen=True, slots=True)
class Closed:
    """A path that is known and not served."""

    kind: Kind
    what: str
    """How it is called, for counting."""
    reason: str
    status: int = 404


_POSTS: Final = {
    "chat/completions": Dialect.CHAT,
    "responses": Dialect.RESPONSES,
    "embeddings": Dialect.EMBEDDINGS,
    "messages": Dialect.MESSAGES,
    "messages/count_tokens": Dialect.COUNT,
}

_UNMETERED: Final = (
    # path below /v1, how it is called
    ("messages/batches", "batches"),
    ("chat/completions/", "stored completions"),
    ("responses/", "stored responses"),
    ("completions", "legacy completions"),
    ("images", "images"),
    ("videos", "videos"),
    ("audio", "audio"),
    ("files", "files"),
    ("uploads", "uploads"),
    ("batches", "batches"),
    ("moderations", "moderations"),
    ("assistants", "assistants"),
    ("threads", "threads"),
    ("conversations", "conversations"),
    ("containers", "containers"),
    ("vector_stores", "vector stores"),
    ("fine_tuning", "fine-tuning"),
    ("evals", "evals"),
    ("realtime", "realtime"),
    ("rerank", "rerank"),
    ("organization", "organization"),
    ("organizations", "organization"),
    ("skills", "skills"),
    ("complete", "legacy completions"),
    ("experimental", "experimental"),
)

_GEMINI: Final = re.compile(
    r"/(v1beta|v1alpha|v1)/((?:models|tunedModels)/.+?|models|[^:]+)(?::([A-Za-z]+))?/?"
)
"""What stands behind the last colon is done; the model's own name may hold some."""
_GEMINI_CALLS: Final = {
    "generateContent": Dialect.GENERATE,
    "streamGenerateContent": Dialect.GENERATE,
    "countTokens": Dialect.COUNT,
}
_GEMINI_V1: Final = re.compile(r"/v1/models/.+:[A-Za-z]+(?:Content|Contents|Tokens)/?")
"""A colon alone does not tell: names of fine-tuned models have some."""
_V1: Final = re.compile(r"(?:/openai)?/v1/(.+?)/?")


def find(method: str, path: str, query: str, headers: Mapping[str, str]) -> Route | Closed | None:
    """Return where a request belongs; None for a path that is no provider's. Raises BadRequest.

    `path` and `query` as they came, still encoded; `headers` by lower-case names.
    """
    usual = _USUAL.get((path, "anthropic-version" in headers)) if method == "POST" else None
    if usual is not None:
        return usual
    google = path.startswith(("/v1beta/", "/v1alpha/")) or _GEMINI_V1.fullmatch(path)
    if google or (path.startswith("/v1/models") and "x-goog-api-key" in headers):
        return _gemini(method, path, query)
    match = _V1.fullmatch(path)
    if match is None:
        return None
    rest = match[1]
    anthropic = rest.startswith("messages") or "anthropic-version" in headers
    kind = Kind.ANTHROPIC if anthropic else Kind.OPENAI
    dialect = _POSTS.get(rest)
    if dialect is not None:
        return (
            Route(kind if anthropic else Kind.OPENAI, dialect)
            if method == "POST"
            else _method(kind, method)
        )
    if rest == "models" or rest.startswith("models/"):
        if method not in ("GET", "HEAD"):
            return _closed(kind, "changes to models")
        return Route(kind, Dialect.MODELS, _name(rest[7:]))
    for prefix, what in _UNMETERED:
        if rest == prefix or rest.startswith(prefix if prefix.endswith("/") else prefix + "/"):
            return _closed(kind, what)
    return None


_USUAL: Final = {
    (f"/v1/{rest}", anthropic): Route(
        Kind.ANTHROPIC if anthropic or rest.startswith("messages") else Kind.OPENAI, dialect
    )
    for rest, dialect in _POSTS.items()
    for anthropic in (False, True)
}
"""What nearly all requests are, found without a pattern: by path, and whether the client names Anthropic's version."""


def _gemini(method: str, path: str, query: str) -> Route | Closed | None:
    match = _GEMINI.fullmatch(path)
    if match is None:
        return None
    version, rest, call = match[1], match[2], match[3]
    if call is None:
        if rest == "models" or rest.startswith("models/"):
            if method not in ("GET", "HEAD"):
                return _closed(Kind.GEMINI, "changes to models")
            return Route(Kind.GEMINI, Dialect.MODELS, _name(rest[7:]), version=version)
        return _closed(Kind.GEMINI, rest.partition("/")[0][:40])
    dialect = _GEMINI_CALLS.get(call)
    if dialect is None or not rest.startswith("models/"):
        return _closed(Kind.GEMINI, call[:40])
    if method != "POST":
        return _method(Kind.GEMINI, method)
    stream = call == "streamGenerateContent"
    alt = dict(parse_qsl(query)).get("alt", "json")
    if alt not in ("sse", "json"):
        raise BadRequest(f"alt: expected sse or json, got {alt[:40]!r}", "alt")
    return Route(
        Kind.GEMINI,
        dialect,
        _name(rest[7:]),
        stream=stream,
        array=stream and alt != "sse",
        version=version,
    )


MAX_ENCODED: Final = 1_000
"""Characters of a model's name in a path that are looked at; what is left of a longer one is still too long. A held
agent's call is told with a name that nobody else has looked at."""


def _name(encoded: str) -> str:
    return unquote(encoded[:MAX_ENCODED], errors="replace")


def _closed(kind: Kind, what: str) -> Closed:
    return Closed(
        kind,
        what,
        f"{what}: this gateway does not carry them, since their cost cannot be held to a budget;"
        " talk to the provider itself for these",
    )


def _method(kind: Kind, method: str) -> Closed:
    return Closed(kind, "method", f"expected POST here, got {method[:10]}", 405)


def target(
    kind: Kind,
    dialect: Dialect,
    model: str,
    *,
    stream: bool = False,
    array: bool = False,
    version: str = "v1beta",
    query: str = "",
) -> str:
    """Return path and query below a provider's base URL, for a call or a look at the models.

    OpenAI's base URLs end in /v1, Anthropic's and Gemini's do not. Of the client's query nothing passes to
    Gemini, where `fields`, `$alt`, `$callback` and others would hide the answer's usage from us; to others
    everything but keys and a model.
    """
    if kind is Kind.OPENAI:
        path = {
            Dialect.CHAT: "/chat/completions",
            Dialect.RESPONSES: "/responses",
            Dialect.EMBEDDINGS: "/embeddings",
            Dialect.MODELS: "/models",
        }[dialect]
    elif kind is Kind.ANTHROPIC:
        path = {
            Dialect.MESSAGES: "/v1/messages",
            Dialect.COUNT: "/v1/messages/count_tokens",
            Dialect.MODELS: "/v1/models",
        }[dialect]
    elif dialect is Dialect.MODELS:
        path = f"/{version}/models"
    else:
        call = "countTokens" if dialect is Dialect.COUNT else "generateContent"
        call = "streamGenerateContent" if stream else call
        path = f"/{version}/models/{quote(model, safe='-._~@')}:{call}"
    if kind is Kind.GEMINI:
        return f"{path}?alt=sse" if stream and not array else path
    if not query:
        return path
    pairs = parse_qsl(query, keep_blank_values=True)
    kept = [(k, v) for k, v in pairs if k.lower() not in _NOT_ONWARD]
    return f"{path}?{urlencode(kept)}" if kept else path


_NOT_ONWARD: Final = frozenset(
    ("key", "api_key", "api-key", "access_token", "subscription-key", "alt", "model", "deployment")
)
"""Of a query: keys, and what was judged elsewhere."""
