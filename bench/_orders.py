"""Suspend, resume and kill, from the hub and from the command line, of an agent that calls all the time: how long it
takes until the gateway does as it was told. One instance of `midwatch up`, in front of the local upstream.

What is measured begins when the order is given (the request is sent, the command started) and ends with the answer
of the first call that is treated otherwise: a call takes some milliseconds, which are in it.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _gateways import MODEL, Gateway
from _load import NUMBER, numbered, request

AGENT = "caller"
_INSTALLED = Path(sys.executable).with_name("midwatch")
COMMAND = [str(_INSTALLED)] if _INSTALLED.exists() else [sys.executable, "-m", "midwatch.cli"]
PATH = "/v1/chat/completions"
ROUNDS = 30
STREAMS = 200
KILLS = 10
SETTLED_S = 0.5
"""After a start, and after two hundred streams were cut: their accounts and spans are still on their way, on the same
cores as the command that is started."""
ORDER_MS, CUT_MS = 100.0, 1000.0
"""What an order may take, and the cutting of streams."""

SMALL = json.dumps({"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": f"Of {NUMBER.decode()}?"}]}).encode()  # fmt: skip
STREAM = json.dumps({"model": MODEL, "stream": True, "max_tokens": 200, "messages": [{"role": "user", "content": f"Count to {NUMBER.decode()}."}]}).encode()  # fmt: skip
HELD, CARRIED = 403, 200


@dataclass
class Orders:
    """One instance, its agent's key, and who gives orders: the hub's API, or the command."""

    instance: Any
    key: str
    port: int
    failed: list[str] = field(default_factory=list[str])

    def hub(self, verb: str) -> None:
        self.instance.post(f"/api/agents/{AGENT}/{verb}")

    def command(self, verb: str) -> None:
        words = [*COMMAND, verb, AGENT, "--data", str(self.instance.data)]
        done = subprocess.run(words, env=self.instance.environment(), capture_output=True, text=True, check=False)  # fmt: skip
        if done.returncode:
            self.failed.append(f"{verb}: {done.stderr.strip()[:300]}")

    def until(self, status: int, verb: str, give: Callable[[str], None]) -> float:
        """Give an order; return the milliseconds until a call is answered so. Raises TimeoutError."""
        line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        line.connect()
        thread = threading.Thread(target=give, args=(verb,))
        began = time.perf_counter()
        thread.start()
        while self.call(line) != status:
            if time.perf_counter() - began > 30:
                raise TimeoutError(f"{verb}: calls are not answered with {status}")
        took = (time.perf_counter() - began) * 1e3
        thread.join()
        line.close()
        return took

    def back(self) -> None:
        """Start the agent again, until its calls are carried."""
        self.until(CARRIED, "start", self.hub)

    def call(self, line: http.client.HTTPConnection) -> int:
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        line.request("POST", PATH, numbered(SMALL), headers)
        answer = line.getresponse()
        answer.read()
        return answer.status


def begun(up: Gateway, folder: Path) -> Any:
    """Return an instance of `midwatch up` whose one provider is the upstream; to be started."""
    from midwatch.drills.instance import Instance

    agent = {
        "command": ["sleep", "3600"],
        "liveness": "process",
        "loop": {"action": "notify"},
        "budget": {"per_day": "$100000", "per_hour": "$50000", "per_run": "$100000"},
    }
    provider = {"base_url": f"http://127.0.0.1:{up.port}/v1", "keys": [{"name": "main", "from": "env:DRILL_MAIN_KEY"}]}  # fmt: skip
    return Instance(folder / "orders", {AGENT: agent}, models={"providers": {"openai": provider}})


def compile_all() -> None:
    """Leave bytecode as an installation does: a command that compiles its own source is not what is measured."""
    import midwatch

    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    words = [sys.executable, "-m", "compileall", "-q", str(Path(midwatch.__file__).parent)]
    subprocess.run(words, env=environment, capture_output=True, check=False)


def measure(up: Gateway, folder: Path) -> dict[str, list[float]]:
    """Return milliseconds by what was ordered and by whom."""
    compile_all()
    with begun(up, folder) as instance:
        instance.wait(instance.carries, 30)
        words = [*COMMAND, "key", "create", "bench", "--agent", AGENT, "--data", str(instance.data)]  # fmt: skip
        key = subprocess.run(words, env=instance.environment(), capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
        orders = Orders(instance, key, int(instance.gateway_url.rpartition(":")[2]))
        found: dict[str, list[float]] = {}
        givers = (("hub", orders.hub), ("command", orders.command))
        for who, give in givers:
            for _ in range(ROUNDS):
                for verb, status in (("suspend", HELD), ("resume", CARRIED)):
                    found.setdefault(f"{verb}, {who}", []).append(orders.until(status, verb, give))
                    time.sleep(0.05)
        for who, give in givers:
            for _ in range(KILLS):
                time.sleep(SETTLED_S)
                found.setdefault(f"kill, {who}", []).append(orders.until(HELD, "kill", give))
                orders.back()
                found.setdefault(f"{STREAMS} streams cut, {who}", []).append(killed(orders, give))
                orders.back()
        if orders.failed:
            raise RuntimeError(f"orders failed: {orders.failed[:3]}")
        return found


def killed(orders: Orders, give: Callable[[str], None]) -> float:
    """Kill with many streams open; return the milliseconds until the last of them has said why it ends."""
    data = request(orders.port, PATH, orders.key, STREAM)
    ends: list[tuple[float, bytes]] = []
    open_ = threading.Semaphore(0)

    async def hear() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", orders.port)
        writer.write(numbered(data))
        heard = await reader.readuntil(b"data: ")
        open_.release()
        while not heard.endswith(b"0\r\n\r\n"):
            more = await reader.read(65536)
            if not more:
                break
            heard = heard[-4096:] + more
        ends.append((time.perf_counter(), heard))
        writer.close()

    async def all_() -> None:
        await asyncio.gather(*(hear() for _ in range(STREAMS)))

    hearing = threading.Thread(target=asyncio.run, args=(all_(),))
    hearing.start()
    for _ in range(STREAMS):
        if not open_.acquire(timeout=30):
            raise TimeoutError("the streams do not begin")
    began = time.perf_counter()
    give("kill")
    hearing.join(60)
    if len(ends) < STREAMS or not all(b"midwatch_suspended" in heard for _, heard in ends):
        raise RuntimeError(f"of {STREAMS} streams {sum(b'midwatch_suspended' in h for _, h in ends)} say why they end")  # fmt: skip
    return (max(at for at, _ in ends) - began) * 1e3
