"""The hub under load: 1,000 agents, one beat a second each, over real HTTP.

    python bench/hub.py [--agents N] [--seconds S]

Each agent has its own keep-alive connection and its own run token. Measured: the hub's CPU as a share of
one core, under the beats alone and then with probes that poll its API; beats acknowledged against beats
in the store, the time from sending a beat to seeing it in `GET /api/agents/{agent}`, from evidence to a
visible incident, and the hub's resident memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from _table import row
from midwatch.core.access import mint_node, mint_run
from midwatch.wire.ids import new_id

ROWS = (
    ("hub_cpu_percent", "CPU under 1,000 beats a second", "% of a core", 40.0),
    ("hub_cpu_with_probes_percent", "the same, with probes that poll the API", "% of a core", None),
    ("lost", "beats acknowledged and not in the store", "", 0),
    ("append_p95_ms", "beat -> its answer, p95", "ms", None),
    ("visible_p95_ms", "beat -> visible in the API, p95", "ms", 500.0),
    ("incident_p95_ms", "evidence -> incident visible, p95", "ms", 1000.0),
    ("hub_rss_after_mb", "resident memory afterwards", "MB", None),
)


POLL_S = 0.02
"""How often a probe looks. Looking costs the hub as well: see `hub_cpu_with_probes_percent`."""


class Client:
    """One keep-alive connection, as plain as it gets: the load must not cost more than the hub."""

    def __init__(self, port: int, token: str) -> None:
        self._port = port
        self._head = f"host: 127.0.0.1:{port}\r\nauthorization: Bearer {token}\r\n"

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        data = b"" if body is None else json.dumps(body).encode()
        self._writer.write(
            f"{method} {path} HTTP/1.1\r\n{self._head}content-length: {len(data)}\r\n\r\n".encode()
            + data
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        at = lower.find(b"content-length:")
        size = int(lower[at + 15 : lower.find(b"\r\n", at)]) if at >= 0 else 0
        return int(head[9:12]), await self._reader.readexactly(size)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def prepare(data: Path, agents: int) -> bytes:
    secret = secrets.token_bytes(32)
    (data / "hub").mkdir()
    (data / "secret").write_bytes(secret)
    (data / "token").write_text("mwt_" + secrets.token_urlsafe(32))
    fleet = {
        "fleet": "bench",
        "agents": {f"agent-{i}": {"command": ["true"]} for i in range(agents)},
    }
    (data / "fleet.json").write_text(json.dumps(fleet))
    return secret


def start_hub(data: Path) -> tuple[subprocess.Popen[str], int]:
    hub = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "midwatch.hub",
            "--data",
            str(data),
            "--listen",
            "127.0.0.1:0",
            "--node",
            "bench",
        ],
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
        text=True,
    )
    assert hub.stdout is not None
    line = hub.stdout.readline()
    return hub, int(line.rstrip().rsplit(":", 1)[1])


async def beat_on(
    client: Client, agent: str, until: float, sent: list[float], bad: list[int]
) -> None:
    """Beat once a second; the first beat is spread over the second."""
    next_at = time.monotonic() + int(agent.rsplit("-", 1)[1]) % 1000 / 1000
    while next_at < until:
        await asyncio.sleep(max(0.0, next_at - time.monotonic()))
        begun = time.perf_counter()
        beat = {
            "id": new_id(),
            "duration_s": 0.8,
            "tokens": 1200,
            "cost_usd": 0.004,
            "tool_calls": 3,
            "items": 1,
            "at": time.time(),
        }
        status, _ = await client.ask("POST", "/api/beats", beat)
        if status == 200:
            sent.append(time.perf_counter() - begun)
        else:
            bad.append(status)
        next_at += 1.0


async def watch_visible(
    port: int, secret: bytes, admin: str, agent: str, until: float, seen: list[float]
) -> None:
    """Beat, and read the agent until the beat shows."""
    writer, reader = Client(port, mint_run(secret, agent, "probe")), Client(port, admin)
    await writer.connect()
    await reader.connect()
    while time.monotonic() < until:
        at = round(time.time(), 3)
        begun = time.perf_counter()
        post = asyncio.create_task(writer.ask("POST", "/api/beats", {"at": at, "tokens": 7}))
        while True:
            _, body = await reader.ask("GET", f"/api/agents/{agent}")
            last = json.loads(body)["last_beat"]
            if last is not None and datetime.fromisoformat(last).timestamp() >= at:
                seen.append(time.perf_counter() - begun)
                break
            if time.perf_counter() - begun > 10:
                seen.append(float("inf"))
                break
            await asyncio.sleep(POLL_S)
        await post
        await asyncio.sleep(0.5)


async def watch_incidents(
    port: int, secret: bytes, admin: str, agents: list[str], seen: list[float]
) -> None:
    """Report that an agent was parked, and read the incidents until one shows."""
    node, reader = Client(port, mint_node(secret, "bench")), Client(port, admin)
    await node.connect()
    await reader.connect()
    for agent in agents:
        run = new_id()
        ended = {
            "run_id": run, "pid": 1, "end": "out-of-memory", "reason": "out of memory", "signal": 9, "duration_s": 30.0,
            "rss_bytes": 2**30, "rss_limit_bytes": 2**30, "tail": [], "expected": False, "next": "restart",
            "next_in_s": 5.0, "failures": 1,
        }  # fmt: skip
        begun = time.perf_counter()
        post = asyncio.create_task(
            node.ask(
                "POST",
                "/api/events",
                [{"agent": agent, "kind": "run.ended", "run_id": run, "data": ended}],
            )
        )
        while True:
            _, body = await reader.ask("GET", f"/api/incidents?agent={agent}")
            if json.loads(body)["items"]:
                seen.append(time.perf_counter() - begun)
                break
            if time.perf_counter() - begun > 5:
                seen.append(float("inf"))
                await post
                return
            await asyncio.sleep(POLL_S)
        await post
        await asyncio.sleep(0.5)


def cpu_of(process: psutil.Process) -> float:
    """Return CPU seconds that the process has used."""
    times = process.cpu_times()
    return times.user + times.system


async def load(
    port: int, secret: bytes, admin: str, agents: int, seconds: float, pid: int
) -> dict[str, Any]:
    names = [f"agent-{i}" for i in range(agents)]
    clients = [Client(port, mint_run(secret, name, new_id())) for name in names]
    for client in clients:
        await client.connect()
    process = psutil.Process(pid)
    sent: list[float] = []
    bad: list[int] = []
    seen: list[float] = []
    incidents: list[float] = []
    pairs = list(zip(clients, names, strict=True))
    begun, used = time.monotonic(), cpu_of(process)
    until = begun + seconds / 2
    await asyncio.gather(*(beat_on(c, n, until, sent, bad) for c, n in pairs))
    alone = 100 * (cpu_of(process) - used) / (time.monotonic() - begun)
    middle, used = time.monotonic(), cpu_of(process)
    until = middle + seconds / 2
    await asyncio.gather(
        *(beat_on(c, n, until, sent, bad) for c, n in pairs),
        watch_visible(port, secret, admin, names[0], until, seen),
        watch_incidents(port, secret, admin, names[1 : 1 + int(seconds / 2)], incidents),
    )
    probed = 100 * (cpu_of(process) - used) / (time.monotonic() - middle)
    took = time.monotonic() - begun
    return {
        "agents": agents,
        "seconds": round(took, 1),
        "acknowledged": len(sent),
        "refused": len(bad),
        "hub_cpu_percent": round(alone, 1),
        "hub_cpu_with_probes_percent": round(probed, 1),
        "append_p50_ms": round(1000 * statistics.median(sent), 1),
        "append_p95_ms": round(1000 * percentile(sent, 0.95), 1),
        "visible_p95_ms": round(1000 * percentile(seen, 0.95), 1),
        "incident_p95_ms": round(1000 * percentile(incidents, 0.95), 1),
        "hub_rss_after_mb": round(process.memory_info().rss / 1e6, 1),
        "visible_probes": len(seen),
    }


def count_beats(data: Path) -> int:
    import duckdb

    with duckdb.connect(str(data / "hub" / "telemetry.duckdb"), read_only=True) as db:
        row = db.execute("SELECT count(*) FROM beats").fetchone()
    assert row is not None
    return row[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        secret = prepare(data, options.agents)
        admin = (data / "token").read_text()
        hub, port = start_hub(data)
        try:
            time.sleep(2)
            idle = psutil.Process(hub.pid).memory_info().rss / 1e6
            found = asyncio.run(load(port, secret, admin, options.agents, options.seconds, hub.pid))
        finally:
            hub.terminate()
            begun = time.monotonic()
            code = hub.wait(20)
        found["hub_rss_idle_mb"] = round(idle, 1)
        found["stop_s"] = round(time.monotonic() - begun, 2)
        found["exit_code"] = code
        found["lost"] = found["acknowledged"] + found["visible_probes"] - count_beats(data)
    print(json.dumps(found), file=sys.stderr)
    rows = [row(what, found[name], unit, target) for name, what, unit, target in ROWS]
    print(json.dumps({"bench": "hub", "rows": rows}))
    return 0


if __name__ == "__main__":
    os.environ.pop("MIDWATCH_DATA", None)
    sys.exit(main())
