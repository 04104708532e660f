"""What the SDK costs the agent: `python bench/sdk.py [--full]`.

Measured in fresh processes: time in the caller's thread of `mw.beat()` and of
`with mw.cycle()`, with a hub that accepts and with none; import time and modules; memory
and disk while the hub is away (an hour at 1,000 beats a second with --full, six minutes of
it otherwise, as fast as the worker goes).
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from _table import row

SOURCE = Path(__file__).resolve().parents[1] / "src"

CALLS = """
import json, sys, time
import midwatch as mw
mw.init(agent="bench")
def measure(body, rounds=60, size=100):
    costs = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(size):
            body()
        costs.append((time.perf_counter() - began) / size * 1e6)
        time.sleep(0.02)  # as an agent does: the worker has its turn
    costs.sort()
    return {"median_us": round(costs[len(costs) // 2], 2), "p95_us": round(costs[int(len(costs) * 0.95)], 2)}
def beat():
    mw.beat(tokens=1200, cost_usd=0.004)
def cycle():
    with mw.cycle():
        pass
def used_cycle():
    with mw.cycle() as one:
        one.usage(tokens=1200, cost_usd=0.004)
        one.done(items=1)
def event():
    mw.event("decision", {"chosen": "refund"})
measure(beat, 5)
print(json.dumps({body.__name__: measure(body) for body in (beat, cycle, used_cycle, event)}))
"""

AWAY = """
import json, sys, time
import midwatch as mw
from midwatch.sdk import runtime
def rss():
    fields = open("/proc/self/status").read().split("VmRSS:")[1].split()
    return int(fields[0]) * 1024
mw.init(agent="bench")
total = int(sys.argv[1])
early = None
began = time.perf_counter()
for number in range(total):
    mw.beat(tokens=1200, cost_usd=0.004, items=number)
    if number % 1000 == 0:
        while mw.statistics()["queued"] > 5000:
            time.sleep(0.005)
    if number == total // 10:
        early = rss()
wall = time.perf_counter() - began
late = rss()
told = mw.statistics()
print(json.dumps({
    "beats": total,
    "beats_per_s": round(total / wall),
    "rss_at_a_tenth_mb": round(early / 1e6, 1),
    "rss_at_the_end_mb": round(late / 1e6, 1),
    "spool_mb": round(told["spool_bytes"] / 1e6, 1),
    "lost": told["lost"],
}))
"""

MODULES = """
import sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
import midwatch
midwatch.init
print(len(set(sys.modules) - before))
"""

IMPORT = """
import sys, time
sys.path.insert(0, sys.argv[1])
began = time.process_time()
import midwatch
midwatch.init
print((time.process_time() - began) * 1000)
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """Accepts all that comes."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def run(program: str, *arguments: str, isolated: bool = False, **environ: str) -> str:
    flags = ["-S", "-s", "-I"] if isolated else []
    done = subprocess.run(
        [sys.executable, *flags, "-c", program, *arguments],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return done.stdout


def measure(beats_away: int) -> dict[str, Any]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    result: dict[str, Any] = {"python": sys.version.split()[0]}
    with tempfile.TemporaryDirectory() as spool:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        result["hub_up"] = json.loads(run(CALLS, MIDWATCH_URL=url, MIDWATCH_SPOOL=spool))
        server.shutdown()
        server.server_close()
        result["hub_away"] = json.loads(run(CALLS, MIDWATCH_URL=url, MIDWATCH_SPOOL=spool + "/a"))
        result["no_hub"] = json.loads(run(CALLS, MIDWATCH_URL=""))
        result["away"] = json.loads(
            run(AWAY, str(beats_away), MIDWATCH_URL=url, MIDWATCH_SPOOL=spool + "/b")
        )
    result["modules"] = int(run(MODULES, str(SOURCE), isolated=True))
    times = [float(run(IMPORT, str(SOURCE), isolated=True)) for _ in range(15)]
    result["import_ms"] = {
        "median": round(statistics.median(times), 1),
        "best": round(min(times), 1),
    }
    return result


def rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    up, away = result["hub_up"], result["away"]
    grown_mb = round(away["rss_at_the_end_mb"] - away["rss_at_a_tenth_mb"], 1)
    return [
        row("mw.beat() in the caller's thread, median", up["beat"]["median_us"], "µs", 10.0),
        row("with mw.cycle() in the caller's thread, median", up["cycle"]["median_us"], "µs", 25.0),
        row("import midwatch, CPU time, best of 15", result["import_ms"]["best"], "ms", 10.0),
        row("modules beyond the interpreter's own", result["modules"], "", 59),
        row(f"memory grown by {away['beats']:,} beats, hub away", grown_mb, "MB", 10.0),
        row("spool on disk, hub away", away["spool_mb"], "MB", 64.0),
    ]


def table(result: dict[str, Any]) -> str:
    lines = [f"{'in the caller, µs':<22}{'median':>9}{'p95':>9}"]
    for state in ("hub_up", "hub_away", "no_hub"):
        for name, cost in result[state].items():
            label = f"{name} ({state.replace('_', ' ')})"
            lines.append(f"{label:<22}{cost['median_us']:>9}{cost['p95_us']:>9}")
    lines.append(f"import: {result['import_ms']} ms, {result['modules']} modules")
    lines.append(f"hub away: {result['away']}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--full", action="store_true", help="a whole hour of beats")
    chosen = parser.parse_args()
    result = measure(3_600_000 if chosen.full else 360_000)
    found = rows(result)
    print(table(result))
    print(json.dumps({"bench": "sdk", "rows": found, "detail": result}))
    return 0 if all(one["ok"] for one in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
