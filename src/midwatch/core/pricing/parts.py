"""Takes a provider's nested totals apart into parts that do not overlap."""

from __future__ import annotations

from midwatch.core.pricing.usage import Doubt


def split_input(
    total: int,
    doubts: set[Doubt],
    *,
    cached: int = 0,
    cached_audio: int = 0,
    cached_image: int = 0,
    writes: tuple[int, int, int] = (0, 0, 0),
    audio: int = 0,
    image: int = 0,
    video: int = 0,
) -> dict[str, int]:
    """Return the parts of an input of which all figures given are subsets, by field of `Usage`.

    `cached` contains `cached_audio` and `cached_image`; `audio`, `image` and `video` may have been cached or
    not; `writes` are kept short, 1 h, 12 h. Where it is not told which kind was cached, text was: what costs
    more stays fresh. What exceeds the total is cut, and doubted.

    1. cached tokens come first, then written ones, up to the total;
    2. of what is left, audio, image and video; the rest is text.
    """
    if cached + sum(writes) > total:
        doubts.add(Doubt.CLIPPED)
    cached = min(cached, total)
    left = total - cached
    short = min(writes[0], left)
    hour = min(writes[1], left - short)
    half_day = min(writes[2], left - short - hour)
    left -= short + hour + half_day
    if cached_audio + cached_image > cached:
        doubts.add(Doubt.CLIPPED)
    cached_audio = min(cached_audio, cached)
    cached_image = min(cached_image, cached - cached_audio)
    if audio + image + video > total:
        doubts.add(Doubt.CLIPPED)
    audio = min(max(audio - cached_audio, 0), left)
    image = min(max(image - cached_image, 0), left - audio)
    video = min(video, left - audio - image)
    return {
        "input_text": left - audio - image - video,
        "input_audio": audio,
        "input_image": image,
        "input_video": video,
        "cache_read": cached - cached_audio - cached_image,
        "cache_read_audio": cached_audio,
        "cache_read_image": cached_image,
        "cache_write_5m": short,
        "cache_write_1h": hour,
        "cache_write_12h": half_day,
    }


def split_output(
    total: int, doubts: set[Doubt], *, reasoning: int = 0, audio: int = 0, image: int = 0
) -> dict[str, int]:
    """Return the parts of an output of which all figures given are disjoint subsets."""
    if reasoning + audio + image > total:
        doubts.add(Doubt.CLIPPED)
    # what costs most is kept first when they do not fit
    audio = min(audio, total)
    image = min(image, total - audio)
    reasoning = min(reasoning, total - audio - image)
    return {
        "output_text": total - audio - image - reasoning,
        "reasoning": reasoning,
        "output_audio": audio,
        "output_image": image,
    }
