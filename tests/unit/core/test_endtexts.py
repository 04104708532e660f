"""What real tools print when they end, and what is read from it. The texts stand in `ends/`.

Each file there is the output of the tool that its first line names, with the paths of the machine
replaced; `row` says what it must be read as, `-` that it must stay a plain failure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.closing import statements
from midwatch.core.ends import End
from midwatch.core.endtexts import EARLY_S, RETRY_MAX_S, ROWS, find, mark_of, retry_after
from midwatch.core.exits import Facts, classify

ENDS = Path(__file__).parent / "ends"
TAIL = 40


@dataclass(frozen=True)
class Sample:
    """One real end."""

    code: int | None
    signal: int | None
    row: str
    expected: tuple[str, ...]
    lines: list[str]

    @property
    def tail(self) -> list[str]:
        return self.lines[-TAIL:]


def _read(path: Path) -> Sample:
    head, _, text = path.read_text(encoding="utf-8").partition("\n\n")
    said = dict(line.split(": ", 1) for line in head.splitlines())
    how, number = said["ends"].split()
    row, *expected = said["row"].split(", ")
    code = int(number) if how == "exit" else None
    return Sample(
        code,
        int(number) if code is None else None,
        row,
        tuple(expected),
        text.rstrip("\n").split("\n"),
    )


SAMPLES = {path.stem: _read(path) for path in sorted(ENDS.glob("*.txt"))}


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_what_a_real_tool_prints_is_read_as_what_it_means(name: str) -> None:
    sample = SAMPLES[name]
    found = find(sample.tail, code=sample.code, ran_s=1.0)
    if sample.row == "-":
        assert found is None
        return
    assert found is not None
    values = (found.end.value, found.credential, found.retry_after_s)
    assert (found.row, *(str(v) for v in values if v is not None)) == (sample.row, *sample.expected)


DOUBTFUL = {"requests-401", "httpx-401", "huggingface-gated"}


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_the_class_of_a_real_end_is_the_rows_class(name: str) -> None:
    sample = SAMPLES[name]
    facts = Facts(exit_code=sample.code, signal=sample.signal, tail=sample.tail, duration_s=1.0)
    expected = sample.expected[0] if sample.expected else End.FAILED
    verdict = classify(facts)
    # a 401 of any site may concern one piece of work; gated-repo's message goes on over several lines
    certain = expected == End.CREDENTIALS and name not in DOUBTFUL
    certain = certain or name.endswith("-budget-total")  # it does not come back by itself
    assert (verdict.end, verdict.useless) == (expected, certain)


def test_every_row_has_a_real_text() -> None:
    assert {row.name for row in ROWS} - {sample.row for sample in SAMPLES.values()} == set()


def test_no_two_rows_have_one_name() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)


WORKING = [f"mail {n} sorted, {n * 429} bytes from /tmp/401/429.json" for n in range(6)]


@pytest.mark.parametrize("name", [n for n, s in SAMPLES.items() if s.row != "-"])
def test_after_more_work_the_same_text_explains_nothing(name: str) -> None:
    sample = SAMPLES[name]
    assert find([*sample.tail, *WORKING], code=sample.code, ran_s=1.0) is None


@pytest.mark.parametrize("name", [n for n, s in SAMPLES.items() if s.row != "-"])
def test_a_different_error_after_it_is_the_end_of_the_run(name: str) -> None:
    sample = SAMPLES[name]
    later = [
        "Traceback (most recent call last):",
        '  File "agent.py", line 9, in <module>',
        "    total / count",
        "ZeroDivisionError: division by zero",
    ]
    assert find([*sample.tail, *later], code=sample.code, ran_s=1.0) is None


FAREWELL = [
    "",
    "ERROR: Application startup failed. Exiting.",
    "INFO:     Shutting down",
    "flushed 3 spans",
]


@pytest.mark.parametrize(
    "name", ["openai-401", "environ", "import", "anthropic-429", "node-openai-401"]
)
def test_words_of_farewell_do_not_hide_it(name: str) -> None:
    sample = SAMPLES[name]
    found = find([*sample.tail, *FAREWELL], code=sample.code, ran_s=1.0)
    assert found is not None
    assert found.row == sample.row


@pytest.mark.parametrize(
    "tail",
    [
        ["HTTP 401 from the provider, retrying after 401", *WORKING],
        ["WARNING openai.AuthenticationError: Error code: 401; falling back to the second key"],
        ['INFO:httpx:HTTP Request: POST https://x/ "HTTP/1.1 401 Unauthorized"'],
        ['{"level": "warn", "msg": "openai.RateLimitError: Error code: 429 - slow down"}'],
        ["fetched https://example.com/401 in 20 ms"],
        ["wrote /data/429/RateLimit.txt"],
        ["401 mails sorted"],
        ["KeyError: 'api_key'"],
        ["KeyError: 'OPENAI_API_KEY'"],
        ["openai.APIConnectionError: Connection error."],
        ["nothing to do: config.yaml: not found"],
        ["the user asked: ModuleNotFoundError: No module named 'x', what is it?"],
        ["the user asks what 'Incorrect API key provided' means", "reply sent"],
        ['{"question": "why invalid x-api-key?", "answer": "check it"}'],
        ["2026-01-01 info: Error: Incorrect API key provided, says ticket 7"],
        ["hit rate_limit_exceeded, waited 3 s", "page 4 read"],
        ["you wrote: Your credit balance is too low to access it; I put it under billing"],
        ["shop.AuthenticationError: this user typed a wrong password"],
    ],
    ids=lambda tail: re.sub(r"\W+", "-", tail[0])[:40],
)
@pytest.mark.parametrize("code", [0, 1, 2, 126, 127])
def test_a_mention_is_no_evidence(tail: list[str], code: int) -> None:
    assert find(tail, code=code, ran_s=1.0) is None


def test_a_key_error_long_before_another_end_does_not_park() -> None:
    sample = SAMPLES["environ-key"]
    tail = [
        *sample.tail,
        *[f"step {n}" for n in range(11)],
        "Traceback (most recent call last):",
        '  File "agent.py", line 3, in <module>',
        "TimeoutError: timed out",
    ]
    verdict = classify(Facts(exit_code=1, tail=tail))
    assert (verdict.end, verdict.reason) == (End.FAILED, "exit code 1: TimeoutError: timed out")


@pytest.mark.parametrize("name", ["openai-401", "litellm-mistral-401", "node-anthropic-401"])
@pytest.mark.parametrize("code", [0, 1])
def test_work_after_a_refusal_casts_doubt_and_only_words_that_end_the_output_park_at_once(
    name: str, code: int
) -> None:
    tail = SAMPLES[name].tail
    last = classify(Facts(exit_code=code, tail=tail))
    then = classify(Facts(exit_code=code, tail=[*tail, "", *WORKING[:1]]))
    assert (last.end, last.useless) == (End.CREDENTIALS, True)
    assert (then.end, then.useless) == (End.CREDENTIALS, False)


@pytest.mark.parametrize(
    "line",
    [
        "ERROR cannot reach the model: Incorrect API key provided: sk-abcd*wxyz",
        'Fehler 401 {"type":"error","error":{"message":"invalid x-api-key"}}',
        "request failed (invalid x-api-key)",
        "Incorrect API key provided: sk-abcd*wxyz.",
    ],
)
def test_a_refusal_that_a_program_catches_and_complains_of_is_one(line: str) -> None:
    assert classify(Facts(exit_code=1, tail=["start", line])).useless


def test_an_error_that_wraps_the_refusal_without_from_is_the_refusal() -> None:
    sample = SAMPLES["handler-keyerror"]
    at = sample.tail.index("KeyError: 'plan'")
    tail = [*sample.tail[:at], "agents.PlannerFailed: no plan"]
    assert find(sample.tail, code=1, ran_s=1.0) is None
    found = find(tail, code=1, ran_s=1.0)
    assert found is not None
    assert found.credential == "OPENAI_API_KEY"


@pytest.mark.parametrize("name", ["settings-file", "json-settings", "yaml-file", "node-undefined"])
def test_what_only_settings_do_is_believed_only_at_the_start(name: str) -> None:
    sample = SAMPLES[name]
    assert find(sample.tail, code=1, ran_s=EARLY_S) is not None
    assert find(sample.tail, code=1, ran_s=EARLY_S + 1) is None


@pytest.mark.parametrize("name", ["import", "environ", "memoryerror", "dash-127"])
def test_a_program_that_ends_with_0_has_got_over_it(name: str) -> None:
    assert find(SAMPLES[name].tail, code=0, ran_s=1.0) is None


def test_a_refusal_counts_even_when_the_program_ends_with_0() -> None:
    assert classify(Facts(exit_code=0, tail=SAMPLES["openai-401"].tail)).end is End.CREDENTIALS


def test_a_shells_words_need_the_shells_code() -> None:
    assert find(SAMPLES["dash-127"].tail, code=1, ran_s=1.0) is None


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "pydantic-settings",
            "pydantic_core._pydantic_core.ValidationError: 2 validation errors for Settings: database_url, queue",
        ),
        (
            "yaml-file",
            'yaml.scanner.ScannerError: mapping values are not allowed here in "bad.yaml", line 2, column 8',
        ),
        ("node-require", "Error: Cannot find module 'left-pad-nope'"),
        ("import", "ModuleNotFoundError: No module named 'langgraph_nope'"),
    ],
)
def test_the_line_that_explains_it_is_found(name: str, line: str) -> None:
    found = find(SAMPLES[name].tail, code=SAMPLES[name].code, ran_s=1.0)
    assert found is not None
    assert found.line == line


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("node-error", "Error: planner gave up"),
        ("node-address-in-use", "Error: listen EADDRINUSE: address already in use 127.0.0.1:"),
        ("address-in-use", "OSError: [Errno 98] Address already in use"),
        (
            "docker-no-daemon",
            "docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock.",
        ),
        ("openai-500", "openai.InternalServerError: Error code: 500"),
    ],
)
def test_a_plain_failure_is_told_by_its_error_not_by_what_follows_it(name: str, words: str) -> None:
    sample = SAMPLES[name]
    verdict = classify(Facts(exit_code=sample.code, tail=sample.tail))
    assert verdict.said.startswith(words)
    assert verdict.reason.startswith(f"exit code {sample.code}: {words}")


# -- waits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Please try again in 20s. Visit", 20.0),
        ("Please try again in 1.897s.", 1.897),
        ("Please try again in 1m12.5s.", 72.5),
        ("Please try again in 6m0s.", 360.0),
        ("Please try again in 250ms.", 1.0),
        ("Please try again in 2h3m4s", 7384.0),
        ("Please retry in 34.074824224s.", 34.074824224),
        ("try again in 5 minutes", 300.0),
        ("try again in 1 minute 30 seconds", 90.0),
        ("token rate limit of your pricing tier. Please retry after 20 seconds.", 20.0),
        ("try again in 3 months", None),
        ("available in 3 metres", None),
        ("'retry-after': '20', 'x-request-id'", 20.0),
        ("Retry-After: 37", 37.0),
        ("Please try again in 6s. headers: {'retry-after': '7'}", 7.0),
        ("'retryDelay': '34s'", 34.0),
        ("try again in 9000h", RETRY_MAX_S),
        ("Retry-After: Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("retried 20 times in 3s", None),
        ("please try again later", None),
    ],
)
def test_the_wait_that_is_asked_for_is_read_within_bounds(text: str, seconds: float | None) -> None:
    assert retry_after(text) == (None if seconds is None else pytest.approx(seconds))


# -- the same failure -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("OSError: port 41233 is taken at 02:11:57", "OSError: port 50001 is taken at 04:00:01"),
        ("<Agent object at 0x7f31aa> failed", "<Agent object at 0x55d0> failed"),
        (
            "request req_011CSHoEeqs5C35K2UUqR7Fy failed",
            "request req_011CSZZZeqs5C35K2UUqR7F0 failed",
        ),
        (
            "job 3f2c1a9e-0b1d-4f6e-9a57-0c2b8d4e6f10 lost",
            "job 00000000-0b1d-4f6e-9a57-0c2b8d4e6f11 lost",
        ),
        ("cannot read /tmp/tmpab12/x.json", "cannot read /tmp/tmpzz90/y.json"),
    ],
)
def test_numbers_ids_and_times_do_not_make_another_failure(one: str, other: str) -> None:
    assert mark_of(End.CONFIGURATION, one) == mark_of(End.CONFIGURATION, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("KeyError: 'DATABASE_URL'", "KeyError: 'QUEUE_URL'"),
        ("No module named 'numpy'", "No module named 'pandas'"),
    ],
)
def test_other_words_are_another_failure(one: str, other: str) -> None:
    assert mark_of(End.CONFIGURATION, one) != mark_of(End.CONFIGURATION, other)


# -- anything at all --------------------------------------------------------------------------------

FRAGMENTS = [line for sample in SAMPLES.values() for line in sample.lines]
LINES = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=80)), max_size=60)
CODES = st.one_of(st.none(), st.integers(-300, 300))


@given(
    tail=LINES, code=CODES, number=st.one_of(st.none(), st.integers(0, 70)), ran=st.floats(0, 1e9)
)
def test_no_output_breaks_the_verdict(
    tail: list[str], code: int | None, number: int | None, ran: float
) -> None:
    verdict = classify(Facts(exit_code=code, signal=number, tail=tail, duration_s=ran))
    assert verdict.reason
    assert len(verdict.reason) < 500


@given(tail=LINES, code=st.integers(1, 255))
def test_an_agent_is_parked_only_for_words_that_stand_at_the_end(
    tail: list[str], code: int
) -> None:
    verdict = classify(Facts(exit_code=code, tail=tail, duration_s=1.0))
    if verdict.useless:
        assert verdict.end in (End.CREDENTIALS, End.BUDGET)
        assert bool(verdict.credential) == (verdict.end is End.CREDENTIALS)
        heads = [statement.head for statement in statements(tail)]
        assert any(head.strip()[:200] in verdict.reason for head in heads)


@given(
    tail=st.lists(st.text(st.characters(codec="utf-8"), max_size=120), max_size=45),
    code=st.integers(1, 255),
)
def test_text_that_is_no_tools_never_parks(tail: list[str], code: int) -> None:
    assert not classify(Facts(exit_code=code, tail=tail)).useless
