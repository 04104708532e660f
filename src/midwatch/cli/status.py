"""What the fleet does, one sentence per agent."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, Refused, path_of, record, records, texts
from midwatch.cli.exits import BAD, USAGE, CommandError
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url
from midwatch.core.nearest import did_you_mean

RUNS_SHOWN: Final = 5
"""Last runs of a scheduled agent."""

_BAD_STATES: Final = frozenset({"parked", "unhealthy", "lost"})


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status")(status)


def status(
    agent: Annotated[
        str | None, typer.Argument(help="One agent, in detail.", show_default=False)
    ] = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also say what holds agents to their limits.")
    ] = False,
) -> None:
    """Say what each agent did last, what is wrong, and what was done about it.

    With the name of an agent: that one in detail; the exit code is 1 when it is parked, unhealthy
    or lost.
    """
    hub = Hub(find(data, url))
    if agent is not None:
        raise typer.Exit(_one(hub, agent, as_json))
    agents = list(hub.items("/api/agents"))
    whole = record(hub.get("/api/fleet"))
    if as_json:
        show.document({"fleet": whole.get("fleet"), "agents": agents})
        return
    if not agents:
        show.out("No agent is known yet.")
        return
    rows = [_row(entry) for entry in agents]
    show.columns(rows, [show.state_colour(row[1]) for row in rows])
    _tell_incidents(whole.get("open_incidents"))
    _tell_gateway(hub)
    if verbose:
        _tell_limits(hub)


def _row(agent: dict[str, Any]) -> tuple[str, str, str]:
    return (
        show.line(agent.get("agent", "?"))[:64],
        show.line(agent.get("state", "?"))[:20],
        show.line(agent.get("sentence") or ""),
    )


def _tell_incidents(count: object) -> None:
    if isinstance(count, int) and count > 0:
        what = "1 incident is" if count == 1 else f"{count} incidents are"
        show.out(show.paint(f"\n{what} open; see: midwatch incidents", "bold"))


def _tell_gateway(hub: Hub) -> None:
    """Say in a line how the gateway is, and in one each what is wrong and whose calls go past it."""
    from midwatch.cli.gateway import standing

    found = standing(hub)
    if found is None:
        return
    if isinstance(found, str):
        show.out(show.paint(f"\ngateway: {show.line(found)}", "yellow"))
        return
    colour = None if found.well else "yellow"
    show.out(show.paint(f"\ngateway: {show.line(found.headline)}", colour))
    for trouble in (*found.troubles, *found.past):
        show.out(f"  {show.line(trouble)}")


def _tell_limits(hub: Hub) -> None:
    """Say in one line which limits the operating system enforces, and which are looked after."""
    from midwatch.cli.instance import limits_of
    from midwatch.core.checkup import held

    data = hub.instance.data
    limits = limits_of(data) if data is not None else None
    if limits is not None:
        show.out(show.line(f"limits: {held(limits[1])} ({limits[0]})"))


def get_agent(hub: Hub, name: str) -> dict[str, Any]:
    """Return one agent. Raises CommandError with the nearest name when there is none."""
    try:
        agent = record(hub.get(path_of("agents", name)))
    except Refused as refused:
        if refused.status != 404:
            raise
        raise unknown(hub, name) from None
    if "agent" not in agent:
        raise hub.foreign("an agent without a name")
    return agent


def unknown(hub: Hub, name: str) -> CommandError:
    """Return the error for a name that no agent has."""
    names = [str(agent.get("agent")) for agent in hub.items("/api/agents")]
    known = f"; known: {', '.join(names[:20])}" if names else ""
    return CommandError(f"there is no agent {name!r}{did_you_mean(name, names) or known}", USAGE)


def _one(hub: Hub, name: str, as_json: bool) -> int:
    agent = get_agent(hub, name)
    if as_json:
        show.document(agent)
    else:
        _print_agent(agent, _last_runs(hub, name) if agent.get("schedule") else [])
    return BAD if agent.get("state") in _BAD_STATES else 0


_USES: Final = {
    "open_files": "{} open files",
    "children": "{} child processes",
    "threads": "{} threads",
}


def _last_runs(hub: Hub, name: str) -> list[dict[str, Any]]:
    return records(record(hub.get("/api/runs", agent=name, limit=RUNS_SHOWN)).get("items"))


def _print_runs(runs: list[dict[str, Any]]) -> None:
    for run in runs:
        how = run.get("reason") or run.get("end") if run.get("ended_at") else "running"
        show.out(f"run {show.moment(run.get('started_at'))}: {show.line(how or '?')[:200]}")


def _print_agent(agent: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    name, sentence = show.line(agent.get("agent", "?")), show.line(agent.get("sentence") or "")
    show.out(show.paint(f"{name}: {sentence}".removesuffix(": "), "bold"))
    today = record(agent.get("today"))
    resources = record(agent.get("resources"))
    rows: list[tuple[str, str]] = [
        ("state", f"{show.line(agent.get('state', '?'))} since {show.moment(agent.get('since'))}"),
        ("group", _text(agent.get("group"))),
        ("node", _text(agent.get("node"))),
        ("run", _text(agent.get("run_id"))),
        ("version", _version(record(agent.get("version")))),
        ("pid", _text(agent.get("pid"))),
        *_schedule(record(agent.get("schedule"))),
        ("last beat", show.moment(agent.get("last_beat"))),
        ("today", _listed(today, cost_usd="${:,.2f}", cycles="{} cycles", restarts="{} restarts")),
        ("memory", _size(resources.get("rss_bytes"))),
        ("uses", _listed(resources, **_USES)),
    ]
    show.columns([row for row in rows if row[1] not in ("", "-")])
    for sentence in texts(agent.get("drift")):
        show.out(f"{show.paint('drift', 'yellow')}: {show.line(sentence)}")
    if unwalled := agent.get("unwalled"):
        show.out(f"{show.paint('no walls', 'yellow')}: {show.line(unwalled)}")
    if unmeasured := agent.get("unmeasured"):
        show.out(f"{show.paint('limit held late', 'yellow')}: {show.line(unmeasured)}")
    _print_runs(runs)
    for incident in records(agent.get("incidents")):
        severity = show.line(incident.get("severity", ""))
        sentence = show.line(incident.get("sentence", ""))
        show.out(f"{show.paint(severity, 'red')}: {sentence} ({show.line(incident.get('id', ''))})")


def _schedule(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rule and the next run, on the schedule's own clock."""
    if not plan:
        return []
    zone = show.line(plan.get("timezone") or "")
    following = plan.get("next")
    return [
        ("schedule", f"{show.line(plan.get('rule') or '')[:200]} ({zone})"),
        ("next run", f"{show.line(following)} {zone}" if following else "none, as things are"),
    ]


def _version(version: dict[str, Any]) -> str:
    """Return `4f1c2d3e5a6b on main, changed files; configuration 12ab…`, as far as it is known."""
    revision = record(version.get("revision"))
    parts: list[str] = []
    if commit := revision.get("commit"):
        branch = revision.get("branch")
        parts.append(show.line(commit)[:12] + (f" on {show.line(branch)}" if branch else ""))
        if revision.get("dirty") is True:
            parts.append("changed files")
    if configuration := version.get("configuration"):
        parts.append(f"configuration {show.line(configuration)[:16]}")
    return ", ".join(parts)


def _text(value: object) -> str:
    return "-" if value is None else show.line(value)[:200]


def _size(value: object) -> str:
    from midwatch.core.units import show_size

    return show_size(value) if isinstance(value, int | float) else "-"


def _listed(part: dict[str, Any], **forms: str) -> str:
    """Return the numbers that are known, in words; no data is left out, not shown as 0."""
    known = {name: part.get(name) for name in forms}
    return ", ".join(
        forms[name].format(value)
        for name, value in known.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    )
