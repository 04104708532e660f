"""Usage by the standard: input holds what was read from and written to a cache, output holds the reasoning.

Emitters tell it in many ways, and wrongly. What they mean is found from the figures where the figures can say it,
and from their convention where they cannot:

1. more from and to caches than input: the caches stand beside the input;
2. a total that fits input and output: the input holds everything; one that fits only with the caches, or only with
   the reasoning: these stand beside;
3. no total that fits: the convention of dialect and provider.
"""

from __future__ import annotations

from typing import Any, Final

from midwatch.core.pricing.parts import split_input, split_output
from midwatch.core.pricing.usage import MAX_COUNT, Doubt, Usage
from midwatch.core.spans.form import (
    CACHE_WRITE_1H_TOKENS,
    CACHE_WRITE_TOKENS,
    CACHED_TOKENS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    PROVIDER,
    REASONING_TOKENS,
    USAGE,
    Row,
)
from midwatch.core.spans.reading import AUDIO_IN, AUDIO_OUT, FRESH, IMAGE_IN, TOTAL
from midwatch.core.spans.values import dump

FIGURES: Final = (
    INPUT_TOKENS,
    CACHED_TOKENS,
    CACHE_WRITE_TOKENS,
    CACHE_WRITE_1H_TOKENS,
    OUTPUT_TOKENS,
    REASONING_TOKENS,
)


def settle(row: Row, *, beside: bool = False) -> None:
    """Bring the row's figures under the standard. `beside`: the convention, where the figures do not say it.

    Needs the scratch of `reading`; does nothing for a row without input and output.
    """
    given, made, total = row[INPUT_TOKENS], row[OUTPUT_TOKENS], row[TOTAL]
    if given is None and made is None:
        # a total alone is no usage that has a price
        return
    caches = (row[CACHED_TOKENS] or 0) + (row[CACHE_WRITE_TOKENS] or 0)
    fresh = row[FRESH]
    if given is not None and caches:
        fits = total is not None and made is not None and given + made == total
        fits_beside = total is not None and made is not None and given + made + caches == total
        if fresh is not None:
            # some name what is fresh, whatever they call the input
            row[INPUT_TOKENS] = max(given, min(fresh + caches, MAX_COUNT))
        elif caches > given or fits_beside or (beside and not fits):
            row[INPUT_TOKENS] = min(given + caches, MAX_COUNT)
    thought = row[REASONING_TOKENS]
    if made is not None:
        given = row[INPUT_TOKENS]
        missing = total - given - made if total is not None and given is not None else 0
        if thought and (thought > made or missing == thought):
            row[OUTPUT_TOKENS] = min(made + thought, MAX_COUNT)
        elif thought is None and missing > 0 and row[PROVIDER] == "google":
            # Gemini adds up answer and thoughts itself, and some emitters pass on the answer alone
            row[OUTPUT_TOKENS], row[REASONING_TOKENS] = min(made + missing, MAX_COUNT), missing
    if row[AUDIO_IN] or row[AUDIO_OUT] or row[IMAGE_IN]:
        row[USAGE] = dump(parts(row).to_json())


def parts(row: Row) -> Usage:
    """Return the row's usage in parts that never overlap, for whoever prices it.

    Needs no scratch; where there is some, sounds and pictures are told apart as well. Figures that no call can have
    are cut to their whole, and doubted.
    """
    has_scratch = len(row) > IMAGE_IN
    given, made = row[INPUT_TOKENS], row[OUTPUT_TOKENS]
    written, hour = row[CACHE_WRITE_TOKENS] or 0, row[CACHE_WRITE_1H_TOKENS] or 0
    hour = min(hour, written)
    doubts: set[Doubt] = set()
    if given is None or made is None:
        doubts.add(Doubt.INCOMPLETE)
    found: dict[str, Any] = split_input(
        given or 0,
        doubts,
        cached=row[CACHED_TOKENS] or 0,
        writes=(written - hour, hour, 0),
        audio=(row[AUDIO_IN] or 0) if has_scratch else 0,
        image=(row[IMAGE_IN] or 0) if has_scratch else 0,
    )
    found |= split_output(
        made or 0,
        doubts,
        reasoning=row[REASONING_TOKENS] or 0,
        audio=(row[AUDIO_OUT] or 0) if has_scratch else 0,
    )
    return Usage(**found, doubts=frozenset(doubts))
