"""Tokens: a plausible count, and a prompt cache that gives discounts as the providers do.

A token is four bytes of UTF-8 (four characters of English); the count of a text never changes.
The cache remembers which prefixes it has seen, per model and key. Like the providers it gives
nothing below 1,024 tokens; OpenAI counts in steps of 128 and by itself, Anthropic up to the
breakpoints that the client set.
Source: platform.openai.com/docs/guides/prompt-caching; docs.anthropic.com prompt-caching.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MESSAGE_OVERHEAD: Final = 4
"""Tokens that each message costs beyond its text."""
IMAGE_TOKENS: Final = 765
"""What a picture costs: one of 1024 x 1024 with high detail."""
CACHE_FLOOR_TOKENS: Final = 1024
"""Shorter prefixes are not cached."""
CACHE_STEP_TOKENS: Final = 128
"""OpenAI's cached tokens come in steps of this size."""
MAX_PREFIXES: Final = 50_000
"""Prefixes that are remembered; the one unused for longest is forgotten first."""


def count(text: str) -> int:
    """Return the tokens of a text: its bytes by four, rounded up."""
    return -(-len(text.encode("utf-8", "replace")) // 4)


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of the prompt that is cached as a whole."""

    text: str
    images: int
    breakpoint: bool

    def tokens(self) -> int:
        """Return what it counts; nothing when it is empty."""
        if not self.text and not self.images:
            return 0
        return count(self.text) + MESSAGE_OVERHEAD + self.images * IMAGE_TOKENS


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `input` counts all that was sent, `cached` and `written` included."""

    input: int
    output: int = 0
    cached: int = 0
    written: int = 0


class PromptCache:
    """Remembers prefixes. `look` gives what a call's prompt costs and remembers it."""

    def __init__(self, capacity: int = MAX_PREFIXES) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._capacity = capacity

    def look(self, owner: str, blocks: list[Block], *, explicit: bool) -> Usage:
        """Return the prompt's usage. `owner` is who shares a cache: model and key."""
        digest = hashlib.blake2b(owner.encode("utf-8", "replace"), digest_size=16)
        total, cached, wanted = 0, 0, 0
        prefixes: list[tuple[bytes, int]] = []
        for block in blocks:
            total += block.tokens()
            digest.update(block.text.encode("utf-8", "replace") + b"\x00")
            prefixes.append((digest.digest(), total))
            if block.breakpoint:
                wanted = len(prefixes)
        reach = prefixes[:wanted] if explicit else prefixes
        for key, length in reach:
            if key in self._seen and length >= CACHE_FLOOR_TOKENS:
                cached = length if explicit else length - length % CACHE_STEP_TOKENS
        written = reach[-1][1] if explicit and reach else 0
        written = written - cached if written >= CACHE_FLOOR_TOKENS else 0
        for key, _length in reach:
            self._remember(key)
        return Usage(input=total, cached=cached, written=written)

    def _remember(self, key: bytes) -> None:
        self._seen[key] = None
        self._seen.move_to_end(key)
        if len(self._seen) > self._capacity:
            self._seen.popitem(last=False)
