"""Orders to agents: start, stop, restart, suspend, resume, kill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, Refused, path_of, records
from midwatch.cli.exits import CommandError
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url
from midwatch.cli.status import unknown

_PAGES: Final = {
    "start": "Start agents that are stopped, parked or between two runs.",
    "stop": """Stop agents: ask them to end, and kill them when their `stop_grace` is over.

They stay stopped until `midwatch start`, also when Midwatch is started again.""",
    "restart": "Stop agents and start them again.",
    "suspend": """Suspend agents until they are resumed.

As long as no gateway carries their model calls, this stops the process, so that nothing is spent.""",
    "resume": "Resume agents that were suspended, by a person or by a detector.",
    "kill": """Kill agents at once, and everything that they started: the kill switch.

No grace, nothing is asked. Prints a receipt; they stay stopped until `midwatch start`.""",
}


def add(app: typer.Typer) -> None:
    """Add the six commands."""
    for verb, page in _PAGES.items():
        app.command(verb, help=page)(_command(verb))


def _command(verb: str) -> Callable[..., None]:
    def command(
        agents: Annotated[list[str], typer.Argument(metavar="AGENT", help="Agents, by name.")],
        data: Data = None,
        url: Url = None,
        as_json: Json = False,
    ) -> None:
        act(verb, agents, Hub(find(data, url)), as_json)

    command.__name__ = verb
    return command


def act(verb: str, agents: list[str], hub: Hub, as_json: bool) -> None:
    """Order it for each agent; print what came of it. What fails is told after the others are done."""
    done: list[dict[str, Any]] = []
    failed: list[CommandError] = []
    for agent in dict.fromkeys(agents):
        try:
            answer = hub.post(path_of("agents", agent, verb))
        except Refused as refused:
            failed.append(unknown(hub, agent) if refused.status == 404 else refused)
            continue
        receipts = records(answer)
        if not receipts:
            raise hub.foreign(f"no receipt for '{verb} {agent}'")
        done += receipts
    if as_json:
        show.document(done)
    else:
        for item in done:
            _print(verb, item)
    if failed:
        for error in failed:
            show.complain(str(error))
        raise typer.Exit(max(error.code for error in failed))


def _print(verb: str, item: dict[str, Any]) -> None:
    agent, result = show.line(item.get("agent", "?")), show.line(item.get("result", ""))
    state = show.line(item.get("state", ""))
    receipt = f"{agent}: {result}"
    if verb == "kill":
        at = show.moment(item.get("at"))
        receipt += f", state {state}" + (f", at {at}" if at != "-" else "")
    elif state and state not in result:
        receipt += f" ({show.state(state)})"
    show.out(receipt)
