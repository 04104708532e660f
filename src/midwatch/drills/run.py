"""Runs drills side by side, each on its own instance, and judges what Midwatch did."""

from __future__ import annotations

import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from midwatch.core.errors import MidwatchError
from midwatch.drills.drill import AGENT, Drill, Evidence, Result
from midwatch.drills.instance import PROGRAMS, Instance
from midwatch.drills.provided import provided

EVIDENCE_TIMEOUT_S = 40.0
"""How long a program may take to misbehave."""
AFTERMATH_S = 15.0
"""How long actions and final state may take once the incident is there."""


def run(drills: Iterable[Drill], jobs: int, done: Callable[[Result], None]) -> list[Result]:
    """Run drills, at most `jobs` at a time; `done` is told each result as it comes.

    Returns the results in the order of the drills. KeyboardInterrupt stops every instance first.
    """
    ordered = list(drills)
    results: dict[str, Result] = {}
    given_up = threading.Event()
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        try:
            for future in as_completed([pool.submit(run_one, d, given_up) for d in ordered]):
                result = future.result()
                results[result.drill] = result
                done(result)
        except BaseException:
            given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise  # leaving the block waits for the instances' ends
    return [results[drill.name] for drill in ordered]


def run_one(drill: Drill, given_up: threading.Event | None = None) -> Result:
    """Run one drill on a fresh instance and judge it."""
    result = Result(drill.name, limit_s=drill.limit_s)
    with tempfile.TemporaryDirectory(
        prefix="midwatch-drill-", ignore_cleanup_errors=True
    ) as directory:
        try:
            with provided(drill.orders) if drill.provided else nullcontext() as providers:
                instance = Instance(
                    Path(directory),
                    _entries(drill),
                    given_up=given_up,
                    provided=providers,
                    **drill.fleet,
                )
                with instance:
                    problems = list(_judge(drill, instance, result))
        except (MidwatchError, OSError) as error:
            problems = [str(error)]
    result.passed = not problems
    result.why = "; ".join(problems) or None
    return result


def _entries(drill: Drill) -> dict[str, dict[str, Any]]:
    command = [sys.executable, str(PROGRAMS / drill.program)]
    others = {n: {"command": [*command, n], **entry} for n, entry in drill.others.items()}
    return {AGENT: {"command": command, **drill.settings}, **others}


def _judge(drill: Drill, instance: Instance, result: Result) -> Iterator[str]:
    evidence = drill.stage(instance) if drill.stage else _wait_for_evidence(instance)
    if evidence is None:
        yield (
            f"the program did not misbehave within {EVIDENCE_TIMEOUT_S:.0f} s; it said: "
            + instance.last_words(5)
        )
        return
    if drill.control:
        yield from _judge_control(drill, instance, result)
    elif drill.kind == "":
        yield from _judge_time(drill, result, evidence)
    else:
        yield from _judge_failure(drill, instance, result, evidence)
    if drill.state and not instance.wait(lambda: _state(instance) == drill.state, AFTERMATH_S):
        yield f"the agent is {_state(instance)!r}, expected {drill.state!r}"
    if drill.check and (complaint := drill.check(instance)):
        yield complaint
    expected = {_kind(drill), *drill.also}
    strange = [i for i in instance.incidents() if i["kind"] not in expected]
    if drill.control:
        strange = instance.incidents()
    result.false_alarms = len(strange)
    if strange:
        yield "false alarm: " + "; ".join(f"{i['kind']}: {i['sentence']}" for i in strange)


def _judge_control(drill: Drill, instance: Instance, result: Result) -> Iterator[str]:
    """A control passes when nothing fires while the program does what it does."""
    finished = instance.wait(lambda: instance.read_note("finished"), drill.watch_s)
    if not finished:
        yield (
            f"the program did not finish its {drill.watch_s:.0f} s; it said: "
            + instance.last_words(5)
        )
    if incidents := instance.incidents():
        result.detected = True
        result.sentence = incidents[0]["sentence"]


def _judge_failure(
    drill: Drill, instance: Instance, result: Result, evidence: Evidence
) -> Iterator[str]:
    kind = _kind(drill)
    waited = instance.wait(lambda: _incident(instance, kind), drill.limit_s + AFTERMATH_S)
    seen_at = time.time()
    if not isinstance(waited, dict):
        yield f"no incident {kind!r} within {drill.limit_s + AFTERMATH_S:.1f} s of the evidence"
        return
    yield from _judge_time(drill, result, Evidence(evidence.at, evidence.noticed_at or seen_at))
    instance.wait(lambda: set(drill.actions) <= set(_done(instance, kind)), AFTERMATH_S)
    # an incident that goes on is worded by what was seen last
    instance.wait(lambda: not _unsaid(drill, _incident(instance, kind)), AFTERMATH_S)
    incident = _incident(instance, kind) or waited
    result.sentence = incident["sentence"]
    result.actions = _done(instance, kind)
    for action in drill.actions:
        if action not in result.actions:
            yield f"action {action!r} is missing; done was {result.actions}"
    for pattern in _unsaid(drill, incident):
        yield f"the sentence {incident['sentence']!r} does not say {pattern!r}"


def _judge_time(drill: Drill, result: Result, evidence: Evidence) -> Iterator[str]:
    if evidence.noticed_at is None:
        yield "it was not dealt with in time"
        return
    result.detected = True
    result.seconds_to_detect = round(max(0.0, evidence.noticed_at - evidence.at), 3)
    if result.seconds_to_detect > drill.limit_s:
        yield f"noticed after {result.seconds_to_detect} s, allowed {drill.limit_s} s"


def _unsaid(drill: Drill, incident: dict[str, Any] | None) -> list[str]:
    said = "" if incident is None else incident["sentence"]
    return [pattern for pattern in drill.says if not re.search(pattern, said, re.IGNORECASE)]


def _kind(drill: Drill) -> str:
    return drill.name if drill.kind is None else drill.kind


def _wait_for_evidence(instance: Instance) -> Evidence | None:
    note = instance.wait(lambda: instance.read_note("evidence"), EVIDENCE_TIMEOUT_S)
    return Evidence(float(note)) if isinstance(note, str) else None


def _incident(instance: Instance, kind: str) -> dict[str, Any] | None:
    return next((i for i in instance.incidents() if i["kind"] == kind), None)


def _done(instance: Instance, kind: str) -> list[str]:
    incident = _incident(instance, kind)
    return [a["do"] for a in incident["actions"] if a["result"] != "pending"] if incident else []


def _state(instance: Instance) -> str | None:
    agent = instance.agent(AGENT)
    return agent["state"] if agent else None
