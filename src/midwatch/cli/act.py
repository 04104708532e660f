"""Orders to agents: start, stop, restart, suspend, resume, kill."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any, Final

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, Refused, path_of, records
from midwatch.cli.exits import CommandError
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url
from midwatch.core.selection import NoneSelected, is_pattern, of_group, select

AT_ONCE: Final = 16
"""Agents that are asked side by side: each answers when its run has ended."""

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
        act(verb, agents or [], Hub(find(data, url)), as_json, groups=group or [])

    command.__name__ = verb
    return command


def act(
    verb: str, words: list[str], hub: Hub, as_json: bool, groups: list[str] | None = None
) -> None:
    """Order it for each agent that is meant; print what came of it, and what failed after the rest."""
    agents, failed = _chosen(words, groups or [], hub)
    done: list[dict[str, Any]] = []
    with ThreadPoolExecutor(min(AT_ONCE, max(1, len(agents)))) as pool:
        for answer in pool.map(partial(_order, hub, verb), agents):
            if isinstance(answer, CommandError):
                failed.append(answer)
            else:
                done += answer
    if as_json:
        show.document(done)
    else:
        for item in done:
            _print(verb, item)
    if failed:
        for error in failed:
            show.complain(str(error))
        raise typer.Exit(max(error.code for error in failed))


def _chosen(words: list[str], groups: list[str], hub: Hub) -> tuple[list[str], list[CommandError]]:
    """Return the agents that are meant, each once, and an error for each word that means none.

    A plain name is not looked up first: the kill switch takes one request, not two.
    """
    known: dict[str, str | None] = {}
    if groups or any(is_pattern(word) for word in words):
        known = _known(hub)
    chosen: dict[str, None] = {}
    failed: list[CommandError] = []
    for word, look in [*((w, select) for w in words), *((g, of_group) for g in groups)]:
        if look is select and not is_pattern(word):
            chosen[word] = None
            continue
        try:
            chosen |= dict.fromkeys(look(word, known))
        except NoneSelected as error:
            failed.append(CommandError(str(error)))
    return list(chosen), failed


def _known(hub: Hub) -> dict[str, str | None]:
    return {
        str(agent.get("agent")): group if isinstance(group := agent.get("group"), str) else None
        for agent in hub.items("/api/agents")
    }


def _order(
    hub: Hub, verb: str, agent: str, *, name: bool = False
) -> list[dict[str, Any]] | CommandError:
    """Return the receipts of one agent, or of all instances of that name; or what went wrong."""
    try:
        receipts = records(hub.post(path_of("agents", agent, verb)))
        return receipts or hub.foreign(f"no receipt for '{verb} {agent}'")
    except CommandError as error:
        if name or not (isinstance(error, Refused) and error.status == 404):
            return error
    done: list[dict[str, Any]] = []
    try:
        for instance in select(agent, _known(hub)):
            answer = _order(hub, verb, instance, name=True)
            if isinstance(answer, CommandError):
                return answer
            done += answer
    except NoneSelected as error:
        return CommandError(str(error))
    except CommandError as error:
        return error
    return done


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
