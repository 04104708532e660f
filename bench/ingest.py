"""Spans over OTLP into a whole hub, with everything on, beside other tracing servers; and what `kill -9` costs.

Posts of 256 spans, of about 400 bytes or 4 KB each, from clients on the same machine: as fast as eight connections
go, then at a rate. A span counts when it was acknowledged *and* is found when the load ends; how long the rest takes
is not waited for. Then the hub is killed at random under load, again and again over one directory, and each post
that was acknowledged is looked for.

    python bench/ingest.py [--seconds 20] [--rate 20000] [--kills 10] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from _gateways import answers
from _peers import Skipped, cpu_s
from _spanload import AGENTS, PER_TRACE, POST
from _table import row
from _tracers import PEERS, Tracer

HERE = Path(__file__).resolve().parent
MEMORY_TARGET_MB = 600.0
WRITE_TARGET_US = 50.0
"""Microseconds a span at 20,000 spans a second."""


class Hub:
    """Our hub over a directory: started, killed, asked."""

    def __init__(self, folder: Path) -> None:
        self.data = folder
        (folder / "hub").mkdir(exist_ok=True)
        self._token = "mwt_" + secrets.token_urlsafe(32)
        (folder / "secret").write_bytes(secrets.token_bytes(32))
        (folder / "token").write_text(self._token)
        fleet = {"agents": {f"agent-{n}": {"command": ["true"]} for n in range(AGENTS)}}
        (folder / "fleet.json").write_text(json.dumps(fleet))

    def start(self) -> float:
        """Start it; return the seconds until it is ready."""
        began = time.monotonic()
        command = [
            sys.executable, "-m", "midwatch.hub", "--data", str(self.data),
            "--listen", "127.0.0.1:0", "--node", "bench",
        ]  # fmt: skip
        with (self.data / "console").open("ab") as console:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=console, text=True, start_new_session=True
            )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rstrip().rsplit(":", 1)[1])
        answers(self.port, "/readyz", 60, self.process.pid)
        return time.monotonic() - began

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def tracer(self) -> Tracer:
        headers = [f"authorization: Bearer {self._token}"]
        return Tracer(self.port, self.process.pid, self.stored, headers)

    def stored(self) -> int:
        return int(self.sql("SELECT count(*) AS n FROM spans")[0]["n"])

    def sql(self, query: str) -> list[dict[str, Any]]:
        """Return the rows of a question in SQL."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/sql",
            json.dumps({"query": query}).encode(),
            {"authorization": f"Bearer {self._token}", "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            said = json.load(answer)
        if said["truncated"]:
            raise ValueError(f"{query!r} has more rows than are given at one time; ask for a part")
        return [dict(zip(said["columns"], values, strict=True)) for values in said["rows"]]


@contextlib.contextmanager
def midwatch(folder: Path) -> Iterator[Tracer]:
    """Our hub with its detectors, sums and every other part on."""
    hub = Hub(folder)
    hub.start()
    try:
        yield hub.tracer()
    finally:
        hub.process.terminate()
        hub.process.wait(120)


def sent(tracer: Tracer, seconds: float, *more: str) -> dict[str, Any]:
    """Let the clients' process send for so long; return what it saw."""
    command = [sys.executable, str(HERE / "_spanload.py"), str(tracer.port), tracer.path]
    for header in tracer.headers:
        command += ["--header", header]
    done = subprocess.run(
        [*command, "--seconds", str(seconds), *more],
        stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + 120,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def under_load(tracer: Tracer, name: str, seconds: float, *more: str) -> dict[str, Any]:
    """Return what clients and server saw of one load; `found_s` are spans a second that are found at its end."""
    before, cpu = tracer.stored(), cpu_s(tracer.pids())
    began = time.perf_counter()
    seen = sent(tracer, seconds, *more)
    lasted = time.perf_counter() - began
    seen["server_cores"] = (cpu_s(tracer.pids()) - cpu) / lasted
    seen["found_s"] = (tracer.stored() - before) / seen["seconds"]
    seen["memory_mb"] = psutil.Process(tracer.pid).memory_info().rss / 1e6
    print(
        f"{name}: {seen['spans_s']:,.0f} spans/s acknowledged, {seen['found_s']:,.0f} found;"
        f" p50 {seen['p50_ms']:.0f} ms, p99 {seen['p99_ms']:.0f} ms; {seen['server_cores']:.2f} cores"
        f" (clients {seen['client_cores']:.2f}), {seen['memory_mb']:.0f} MB; {seen['statuses']};"
        f" load average {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return seen


def beside(name: str, seconds: float, *more: str) -> list[dict[str, Any]]:
    """Measure ours and each peer under one closed load."""
    figures: dict[str, dict[str, Any]] = {}
    for server in (midwatch, *PEERS):
        try:
            with tempfile.TemporaryDirectory(prefix="midwatch-bench-") as folder, server(Path(folder)) as tracer:  # fmt: skip
                seen = under_load(tracer, f"{name}, {server.__name__}", seconds, *more)
                figures[server.__name__] = seen
        except Skipped as reason:
            print(f"{name}, {server.__name__}: skipped: {reason}", flush=True)
    ours = figures.pop("midwatch")
    small = "--large" not in more
    rows = [
        row(f"{name}: microseconds a span that is found", _us(ours), "us",
            WRITE_TARGET_US if small else None, _us(peer), who)
        for who, peer in (figures or {"": None}).items()
    ]  # fmt: skip
    return [*rows, row(f"{name}: memory", ours["memory_mb"], "MB", MEMORY_TARGET_MB)]


def _us(seen: dict[str, Any] | None) -> float | None:
    return None if seen is None else 1e6 / max(seen["found_s"], 1e-3)


def paced(name: str, seconds: float, rate: float, *more: str) -> list[dict[str, Any]]:
    """Measure ours at a rate; who falls behind is late, and lateness counts."""
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-") as folder, midwatch(Path(folder)) as tracer:  # fmt: skip
        seen = under_load(tracer, name, seconds, "--rate", str(rate), "--connections", "16", *more)
    short = max(0.0, 1 - seen["found_s"] / rate)
    return [
        row(f"{name}: p99 of a post", seen["p99_ms"], "ms", 200.0),
        row(f"{name}: share of the rate that is missed", short, "", 0.03),
    ]


def killed(times: int) -> list[dict[str, Any]]:
    """Kill the hub at random under load; look for each acknowledged trace after the last start."""
    dice = random.Random()
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-") as folder:
        hub, journal = Hub(Path(folder)), Path(folder) / "journal"
        starts = [hub.start()]
        for _ in range(times):
            command = [
                sys.executable, str(HERE / "_spanload.py"), str(hub.port), "/v1/traces", "--seconds", "60",
                "--header", hub.tracer().headers[0], "--journal", str(journal),
            ]  # fmt: skip
            clients = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            time.sleep(dice.uniform(2.0, 8.0))
            hub.kill()
            clients.communicate(timeout=120)
            starts.append(hub.start())
        ids = journal.read_bytes()
        acknowledged = {ids[at : at + 16].hex() for at in range(0, len(ids), 16)}
        found = [
            row
            for first in "0123456789abcdef"
            for row in hub.sql(
                "SELECT trace_id AS trace, count(*) AS n, count(DISTINCT span_id) AS d FROM spans"
                f" WHERE starts_with(trace_id, '{first}') GROUP BY 1"
            )
        ]
        hub.process.terminate()
        hub.process.wait(120)
    whole = {each["trace"] for each in found if each["n"] == each["d"] == PER_TRACE}
    doubled = sum(each["n"] != each["d"] for each in found)
    lost = len(acknowledged - whole)
    print(
        f"killed {times} times: {len(acknowledged) * PER_TRACE:,} spans acknowledged, {lost} traces lost, {doubled} doubled;"
        f" ready again in at most {max(starts):.2f} s (the first start {starts[0]:.2f})",
        flush=True,
    )
    return [
        row("killed: traces lost or doubled", lost + doubled, "", 0.0),
        row("killed: ready again, with all that starting a hub takes", max(starts), "s", 3.0),
    ]


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", type=float, default=20.0)
    arguments.add_argument("--rate", type=float, default=20_000.0)
    arguments.add_argument("--kills", type=int, default=10)
    arguments.add_argument("--only", nargs="*", default=[])
    asked = arguments.parse_args()
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "small": lambda: beside(f"400 B, {POST} a post", asked.seconds),
        "large": lambda: beside(f"4 KB, {POST} a post", asked.seconds, "--large"),
        "paced": lambda: paced(f"400 B at {asked.rate:,.0f}/s", asked.seconds, asked.rate),
        "killed": lambda: killed(asked.kills),
    }
    rows: list[dict[str, Any]] = []
    for name, part in parts.items():
        if not asked.only or name in asked.only:
            rows += part()
    print(json.dumps({"bench": "ingest", "rows": rows}))
    return 0 if all(each["ok"] for each in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
