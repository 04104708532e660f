"""What is freed and what is not run goes back to the system, and what is run then still runs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, threading

import duckdb

from midwatch.hub.memory import Memory

def weigh():
    with open("/proc/self/smaps_rollup") as lines:
        found = dict(line.split(":", 1) for line in lines if ":" in line)
    return {name: int(found[name].split()[0]) * 1024 for name in ("Rss", "Anonymous")}

def burst():
    # the last one lies on top of the thread's arena, so that nothing below it goes back by itself
    pieces = [b"x" * 32_768 for _ in range(1_500)]
    kept.append(pieces[-1])

kept = []
base = duckdb.connect(":memory:", config={"threads": 1})
thread = threading.Thread(target=burst)
thread.start()
thread.join()
before = weigh()
memory = Memory()
memory.give_back()
after = weigh()
answer = base.execute("SELECT sum(i) FROM range(100000) AS t(i)").fetchone()[0]
print(json.dumps([before, after, answer]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="nothing is given back elsewhere")
def test_freed_memory_and_code_that_is_not_run_go_back_and_all_works_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60
    )
    before, after, answer = json.loads(done.stdout)
    assert before["Anonymous"] - after["Anonymous"] > 30_000_000
    # DuckDB alone has more than that of code that only its start runs
    assert before["Rss"] - after["Rss"] - (before["Anonymous"] - after["Anonymous"]) > 5_000_000
    assert answer == sum(range(100_000))
