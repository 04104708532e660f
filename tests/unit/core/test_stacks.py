"""Stacks are found in what a dying Python process prints, as faulthandler really prints it."""

from __future__ import annotations

import pytest

from midwatch.core.stacks import before_stack, find_stack

DUMP = """\
Fatal Python error: Aborted

Thread 0x00007f1c2cffe6c0 (most recent call first):
  File "/app/agent.py", line 12 in answer
  File "/usr/lib/python3.11/threading.py", line 982 in run

Current thread 0x00007f1c2e1d4040 (most recent call first):
  File "/app/agent.py", line 31 in main
  File "/app/agent.py", line 40 in <module>

Extension modules: numpy, pandas (total: 2)
""".splitlines()


def test_the_dump_is_taken_and_what_other_threads_print_into_it_is_not() -> None:
    mixed = [*DUMP[:3], "health check: ok", *DUMP[3:]]
    stack = find_stack(["working", *mixed])
    assert stack[0] == "Fatal Python error: Aborted"
    assert '  File "/app/agent.py", line 31 in main' in stack
    assert "health check: ok" not in stack
    assert not any(line.startswith("Extension modules") for line in stack)


def test_what_was_said_before_is_kept_apart() -> None:
    assert before_stack(["working", "still working", *DUMP]) == ["working", "still working"]
    assert before_stack(["working"]) == ["working"]


def test_a_dump_without_its_heading_is_found() -> None:
    assert find_stack(DUMP[2:])[0].startswith("Thread 0x")


@pytest.mark.parametrize(
    "lines", [[], ["Aborted"], ["Thread pool is full", "  File upload failed"]]
)
def test_no_dump_is_no_stack(lines: list[str]) -> None:
    assert find_stack(lines) == []
