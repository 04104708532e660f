"""`slow-first-token`: nothing comes within the time for the first token: another place answers, unseen."""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance


def _answered_elsewhere(instance: Instance) -> str | None:
    said = instance.told("said")
    if not said["ended"] or said["error"] or not said["text"]:
        return f"the client did not get a whole answer: {said}"
    if (said["model"], said["attempts"]) != ("second/gpt-4o-mini", "2"):
        return f"answered by {said['model']} after {said['attempts']} attempts"
    return None


DRILL = Drill(
    name="slow-first-token",
    about="no token comes",
    program="slow_first_token.py",
    limit_s=1.0,
    fleet={
        "models": {
            "chains": {"gpt-4o-mini": ["openai/gpt-4o-mini", "second/gpt-4o-mini"]},
            "retries": {"attempts": 0},
            "timeouts": {"first_token": "1s"},
        }
    },
    provided=True,
    orders=({"mode": "stall", "path": "/openai/*", "after_chunks": 0},),
    says=(r"openai/gpt-4o-mini gave no token in time", r"next place was asked"),
    check=_answered_elsewhere,
)
