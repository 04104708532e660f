"""Hubs over one PostgreSQL and one ClickHouse endpoint: what a span costs with one hub and with three, and what is
lost when one of three is killed under load.

All of it runs on one machine: PostgreSQL from a wheel, ClickHouse's own engine (chDB) behind the tests' small HTTP
server, hubs and clients. So spans a second are what these share of its cores, and say nothing of more machines; what
tells whether hubs share the load is that three take three times as much as one does, for the same processor time of a
span. A post counts when it was acknowledged; at the end each acknowledged trace is looked for.

    python bench/cluster.py [--seconds 15] [--rate SPANS]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from _gateways import answers
from _peers import cpu_s
from _spanload import AGENTS, PER_TRACE
from _table import row
from midwatch.store.clickhouse.client import ClickHouse

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
from clickhouse import ClickHouseServer, clickhouse  # noqa: E402
from databases import postgres  # noqa: E402

GROWTH_TARGET = 1.3
"""Processor time of a span in three hubs, of that in one."""

SHARE_TARGET = 1.1
"""Three hubs take three times what one does, to a tenth."""


class Hub:
    """One hub of several."""

    def __init__(self, data: Path, stores: dict[str, str], token: str, secret: bytes) -> None:
        data.mkdir()
        (data / "secret").write_bytes(secret)
        (data / "token").write_text(token)
        agents = {f"agent-{n}": {"command": ["true"]} for n in range(AGENTS)}
        (data / "fleet.json").write_text(json.dumps({"agents": agents, "hub": {"stores": stores}}))
        command = [
            sys.executable, "-m", "midwatch.hub", "--data", str(data),
            "--listen", "127.0.0.1:0", "--node", data.name,
        ]  # fmt: skip
        with (data / "console").open("ab") as console:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=console, text=True
            )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rstrip().rsplit(":", 1)[1])
        answers(self.port, "/readyz", 120, self.process.pid)
        self.token, self.journal = token, data / "journal"

    def load(self, seconds: float, rate: float) -> subprocess.Popen[str]:
        """Begin to send; `journal` names what was acknowledged."""
        command = [
            sys.executable, str(HERE / "_spanload.py"), str(self.port), "/v1/traces",
            "--header", f"authorization: Bearer {self.token}", "--seconds", str(seconds),
            "--journal", str(self.journal), "--rate", str(rate),
        ]  # fmt: skip
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # fmt: skip

    def acknowledged(self) -> set[str]:
        """Return the trace ids of acknowledged posts."""
        ids = self.journal.read_bytes() if self.journal.exists() else b""
        return {ids[at : at + 16].hex() for at in range(0, len(ids) - len(ids) % 16, 16)}

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)


@contextlib.contextmanager
def cluster(count: int, state: str, telemetry: str) -> Iterator[list[Hub]]:
    """Run so many hubs over fresh stores."""
    token, secret = "mwt_" + secrets.token_urlsafe(32), secrets.token_bytes(32)
    stores = {"state": state, "telemetry": telemetry}
    with tempfile.TemporaryDirectory(prefix="midwatch-bench-") as folder:
        hubs: list[Hub] = []
        try:
            folders = (Path(folder) / f"hub{number}" for number in range(count))
            hubs.extend(Hub(each, stores, token, secret) for each in folders)
            yield hubs
        finally:
            for hub in hubs:
                hub.end()


def measure(
    hubs: list[Hub], server: ClickHouseServer, seconds: float, rate: float, *, kill: bool
) -> dict[str, Any]:
    """Load all hubs alike; with `kill` the first one dies halfway."""
    before = [cpu_s([hub.process.pid]) for hub in hubs]
    store = cpu_s([server.process.pid])
    began = time.monotonic()
    loads = [hub.load(seconds, rate) for hub in hubs]
    killed_cpu = 0.0
    if kill:
        time.sleep(seconds / 2)
        killed_cpu = cpu_s([hubs[0].process.pid]) - before[0]
        hubs[0].process.kill()
        hubs[0].process.wait()
    said = [load.communicate(timeout=seconds + 180)[0].splitlines() for load in loads]
    # the clients of a hub that was killed end without a word; their journal is what counts
    seen = [json.loads(lines[-1]) for lines in said if lines]
    lasted = time.monotonic() - began
    living = hubs[1:] if kill else hubs
    spent = killed_cpu + sum(
        cpu_s([hub.process.pid]) - was
        for hub, was in zip(hubs, before, strict=True)
        if hub in living
    )
    spans = PER_TRACE * sum(len(hub.acknowledged()) for hub in hubs)
    return {
        "spans": spans,
        "spans_s": spans / seconds,
        "hub_us": 1e6 * spent / max(1, spans),
        "store_us": 1e6 * (cpu_s([server.process.pid]) - store) / max(1, spans),
        "p99_ms": max(one["p99_ms"] for one in seen),
        "memory_mb": max(psutil.Process(h.process.pid).memory_info().rss / 1e6 for h in living),
        "lasted_s": lasted,
    }


def audit(hubs: list[Hub], telemetry: str) -> tuple[int, int, int]:
    """Return acknowledged traces, those of them that are not whole, and spans that are there twice."""
    client = ClickHouse(telemetry)
    told = client.ask(
        "SELECT trace_id, count(), uniqExact(span_id) FROM otel_traces FINAL GROUP BY trace_id",
        timeout_s=120.0,
    )
    client.close()
    whole = {trace for trace, _, spans in told.rows if spans == PER_TRACE}
    twice = sum(count - spans for _, count, spans in told.rows)
    acknowledged = set[str]().union(*(hub.acknowledged() for hub in hubs))
    return len(acknowledged), len(acknowledged - whole), twice


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rate", type=float, default=1_000.0, help="spans a second of each hub")
    asked = parser.parse_args()
    figures: dict[str, dict[str, Any]] = {}
    lost = doubled = 0
    with postgres() as database, clickhouse() as server:
        for name, count, kill in (("one hub", 1, False), ("three hubs", 3, False), ("three hubs, one killed", 3, True)):  # fmt: skip
            state, telemetry = database.fresh(), server.fresh()
            with cluster(count, state, telemetry) as hubs:
                seen = figures[name] = measure(hubs, server, asked.seconds, asked.rate, kill=kill)
                acknowledged, missing, twice = audit(hubs, telemetry)
            lost, doubled = lost + missing, doubled + twice
            print(
                f"{name}: {seen['spans_s']:,.0f} spans/s acknowledged, p99 {seen['p99_ms']:.0f} ms;"
                f" {seen['hub_us']:.0f} us a span in the hubs, {seen['store_us']:.0f} in the engine;"
                f" {seen['memory_mb']:.0f} MB; {acknowledged:,} traces acknowledged, {missing} lost, {twice} spans twice;"
                f" load average {os.getloadavg()[0]:.1f}",
                flush=True,
            )
    one, three = figures["one hub"], figures["three hubs"]
    rows = [
        row("spans of one hub, of a third of three", 3 * one["spans_s"] / three["spans_s"], "times", SHARE_TARGET),
        row("processor time of a span, three hubs of one", three["hub_us"] / one["hub_us"], "times", GROWTH_TARGET),
        row("processor time of a span in a hub", one["hub_us"], "us"),
        row("processor time of a span in the engine", one["store_us"], "us"),
        row("acknowledged traces lost, one of three hubs killed", lost, "traces", 0),
        row("spans stored twice", doubled, "spans", 0),
    ]  # fmt: skip
    print(json.dumps({"bench": "cluster", "rows": rows}))


if __name__ == "__main__":
    main()
