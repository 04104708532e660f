"""The how-to page of schedules: its fleet file is right, and `midwatch check` says what the page shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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
