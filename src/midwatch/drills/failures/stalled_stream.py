"""`stalled-stream`: a stream stops and stays open: it ends with an explicit error, never as if it were whole."""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance


def _an_explicit_end(instance: Instance) -> str | None:
    said = instance.told("said")
    if said["ended"] or said["error"].get("type") != "midwatch_cut" or not said["text"]:
        return f"the client took it for whole, or was not told: {said}"
    return None


DRILL = Drill(
    name="stalled-stream",
    about="a stream stops and stays open",
    program="stalled_stream.py",
    limit_s=1.0,
    fleet={
        "models": {
            "retries": {"attempts": 0},
            "timeouts": {"between": "1s"},
            "on_cut": "error",
        }
    },
    provided=True,
    orders=({"mode": "stall", "after_chunks": 8, "words": 30},),
    says=(r"openai/gpt-4o-mini stopped and stayed open", r"explicit error"),
    check=_an_explicit_end,
)
