"""Takes obvious secrets out of text before it is stored. Pure.

A small table of shapes that are keys and nothing else; what looks like one only by chance stays
readable. The first characters stay, so that a person can tell which key it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_SHAPES: Final = (
    rb"sk-(?:ant-|proj-|or-|svcacct-|admin-)?[A-Za-z0-9_-]{20,}",  # OpenAI, Anthropic, OpenRouter
    rb"AIza[A-Za-z0-9_-]{35}",  # Google
    rb"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}",
    rb"xox[abeprs]-[A-Za-z0-9-]{20,}",  # Slack
    rb"(?:AKIA|ASIA)[A-Z0-9]{16}",  # AWS key id
    rb"hf_[A-Za-z0-9]{30,}|gsk_[A-Za-z0-9]{40,}|glpat-[A-Za-z0-9_-]{20,}|[rs]k_live_[A-Za-z0-9]{20,}",
    rb"mw[rntk]_[A-Za-z0-9_-]{20,}(?:\.[A-Za-z0-9_-]{20,})?",  # our own
    rb"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",  # JSON web tokens
    # the whole key, also one whose end is missing; in JSON its lines end in a written \\n
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[A-Za-z0-9+/=\s]|\\n)*(?:-----END [A-Z ]*PRIVATE KEY-----)?",
)

_SECRET: Final = re.compile(rb"(?<![A-Za-z0-9_-])(?:" + b"|".join(_SHAPES) + rb")")

KEEP: Final = 7
"""Characters that stay, enough to recognise `sk-proj`."""

LONGEST: Final = 512
"""No shape is longer than this in practice; a cut of endless output keeps this much back."""


def redact(data: bytes) -> tuple[bytes, int]:
    """Return `data` with secrets replaced by their first characters and `[redacted]`, and how many."""
    return _SECRET.subn(lambda match: match[0][:KEEP] + b"[redacted]", data)


LEAST: Final = 8
"""Characters of a secret that is struck out wherever it stands: a shorter one would take words with it."""


def strike(data: bytes, secrets: Iterable[str]) -> bytes:
    """Return `data` without these very secrets, whatever shape they have: what a server repeats of what it was
    shown, as it was or with the escapes of JSON."""
    for secret in secrets:
        if len(secret) >= LEAST:
            for form in {secret, secret.replace("/", "\\/")}:
                data = data.replace(form.encode(), b"[redacted]")
    return data


def redact_text(text: str) -> str:
    """Return text without secrets; the form for single lines."""
    return redact(text.encode("utf-8", "surrogatepass"))[0].decode("utf-8", "surrogatepass")
