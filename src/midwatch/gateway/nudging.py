"""A word to a model that begins to repeat itself, before its calls are refused: opt-in, once in a row."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

from midwatch.core.calls.pace import WARN_REPEATS, Judgement
from midwatch.gateway.asking import aside
from midwatch.gateway.carried import Carried
from midwatch.gateway.dialects import BadRequest, additions
from midwatch.gateway.house import House

SAME_CALL: Final = "same-call-loop"


def note_of(judged: Judgement) -> str:
    """Return what the model is told. It is told facts, and left to decide."""
    return (
        f"[Midwatch, which carries these calls] You have made {judged.sentence}. Asking again will not change the"
        " result. Change the arguments, try another way, or say what keeps you from going on. If this goes on"
        " unchanged, further calls will be refused."
    )


async def nudge(house: House, call: Carried, judged: Judgement) -> bool:
    """Add the note to the call's request when a row of repetitions has just become noticeable."""
    if judged.kind != SAME_CALL or judged.evidence.get("count") != WARN_REPEATS:
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
