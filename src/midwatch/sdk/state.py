"""What an agent keeps in mind, and what others think of its work.

Both are spans of no duration, so that they are kept, removed and expired with their session. They hold what they are
given: unlike all other spans, text that the agent or its users wrote.
"""

from __future__ import annotations

from midwatch.sdk import cycle, runtime, span
from midwatch.sdk.plain import number, plain, text
from midwatch.sdk.shield import shielded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_COMMENT = 2_000
"""Characters of a comment."""


@shielded
def state(parts: object) -> None:
    """Report what the agent keeps in mind: `state({"memory": …, "scratchpad": …, "context": …})`.

    Call it once in a turn, or whenever something changed. Parts that are not named stay as they were; one that is
    None is gone. The hub shows what changed from turn to turn, and where a value came from. The parts may be
    anything; they are copied as plain JSON, at most 48,000 characters in all.
    """
    now = runtime.current
    if now is None:
        runtime.missing("state")
        return
    if not now.traces:
        return
    copied, clipped = plain(parts)
    if clipped:
        now.lose("clipped")
    if copied.__class__ is not dict:
        now.lose("bad_argument")
        return
    now.end_span(span.Span("state", {"midwatch.span": "state", "midwatch.state": copied}))


@shielded
def feedback(
    name: object,
    score: float | None = None,
    *,
    label: object = None,
    comment: object = None,
    session: object = None,
    by: object = None,
) -> None:
    """Say what somebody thinks of the work: `feedback("thumbs", score=-1, comment="wrong customer")`.

    It belongs to the session that it is called in, or to the one that `session` names, also long after that ended.
    `score` is any number, `label` a word for it (`bad`), `by` who says so (`user`, `reviewer`, a model's name).
    """
    now = runtime.current
    if now is None:
        runtime.missing("feedback")
        return
    if not now.traces:
        return
    said: dict[str, Any] = {"gen_ai.evaluation.name": cycle.label(name)}
    if score is not None:
        value = _score(score)
        if value is None:
            now.lose("bad_argument")
        said["gen_ai.evaluation.score.value"] = value
    if label is not None:
        said["gen_ai.evaluation.score.label"] = cycle.label(label)
    if by is not None:
        said["annotator_kind"] = cycle.label(by)
    if comment is not None:
        said["gen_ai.evaluation.explanation"] = text(comment, MAX_COMMENT)
    told = span.Span("feedback", {"midwatch.span": "evaluation"})
    if session is not None:
        told.attributes["gen_ai.conversation.id"] = cycle.label(session)
    told.events = [
        {
            "name": "gen_ai.evaluation.result",
            "timeUnixNano": str(told.started_ns),
            "attributes": said,
        }
    ]
    now.end_span(told)


def _score(value: Any) -> float | None:
    """Return a number of either sign as a float; None for what is none. True and False are 1 and 0."""
    if value.__class__ is bool:
        return float(value)
    found = number(value)
    if found is None and isinstance(value, int | float):
        found = number(-value)
        return None if found is None else -float(found)
    return None if found is None else float(found)
