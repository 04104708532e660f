"""Cursors go out and come back, whatever the names are that they stand at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.spans.limits import MAX_LABEL
from midwatch.store.questions.pages import MAX_CURSOR, cursor_of, place_of


@pytest.mark.parametrize("sign", ["a", "é", "🙂", "\0", '"', "\ud800"])
def test_the_longest_session_of_any_sign_has_a_cursor(sign: str) -> None:
    place = [2**63 - 1, sign * MAX_LABEL]
    cursor = cursor_of(place)
    assert len(cursor) <= MAX_CURSOR
    assert place_of(cursor, (int, str)) == place


@given(st.integers(-(2**62), 2**62), st.binary(max_size=16), st.text(max_size=MAX_LABEL))
def test_a_place_comes_back_as_it_went(number: int, raw: bytes, text: str) -> None:
    assert place_of(cursor_of([number, raw, text]), (int, bytes, str)) == [number, raw, text]
