"""Whose calls go past the gateway, by what the fleet file gives its agents: notes, at the line that says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from midwatch.core.calls.variables import past
from midwatch.core.errors import Problem
from midwatch.core.fleet import Agent
from midwatch.core.fleetfile.document import show_path
from midwatch.core.fleetfile.reader import FleetFile


def call_notes(
    source: FleetFile, from_file: Callable[[str, Agent], Mapping[str, str]]
) -> list[Problem]:
    """Return a note for each agent and provider. `from_file(name, agent)` returns an env file's variables."""
    url = f"http://{source.fleet.gateway.listen}"
    notes: list[Problem] = []
    for name, agent in source.fleet.agents.items():
        if agent.external:
            continue
        for one in past(name, {**from_file(name, agent), **agent.env}, url):
            ways = (
                ("agents", name, "env", one.variable),
                ("defaults", "env", one.variable),
                ("agents", name, "env_file"),
                ("defaults", "env_file"),
            )
            path = next((way for way in ways if way in source.document.places), ("agents", name))
            place = source.document.place(path)
            notes.append(Problem(place.line, place.column, show_path(path), one.sentence))
    return notes
