"""Each path belongs to one dialect; what is known and not metered is refused by name, and never forwarded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.calls.ask import Dialect, Kind
from midwatch.gateway.dialects import (
    BadRequest,
    Closed,
    Route,
    back,
    credentials,
    find,
    onward,
    presented,
    target,
)
from midwatch.gateway.dialects.reading import MAX_MODEL

CLAUDE = {"anthropic-version": "2023-06-01"}


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "expected"),
    [
        ("POST", "/v1/chat/completions", "", {}, Route(Kind.OPENAI, Dialect.CHAT)),
        ("POST", "/v1/chat/completions/", "", {}, Route(Kind.OPENAI, Dialect.CHAT)),
        ("POST", "/openai/v1/chat/completions", "", {}, Route(Kind.OPENAI, Dialect.CHAT)),
        ("POST", "/v1/responses", "", {}, Route(Kind.OPENAI, Dialect.RESPONSES)),
        ("POST", "/v1/embeddings", "", {}, Route(Kind.OPENAI, Dialect.EMBEDDINGS)),
        ("POST", "/v1/messages", "beta=true", CLAUDE, Route(Kind.ANTHROPIC, Dialect.MESSAGES)),
        ("POST", "/v1/messages", "", {}, Route(Kind.ANTHROPIC, Dialect.MESSAGES)),
        ("POST", "/v1/messages/count_tokens", "", {}, Route(Kind.ANTHROPIC, Dialect.COUNT)),
        ("GET", "/v1/models", "", {}, Route(Kind.OPENAI, Dialect.MODELS)),
        ("GET", "/v1/models", "", CLAUDE, Route(Kind.ANTHROPIC, Dialect.MODELS)),
        ("GET", "/v1/models/openai%2Fgpt-4o", "", {}, Route(Kind.OPENAI, Dialect.MODELS, "openai/gpt-4o")),
        ("GET", "/v1beta/models", "", {}, Route(Kind.GEMINI, Dialect.MODELS)),
        ("GET", "/v1beta/models/gemini-2.5-pro", "", {}, Route(Kind.GEMINI, Dialect.MODELS, "gemini-2.5-pro")),
        ("POST", "/v1beta/models/g:generateContent", "key=x", {}, Route(Kind.GEMINI, Dialect.GENERATE, "g")),
        ("POST", "/v1alpha/models/g:generateContent", "", {}, Route(Kind.GEMINI, Dialect.GENERATE, "g", version="v1alpha")),
        ("POST", "/v1/models/g:generateContent", "", {}, Route(Kind.GEMINI, Dialect.GENERATE, "g", version="v1")),
        ("POST", "/v1beta/models/a:b:1:generateContent", "", {}, Route(Kind.GEMINI, Dialect.GENERATE, "a:b:1")),
        ("POST", "/v1beta/models/g:streamGenerateContent", "alt=sse", {}, Route(Kind.GEMINI, Dialect.GENERATE, "g", stream=True)),
        ("POST", "/v1beta/models/g:streamGenerateContent", "", {}, Route(Kind.GEMINI, Dialect.GENERATE, "g", stream=True, array=True)),
        ("POST", "/v1beta/models/a%2Fb:countTokens", "", {}, Route(Kind.GEMINI, Dialect.COUNT, "a/b")),
    ],
)  # fmt: skip
def test_a_path_has_its_dialect(
    method: str, path: str, query: str, headers: dict[str, str], expected: Route
) -> None:
    assert find(method, path, query, headers) == expected


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", "/v1/images/generations", Kind.OPENAI),
        ("POST", "/v1/audio/speech", Kind.OPENAI),
        ("POST", "/v1/files", Kind.OPENAI),
        ("GET", "/v1/files/f1/content", Kind.OPENAI),
        ("POST", "/v1/batches", Kind.OPENAI),
        ("POST", "/v1/completions", Kind.OPENAI),
        ("POST", "/v1/videos", Kind.OPENAI),
        ("GET", "/v1/responses/resp_1", Kind.OPENAI),
        ("POST", "/v1/responses/resp_1/cancel", Kind.OPENAI),
        ("GET", "/v1/chat/completions/c1", Kind.OPENAI),
        ("POST", "/v1/messages/batches", Kind.ANTHROPIC),
        ("GET", "/v1/messages/batches/b1/results", Kind.ANTHROPIC),
        ("DELETE", "/v1/models/ft:x", Kind.OPENAI),
        ("POST", "/v1beta/models/g:batchGenerateContent", Kind.GEMINI),
        ("POST", "/v1beta/models/g:embedContent", Kind.GEMINI),
        ("POST", "/v1beta/tunedModels/g:generateContent", Kind.GEMINI),
        ("POST", "/v1beta/cachedContents", Kind.GEMINI),
        ("POST", "/v1beta/files", Kind.GEMINI),
    ],
)
def test_what_is_not_metered_is_refused_by_name(method: str, path: str, kind: Kind) -> None:
    found = find(method, path, "", {})
    assert isinstance(found, Closed)
    assert (found.kind, found.status) == (kind, 404)
    assert found.what in found.reason


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/v1/models", "", Route(Kind.GEMINI, Dialect.MODELS, version="v1")),
        ("GET", "/v1/models/g", "", Route(Kind.GEMINI, Dialect.MODELS, "g", version="v1")),
        ("POST", "/v1/models/g:streamGenerateContent", "alt=sse", Route(Kind.GEMINI, Dialect.GENERATE, "g", stream=True, version="v1")),
        ("POST", "/v1/models/g:countTokens", "", Route(Kind.GEMINI, Dialect.COUNT, "g", version="v1")),
    ],
)  # fmt: skip
def test_googles_client_speaks_version_one_since_3_4(
    method: str, path: str, query: str, expected: Route
) -> None:
    assert find(method, path, query, {"x-goog-api-key": "k"}) == expected


def test_a_fine_tuned_model_has_colons_in_its_name() -> None:
    assert find("GET", "/v1/models/ft:gpt-4o:acme::x", "", {}) == Route(
        Kind.OPENAI, Dialect.MODELS, "ft:gpt-4o:acme::x"
    )


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/messages", "/v1beta/models/g:generateContent"]
)
def test_another_method_is_refused(path: str) -> None:
    found = find("GET", path, "", {})
    assert isinstance(found, Closed)
    assert found.status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/healthz",
        "/self/budget",
        "/v1",
        "/v1/",
        "/v2/messages",
        "/v1/chat",
        "/v1/imagesx",
        "/v1beta",
        "//v1/messages",
    ],
)
def test_other_paths_are_nobodys(path: str) -> None:
    assert find("GET", path, "", {}) is None


def test_another_form_of_geminis_answer_is_refused() -> None:
    with pytest.raises(BadRequest, match="alt"):
        find("POST", "/v1beta/models/g:streamGenerateContent", "alt=media", {})


@settings(max_examples=25)
@given(st.text(max_size=60), st.text(max_size=30), st.sampled_from(["GET", "POST", "X"]))
def test_any_path_is_found_or_not(path: str, query: str, method: str) -> None:
    for start in ("/", "/v1/", "/v1beta/models/", "/v1/models/"):
        try:
            found = find(method, start + path, query, {})
        except BadRequest:
            continue
        assert found is None or isinstance(found, Route | Closed)


@pytest.mark.parametrize(
    ("kind", "dialect", "more", "expected"),
    [
        (Kind.OPENAI, Dialect.CHAT, {}, "/chat/completions"),
        (Kind.OPENAI, Dialect.RESPONSES, {"query": "include=x"}, "/responses?include=x"),
        (Kind.ANTHROPIC, Dialect.MESSAGES, {"query": "beta=true"}, "/v1/messages?beta=true"),
        (Kind.ANTHROPIC, Dialect.COUNT, {}, "/v1/messages/count_tokens"),
        (Kind.GEMINI, Dialect.GENERATE, {"query": "key=secret"}, "/v1beta/models/m:generateContent"),
        (Kind.GEMINI, Dialect.GENERATE, {"stream": True, "query": "alt=sse&key=secret"}, "/v1beta/models/m:streamGenerateContent?alt=sse"),
        (Kind.GEMINI, Dialect.GENERATE, {"stream": True, "array": True}, "/v1beta/models/m:streamGenerateContent"),
        (Kind.GEMINI, Dialect.COUNT, {"version": "v1"}, "/v1/models/m:countTokens"),
        (Kind.GEMINI, Dialect.GENERATE, {"query": "$callback=x&$alt=proto&fields=candidates&$fields=x"}, "/v1beta/models/m:generateContent"),
        (Kind.OPENAI, Dialect.CHAT, {"query": "api-version=preview&model=o3-pro&Api-Key=x"}, "/chat/completions?api-version=preview"),
    ],
)  # fmt: skip
def test_a_call_goes_to_its_path(
    kind: Kind, dialect: Dialect, more: dict[str, str], expected: str
) -> None:
    assert target(kind, dialect, "m", **more) == expected


def test_a_model_cannot_lead_to_another_path() -> None:
    path = target(Kind.GEMINI, Dialect.GENERATE, "../../v1/files?x#y")
    assert path == "/v1beta/models/..%2F..%2Fv1%2Ffiles%3Fx%23y:generateContent"


# -- headers


def test_what_a_client_says_to_us_does_not_pass() -> None:
    ours = {
        "host", "content-length", "content-encoding", "connection", "keep-alive", "te", "transfer-encoding", "upgrade",
        "authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie", "accept-encoding", "forwarded",
        "x-forwarded-for", "x-midwatch-task", "x-midwatch-session", "proxy-authorization", "expect", "x-listed",
        "openai-organization", "openai-project", "x-goog-user-project", "x-goog-fieldmask", "x-goog-request-params",
        "x-http-method-override", "x-http-method", "x-original-url", "azureml-model-deployment",
        "x-portkey-custom-host", "helicone-target-url", "cf-aig-authorization",
    }  # fmt: skip
    theirs = ["content-type", "anthropic-beta", "anthropic-version", "openai-beta", "user-agent", "x-stainless-lang",
              "idempotency-key", "traceparent", "x-unknown", "x-goog-api-client"]  # fmt: skip
    sent = [(name, "x") for name in sorted(ours - {"connection"})] + [
        ("connection", "close, X-Listed")
    ]
    passed = onward(sent + [(name, "v") for name in theirs])
    assert passed == [(name, "v") for name in theirs] + [("accept-encoding", "identity")]


@pytest.mark.parametrize(
    "name",
    ["helicone-fallbacks", "helicone-auth", "x-litellm-api-key", "x-ai-eg-model", "x-portkey-config"],
)  # fmt: skip
def test_no_client_leads_a_router_elsewhere(name: str) -> None:
    assert onward([(name, "x"), ("x-title", "t")]) == [("x-title", "t"), ("accept-encoding", "identity")]  # fmt: skip


def test_of_a_name_that_is_much_too_long_too_much_is_left_to_be_taken_for_one() -> None:
    long = "%0A" * 20_000
    found = find("POST", f"/v1beta/models/{long}:generateContent", "", {})
    assert isinstance(found, Route)
    assert MAX_MODEL < len(found.model) <= 1_000


def test_the_rehearsal_sees_what_its_behaviour_is_chosen_by() -> None:
    passed = onward([("x-midwatch-agent", "inbox"), ("x-forwarded-for", "1.2.3.4")], rehearsed=True)
    assert passed == [("x-midwatch-agent", "inbox"), ("accept-encoding", "identity")]


def test_what_a_provider_says_passes_but_for_what_is_of_the_connection() -> None:
    sent = [("content-type", "text/event-stream"), ("request-id", "1"), ("retry-after", "3"), ("set-cookie", "a"),
            ("content-length", "5"), ("connection", "keep-alive"), ("x-midwatch-cost-usd", "0"),
            ("x-ratelimit-remaining-requests", "1"), ("transfer-encoding", "chunked")]  # fmt: skip
    assert [name for name, _ in back(sent)] == [
        "content-type",
        "request-id",
        "retry-after",
        "x-ratelimit-remaining-requests",
    ]


@pytest.mark.parametrize("kind", list(Kind))
def test_a_key_is_found_where_it_is_shown(kind: Kind) -> None:
    assert presented(dict(credentials(kind, "k1"))) == "k1"
    assert credentials(kind, "") == []


@pytest.mark.parametrize(
    ("headers", "query", "key"),
    [
        ({"authorization": "bearer  k"}, "", "k"),
        ({"authorization": "Basic k"}, "", ""),
        ({"authorization": "Bearer"}, "", ""),
        ({"x-api-key": "a", "authorization": "Bearer b"}, "", "a"),
        ({}, "alt=sse&key=k%2F1", "k/1"),
        ({}, "monkey=k", ""),
        ({}, "", ""),
    ],
)
def test_the_other_ways_to_show_a_key(headers: dict[str, str], query: str, key: str) -> None:
    assert presented(headers, query) == key
