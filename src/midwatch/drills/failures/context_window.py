"""`context-window`: a call fills 90% of its model's window; a warning comes before the provider refuses."""

from __future__ import annotations

from midwatch.drills.drill import Drill

DRILL = Drill(
    name="context-window",
    about="90% of the model's window is used",
    program="context_window.py",
    limit_s=1.0,
    fleet={"models": {"about": {"gpt-4o-mini": {"context": 2000}}}},
    provided=True,
    says=(r"of 2,000 tokens of openai/gpt-4o-mini's window", r"9\d%", r"history"),
)
