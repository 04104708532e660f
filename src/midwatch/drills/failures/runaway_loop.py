"""`runaway-loop`: from 200 to 40,000 tokens a cycle, every call succeeds; the agent is suspended: its process is
left, its calls are refused."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

from midwatch.drills.drill import AGENT, Drill
from midwatch.drills.instance import Instance


def _only_its_calls_are_stopped(instance: Instance) -> str | None:
    """The process is left, and the next call that it would make is refused, with the reason."""
    agent = instance.agent(AGENT)
    if agent is None or agent["pid"] is None:
        return "its process did not outlive the suspension"
    environment = Path(f"/proc/{agent['pid']}/environ").read_bytes().split(b"\0")
    given = dict(pair.decode().split("=", 1) for pair in environment if b"=" in pair)
    request = urllib.request.Request(  # noqa: S310  its own gateway, over loopback
        f"{given['OPENAI_BASE_URL']}/chat/completions",
        json.dumps({"model": "gpt-4o-mini", "messages": []}).encode(),
        {"authorization": f"Bearer {given['OPENAI_API_KEY']}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5):  # noqa: S310
            return "the next call was carried"
    except urllib.error.HTTPError as error:
        kind = json.loads(error.read()).get("error", {}).get("type")
    except OSError as error:
        return f"the gateway did not answer: {error}"
    return None if kind == "midwatch_suspended" else f"the next call was refused as {kind!r}"


DRILL = Drill(
    name="runaway-loop",
    about="200 to 40,000 tokens a cycle, every call succeeds",
    program="runaway_loop.py",
    limit_s=5.0,
    settings={"limits": {"stop_grace": "1s"}},
    says=(r"40,000", r"usual"),
    actions=("suspend",),
    state="suspended",
    check=_only_its_calls_are_stopped,
)
