"""Takes obvious secrets out of text before it is stored. Pure.

A small table of shapes that are keys and nothing else; what looks like one only by chance stays
readable. The first characters stay, so that a person can tell which key it was. What stands under a name that
is a secret's (`authorization`, `api_key`) goes whole, whatever it looks like: `core/labelled.py`.

`hints` looks through a whole request at once, at a few nanoseconds a byte, and says whether a closer look is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from midwatch.core.labelled import HIDDEN as HIDDEN
from midwatch.core.labelled import hints_labels, unlabel
from midwatch.core.labelled import hints_names as hints_names
from midwatch.core.labelled import is_secret as is_secret

_SHAPES: Final = (
    rb"sk-(?:ant-|proj-|or-|svcacct-|admin-)?[A-Za-z0-9_-]{20,}",  # OpenAI, Anthropic, OpenRouter
    rb"AIza[A-Za-z0-9_-]{35}",  # Google
    rb"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}",
    rb"xox[abeprs]-[A-Za-z0-9-]{20,}",  # Slack
    rb"(?:AKIA|ASIA)[A-Z0-9]{16}",  # AWS key id
    rb"hf_[A-Za-z0-9]{30,}|gsk_[A-Za-z0-9]{40,}|glpat-[A-Za-z0-9_-]{20,}|[rs]k_live_[A-Za-z0-9]{20,}",
    rb"mw[rntk]_[A-Za-z0-9_-]{20,}(?:\.[A-Za-z0-9_-]{20,})?",  # our own
    rb"eyJ[A-Za-z0-9_-]{13,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",  # JSON web tokens
    # whatever a header bears; a digit, because in prose the word is followed by words
    rb"(?:(?<=[Bb]earer )|(?<=BEARER ))(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{16,}[A-Za-z0-9._~+/=-]*",
    # the whole key, also one whose end is missing; in JSON its lines end in a written \\n, in JSON within JSON in \\\\n
    # possessive: what is tried again costs a hundred bytes of memory for each byte that an agent writes
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[A-Za-z0-9+/=\s]++|\\++[nr])*+(?:-----END [A-Z ]*PRIVATE KEY-----)?",
)

_ANY: Final = b"(?:" + b"|".join(_SHAPES) + b")"
_SECRET: Final = re.compile(
    rb"(?<![A-Za-z0-9_-])(?:" + _ANY + rb"|((?<=\\)(?:[nrtbf]|u[0-9A-Fa-f]{4}))" + _ANY + b")"
)
"""Where a word begins; what spells a sign as in JSON (`\\n`, `\\u003c`) belongs to no word."""

KEEP: Final = 7
"""Characters that stay, enough to recognise `sk-proj`."""

LONGEST: Final = 512
"""No shape is longer than this in practice; a cut of endless output keeps this much back."""


def redact(data: bytes) -> tuple[bytes, int]:
    """Return `data` with secrets replaced by their first characters and `[redacted]`, and how many."""
    clean, by_look, by_name = redact_counted(data)
    return clean, by_look + by_name


def redact_counted(data: bytes) -> tuple[bytes, int, int]:
    """Return the same, and how many were known by their look and how many by the name before them."""
    clean, by_look = _SECRET.subn(_shown, data)
    if not hints_labels(clean):
        return clean, by_look, 0
    clean, by_name = unlabel(clean)
    return clean, by_look, by_name


def _shown(match: re.Match[bytes]) -> bytes:
    return match[0][: KEEP + len(match[1] or b"")] + b"[redacted]"


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


# -- a quick look ----------------------------------------------------------------------------------

_RUN: Final = b"x" * 16
"""Every shape but a private key begins with at least so many letters, digits, `-` and `_`."""

_CLASSES: Final = bytes(
    ord("x") if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in "-_") else 0
    for byte in range(256)
)
_NEAR: Final = re.compile(b"(?:b?.|u[0-9A-Fa-f]{4})??" + _ANY, re.DOTALL)
"""A shape where a run begins, or right behind what only looks like its first letters: the length of a text in
protobuf, before it the tag of a log record's event, in JSON the `n` of `\\n` and the `u003c` of `\\u003c`."""

_SHAPE: Final = re.compile(_ANY)
_TAGGED: Final = re.compile(
    rb"b[A-Za-z0-9_-](?=sk-|AIza|gh[pousr]_|github_pat_|xox|AKIA|ASIA|hf_|gsk_|glpat-|[rs]k_live_|mw[rntk]_|eyJ)"
)
"""How one begins within a run: that tag and a length are letters, and so was the last byte of the field before."""

_SPELLED: Final = re.compile(rb"\\u00[2-7]")


def hints(data: bytes) -> bool:
    """Tell whether any text within `data` may hold what `redact` takes out. Never False where it does, as long as
    the text stands there byte by byte, as in protobuf; seldom True where it does not."""
    if b"-----BEGIN " in data or hints_labels(data):
        return True
    runs = data.translate(_CLASSES)
    at = runs.find(_RUN)
    while at >= 0:
        end = runs.find(b"\0", at + len(_RUN))
        if _NEAR.match(data, at):
            return True
        for one in _TAGGED.finditer(data, at, end if end >= 0 else len(data)):
            if _SHAPE.match(data, one.end()):
                return True
        at = runs.find(_RUN, end) if end >= 0 else -1
    return False


def hints_json(data: bytes) -> bool:
    """The same of JSON, in which a plain character may be spelled `\\u0041`."""
    return hints(data) or _SPELLED.search(data) is not None
