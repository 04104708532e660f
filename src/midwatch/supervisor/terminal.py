"""What a person does at an agent's terminal from afar: look at its screen, and type.

Both are orders like any other, with data beside them: an answer in words for people, and what a
program needs to know it by (`why` of a refusal).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from midwatch.core.states import State
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.output.record import Record
from midwatch.supervisor.output.screen import ROWS, Screen, draw

MAX_INPUT: Final = 4_000
"""Bytes of one input: a terminal's line takes 4,095, and drops what is longer."""

ENTER: Final = "\r"
"""What the Enter key sends; the terminal makes it the end of a line."""

ORDERS: Final = ("screen", "input")

_NOT_RUNNING: Final = "not-running"
_NO_TERMINAL: Final = "no-terminal"


async def carry_out(
    keeper: Keeper, do: str, data: Mapping[str, Any], by: str
) -> tuple[str, dict[str, Any]]:
    """Carry out `screen` or `input`; return the sentence that answers, and its data."""
    if do == "screen":
        return await _screen(keeper)
    return _type(keeper, data, by)


async def _screen(keeper: Keeper) -> tuple[str, dict[str, Any]]:
    run = keeper.run
    record = run.record if run is not None and keeper.agent.tty else None
    if record is None:
        drawn = Screen(keeper.capture.tail(ROWS))
    else:
        drawn = await _drawn(record)
    cursor = None if drawn.cursor is None else list(drawn.cursor)
    return "seen", {
        "lines": drawn.lines,
        "cursor": cursor,
        "at": keeper.system.wall(),
        "tty": keeper.agent.tty,
        "waiting": keeper.state is State.WAITING,
        "running": run is not None,
    }


async def _drawn(record: Record) -> Screen:
    """Draw in a thread, and once for many who look at the same."""
    known = record.drawn
    if known is not None and known[0] == record.fed:
        return known[1]
    fed = record.fed
    screen = await asyncio.to_thread(draw, record.bytes())
    record.drawn = (fed, screen)
    return screen


def _type(keeper: Keeper, data: Mapping[str, Any], by: str) -> tuple[str, dict[str, Any]]:
    text, enter = data.get("text"), data.get("enter", True)
    if (
        not isinstance(text, str)
        or not isinstance(enter, bool)
        or len(text.encode("utf-8", "replace")) > MAX_INPUT
    ):
        return f"expected text of at most {MAX_INPUT:,} bytes", {"why": "input"}
    run = keeper.run
    if not keeper.agent.tty:
        return (
            f"{keeper.name} has no terminal; set `tty: true` in its entry of the fleet file",
            {"why": _NO_TERMINAL},
        )
    if run is None:
        return f"{keeper.name} does not run: it is {keeper.state}", {"why": _NOT_RUNNING}
    keys = (text + (ENTER if enter else "")).encode("utf-8", "replace")
    if not keeper.system.write(run.process, keys):
        return (
            f"the terminal of {keeper.name} takes no input now: what was typed before is not read",
            {"why": "full"},
        )
    keeper.typed(by)
    # what was typed may be a password: how much, and by whom, is all that is kept
    keeper.tell.event("run.input", {"by": by, "characters": len(text)}, run.run_id)
    return "sent", {"characters": len(text)}
