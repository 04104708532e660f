"""The product's own acceptance test, run the way a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

FIRST_LIGHT = {
    "silent-exit",
    "oom-kill",
    "crash-loop",
    "auth-crash",
    "hung-loop",
    "slow-but-alive",
    "runaway-loop",
    "draining-burst",
    "hub-down",
    "supervisor-killed",
}
KEYS = {
    "drill",
    "passed",
    "detected",
    "seconds_to_detect",
    "limit_s",
    "sentence",
    "actions",
    "false_alarms",
    "why",
}


def midwatch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "midwatch.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)


@pytest.mark.timeout(420)
def test_every_drill_passes_on_this_machine() -> None:
    done = midwatch("drill", "run", "--all", "--json", "-j", "1")
    results: list[dict[str, Any]] = json.loads(done.stdout)
    assert {result["drill"] for result in results} >= FIRST_LIGHT
    assert [(r["drill"], r["why"]) for r in results if not r["passed"]] == []
    assert all(set(result) == KEYS for result in results)
    assert sum(result["false_alarms"] for result in results) == 0
    assert done.returncode == 0


def test_the_list_names_every_drill() -> None:
    listed = json.loads(midwatch("drill", "list", "--json").stdout)
    assert {drill["name"] for drill in listed} >= FIRST_LIGHT


def test_an_unknown_drill_is_a_usage_error_that_names_the_nearest() -> None:
    done = midwatch("drill", "run", "silent-exot")
    assert done.returncode == 2
    assert "silent-exit" in done.stderr
