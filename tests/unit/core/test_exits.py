"""Why runs end: statuses, wishes, memory and the machine. What programs print: test_endtexts."""

from __future__ import annotations

import errno
import signal
from typing import Any

import pytest

from midwatch.core.exits import EXPECTED, End, Facts, Wish, classify

MIB = 1024 * 1024


def test_exit_0_of_an_agent_that_should_be_running_is_a_silent_exit() -> None:
    verdict = classify(Facts(exit_code=0))
    assert verdict.end is End.SILENT
    assert not verdict.expected
    assert "code 0" in verdict.reason


def test_exit_0_after_it_said_that_it_was_done_is_finished() -> None:
    assert classify(Facts(exit_code=0, said_done=True)).end is End.FINISHED


def test_exit_0_of_a_scheduled_run_is_how_it_ends() -> None:
    assert classify(Facts(exit_code=0, long_lived=False)).end is End.FINISHED


def test_a_failure_shows_its_code_and_last_words() -> None:
    verdict = classify(
        Facts(exit_code=3, tail=["starting", "bad configuration: no 'inbox'", "", "  "])
    )
    assert (verdict.end, verdict.reason) == (
        End.FAILED,
        "exit code 3: bad configuration: no 'inbox'",
    )


def test_an_announced_end_with_a_failure_is_still_a_failure() -> None:
    assert classify(Facts(exit_code=1, said_done=True)).end is End.FAILED


def test_sigkill_near_the_memory_limit_is_out_of_memory_with_its_growth() -> None:
    verdict = classify(
        Facts(
            signal=9, rss_bytes=1000 * MIB, rss_limit_bytes=1024 * MIB, rss_slope_bytes_h=40.0 * MIB
        )
    )
    assert verdict.end is End.OUT_OF_MEMORY
    assert (
        verdict.reason
        == "killed (SIGKILL) near its memory limit (1000 MiB of 1.0 GiB, +40 MiB an hour)"
    )


def test_sigkill_far_from_the_limit_is_a_signal() -> None:
    verdict = classify(Facts(signal=9, rss_bytes=100 * MIB, rss_limit_bytes=1024 * MIB))
    assert (verdict.end, "SIGKILL" in verdict.reason) == (End.SIGNAL, True)


def test_sigkill_without_a_sample_is_a_signal() -> None:
    assert classify(Facts(signal=9, rss_limit_bytes=1024 * MIB)).end is End.SIGNAL


def test_sigkill_while_the_kernel_killed_for_memory_is_out_of_memory() -> None:
    assert classify(Facts(signal=9, host_oom_kills=1)).end is End.OUT_OF_MEMORY


def test_137_from_a_shell_in_between_counts_as_sigkill() -> None:
    assert (
        classify(Facts(exit_code=137, rss_bytes=99, rss_limit_bytes=100)).end is End.OUT_OF_MEMORY
    )


def test_130_to_160_are_plain_codes_unless_a_shell_would_mean_a_signal() -> None:
    assert classify(Facts(exit_code=150)).end is End.FAILED
    assert classify(Facts(exit_code=143)).end is End.SIGNAL


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGILL, signal.SIGTRAP])
def test_a_runtime_that_aborts_for_memory_is_out_of_memory(number: signal.Signals) -> None:
    line = "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory"
    assert classify(Facts(signal=number, tail=["working", line])).end is End.OUT_OF_MEMORY
    assert classify(Facts(signal=number, tail=["working"])).end is End.SIGNAL


def test_the_cgroups_own_kill_is_out_of_memory_whatever_the_last_sample_was() -> None:
    facts = Facts(signal=9, oom_kills=1, rss_bytes=10 * MIB, rss_limit_bytes=1024 * MIB)
    verdict = classify(facts)
    assert verdict.end is End.OUT_OF_MEMORY
    assert (
        verdict.reason == "killed (SIGKILL) by the kernel at its memory limit (10 MiB of 1.0 GiB)"
    )


def test_a_file_that_may_not_grow_is_a_limit() -> None:
    assert classify(Facts(signal=signal.SIGXFSZ)).end is End.LIMIT


@pytest.mark.parametrize(
    "status", [{"signal": 15}, {"signal": 9}, {"exit_code": 143}, {"signal": 1}]
)
def test_a_machine_that_goes_down_takes_its_agents_along_without_a_failure(
    status: dict[str, Any],
) -> None:
    verdict = classify(Facts(**status, host_stops="it reboots"))
    assert (verdict.end, verdict.expected) == (End.HOST_SHUTDOWN, True)
    assert "it reboots" in verdict.reason


@pytest.mark.parametrize("status", [{"exit_code": 1}, {"signal": 11}, {"exit_code": 0}])
def test_a_failure_while_the_machine_goes_down_is_still_a_failure(status: dict[str, Any]) -> None:
    assert not classify(Facts(**status, host_stops="it reboots")).expected


@pytest.mark.parametrize("wish", [Wish.STOP, Wish.KILL, Wish.SHUTDOWN])
@pytest.mark.parametrize(
    "tail", [["openai.AuthenticationError: Error code: 401 - x"], ["MemoryError"], []]
)
def test_an_end_that_a_person_wanted_is_never_explained_by_its_words(
    wish: Wish, tail: list[str]
) -> None:
    ends: list[dict[str, Any]] = [
        {"exit_code": 143},
        {"exit_code": 1},
        {"signal": 15},
        {"exit_code": 0},
    ]
    for status in ends:
        verdict = classify(Facts(**status, wish=wish, tail=tail, host_oom_kills=1, oom_kills=1))
        assert (verdict.expected, verdict.useless) == (True, False)


@pytest.mark.parametrize(
    ("wish", "end"),
    [
        (Wish.STOP, End.OPERATOR),
        (Wish.KILL, End.OPERATOR),
        (Wish.RESTART, End.OPERATOR),
        (Wish.SUSPEND, End.SUSPENDED),
        (Wish.SHUTDOWN, End.SHUTDOWN),
        (Wish.HUNG, End.HUNG),
        (Wish.WALL, End.WALL_CLOCK),
        (Wish.MEMORY, End.OUT_OF_MEMORY),
    ],
)
@pytest.mark.parametrize(
    "status", [Facts(exit_code=0), Facts(exit_code=1), Facts(signal=9), Facts(signal=15)]
)
def test_what_we_wished_explains_an_end_before_its_status_does(
    wish: Wish, end: End, status: Facts
) -> None:
    facts = Facts(
        exit_code=status.exit_code, signal=status.signal, wish=wish, wish_reason="because"
    )
    verdict = classify(facts)
    assert (verdict.end, verdict.reason) == (end, "because")
    assert verdict.expected == (end in EXPECTED)


@pytest.mark.parametrize(
    ("number", "useless"),
    [
        (errno.ENOENT, True),
        (errno.EACCES, True),
        (errno.ENOEXEC, True),
        (errno.EAGAIN, False),
        (errno.ENOMEM, False),
    ],
)
def test_a_program_that_cannot_be_executed_is_hopeless_only_when_it_stays_so(
    number: int, useless: bool
) -> None:
    verdict = classify(Facts(start_errno=number, start_problem="cannot start 'x'"))
    assert (verdict.end, verdict.useless, verdict.reason) == (
        End.CANNOT_START,
        useless,
        "cannot start 'x'",
    )


def test_every_signal_has_a_readable_name() -> None:
    assert "SIGSEGV" in classify(Facts(signal=int(signal.SIGSEGV))).reason
    assert "signal 63" in classify(Facts(signal=63)).reason
