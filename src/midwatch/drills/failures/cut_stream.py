"""`cut-stream`: streams break off before their end mark: one goes on at another place without a seam, the other ends
with an explicit error."""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance

WORDS = 30
WHOLE = " ".join(f"word{number}" for number in range(1, WORDS + 1))


def _never_a_part_as_the_whole(instance: Instance) -> str | None:
    mended, broken = instance.told("said")
    if (mended["text"], mended["ended"], mended["error"]) != (WHOLE, True, {}):
        return f"it was not gone on with: {mended}"
    if broken["ended"] or broken["error"].get("type") != "midwatch_cut" or not broken["text"]:
        return f"the client took a part for the whole, or was not told: {broken}"
    return None


DRILL = Drill(
    name="cut-stream",
    about="streams break off before their end mark",
    program="cut_stream.py",
    limit_s=1.0,
    fleet={
        "models": {
            "chains": {"gpt-4o-mini": ["openai/gpt-4o-mini", "second/gpt-4o-mini"]},
            "retries": {"attempts": 0},
            "about": {"gpt-4o-mini": {"prefill": True}},
        }
    },
    provided=True,
    orders=(
        {"mode": "cut", "path": "/openai/*", "after_chunks": 8, "words": WORDS},
        {"mode": "shape", "words": WORDS},
    ),
    says=(r"openai/gpt-4o broke off", r"its client was told so"),
    check=_never_a_part_as_the_whole,
)
