"""Tokens: a plausible count, and a prompt cache that gives discounts as the providers do.

A token is four bytes of UTF-8 (four characters of English); the count of a text never changes. A
picture or a sound counts the same whatever it shows, so that a test can reckon it in its head.
The cache remembers which prefixes it has seen, per model and key, and forgets them as the providers
do. It gives nothing below 1,024 tokens; OpenAI counts in steps of 128 and by itself, Gemini by
itself, Anthropic up to the breakpoints that the client set, each for five minutes or an hour.
Source: platform.openai.com/docs/guides/prompt-caching; docs.anthropic.com prompt-caching;
ai.google.dev/gemini-api/docs/caching and /tokens.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

MESSAGE_OVERHEAD: Final = 4
"""Tokens that each message costs beyond its text."""
IMAGE_TOKENS: Final = 765
"""What a picture costs at OpenAI and Anthropic: one of 1024 x 1024 with high detail."""
GEMINI_IMAGE_TOKENS: Final = 258
"""What a picture costs at Gemini: one tile."""
AUDIO_TOKENS: Final = 100
"""What a sound costs, however long it lasts."""
CACHE_FLOOR_TOKENS: Final = 1024
"""Shorter prefixes are not cached."""
OPENAI_STEP_TOKENS: Final = 128
"""OpenAI's cached tokens come in steps of this size."""
MAX_PREFIXES: Final = 50_000
"""Prefixes that are remembered; the one unused for longest is forgotten first."""

Ttl = Literal["", "5m", "1h"]
"""How long a breakpoint holds what it marks; nothing: there is no breakpoint."""
TTL_S: Final[dict[Ttl, float]] = {"": 300.0, "5m": 300.0, "1h": 3600.0}


def count(text: str) -> int:
    """Return the tokens of a text: its bytes by four, rounded up."""
    return -(-len(text.encode("utf-8", "replace")) // 4)


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of the prompt that is cached as a whole."""

    text: str
    images: int
    ttl: Ttl = ""
    """The client set a cache breakpoint behind it."""
    sounds: int = 0
    per_image: int = IMAGE_TOKENS

    def tokens(self) -> int:
        """Return what it counts; nothing when it is empty."""
        if not self.text and not self.images and not self.sounds:
            return 0
        media = self.images * self.per_image + self.sounds * AUDIO_TOKENS
        return count(self.text) + MESSAGE_OVERHEAD + media


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `input` counts all that was sent, and `output` all that was made.

    `cached`, `written`, `image` and `audio` are parts of `input`; `written_1h` is the part of
    `written` that is kept for an hour; `reasoning` is the part of `output` that was only thought.
    """

    input: int
    output: int = 0
    cached: int = 0
    written: int = 0
    written_1h: int = 0
    reasoning: int = 0
    image: int = 0
    audio: int = 0


def so_far(usage: Usage, said: int, total: int) -> Usage:
    """Return the usage of an answer of which `said` of `total` characters were sent.

    Its reasoning was over before the first of them.
    """
    answer = usage.output - usage.reasoning
    made = answer * min(said, total) // total if total else 0
    return dataclasses.replace(usage, output=usage.reasoning + made)


class PromptCache:
    """Remembers prefixes. `look` gives what a call's prompt costs and remembers it."""

    def __init__(self, capacity: int = MAX_PREFIXES) -> None:
        self._seen: OrderedDict[bytes, float] = OrderedDict()
        """Prefix → when it is forgotten."""
        self._capacity = capacity

    def look(
        self, owner: str, blocks: list[Block], *, explicit: bool, now: float = 0.0, step: int = 1
    ) -> Usage:
        """Return the prompt's usage. `owner` is who shares a cache: model and key.

        `explicit`: only up to the last breakpoint is anything read or written. `step`: what is read
        by itself comes in multiples of it.
        """
        digest = hashlib.blake2b(owner.encode("utf-8", "replace"), digest_size=16)
        total, cached, wanted = 0, 0, 0
        prefixes: list[tuple[bytes, int, Ttl]] = []
        for block in blocks:
            total += block.tokens()
            media = f"\x00{block.images}\x00{block.sounds}\x00"
            digest.update((block.text + media).encode("utf-8", "replace"))
            prefixes.append((digest.digest(), total, block.ttl))
            if block.ttl:
                wanted = len(prefixes)
        reach = prefixes[:wanted] if explicit else prefixes
        for key, length, _ in reach:
            if self._seen.get(key, -1.0) > now and length >= CACHE_FLOOR_TOKENS:
                cached = length if explicit else length - length % step
        marked: list[tuple[int, Ttl]] = (
            [(length, ttl) for _, length, ttl in reach if ttl] if explicit else []
        )
        written, written_1h = _written(marked, cached)
        self._remember(reach, now)
        return Usage(
            input=total,
            cached=cached,
            written=written,
            written_1h=written_1h,
            image=sum(b.images * b.per_image for b in blocks),
            audio=sum(b.sounds * AUDIO_TOKENS for b in blocks),
        )

    def _remember(self, reach: list[tuple[bytes, int, Ttl]], now: float) -> None:
        """Remember each prefix for as long as the next breakpoint behind it says."""
        ttl: Ttl = ""
        for key, _, own in reversed(reach):
            ttl = own or ttl
            self._seen[key] = max(self._seen.get(key, 0.0), now + TTL_S[ttl])
            self._seen.move_to_end(key)
            if len(self._seen) > self._capacity:
                self._seen.popitem(last=False)


def _written(marked: Sequence[tuple[int, Ttl]], cached: int) -> tuple[int, int]:
    """Return what is written to the cache, and the part of it that is kept for an hour."""
    end = marked[-1][0] if marked else 0
    if end < CACHE_FLOOR_TOKENS:
        return 0, 0
    hour = max((length for length, ttl in marked if ttl == "1h"), default=0)
    return max(end - cached, 0), max(hour - cached, 0)
