"""Schedules on the command line: what `check` says of them, as the how-to page shows it, and `status`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "schedules.md"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_fleet_file_of_the_page_is_right_and_told_in_the_pages_words(tmp_path: Path) -> None:
    (document,) = _blocks("yaml")
    (tmp_path / "midwatch.yaml").write_text(document)
    for script in ("report.py", "digest.py", "migrate.py"):
        (tmp_path / script).touch()
    told = subprocess.run(
        [sys.executable, "-m", "midwatch.cli", "check"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    (shown,) = _blocks("console")
    said = {line.partition("; next run")[0] for line in told.splitlines()}
    for line in shown.splitlines()[1:]:
        assert line.partition("; next run")[0] in said
    clock = re.search(r"^digest: .*next run \S+ \d\d:(\d\d:\d\d)$", told, re.MULTILINE)
    assert clock is not None
    assert int(clock[1][:2]) % 15 < 2, "put off by less than its jitter"


def test_status_shows_the_next_run_with_its_zone_and_how_the_last_ones_ended(
    midwatch: Any, data: Path, hub: Any
) -> None:
    plan = {"rule": "at 06:00 every day", "timezone": "Europe/Paris", "next": "2026-11-22 06:00"}
    hub.routes["GET /api/agents/inbox"] |= {"schedule": plan}
    hub.routes["GET /api/runs"] = {
        "items": [
            {"run_id": "r2", "started_at": "2020-03-02T05:00:00Z"},
            {
                "run_id": "r1",
                "started_at": "2020-03-01T05:00:00Z",
                "ended_at": "2020-03-01T05:01:00Z",
                "reason": "exit code 1: \x1b[2Jno such table",
            },
        ],
        "next": None,
    }
    out = midwatch("status", "inbox", "--data", data, env={"TZ": "UTC"}).out
    assert "schedule  at 06:00 every day (Europe/Paris)" in out
    assert "next run  2026-11-22 06:00 Europe/Paris" in out
    assert "run 2020-03-02 05:00: running" in out
    assert "run 2020-03-01 05:00: exit code 1: no such table" in out
    asked = [query for route, query, _ in hub.asked if route == "GET /api/runs"]
    assert asked == [{"agent": "inbox", "limit": "5"}]


def test_status_of_an_agent_that_will_not_run_says_so(midwatch: Any, data: Path, hub: Any) -> None:
    plan = {"rule": "once, at 2020-01-01 06:00", "timezone": "UTC", "next": None}
    hub.routes["GET /api/agents/inbox"] |= {"schedule": plan}
    hub.routes["GET /api/runs"] = {"items": [], "next": None}
    assert "none, as things are" in midwatch("status", "inbox", "--data", data).out
