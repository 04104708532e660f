"""Orders to agents, given and answered; knows nothing of how they are typed (`act`, `quick`)."""

from __future__ import annotations

from midwatch.cli.client import Hub, Refused, path_of, records
from midwatch.cli.exits import DONE, CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

AT_ONCE: Final = 16
"""Agents that are asked side by side: each answers when its run has ended."""


def is_plain(word: str) -> bool:
    """Tell whether a word is a name and cannot be a pattern or a group; told without loading what reads those."""
    return not set(word) & set(":*?[")


def act(
    verb: str, words: list[str], hub: Hub, as_json: bool, groups: list[str] | None = None
) -> int:
    """Order it for each agent that is meant; print what came of it, and what failed after the rest. Return the exit
    code."""
    if groups or not all(map(is_plain, words)):
        agents, failed = _chosen(words, groups or [], hub)
    else:  # a plain name is not looked up first: the kill switch takes one request, not two
        agents, failed = list(dict.fromkeys(words)), list[CommandError]()
    done: list[dict[str, Any]] = []
    for answer in _answers(verb, agents, hub):
        if isinstance(answer, CommandError):
            failed.append(answer)
        else:
            done += answer
    from midwatch.cli import show  # what was ordered is done; now it may take its time to say so

    if as_json:
        show.document(done)
    else:
        for item in done:
            _print(verb, item)
    for error in failed:
        show.complain(str(error))
    return max((error.code for error in failed), default=DONE)


def _answers(verb: str, agents: list[str], hub: Hub) -> list[list[dict[str, Any]] | CommandError]:
    if len(agents) == 1:  # the usual case waits for no threads to be loaded
        return [_order(hub, verb, agents[0])]
    from concurrent.futures import ThreadPoolExecutor
    from functools import partial

    with ThreadPoolExecutor(min(AT_ONCE, max(1, len(agents)))) as pool:
        return list(pool.map(partial(_order, hub, verb), agents))


def _chosen(words: list[str], groups: list[str], hub: Hub) -> tuple[list[str], list[CommandError]]:
    """Return the agents that are meant, each once, and an error for each word that means none."""
    from midwatch.core.selection import NoneSelected, is_pattern, of_group, select

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
    from midwatch.core.selection import NoneSelected, select

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
    from midwatch.cli import show

    agent, result = show.line(item.get("agent", "?")), show.line(item.get("result", ""))
    state = show.line(item.get("state", ""))
    receipt = f"{agent}: {result}"
    if verb == "kill":
        at = show.moment(item.get("at"))
        receipt += f", state {state}" + (f", at {at}" if at != "-" else "")
    elif state and state not in result:
        receipt += f" ({show.state(state)})"
    show.out(receipt)
