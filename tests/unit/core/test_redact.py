"""Secrets leave the text; everything else stays as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.redact import redact, redact_text


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
