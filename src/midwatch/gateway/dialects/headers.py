"""Which headers pass in either direction, and where a key stands in them. Names are in lower case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import parse_qs

from midwatch.core.calls.ask import Kind

Pairs = list[tuple[str, str]]

_HOP: Final = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
    )
)
"""Of one connection alone (RFC 9110 section 7.6.1)."""

_OURS: Final = _HOP | frozenset(
    (
        "host",
        "content-length",
        "content-encoding",
        "expect",
        "accept-encoding",
        "authorization",
        "x-api-key",
        "x-goog-api-key",
        "api-key",
        "cookie",
        "forwarded",
        "via",
        "x-real-ip",
        "true-client-ip",
        "cf-connecting-ip",
        # whose bill it is; the fleet file's `headers` say it
        "openai-organization",
        "openai-project",
        # another method, path, model or address than those that were judged
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "azureml-model-deployment",
    )
)
"""What a client says to us and not to the provider, and what would undo what was decided here. The body goes
on unpacked."""

_DROPPED: Final = (
    "x-midwatch-",
    "x-forwarded-",
    "x-goog-",
    # by these routers are led to another provider, model, key or customer; the fleet file's `headers` may
    "x-portkey-",
    "cf-aig-",
    "helicone-",
    "x-litellm-",
    "x-ai-eg-",
    "x-envoy-",
)
"""Google's `x-goog-user-project` bills elsewhere, `x-goog-fieldmask` hides the usage."""

_NOT_BACK: Final = _HOP | frozenset(
    ("content-length", "set-cookie", "alt-svc", "strict-transport-security")
)
"""What a provider says to us and not to the client."""


def onward(headers: Iterable[tuple[str, str]], *, rehearsed: bool = False) -> Pairs:
    """Return the headers of a request that pass to the provider; the key is added by `credentials`.

    `rehearsed`: the rehearsal model may see x-midwatch-*, by which its behaviour is chosen; nobody else.
    The answer is asked for unpacked, so that its usage can be read.
    """
    listed = list(headers)
    named = _named(listed)
    dropped = _DROPPED[1:] if rehearsed else _DROPPED
    passed = [
        (name, value)
        for name, value in listed
        if name not in _OURS
        and name not in named
        and (not name.startswith(dropped) or name == "x-goog-api-client")
    ]
    passed.append(("accept-encoding", "identity"))
    return passed


def back(headers: Iterable[tuple[str, str]]) -> Pairs:
    """Return the headers of an answer that pass to the client."""
    listed = list(headers)
    named = _named(listed)
    return [
        (name, value)
        for name, value in listed
        if name not in _NOT_BACK and name not in named and not name.startswith("x-midwatch-")
    ]


_NONE: Final[frozenset[str]] = frozenset()


def _named(headers: Pairs) -> frozenset[str]:
    """Return the headers that Connection names as belonging to the connection."""
    if "connection" not in dict(headers):
        return _NONE
    said = [value for name, value in headers if name == "connection"]
    if not said or said == ["keep-alive"]:
        return _NONE
    return frozenset(part.strip().lower() for value in said for part in value.split(","))


def credentials(kind: Kind, key: str) -> Pairs:
    """Return the headers by which a provider of this kind is shown a key; none without one."""
    if not key:
        return []
    if kind is Kind.ANTHROPIC:
        return [("x-api-key", key)]
    if kind is Kind.GEMINI:
        return [("x-goog-api-key", key)]
    return [("authorization", f"Bearer {key}")]


def overridden(headers: Pairs, given: Mapping[str, str]) -> Pairs:
    """Return headers with the fleet file's own in the place of all others of their names: of two, servers take
    whichever they like."""
    if not given:
        return headers
    names = {name.lower() for name in given}
    return [*(pair for pair in headers if pair[0] not in names), *given.items()]


_KEYS: Final = frozenset(("x-api-key", "x-goog-api-key", "api-key"))


def presented(headers: Mapping[str, str], query: str = "") -> str:
    """Return the key that a client shows, wherever its SDK puts it; "" when it shows none."""
    if not _KEYS.isdisjoint(headers):
        for name in ("x-api-key", "x-goog-api-key", "api-key"):
            value = headers.get(name, "").strip()
            if value:
                return value
    scheme, _, value = headers.get("authorization", "").strip().partition(" ")
    if value and scheme.lower() == "bearer":
        return value.strip()
    if "key=" in query:
        return parse_qs(query).get("key", [""])[0].strip()
    return ""
