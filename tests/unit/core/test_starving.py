"""Who waits much longer for the processor than it runs gets too little of it."""

from __future__ import annotations

import pytest

from midwatch.core.starving import Turns, starves


@pytest.mark.parametrize(
    ("ran_s", "waited_s", "told"),
    [
        pytest.param(0.02, 0.6, True, id="ten requests beside a hundred that burn"),
        pytest.param(0.02, 1.0, True, id="a start beside a hundred that burn"),
        pytest.param(0.6, 0.4, False, id="three programs that start on two processors"),
        pytest.param(0.5, 1.0, False, id="its own threads on one processor"),
        pytest.param(0.047, 0.404, True, id="a page beside eight that burn"),
        pytest.param(0.0106, 0.0541, False, id="its usual work beside one for each processor"),
        pytest.param(0.0, 0.0, False, id="idle"),
        pytest.param(-0.5, 0.2, False, id="a thread ended and took its count with it"),
    ],
)
def test_a_process_starves_that_waits_much_longer_than_it_runs(
    ran_s: float, waited_s: float, told: bool
) -> None:
    assert starves(Turns(5.0, 7.0), Turns(5.0 + ran_s, 7.0 + waited_s)) is told
