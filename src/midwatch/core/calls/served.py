"""Whether the model that served is the one that was asked for, by names alone.

Providers answer with a dated or complete name (`gpt-4o-2024-08-06` for `gpt-4o`), with their own prefix
(`models/gemini-2.5-flash`) or a tag (`qwen3:latest`). These are the same model; a name that says another
size, family or mode (`-mini`, `-thinking`) is another.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_DATED: Final = re.compile(
    r"[-@:](?:latest|default|20\d\d-?[01]\d-?[0-3]\d|[01]\d[0-3]\d|\d{3}|v\d{1,2}(?:[:.]\d{1,2})?|[0-3]?\d-20\d\d)$"
)
"""What a name may end in without meaning another model."""


@lru_cache(4096)
def bare(name: str) -> str:
    """Return a model's name without provider, date and version mark, in lower case."""
    text = name.strip().lower().rpartition("/")[2]
    while (short := _DATED.sub("", text)) != text and short:
        text = short
    return text


def same(asked: str, served: str) -> bool:
    """Tell whether `served` is the model `asked`. A name that was not told is no contradiction."""
    return asked == served or not served or bare(asked) == bare(served)
