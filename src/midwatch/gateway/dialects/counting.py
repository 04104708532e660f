"""Counts tokens from above, without the tokenizer of any model: fast, and rarely below what is billed.

Text is weighed by kinds of characters. Small letters and spaces: 0.38 each (English is 4 to 4.5 characters a
token with OpenAI and Google, 3.5 with Anthropic, a third less with its newest models). Everything else in
ASCII: 1 (digits and marks are often a token each; capitals stand for identifiers and base64, where a token
covers little more than one). Letters of two bytes (Latin, Cyrillic, Greek, Arabic, Hebrew): 1; of three bytes
2, in Indic, Thai and Burmese script 3; emoji 4. Prose comes out 1.4 to 1.7 times too high, code and JSON 1.2
to 1.8. A token never covers less than a byte, so text made to defeat this is at most 2.6 times dearer than
counted; what a call really used is settled afterwards.
"""

from __future__ import annotations

import re
from typing import Final

from midwatch.core.calls.ask import Kind

_CHEAP: Final = bytes(range(0x61, 0x7B)) + b" "
_ASCII: Final = bytes(range(0x80))
_FOLLOWING: Final = bytes(range(0x80, 0xC0))
_NOT_3: Final = bytes(c for c in range(256) if not 0xE0 <= c <= 0xEF)
_NOT_E01: Final = bytes(c for c in range(256) if c not in (0xE0, 0xE1))
_NOT_4: Final = bytes(range(0xF0))

PER_MESSAGE: Final = 5
"""Tokens of one message beyond its text: role and separators (OpenAI: 3, 4 with a name)."""

PER_REQUEST: Final = 8
"""Tokens of a request beyond its messages (OpenAI: 3)."""

PER_TOOL: Final = 16
"""Tokens of one tool beyond its schema."""

TOOLS: Final = {Kind.OPENAI: 32, Kind.ANTHROPIC: 600, Kind.GEMINI: 32}
"""Tokens of the system prompt that tools bring with them. Anthropic publishes up to 530."""

ENCRYPTED_BYTES: Final = 4
"""Characters of a token in what only the provider can read (reasoning, signatures): base64 of its text."""

MEDIA_BYTES: Final = 30
"""Bytes of sound a token at the least: Gemini takes 32 tokens for a second, OpenAI 10, and no MP3 has less than
1 KB for one."""

STEADY: Final = frozenset(
    (
        "wav",
        "mp3",
        "pcm16",
        "audio/wav",
        "audio/x-wav",
        "audio/mp3",
        "audio/mpeg",
        "audio/L16",
        "audio/pcm",
    )
)
"""Forms of sound in which a second has a least size. An hour of silence, or of a black film, is a few KB in
others: with those the whole window is reckoned with."""

PAGE_BYTES: Final = 1
"""Bytes of a file a token: exact from above for plain text, and no bound for what is packed."""


def of_text(text: str) -> int:
    """Return the tokens of a text, from above."""
    return of_bytes(text.encode("utf-8", "replace"))


def of_bytes(data: bytes) -> int:
    """Return the tokens of a text in UTF-8, from above."""
    heavy = data.translate(None, _CHEAP)
    light = len(data) - len(heavy)
    count = len(heavy)
    if not data.isascii():
        wide = heavy.translate(None, _ASCII)
        leads = wide.translate(None, _FOLLOWING)
        # 1 for each letter; 1 more for those of three bytes, 1 more for some; 3 more for those of four
        letters = len(leads) + len(leads.translate(None, _NOT_3))
        letters += len(leads.translate(None, _NOT_E01)) + 3 * len(leads.translate(None, _NOT_4))
        count += letters - len(wide)
    return count + (light * 19 + 49) // 50


_OPENAI_IMAGES: Final = (
    # tokens at low detail and at most; platform.openai.com/docs/guides/images-vision, "Calculating costs"
    (re.compile(r"gpt-4o-mini"), 2_833, 2_833 + 8 * 5_667),
    (re.compile(r"(?:gpt-4o|gpt-4\.1(?!-(?:mini|nano))|gpt-4\.5|chatgpt)"), 85, 85 + 8 * 170),
    (re.compile(r"(?:o1|o3(?!-mini))"), 75, 75 + 8 * 150),
    (re.compile(r"gpt-5(?!\.|-mini|-nano)"), 70, 70 + 8 * 140),
    (re.compile(r"(?:gpt-4\.1-(?:mini|nano)|gpt-5-(?:mini|nano)|o4-mini)"), 630, 3_779),
)
"""Pictures are scaled to 8 tiles of 512 pixels, or to 1,536 patches of 32 pixels (x 2.46 for nano models)."""

_OTHER_IMAGE: Final = (1_000, 5_000)
_ORIGINAL_IMAGE: Final = 12_000
"""With `detail: original`, 10,000 patches."""

_CLAUDE_SMALL: Final = re.compile(
    r"claude-(?:[23]|instant|(?:opus|sonnet|haiku)-4(?:$|@|-(?:latest|20[0-9]{6}|[0-6])(?![0-9])))"
)


def of_image(kind: Kind, model: str, detail: str = "") -> int:
    """Return the tokens of one picture at most, by the rules that its provider publishes.

    Anthropic: width x height / 750, at most 1,600, and 4,784 with models that see in high resolution.
    Gemini: 258 for each tile of 768 pixels (16 tiles at most), from Gemini 3 on at most 2,240.
    """
    name = model.rpartition("/")[2]
    if kind is Kind.ANTHROPIC:
        return 1_600 if _CLAUDE_SMALL.match(name) else 4_784
    if kind is Kind.GEMINI:
        return 2_240 if name.startswith("gemini-3") else 16 * 258
    if detail == "original":
        return _ORIGINAL_IMAGE
    low, high = next(((a, b) for p, a, b in _OPENAI_IMAGES if p.match(name)), _OTHER_IMAGE)
    return low if detail == "low" else high
