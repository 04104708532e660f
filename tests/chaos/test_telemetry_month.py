"""A hub as a process, idle for thirty days: its clocks go on by hours at a time, and its disk and memory stay flat."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from tests.chaos.hubs import AGENT, Hub

from midwatch.sdk import otlp

DAY_S = 86_400.0
DAYS, STEPS = 30, 8
"""Days, and steps of each: every three hours everything that is done now and then is due, and is done."""

STEP_S = DAY_S / STEPS
REAL_S = 0.25
"""What a step takes for us."""

KEPT_DAYS = 7

MEMORY_BYTES = 8 * 1024 * 1024
DISK_BYTES = 2 * 1024 * 1024


class Weight(NamedTuple):
    """What a hub takes."""

    memory: int
    disk: int
    files: int
    descriptors: int
    threads: int


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path, {"spans": KEPT_DAYS * DAY_S, "contents": KEPT_DAYS * DAY_S})
    yield made
    made.remove()


def _weigh(hub: Hub) -> Weight:
    process = psutil.Process(hub.pid)
    sizes: list[int] = []
    for folder, _, names in os.walk(hub.files):
        for name in names:
            try:
                sizes.append(os.stat(os.path.join(folder, name)).st_blocks * 512)
            except FileNotFoundError:  # let go meanwhile
                continue
    with process.oneshot():
        return Weight(
            process.memory_info().rss,
            sum(sizes),
            len(sizes),
            process.num_fds(),
            process.num_threads(),
        )


def _post(hub: Hub, count: int) -> None:
    now = time.time_ns()
    spans = [
        {
            "traceId": f"{at + 1:032x}",
            "spanId": f"{at + 1:016x}",
            "name": f"step {at}",
            "startTimeUnixNano": str(now - 10**9 + at),
            "endTimeUnixNano": str(now),
            "attributes": otlp.attributes({"note": os.urandom(100).hex()}),
        }
        for at in range(count)
    ]
    body = json.dumps(otlp.wrap(spans, {"service.name": AGENT}, "month")).encode()
    assert hub.ask("POST", "/v1/traces", body)[0] == 200


def _pass(hub: Hub, days: int) -> list[Weight]:
    """Let days go by; return what the hub weighed after each."""
    found: list[Weight] = []
    for step in range(days * STEPS):
        hub.set_clocks(gone_by_s=(step + 1) * STEP_S)
        time.sleep(REAL_S)
        # as whoever looks after it does
        assert hub.ask("GET", "/readyz")[0] == 200
        if (step + 1) % STEPS == 0:
            found.append(_weigh(hub))
    return found


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_hub_that_is_idle_for_thirty_days_grows_neither_on_disk_nor_in_memory(hub: Hub) -> None:
    hub.start()
    _post(hub, 5_000)
    assert hub.ask("GET", "/api/traces?limit=1")[1]["items"]
    days = _pass(hub, DAYS)
    said = "\n".join(map(str, days)) + "\n" + "".join(hub.last_words)
    # what was there is too old, and its disk is given back
    assert hub.ask("GET", "/api/traces?limit=1")[1]["items"] == [], said
    settled = days[KEPT_DAYS + 3 :]
    first, last = settled[0], settled[-1]
    assert last.memory - first.memory <= MEMORY_BYTES, said
    assert last.disk - first.disk <= DISK_BYTES, said
    assert max(each.disk for each in settled) - first.disk <= 2 * DISK_BYTES, said
    assert last.files <= first.files + 2, said
    assert last.descriptors <= first.descriptors + 4, said
    assert last.threads <= first.threads + 4, said
    print(said)
