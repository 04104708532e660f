"""What is said of a span by others and by Midwatch: evaluations, feedback, flags; and what its events tell of it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from midwatch.core.contamination import NAME as CONTAMINATION
from midwatch.core.spans import form
from midwatch.core.spans.dialect import Attribute, Event
from midwatch.core.spans.form import Row
from midwatch.core.spans.reading import label

OURSELVES: Final = "midwatch"
"""Who says what Midwatch itself finds in what came."""

MAX_SAID: Final = 32
"""Evaluations of one span; flags come on top."""

MAX_SCORE: Final = 1e15
"""Scores are small; what is beyond is left out."""

_FIRST: Final = frozenset(
    {
        "First Token Stream Event",
        "gen_ai.content.completion.chunk",
        "llm.content.completion.chunk",
        "gen_ai.first_token",
    }
)


def read_events(row: Row, events: Sequence[Event]) -> None:
    """Take from events what has a column: evaluations, the first token, the type of an exception."""
    found: list[dict[str, Any]] = []
    for event in events:
        if event.name in _FIRST:
            if row[form.FIRST_TOKEN_NS] is None and row[form.START_NS] is not None:
                waited = event.time_ns - row[form.START_NS]
                row[form.FIRST_TOKEN_NS] = waited if waited >= 0 else None
        elif event.name == "gen_ai.evaluation.result":
            found.append({one.key: one.value for one in event.attributes})
        elif event.name == "exception" and row[form.ERROR_TYPE] is None:
            for one in event.attributes:
                if one.key == "exception.type":
                    row[form.ERROR_TYPE] = label(one.value)
    if found:
        judge(row, found)


_SPELLED: Final = {
    "gen_ai.evaluation.name": "name",
    "gen_ai.evaluation.score.value": "score",
    "gen_ai.evaluation.score.label": "label",
    "name": "name",
    "score": "score",
    "label": "label",
    "annotator_kind": "by",
}


def judge(row: Row, found: Iterable[Mapping[str, Any]]) -> None:
    said: list[dict[str, Any]] = json.loads(row[form.EVALUATIONS]) if row[form.EVALUATIONS] else []
    for one in found:
        made: dict[str, Any] = {}
        for key, value in one.items():
            name = _SPELLED.get(key)
            if name == "score":
                # a thumb is a score as well; NaN is within no bounds
                if isinstance(value, int | float) and -MAX_SCORE <= value <= MAX_SCORE:
                    made[name] = float(value)
            elif name is not None and (word := label(value)) is not None:
                made[name] = word
        if made.get("name") == CONTAMINATION and made.get("by") == OURSELVES:
            del made["by"]  # nobody speaks for us
        if made and len(said) < MAX_SAID:
            said.append(made)
    row[form.EVALUATIONS] = json.dumps(said, separators=(",", ":")) if said else None


def flag(row: Row, flags: Collection[str]) -> None:
    """Say of a span that what it brought in speaks to the model: an evaluation for each reason."""
    if not flags:
        return
    said: list[dict[str, Any]] = json.loads(row[form.EVALUATIONS]) if row[form.EVALUATIONS] else []
    said += [{"name": CONTAMINATION, "label": str(kind), "by": OURSELVES} for kind in flags]
    row[form.EVALUATIONS] = json.dumps(said, separators=(",", ":"))


def evaluations(attributes: Sequence[Attribute], judged: Sequence[int]) -> list[dict[str, Any]]:
    """Return the evaluations that indexed attributes spell (`evaluations.0.evaluation.score`)."""
    found: dict[str, dict[str, Any]] = {}
    for place in judged:
        one = attributes[place]
        family, _, rest = one.key.partition(".")
        number, _, name = rest.partition(".")
        found.setdefault(f"{family}.{number}", {})[name.rpartition(".")[2]] = one.value
    return list(found.values())
