"""Lines of an answer that comes in pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.errors import StoreError
from midwatch.store.clickhouse.exporting import whole

LINES = st.lists(st.binary(min_size=1, max_size=9).map(lambda line: line.replace(b"\n", b"n")))


def pieces(text: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(text) + 1) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(places)]


@settings(deadline=None)
@given(LINES, st.lists(st.integers(0, 500), max_size=20))
def test_wherever_pieces_end_the_lines_are_the_same(lines: list[bytes], cuts: list[int]) -> None:
    text = b"".join(line + b"\n" for line in lines)
    assert [line for several in whole(pieces(text, cuts)) for line in several] == lines


@settings(deadline=None)
@given(LINES, st.lists(st.integers(0, 500), max_size=20))
def test_a_line_without_an_end_is_an_error(lines: list[bytes], cuts: list[int]) -> None:
    text = b"".join(line + b"\n" for line in lines) + b"["
    with pytest.raises(StoreError, match="within a row"):
        list(whole(pieces(text, cuts)))
