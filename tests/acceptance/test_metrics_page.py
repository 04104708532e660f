"""The page of metrics and a running hub name the same metrics."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

from midwatch.drills.instance import Instance

ROOT = Path(__file__).resolve().parents[2]


def test_every_metric_that_a_hub_serves_is_documented_and_the_reverse(tmp_path: Path) -> None:
    instance = Instance(tmp_path, {"sleeper": {"command": ["sleep", "600"]}})
    with instance, urllib.request.urlopen(f"{instance.url}/metrics", timeout=30) as answer:
        served = set(re.findall(r"^# TYPE (\S+)", answer.read().decode(), re.MULTILINE))
    page = (ROOT / "docs/reference/metrics.md").read_text()
    # the gateway's are compared in tests/integration/gateway/test_process.py
    documented = set(re.findall(r"^\| `(midwatch_(?!gateway_)[a-z0-9_]+)`", page, re.MULTILINE))
    assert served == documented
