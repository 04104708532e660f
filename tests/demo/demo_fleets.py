"""Fleets made of fixed data, for the pages' tests and their screenshots.

    python tests/demo/demo_fleets.py [--scenario night] [--port 8799]

serves one with a stream and an API that only pretends.
"""

from __future__ import annotations

import argparse
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from demo_hub import NOW, Demo, Served

from midwatch.core.incident import Action, Incident, IncidentState

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;{{7*7}}"
BIDI = "user\u202etxt.exe\u202c z" + "\u0310" * 60 + "algo"


def cycles(
    seed: int,
    amount: int,
    *,
    tokens: int = 1200,
    every_s: float = 45.0,
    failing: float = 0.02,
    until: float = NOW,
) -> list[dict[str, Any]]:
    """Return plausible recent cycles, the same for the same seed."""
    chance = random.Random(seed)
    made: list[dict[str, Any]] = []
    for i in range(amount):
        used = round(tokens * chance.lognormvariate(0, 0.35)) if tokens else None
        made.append(
            {
                "at": until - (amount - i) * every_s - chance.random() * 8,
                "duration_s": round(chance.lognormvariate(2.2, 0.4), 2),
                "tokens": used,
                "cost_usd": None if used is None else used * 2.4e-6,
                "tool_calls": chance.randint(1, 5),
                "items": chance.randint(0, 2),
                "result": "failed" if chance.random() < failing else "ok",
            }
        )
    return made


def agent(name: str, state: str = "running", **over: Any) -> dict[str, Any]:
    """Return an agent in CONTRACT's shape with all that is not given made plausible."""
    base: dict[str, Any] = {
        "agent": name,
        "group": None,
        "node": "lighthouse",
        "state": state,
        "since": NOW - 11_000,
        "sentence": f"{name}: last worked 12 seconds ago, 31 mails today, $0.42 of $10",
        "run_id": "0197f3a0-0000-7000-8000-000000000000",
        "pid": 4242,
        "last_beat": NOW - 12,
        "cycle": {"tokens": 1204, "tokens_baseline": 1180, "cost_usd": 0.003, "tool_calls": 3},
        "today": {"cost_usd": 0.42, "budget_usd": 10.0, "cycles": 214, "restarts": 0},
        "resources": {"rss_bytes": 92_000_000, "open_files": 21, "children": 0},
        "incidents": [],
        "recent_cycles": cycles(sum(map(ord, name)), 60),
    }
    return {**base, **over}


def incident(number: int, kind: str, who: str, **over: Any) -> Incident:
    """Return an open incident; all that is not given is made plausible."""
    base = Incident(
        id=f"0197f3a0-1111-7000-8000-{number:012d}",
        kind=kind,
        agent=who,
        group=None,
        severity="critical",
        state=IncidentState.OPEN,
        sentence=f"{who}: something is wrong",
        reason="3 failed starts within 5 minutes; attempts allowed: 3",
        evidence={"exit_code": 1, "failures": 3},
        opened_at=NOW - 300,
        evidence_at=NOW - 300.4,
        seen_at=NOW - 300,
    )
    return replace(base, **over)


def night() -> Demo:
    """Three agents as in the sample fleet; one is parked, one ran out of memory and is back."""
    demo = Demo()
    demo.put(agent("inbox", group="support"))
    demo.put(
        agent(
            "prices",
            "parked",
            group="shop",
            since=NOW - 840,
            pid=None,
            last_beat=NOW - 905,
            sentence="prices: parked at 02:14 after 3 failed starts; the key OPENAI_API_KEY was refused",
            today={"cost_usd": 1.31, "budget_usd": 1.5, "cycles": 96, "restarts": 3},
            resources={"rss_bytes": None, "open_files": None, "children": None},
            incidents=["0197f3a0-1111-7000-8000-000000000001"],
            recent_cycles=[
                *cycles(7, 44, tokens=2400, failing=0.03, until=NOW - 1100),
                *cycles(8, 4, tokens=900, failing=1.0, until=NOW - 900),
            ],
        )
    )
    demo.put(
        agent(
            "night-report",
            "scheduled",
            since=NOW - 73_000,
            pid=None,
            last_beat=NOW - 73_700,
            sentence="night-report: wrote the report yesterday at 06:03, next run at 06:00",
            today={"cost_usd": 0.03, "budget_usd": None, "cycles": 1, "restarts": 0},
            resources={},
            recent_cycles=cycles(9, 13, tokens=5200, every_s=86_400, failing=0),
        )
    )
    demo.put(
        agent(
            "translator",
            group="support",
            since=NOW - 1500,
            sentence="translator: restarted at 02:03 after running out of memory (1.0 GiB, +40 MiB an hour)",
            today={"cost_usd": 0.88, "budget_usd": 2.0, "cycles": 61, "restarts": 1},
            resources={"rss_bytes": 318_000_000, "open_files": 48, "children": 2},
            incidents=["0197f3a0-1111-7000-8000-000000000002"],
            recent_cycles=[
                *cycles(21, 30, tokens=3100),
                {**cycles(2, 1)[0], "tokens": 61_000},
                *cycles(5, 9, tokens=2800),
            ],
        )
    )
    _history(demo)
    return demo


def _history(demo: Demo) -> None:
    demo.runs["inbox"] = [
        {"started_at": NOW - 11_000, "run_id": "r1"},
        {
            "started_at": NOW - 40_000,
            "ended_at": NOW - 11_002,
            "duration_s": 28_998.0,
            "reason": "stopped by a person",
            "run_id": "r0",
        },
    ]
    for one in (
        incident(
            1,
            "auth-crash",
            "prices",
            group="shop",
            sentence="prices: parked because its key OPENAI_API_KEY was refused (401) on each of 3 starts",
            reason="run.ended with end credentials 3 times; restarting cannot help",
            evidence={
                "credential": "OPENAI_API_KEY",
                "exit_code": 1,
                "failures": 3,
                "rss_bytes": 74_000_000,
                "last_beat_at": NOW - 905,
                "tail": 'Traceback (most recent call last):\n  File "agents/prices.py", line 61, in main\nopenai.AuthenticationError: Error code: 401 - Incorrect API key provided: sk-…9f2c',
            },
            opened_at=NOW - 840,
            evidence_at=NOW - 840.2,
            seen_at=NOW - 840,
            count=3,
            actions=[
                Action("restart", NOW - 890, "2 restarts"),
                Action("park", NOW - 840, "parked until you start it"),
            ],
        ),
        incident(
            2,
            "oom-kill",
            "translator",
            group="support",
            severity="warning",
            sentence="translator: ran out of memory at 1.0 GiB, growing 40 MiB an hour; restarted",
            opened_at=NOW - 1502,
            evidence_at=NOW - 1502.1,
            actions=[Action("restart", NOW - 1500, "running again after 1.8 s")],
        ),
        incident(
            3,
            "hub-down",
            "midwatch",
            severity="info",
            state=IncidentState.RESOLVED,
            sentence="midwatch: the hub was down for 4 seconds; nothing was lost",
            opened_at=NOW - 9000,
            resolved_at=NOW - 8996,
        ),
    ):
        demo.tell(one)


def calm() -> Demo:
    demo = Demo()
    demo.put(agent("inbox"))
    demo.put(
        agent(
            "prices",
            sentence="prices: last worked 40 seconds ago, 18 pages today, $0.31 of $2",
            today={"cost_usd": 0.31, "budget_usd": 2.0, "cycles": 88, "restarts": 0},
            recent_cycles=cycles(4, 60, tokens=2200),
        )
    )
    demo.put(
        agent(
            "watchdog",
            sentence="watchdog: started 9 seconds ago",
            today={"cost_usd": 0.14, "budget_usd": None, "cycles": 0, "restarts": 0},
            recent_cycles=[],
        )
    )
    return demo


def empty() -> Demo:
    return Demo()


def many(amount: int = 60) -> Demo:
    """Many agents in five groups, in every state."""
    demo = night()
    chance = random.Random(3)
    groups = ("support", "shop", "research", "billing", "ops")
    jobs = ("mails", "pages", "tickets", "reports", "orders")
    odd = (
        "suspended",
        "backing-off",
        "unhealthy",
        "waiting",
        "lost",
        "starting",
        "draining",
        "stopped",
        "scheduled",
    )
    for i in range(amount - 4):
        group = groups[i % 5]
        name = f"{group}-{('triage', 'crawl', 'digest', 'review', 'sync')[(i // 5) % 5]}-{i:02d}"
        state = odd[(i // 7) % len(odd)] if i % 7 == 3 else "running"
        spent = round(chance.random() * 4, 2)
        demo.put(
            agent(
                name,
                state,
                group=group,
                since=NOW - chance.randint(30, 90_000),
                sentence=f"{name}: last worked {chance.randint(2, 55)} seconds ago, {chance.randint(3, 400)} {jobs[i % 5]} today, ${spent:.2f} of $5",
                today={
                    "cost_usd": spent,
                    "budget_usd": 5.0,
                    "cycles": chance.randint(9, 800),
                    "restarts": chance.choice((0, 0, 0, 1, 2)),
                },
                resources={
                    "rss_bytes": chance.randint(40, 700) * 1_000_000,
                    "open_files": 30,
                    "children": 1,
                },
                recent_cycles=cycles(
                    i, chance.choice((60, 60, 60, 31, 4)), tokens=chance.randint(300, 9000)
                ),
            )
        )
    return demo


def broken() -> Demo:
    """Everything is wrong at once."""
    demo = Demo()
    demo.reader.lost = {"queue full": 1204, "spool full": 31}
    for i, state in enumerate(
        ("parked", "lost", "suspended", "waiting", "unhealthy", "backing-off")
    ):
        name = f"agent-{state}"
        demo.put(
            agent(
                name,
                state,
                sentence=f"{name}: has been {state} since 02:0{i}",
                today={"cost_usd": 11.2 + i, "budget_usd": 10.0, "cycles": 3, "restarts": 4},
                incidents=["x"],
                recent_cycles=cycles(i, 40, failing=0.7),
            )
        )
        demo.tell(
            incident(
                10 + i,
                "crash-loop",
                name,
                severity=("critical", "warning", "info")[i % 3],
                sentence=f"{name}: failed 3 times in a row and is now {state}",
                opened_at=NOW - 60 * i - 4,
            )
        )
    return demo


def hostile() -> Demo:
    """Text that would like to be markup, turn around, or burst its box."""
    demo = Demo()
    demo.reader.name = HOSTILE
    demo.put(agent("a" * 128, sentence="w" * 900, group="g" * 128))
    demo.put(
        agent(
            HOSTILE[:60],
            "parked",
            sentence=HOSTILE + " " + BIDI,
            group=HOSTILE[:80],
            recent_cycles=[{"at": NOW, "result": HOSTILE, "tokens": 5}],
        )
    )
    demo.put(
        agent(
            "odd",
            "no-such-state",
            today={"cost_usd": None, "budget_usd": None, "cycles": None, "restarts": None},
            resources={},
            recent_cycles=None,
            since="yesterday",
            sentence=None,
        )
    )
    demo.put(agent("naïve ☕ 夜警", sentence="\x1b[31mred\x07 " + "夜警は眠らない。" * 40))
    demo.tell(
        incident(
            1,
            HOSTILE[:40],
            HOSTILE[:60],
            sentence=HOSTILE,
            reason=HOSTILE * 30,
            evidence={HOSTILE: HOSTILE, "tail": [HOSTILE, BIDI], "nested": {"x": [HOSTILE]}},
            actions=[Action(HOSTILE, NOW, HOSTILE)],
        )
    )
    demo.tell(incident(2, "x" * 128, "a" * 128, sentence="y" * 2000))
    return demo


SCENARIOS: dict[str, Callable[[], Demo]] = {
    "night": night,
    "calm": calm,
    "empty": empty,
    "many": many,
    "huge": lambda: many(200),
    "broken": broken,
    "hostile": hostile,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", choices=SCENARIOS, default="night")
    parser.add_argument("--port", type=int, default=0)
    chosen = parser.parse_args()
    with Served(SCENARIOS[chosen.scenario](), chosen.port) as served:
        print(served.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
