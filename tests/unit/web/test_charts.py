import re
from typing import Any
from xml.etree import ElementTree

import pytest
from demo_fleets import HOSTILE, cycles
from hypothesis import given
from hypothesis import strategies as st

from midwatch.web import charts, words

SVG = "{http://www.w3.org/2000/svg}"


def draw(made: list[dict[str, Any]], **how: Any) -> ElementTree.Element:
    drawn = charts.strip(made, words.plain, **how)
    assert drawn is not None
    return ElementTree.fromstring(
        str(drawn).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    )


def kinds(svg: ElementTree.Element) -> list[str]:
    return [p.attrib["class"] for p in svg.iter(f"{SVG}path")]


def heights(svg: ElementTree.Element) -> list[float]:
    outlines = [p.attrib["d"] for p in svg.iter(f"{SVG}path")][1:]
    return [float(re.findall(r"v([\d.]+)", outline)[-1]) for outline in outlines]


def test_no_cycles_draw_nothing() -> None:
    assert charts.strip([], str) is None


def test_one_bar_for_each_cycle_and_at_most_sixty() -> None:
    assert len(kinds(draw(cycles(1, 7)))) == 1 + 7
    assert len(kinds(draw(cycles(1, 300)))) == 1 + 60


def test_the_newest_cycle_stands_at_the_right_end() -> None:
    last = draw(cycles(1, 3))[-1].attrib["d"]
    assert last.startswith(f"M{(charts.SLOTS - 1) * charts.STEP} ")


def test_height_is_tokens_and_duration_when_there_are_none() -> None:
    timed = [{"duration_s": d, "result": "ok"} for d in (1.0, 2.0)]
    assert heights(draw([{"tokens": t, "result": "ok"} for t in (100, 200)])) == [13.0, 26.0]
    assert heights(draw(timed)) == [13.0, 26.0]
    assert charts.scale(timed).words == "median 1.5 s"


def test_one_runaway_cycle_does_not_flatten_the_rest_and_is_marked() -> None:
    steady = [{"tokens": 1000, "result": "ok"}] * 20
    svg = draw([*steady, {"tokens": 400_000, "result": "ok"}])
    assert kinds(svg)[-1] == "ok over"
    assert heights(svg)[0] == pytest.approx(charts.LINE / charts.HEADROOM)


def test_a_failed_cycle_is_told_by_shape_not_by_colour_alone() -> None:
    ok, failed = heights(draw([{"tokens": 10, "result": r} for r in ("ok", "failed")]))
    assert failed == ok + charts.SINK


def test_a_cycle_without_size_is_low_and_makes_no_claim() -> None:
    svg = draw([{"result": "ok"}])
    assert heights(svg) == [2.0]
    assert svg.attrib["aria-label"] == "Last 1 cycle, none failed, no size reported"


def test_titles_tell_the_cycle_and_escape_it() -> None:
    svg = draw([{"at": 5, "result": HOSTILE, "tokens": 1, "duration_s": 12.4, "cost_usd": 0.5}])
    title = svg[-1][0].text
    assert title is not None
    assert title.startswith("5, <script>alert(1)")
    assert title.endswith("12.4 s, 1 token, $0.50")


def test_dense_strips_share_paths_and_tell_nothing_by_bar() -> None:
    made = [{"tokens": 10, "result": r} for r in ("ok", "failed", "odd") * 20]
    svg = draw(made, titles=False)
    assert kinds(svg) == ["base", "ok", "failed", "other"]
    assert not list(svg.iter(f"{SVG}title"))


numbers = st.one_of(
    st.none(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=3), st.booleans()
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"at": numbers, "tokens": numbers, "duration_s": numbers, "result": numbers}
        ),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
def test_any_cycles_draw_well_formed_svg_inside_its_box(
    made: list[dict[str, Any]], titles: bool
) -> None:
    svg = draw(made, titles=titles)
    assert all(0 <= height <= charts.LINE + charts.SINK for height in heights(svg))


@pytest.mark.parametrize(
    ("cost", "budget", "text", "of", "level"),
    [
        (0.42, 10.0, "$0.42", "of $10", "calm"),
        (8.0, 10.0, "$8", "of $10", "warn"),
        (10.0, 10.0, "$10", "of $10", "over"),
        (0.42, None, "$0.42", "no budget", "calm"),
        (None, 10.0, "no data", "of $10", "calm"),
        (1.0, 0.0, "$1", "of $0", "over"),
        (None, 0.0, "no data", "of $0", "calm"),
    ],
)
def test_the_meter_says_what_was_spent_of_what(
    cost: float | None, budget: float | None, text: str, of: str, level: str
) -> None:
    made = charts.meter(cost, budget)
    assert (made.text, made.of, made.level) == (text, of, level)
    assert (made.bar is None) == (not budget)
