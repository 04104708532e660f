"""Token counts are stable, and the prompt cache gives discounts as the providers do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midwatch.drills.rehearsal.rendering import end_text, pieces
from midwatch.drills.rehearsal.tokens import OPENAI_STEP_TOKENS, Block, PromptCache, count


def block(text: str, *, marked: bool = False) -> Block:
    return Block(text, 0, "5m" if marked else "")


LONG = block("x" * 8000)  # 2,004 tokens with the message's overhead


def test_four_characters_are_a_token() -> None:
    assert [count(""), count("abcd"), count("abcde"), count("日本語")] == [0, 1, 2, 3]


@given(st.text(), st.text())
def test_more_text_never_counts_less(a: str, b: str) -> None:
    assert max(count(a), count(b)) <= count(a + b) <= count(a) + count(b)


def test_a_prefix_seen_before_is_cached_in_whole_steps() -> None:
    cache = PromptCache()
    first = cache.look("m", [LONG, block("one")], explicit=False, step=OPENAI_STEP_TOKENS)
    second = cache.look("m", [LONG, block("two")], explicit=False, step=OPENAI_STEP_TOKENS)
    assert (first.input, first.cached) == (2004 + 5, 0)
    assert (second.cached, second.cached % 128) == (1920, 0)


def test_short_prompts_and_other_owners_are_not_cached() -> None:
    cache = PromptCache()
    short = [block("x" * 4000)]
    assert [cache.look("m", short, explicit=False).cached for _ in range(2)] == [0, 0]
    cache.look("m", [LONG], explicit=False)
    assert cache.look("other", [LONG], explicit=False).cached == 0


def test_an_explicit_cache_reaches_to_the_breakpoint_only() -> None:
    cache = PromptCache()
    blocks = [block("y" * 8000, marked=True), LONG]
    first = cache.look("m", blocks, explicit=True)
    second = cache.look("m", blocks, explicit=True)
    assert (first.cached, first.written) == (0, 2004)
    assert (second.cached, second.written, second.input) == (2004, 0, 4008)
    assert cache.look("m", [LONG], explicit=True).written == 0


def test_the_cache_forgets_what_was_unused_for_longest() -> None:
    cache = PromptCache(capacity=1)
    cache.look("m", [LONG], explicit=False)
    cache.look("m", [block("z" * 8000)], explicit=False)
    assert cache.look("m", [LONG], explicit=False).cached == 0


@given(st.text())
def test_pieces_joined_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


def test_a_text_ends_at_a_stop_sequence_or_at_its_length() -> None:
    assert end_text("one two three", ("two", "three"), None) == ("one ", "two", False)
    assert end_text("12345678", (), 1) == ("1234", None, True)
    assert end_text("ééé", (), 1) == ("éé", None, True)
    assert end_text("short", ("",), 100) == ("short", None, False)


def test_what_is_written_for_an_hour_is_told_apart() -> None:
    cache = PromptCache()
    blocks = [Block("a" * 8000, 0, "1h"), Block("b" * 8000, 0, "5m"), LONG]
    first = cache.look("m", blocks, explicit=True)
    assert (first.written, first.written_1h, first.cached) == (4008, 2004, 0)
    second = cache.look("m", blocks, explicit=True, now=299.0)
    assert (second.written, second.written_1h, second.cached) == (0, 0, 4008)


def test_a_cache_is_forgotten_when_its_time_is_over_and_kept_by_use() -> None:
    cache = PromptCache()
    blocks = [Block("a" * 8000, 0, "1h"), Block("b" * 8000, 0, "5m")]
    cache.look("m", blocks, explicit=True, now=0.0)
    later = cache.look("m", blocks, explicit=True, now=301.0)  # five minutes are over, the hour not
    assert (later.cached, later.written, later.written_1h) == (2004, 2004, 0)
    assert cache.look("m", blocks, explicit=True, now=600.0).cached == 4008
    assert cache.look("m", blocks, explicit=True, now=9_999.0).cached == 0


def test_pictures_and_sounds_count_and_are_told_apart() -> None:
    usage = PromptCache().look("m", [Block("abcd", 2, sounds=1)], explicit=False)
    assert (usage.image, usage.audio, usage.input) == (2 * 765, 100, 1 + 4 + 2 * 765 + 100)
