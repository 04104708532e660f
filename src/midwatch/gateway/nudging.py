"""A word to a model that begins to repeat itself, or whose calls grow out of the usual, before they are refused:
opt-in, once in a row."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from midwatch.core.calls import growth
from midwatch.core.calls.judgement import Judgement
from midwatch.core.calls.pace import WARN_REPEATS
from midwatch.gateway.asking import aside
from midwatch.gateway.carried import Carried
from midwatch.gateway.dialects import BadRequest, additions
from midwatch.gateway.house import House

SAME_CALL: Final = "same-call-loop"


_NOTICED: Final = {SAME_CALL: WARN_REPEATS, growth.KIND: growth.WARN_ROW}
"""When a row has just become noticeable."""


def note_of(judged: Judgement) -> str:
    """Return what the model is told. It is told facts, and left to decide."""
    if judged.kind == growth.KIND:
        return (
            f"[Midwatch, which carries these calls] This conversation grows out of the usual: {judged.sentence}. Take"
            " in less at a time, and say in short what you know already. If this goes on unchanged, further calls will"
            " be refused."
        )
    return (
        f"[Midwatch, which carries these calls] You have made {judged.sentence}. Asking again will not change the"
        " result. Change the arguments, try another way, or say what keeps you from going on. If this goes on"
        " unchanged, further calls will be refused."
    )


async def nudge(house: House, call: Carried, judged: Judgement) -> bool:
    """Add the note to the call's request when a row of repetitions has just become noticeable."""
    if judged.evidence.get("count") != _NOTICED.get(judged.kind):
        return False
    note = note_of(judged)
    try:
        noted = partial(additions.with_note, call.ask, call.body, note)
        call.body = await aside(call.body, noted)
    except BadRequest:
        house.counts["loop.nudge_unfit"] += 1
        return False
    tokens = call.ask.input_tokens + additions.tokens_of(note)
    call.ask = replace(call.ask, input_tokens=tokens)
    judged.evidence["nudged"] = True
    house.counts["loop.nudged"] += 1
    return True
