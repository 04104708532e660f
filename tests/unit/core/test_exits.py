"""Why runs end: statuses, wishes, and what real clients print when their key is refused."""

from __future__ import annotations

import errno
import signal

import pytest

from midwatch.core.exits import EXPECTED, End, Facts, Wish, classify, find_credential

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


@pytest.mark.parametrize(
    "line",
    [
        "MemoryError",
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory",
        "memory allocation of 8589934592 bytes failed",
    ],
)
def test_an_allocation_that_failed_is_out_of_memory(line: str) -> None:
    assert classify(Facts(exit_code=1, tail=["working", line])).end is End.OUT_OF_MEMORY


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


REAL_OUTPUT = [
    # each line is what the named client prints last, copied from a run against a server that refuses
    (
        "openai.AuthenticationError: Error code: 401 - Incorrect API key provided: sk-proj-abc***wxyz."
        " You can find your API key at https://platform.openai.com/account/api-keys.",
        "OPENAI_API_KEY",
    ),
    (
        "openai.AuthenticationError: Error code: 401 - {'error': {'message': 'Incorrect API key provided: x.',"
        " 'type': 'invalid_request_error', 'param': None, 'code': 'invalid_api_key'}}",
        "OPENAI_API_KEY",
    ),
    (
        "openai.OpenAIError: Missing credentials. Please pass an `api_key`, `workload_identity`, `admin_api_key`,"
        " or set the `OPENAI_API_KEY` or `OPENAI_ADMIN_KEY` environment variable.",
        "OPENAI_API_KEY",
    ),
    (
        "openai.OpenAIError: The api_key client option must be set either by passing api_key to the client"
        " or by setting the OPENAI_API_KEY environment variable",
        "OPENAI_API_KEY",
    ),
    (
        "anthropic.AuthenticationError: Error code: 401 - {'type': 'error', 'error': {'type':"
        " 'authentication_error', 'message': 'invalid x-api-key'}, 'request_id': 'req_011C'}",
        "ANTHROPIC_API_KEY",
    ),
    (
        'TypeError: "Could not resolve authentication method. Expected one of api_key, auth_token, or credentials'
        ' to be set. Or for the `Authorization` header to be explicitly omitted"',
        "ANTHROPIC_API_KEY",
    ),
    (
        "google.genai.errors.ClientError: 400 INVALID_ARGUMENT. API key not valid. Please pass a valid API key.",
        "GEMINI_API_KEY",
    ),
    ("error: GROQ_API_KEY is expired: invalid api key", "GROQ_API_KEY"),
    ("requests.exceptions.HTTPError: 401 Unauthorized for url: https://api.example.com", "API key"),
    ("litellm.AuthenticationError: MistralException - Unauthorized", "API key"),
    ("AuthenticationError: 401 Incorrect API key provided: sk-x", "OPENAI_API_KEY"),
]


@pytest.mark.parametrize(("line", "name"), REAL_OUTPUT)
def test_a_refused_credential_is_known_by_what_real_clients_print(line: str, name: str) -> None:
    verdict = classify(
        Facts(exit_code=1, tail=["Traceback (most recent call last):", "  File …", line])
    )
    assert (verdict.end, verdict.credential, verdict.useless) == (End.CREDENTIALS, name, True)


@pytest.mark.parametrize(
    "line",
    [
        "openai.RateLimitError: Error code: 429 - rate limit reached",
        "fetched https://example.com/401 in 20 ms",
        "401 mails sorted",
        "KeyError: 'api_key'",
        "openai.APIConnectionError: Connection error.",
    ],
)
def test_other_failures_are_not_taken_for_a_refused_credential(line: str) -> None:
    assert classify(Facts(exit_code=1, tail=[line])).end is End.FAILED


def test_a_refusal_long_before_the_end_does_not_explain_it() -> None:
    tail = ["openai.AuthenticationError: Error code: 401", *[f"mail {n} sorted" for n in range(39)]]
    assert find_credential(tail) is None
    assert classify(Facts(exit_code=1, tail=tail)).end is End.FAILED


def test_a_silent_exit_after_a_refused_key_is_about_the_key() -> None:
    assert classify(Facts(exit_code=0, tail=["invalid x-api-key"])).end is End.CREDENTIALS


def test_every_signal_has_a_readable_name() -> None:
    assert "SIGSEGV" in classify(Facts(signal=int(signal.SIGSEGV))).reason
    assert "signal 63" in classify(Facts(signal=63)).reason
