"""`auth-crash`: its API key is refused; it is parked at once, and the credential is named."""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance


def _started_once(instance: Instance) -> str | None:
    starts = (instance.read_note("starts") or "").split()
    return (
        None
        if len(starts) == 1
        else f"started {len(starts)} times; a refused key is no reason to retry"
    )


DRILL = Drill(
    name="auth-crash",
    about="exits because its API key is refused",
    program="auth_crash.py",
    limit_s=2.0,
    settings={"restart": {"when": "failure", "attempts": 3, "backoff": "0s..1s"}},
    says=(r"OPENAI_API_KEY|OpenAI", r"refused|credential|key"),
    actions=("park",),
    state="parked",
    check=_started_once,
)
