"""Orders to agents: start, stop, restart, suspend, resume, kill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import typer

from midwatch.cli.client import Hub
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url
from midwatch.cli.orders import act

_WHO: Final = """

An AGENT is a name, `group:NAME`, or a pattern such as `'web.*'`, quoted against the shell."""

_PAGES: Final = {
    "start": "Start agents that are stopped, parked or between two runs.",
    "stop": """Stop agents: ask them to end, and kill them when their `stop_grace` is over.

They stay stopped until `midwatch start`, also when Midwatch is started again.""",
    "restart": "Stop agents and start them again.",
    "suspend": """Suspend agents until they are resumed.

The gateway refuses their model calls from now on; their processes are left, and are not judged meanwhile.
One that ends is not started again. Where that would not stop the calls (the agent has a provider's key of its
own, or the gateway does not answer) the process is stopped, and the answer says so.""",
    "resume": """Resume agents that were suspended, by a person, a detector or the gateway.

Their calls are let through again; who has no process any more is started.""",
    "kill": """Kill agents at once, and everything that they started: the kill switch.

The gateway cuts their model calls and refuses new ones, then the processes die. No grace, nothing is asked.
Prints a receipt; they stay stopped until `midwatch start`.""",
}


def add(app: typer.Typer) -> None:
    """Add the six commands."""
    for verb, page in _PAGES.items():
        app.command(verb, help=page + _WHO)(_command(verb))


def _command(verb: str) -> Callable[..., None]:
    def command(
        agents: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="AGENT", help="Agents: by name, group or pattern.", show_default=False
            ),
        ] = None,
        group: Annotated[
            list[str] | None,
            typer.Option(
                "--group", "-g", metavar="NAME", help="All agents of a group.", show_default=False
            ),
        ] = None,
        data: Data = None,
        url: Url = None,
        as_json: Json = False,
    ) -> None:
        if not agents and not group:
            raise typer.BadParameter("name an agent, a group:NAME or a pattern", param_hint="AGENT")
        code = act(verb, agents or [], Hub(find(data, url)), as_json, groups=group or [])
        if code:
            raise typer.Exit(code)

    command.__name__ = verb
    return command
