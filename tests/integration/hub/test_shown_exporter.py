"""The program on the page about OpenTelemetry, run as it stands there against a hub: its trace is there, understood."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.integration.conftest import ADMIN

PAGE = Path(__file__).parents[3] / "docs/how-to/coming-from-opentelemetry.md"
DEADLINE_S = 60.0


def test_the_program_shown_sends_what_the_page_says(hub_process: Any, tmp_path: Path) -> None:
    program = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(program) == 1
    file = tmp_path / "shown.py"
    file.write_text(program[0])
    hub_process.start()
    told = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": hub_process.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{ADMIN}",
        "OTEL_SERVICE_NAME": "inbox",
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        [sys.executable, str(file)],
        env={**os.environ, **told},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    deadline = time.monotonic() + DEADLINE_S
    found: list[dict[str, Any]] = []
    while not found and time.monotonic() < deadline:
        found = hub_process.ask("GET", "/api/traces?agent=inbox")["items"]
    (trace,) = found
    said = {name: trace.get(name) for name in ("session", "spans", "calls", "input_tokens", "output_tokens")}  # fmt: skip
    assert said == {"session": "s-1", "spans": 2, "calls": 1, "input_tokens": 100, "output_tokens": 20}  # fmt: skip
    assert trace["cost_nusd"] == 100 * 150 + 20 * 600
