"""`runaway-loop`: from 200 to 40,000 tokens, every call succeeds; the gateway refuses the next call, and the agent is
suspended: its process is left, its calls are refused."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

from midwatch.drills.drill import AGENT, Drill
from midwatch.drills.instance import Instance

REFUSED = ("midwatch_loop", "midwatch_suspended")


def _only_its_calls_are_stopped(instance: Instance) -> str | None:
    """The process is left; the call after the large one was refused, and so is whatever it would ask now."""
    own = instance.told("refused")["error"].get("type")
    if own not in REFUSED:
        return f"its own next call was refused as {own!r}"
    asked = [call for call in instance.provided.asked("openai") if call.input_tokens > 30_000]
    if len(asked) != 1:
        return f"{len(asked)} calls of 40,000 tokens reached the provider, one may"
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
    return None if kind in REFUSED else f"the next call was refused as {kind!r}"


DRILL = Drill(
    name="runaway-loop",
    about="200 to 40,000 tokens at a time, every call succeeds",
    program="runaway_loop.py",
    limit_s=5.0,
    settings={"limits": {"stop_grace": "1s"}, "calls": {"window": "1s"}},
    provided=True,
    says=(r"4\d,\d{3}", r"usual"),
    actions=("suspend",),
    state="suspended",
    check=_only_its_calls_are_stopped,
)
