from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.web import words

NOW = 1_768_440_480.0  # 2026-01-15 01:28 UTC


def test_direction_marks_and_control_characters_are_taken_out() -> None:
    assert words.plain("user\u202etxt.exe\u202c\x00\x07") == "usertxt.exe"


def test_terminal_colours_are_taken_out() -> None:
    assert words.plain("\x1b[31;1mred\x1b[0m \x1b]0;title\x07text") == "red text"


def test_emoji_that_are_joined_stay_whole() -> None:
    assert words.plain("👩\u200d🚀 naïve 夜警") == "👩\u200d🚀 naïve 夜警"


def test_towers_of_marks_are_cut_down() -> None:
    assert words.plain("z" + "\u0310" * 60) == "z" + "\u0310" * 3


def test_long_text_is_clipped_with_an_ellipsis() -> None:
    assert words.plain("x" * 700) == "x" * 600 + "…"


@given(st.text(), st.integers(1, 50))
def test_plain_is_bounded_and_stable_for_any_text(text: str, limit: int) -> None:
    once = words.plain(text, limit)
    assert len(once) <= limit + 1
    assert words.plain(once, limit + 1) == once


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        ("2026-01-15T01:28:00Z", datetime(2026, 1, 15, 1, 28, tzinfo=UTC)),
        ("2026-01-15T01:28:00", datetime(2026, 1, 15, 1, 28, tzinfo=UTC)),
        ("yesterday", None),
        (float("nan"), None),
        (1e300, None),
        (True, None),
        (None, None),
    ],
)
def test_times_are_read_in_both_forms_and_the_rest_is_no_time(
    value: object, expected: datetime | None
) -> None:
    assert words.moment(value) == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (4.9, "just now"),
        (12, "12 seconds ago"),
        (60, "1 minute ago"),
        (8 * 60 + 59, "8 minutes ago"),
        (7200, "2 hours ago"),
        (-300, "in 5 minutes"),
    ],
)
def test_relative_times_read_as_a_person_says_them(seconds: float, text: str) -> None:
    at = words.moment(NOW - seconds)
    assert at is not None
    assert words.ago(at, NOW) == text


def test_a_time_of_another_day_names_the_day() -> None:
    paris = words.zone("Europe/Paris")
    shown = [words.clock_time(words.moment(NOW - s), NOW, paris) for s in (0, 12_600, 864_000)]  # type: ignore[arg-type]
    assert shown == ["02:28", "Wed 22:58", "5 Jan 02:28"]


def test_an_unknown_time_zone_is_utc() -> None:
    assert words.zone("Atlantis/Capital") is words.zone("../../etc/passwd")
    assert datetime.fromtimestamp(NOW, words.zone(None)).timestamp() == NOW


def test_no_data_is_said_and_never_zero() -> None:
    assert [f(None) for f in (words.money, words.count, words.size, words.span)] == ["no data"] * 4
    assert words.money(0) == "$0"


def test_names_are_listed_with_the_rest_counted() -> None:
    assert words.listed(["a"]) == "a"
    assert words.listed(["a", "b", "c"]) == "a, b and c"
    assert words.listed(["a", "b", "c", "d", "e"]) == "a, b and 3 more"


def test_evidence_takes_its_unit_from_its_name() -> None:
    shown = {
        name: words.evidence(name, value)
        for name, value in {
            "rss_slope_bytes_h": 41_943_040,
            "rss_bytes": 1024**3,
            "duration_s": 12.44,
            "cost_usd": 0.38,
            "exit_code": 137,
            "ratio": 10.25,
        }.items()
    }
    assert shown == {
        "rss_slope_bytes_h": "40 MiB an hour",
        "rss_bytes": "1.0 GiB",
        "duration_s": "12.4 s",
        "cost_usd": "$0.38",
        "exit_code": "137",
        "ratio": "10.25",
    }


def test_losses_are_summed_and_the_largest_named() -> None:
    assert words.losses({"queue full": 3, "rejected:missing": 40, "zero": 0}) == (
        43,
        "rejected missing 40 and queue full 3",
    )
    assert words.losses({"zero": 0, "refused_requests:unauthorized": 9}) is None
    assert words.losses(None) is None
