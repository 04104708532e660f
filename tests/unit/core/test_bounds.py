"""Hard limits, in words and at their edges."""

from __future__ import annotations

import pytest

from midwatch.core.bounds import refused_write, tasks_of, too_large, too_many
from midwatch.core.terms import Limits

MIB = 1024 * 1024
LIMITS = Limits(processes=64, disk=100 * MIB)
NONE = Limits(processes=None, disk=None)


@pytest.mark.parametrize(
    ("processes", "threads", "over"),
    [(64, 64, False), (65, 65, True), (10, 1024, False), (10, 1025, True)],
)
def test_processes_and_threads_have_their_bounds(processes: int, threads: int, over: bool) -> None:
    assert (too_many(LIMITS, processes, threads) is not None) is over
    assert too_many(NONE, processes, threads) is None


def test_the_kernel_allows_no_fewer_threads_than_we_do() -> None:
    assert tasks_of(64) == 1024
    assert tasks_of(None) is None


@pytest.mark.parametrize(
    ("used", "before", "over"),
    [
        (100, 0, False),
        (101, 0, True),
        (99, 99, False),
        (109, 100, False),
        (111, 100, True),
        (509, 500, False),
        (511, 500, True),
    ],
)
def test_a_run_answers_for_what_it_added(used: int, before: int, over: bool) -> None:
    assert (too_large(LIMITS, used * MIB, before * MIB) is not None) is over
    assert too_large(NONE, used * MIB, 0) is None


def test_a_good_end_after_a_refused_write_is_a_good_end() -> None:
    assert refused_write(LIMITS, 0, None, ["OSError: [Errno 27] File too large"]) is None


def test_an_old_refusal_does_not_explain_a_later_end() -> None:
    tail = ["File too large", *["working"] * 30, "ValueError: 3"]
    assert refused_write(LIMITS, 1, None, tail) is None
