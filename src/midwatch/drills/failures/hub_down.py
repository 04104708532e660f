"""`hub-down`: the hub hangs while agents work; nothing is restarted because of it, nothing is lost."""

from __future__ import annotations

import os
import signal
import time

from midwatch.drills.drill import AGENT, Drill, Evidence
from midwatch.drills.instance import Instance

BEATS_BEFORE = 5


def _stop_the_hub(instance: Instance) -> Evidence:
    instance.wait(lambda: len((instance.read_note("beats") or "").split()) >= BEATS_BEFORE, 20)
    at = time.time()
    os.kill(instance.children()["hub"], signal.SIGSTOP)
    # without a hub there is only the console to tell; the incident follows when the hub is back
    instance.wait(lambda: instance.said("hub", at), 20)
    instance.wait(lambda: instance.agent(AGENT), 30)
    (instance.work / "enough").touch()
    return Evidence(at, instance.said("hub", at))


def _nothing_lost(instance: Instance) -> str | None:
    """Every beat that the agent made is there, once, and it was never restarted."""
    sent = instance.wait(lambda: instance.read_note("finished"), 20)
    if not isinstance(sent, str):
        return "the agent did not finish"
    instance.wait(lambda: _cycles(instance) == int(sent), 20)
    if _cycles(instance) != int(sent):
        return f"{sent} beats were made, {_cycles(instance)} arrived"
    agent = instance.agent(AGENT)
    if not agent or agent["today"]["restarts"]:
        return "the agent was restarted because of the hub"
    return None


def _cycles(instance: Instance) -> int | None:
    agent = instance.agent(AGENT)
    return agent["today"]["cycles"] if agent else None


DRILL = Drill(
    name="hub-down",
    about="the hub stops while agents work",
    program="hub_down.py",
    limit_s=5.0,
    says=(r"hub", r"second|minute|ms"),
    stage=_stop_the_hub,
    check=_nothing_lost,
)
