"""Secrets leave the text; everything else stays as it was."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.redact import (
    hints,
    hints_json,
    hints_names,
    is_secret,
    redact,
    redact_text,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key sk-proj-" + "a1B2" * 12 + " refused", "key sk-proj[redacted] refused"),
        ("x-api-key: sk-ant-api03-" + "Z_-9" * 20, "x-api-key: sk-ant-[redacted]"),
        ("AIza" + "x" * 35, "AIzaxxx[redacted]"),
        ("ghp_" + "a" * 36, "ghp_aaa[redacted]"),
        ("AWS AKIAABCDEFGHIJKLMNOP used", "AWS AKIAABC[redacted] used"),
        ("Bearer mwr_" + "e30" * 10 + "." + "s" * 43, "Bearer mwr_e30[redacted]"),
    ],
)
def test_a_key_is_cut_to_its_first_characters(text: str, shown: str) -> None:
    assert redact_text(text) == shown


PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7+x/\nq0Zr==\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"found\n{PEM}\nafter\n", "found\n-----BE[redacted]\nafter\n"),
        (PEM.split("-----END")[0] + "\n! next", "-----BE[redacted]! next"),
        ('{"key": "' + PEM.replace("\n", "\\n") + '"}', '{"key": "-----BE[redacted]"}'),
    ],
)
def test_a_private_key_goes_with_all_its_lines(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@pytest.mark.parametrize(
    "text", ["sk-learn is a library", "task-" + "a" * 40, "the AIza prefix", "risk-" + "b" * 30]
)
def test_what_only_looks_like_a_key_stays(text: str) -> None:
    assert redact_text(text) == text


@given(st.binary(max_size=2000))
def test_any_bytes_can_be_redacted_twice_without_a_change(data: bytes) -> None:
    once, _ = redact(data)
    assert redact(once)[0] == once


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # a line end as JSON writes it is no part of the word behind it
        ('{"said": "try:\\nsk-proj-' + "a1B2" * 12 + '"}', '{"said": "try:\\nsk-proj[redacted]"}'),
        ("authorization: Bearer 9f8e7d6c5b4a39281706.x-y", "authorization: Bearer 9f8e7d6[redacted]"),
        ("curl -H 'AUTHORIZATION: BEARER abcdefghijklmnop0='", "curl -H 'AUTHORIZATION: BEARER abcdefg[redacted]'"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "eyJhbGc[redacted]"),
        ('{"text": "{\\"key\\": \\"' + PEM.replace("\n", "\\\\n") + '\\"}"}', '{"text": "{\\"key\\": \\"-----BE[redacted]\\"}"}'),
    ],
)  # fmt: skip
def test_secrets_in_json_and_in_headers_go_too(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@pytest.mark.parametrize(
    "text",
    ["the bearer understands-responsibilities of this", "Bearer short1", "ring-bearer 12345"],
)
def test_what_a_bearer_bears_in_prose_stays(text: str) -> None:
    assert redact_text(text) == text


SECRETS = (
    "sk-" + "a" * 20, "sk-ant-" + "Z_-9" * 20, "AIza" + "x" * 35, "ghp_" + "a" * 36, "github_pat_" + "a_" * 20,
    "xoxb-" + "1" * 20, "AKIAABCDEFGHIJKLMNOP", "hf_" + "a" * 30, "gsk_" + "a" * 40, "glpat-" + "a" * 20,
    "sk_live_" + "a" * 20, "mwr_" + "e" * 20, "eyJ" + "a" * 13 + ".eyJ" + "b" * 10 + "." + "c" * 10,
    "Bearer 0123456789abcdef", "BEARER a1bbbbbbbbbbbbbb=", PEM, PEM.replace("\n", "\\n"),
)  # fmt: skip

AROUND = st.text("ab1 .:-_\\n\"'\n/=eyJsk", max_size=40)


@given(st.sampled_from(SECRETS), AROUND, AROUND, st.binary(max_size=60))
def test_the_quick_look_misses_nothing_that_is_taken_out(
    secret: str, before: str, after: str, raw: bytes
) -> None:
    text = (before + secret + after).encode()
    if redact(text)[1]:
        # as a field of protobuf: a tag that is a letter, a length of up to two bytes
        size = len(text)
        length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        assert hints(raw + b"b" + length + text + raw)
        assert hints(json.dumps({"a": text.decode()}).encode())


def test_every_kind_of_secret_is_hinted_at_and_taken_out() -> None:
    for secret in SECRETS:
        assert hints(secret.encode()), secret
        assert redact(secret.encode())[1] == 1, secret


@pytest.mark.parametrize("secret", [one for one in SECRETS if not one.startswith(("Bear", "BEAR"))])
def test_a_log_records_event_behind_bytes_that_look_like_letters_is_hinted_at(secret: str) -> None:
    # of 128 bytes and more the length has a byte that is no letter
    text = secret[:100].encode()
    assert hints(b"span-idb" + bytes([len(text)]) + text)


@pytest.mark.parametrize("before", ["\\n", "\\f", "\\u003c", "\\\\u0026"])
def test_a_secret_behind_a_sign_that_json_spells_is_found(before: str) -> None:
    text = before + "sk-" + "a1" * 20
    assert hints(text.encode())
    assert redact_text(text) == before + "sk-a1a1[redacted]"


def test_a_private_key_without_an_end_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        for inside in (b"A", b"\\n", b"A\\\\n"):
            text = b"-----BEGIN PRIVATE KEY-----" + inside * (1_000_000 // len(inside))
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            assert redact(text) == (b"-----BE[redacted]", 1)
            assert tracemalloc.get_traced_memory()[1] - before < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text",
    ["chatcmpl-0123456789abcdef0123", "7f0c1a9e-0d2b-4c55-9e0e-1f2a3b4c5d6e", "task-" + "a" * 40, "sk-" + "a" * 12],
)  # fmt: skip
def test_ids_hint_at_nothing(text: str) -> None:
    assert not hints(f'"{text}"'.encode())
    assert not hints_json(f'{{"id": "{text}"}}'.encode())


def test_json_that_spells_its_letters_is_looked_at_closely() -> None:
    assert hints_json(rb'"\u0073k-' + b"a" * 30 + b'"')


@pytest.mark.parametrize(
    "name",
    [
        "authorization", "http.request.header.Authorization", "http.request.header.x-api-key", "openai.api_key",
        "clientSecret", "client_secret", "db.password", "PASSWORD", "Set-Cookie", "aws_secret_access_key",
        "oauth.refresh_token", "x-goog-api-key", "openaiApiKey", "credentials.secretAccessKey", "sessionToken", "api-token",
        "id_token",
    ],
)  # fmt: skip
def test_what_is_called_like_a_secret_is_one(name: str) -> None:
    assert is_secret(name)
    assert hints_names(f'{{"{name}": 1}}'.encode())


@pytest.mark.parametrize(
    "name",
    [
        "gen_ai.usage.input_tokens", "gen_ai.usage.cache_read.input_tokens", "llm.token_count.total", "token", "key",
        "session.id", "password.length", "api_key.id", "authorization.scheme", "secrets_found", "",
    ],
)  # fmt: skip
def test_what_only_speaks_of_secrets_is_none(name: str) -> None:
    assert not is_secret(name)
