"""An agent's terminal: look at it, type into it, or send it one line."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Annotated, Any, Final, cast

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, Refused, path_of, record, records
from midwatch.cli.exits import BAD, UNREACHABLE, CommandError
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url
from midwatch.cli.status import unknown

DETACH: Final = "\x1d"
"""Ctrl-], as telnet has it: no program of an agent wants it."""

LOOK_S: Final = 0.2
"""Between two looks at the screen while nothing is typed."""

ECHO_S: Final = 0.05
"""From a key to the look that shows what it did."""

PATIENCE_S: Final = 10.0
"""How long the hub may be away before we give up: it is restarted by itself."""


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("attach")(attach)


def attach(
    agent: Annotated[str, typer.Argument(help="The agent; `tty: true` gives it a terminal.")],
    screen: Annotated[
        bool, typer.Option("--screen", help="Print its screen once, and end.")
    ] = False,
    send: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Type a line into its terminal, and end.", show_default=False
        ),
    ] = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show an agent's terminal and type into it; Ctrl-] detaches, and the agent goes on.

    Its screen has 220 columns and 50 rows; a smaller terminal shows the part around the cursor.
    """
    if screen and send is not None:
        raise CommandError("--screen and --send exclude each other: send first, then look")
    hub = Hub(find(data, url))
    if send is not None:
        _send(hub, agent, send, as_json)
    elif screen:
        found = look(hub, agent)
        if as_json:
            show.document(found.answer)
        else:
            for line in found.lines:
                show.out(line)
    elif as_json:
        raise CommandError("--json goes with --screen or --send")
    elif not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError("attach needs a terminal; use --screen to look, and --send TEXT to type")
    else:
        _sit_at(hub, agent)


@dataclass(frozen=True, slots=True)
class _Screen:
    """What the hub says of a screen, safe to print."""

    lines: list[str]
    cursor: tuple[int, int] | None
    tty: bool
    waiting: bool
    running: bool
    answer: dict[str, Any]


def look(hub: Hub, agent: str) -> _Screen:
    """Return the screen. Raises CommandError."""
    try:
        answer = record(hub.get(path_of("agents", agent, "screen")))
    except Refused as refused:
        raise _told(hub, agent, refused) from None
    if not isinstance(answer.get("lines"), list):
        raise hub.foreign(f"no screen of '{agent}'")
    return _Screen(
        lines=[show.clean(line).replace("\n", " ") for line in _items(answer, "lines")],
        cursor=_place(_items(answer, "cursor")),
        tty=answer.get("tty") is True,
        waiting=answer.get("waiting") is True,
        running=answer.get("running") is not False,
        answer=answer,
    )


def _items(answer: dict[str, Any], name: str) -> list[Any]:
    found = answer.get(name)
    return cast("list[Any]", found) if isinstance(found, list) else []


def _place(cursor: list[Any]) -> tuple[int, int] | None:
    if len(cursor) != 2 or not all(isinstance(n, int) for n in cursor):
        return None
    return cursor[0], cursor[1]


def _type(hub: Hub, agent: str, text: str, *, enter: bool) -> list[dict[str, Any]]:
    try:
        answer = hub.post(path_of("agents", agent, "input"), {"text": text, "enter": enter})
    except Refused as refused:
        raise _told(hub, agent, refused) from None
    return records(answer)


def _told(hub: Hub, agent: str, refused: Refused) -> CommandError:
    """Return the error for a person: the nearest name, or that the agent does not run."""
    if refused.status == 404:
        return unknown(hub, agent)
    if refused.problem.get("reason") == "not-running":
        return CommandError(f"{refused}; start it with: midwatch start {agent}", BAD)
    return refused


def _send(hub: Hub, agent: str, text: str, as_json: bool) -> None:
    done = _type(hub, agent, text, enter=True)
    if as_json:
        show.document(done)
    for item in [] if as_json else done:
        show.out(f"{show.line(item.get('agent', agent))}: {show.line(item.get('result', 'sent'))}")


def _sit_at(hub: Hub, agent: str) -> None:
    """Show the screen and pass on keys until Ctrl-]. Errors at the beginning leave the terminal alone."""
    found = look(hub, agent)
    if not found.tty:
        raise CommandError(
            f"{agent} has no terminal; set `tty: true` in its entry of the fleet file. Its last lines: "
            f"midwatch attach {agent} --screen"
        )
    if not found.running:
        raise CommandError(f"{agent} does not run; start it with: midwatch start {agent}", BAD)
    from midwatch.cli.glass import Glass

    with Glass() as glass:
        seat = Seat(hub, agent, found)
        while seat.taken:
            glass.draw(seat.headline(), seat.screen.lines, seat.screen.cursor)
            seat.turn(glass.keys(seat.pause_s))
    show.out(f"Detached; {agent} goes on.")


class Seat:
    """One sitting at an agent's terminal."""

    def __init__(self, hub: Hub, agent: str, screen: _Screen) -> None:
        self.screen = screen
        self.taken = True
        self.pause_s = LOOK_S
        self._hub = hub
        self._agent = agent
        self._said = ""
        self._away_since: float | None = None

    def headline(self) -> str:
        """Return the first line: how to leave, and how it stands."""
        how = ""
        if not self.screen.running:
            how = "; it does not run"
        elif self.screen.waiting:
            how = "; it waits for input"
        if self._said:
            how = f"; {self._said}"
        return show.line(f"{self._agent}: attached, Ctrl-] detaches{how}")

    def turn(self, keys: str | None) -> None:
        """Pass on keys (None: our terminal is gone) and look again."""
        if keys is None:
            self.taken = False
            return
        before, detach, _ = keys.partition(DETACH)
        self.taken = not detach
        self.pause_s = ECHO_S if before else LOOK_S
        try:
            if before:
                self._said = ""
                _type(self._hub, self._agent, before, enter=False)
            if self.taken and not before:
                self.screen = look(self._hub, self._agent)
            if self._away_since is not None:
                self._away_since, self._said = None, ""
        except CommandError as error:
            self._bear(error)

    def _bear(self, error: CommandError) -> None:
        """Say what is wrong in the headline, and go on; give up when the hub stays away."""
        self._said = str(error)
        refused = isinstance(error, Refused) and error.status < 500
        if refused or error.code != UNREACHABLE:
            return
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        if now - self._away_since > PATIENCE_S:
            raise error
