"""What each of the instance's own servers is started with: hub, gateway, rehearsal.

Of providers' keys the gateway has all, the others none; in a rehearsal nobody has any. They stand in no
environment: the gateway asks for them when nobody but root can look into it any more (`wire.sealed`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from midwatch.core.calls.variables import kept_back, of_hub, unused
from midwatch.core.fleet import Fleet
from midwatch.supervisor import environment
from midwatch.supervisor.address import Address
from midwatch.supervisor.post import Plan

if TYPE_CHECKING:
    from midwatch.supervisor.supervisor import Plans

_LEDGER: Final = "env:"


def plans(where: Plans, data: Path, fleet: Fleet, inherited: Mapping[str, str]) -> Iterator[Plan]:
    """Yield how each server is started, in the order in which they are."""
    kept = kept_back(fleet)
    bare = environment.without(kept, inherited)
    if where.rehearsal is not None:
        kept = frozenset({(fleet.gateway.ledger or "").removeprefix(_LEDGER)})
    own_of_hub = of_hub(fleet)
    secrets = {name: inherited[name] for name in sorted((kept - own_of_hub) & inherited.keys())}
    own = ("--data", str(data))
    if where.hub is not None:
        its = {**bare, **{name: inherited[name] for name in own_of_hub & inherited.keys()}}
        yield _plan(
            "hub", "midwatch.hub", where.hub, (*own, "--node", where.node), data, fleet, its
        )
    if where.gateway is not None:
        model = ("--rehearsal", where.rehearsal.url) if where.rehearsal else ()
        told = ("--hub", where.hub_url, "--node", where.node) if where.hub is not None else ()
        options = (*own, *model, *told)
        plan = _plan("gateway", "midwatch.gateway", where.gateway, options, data, fleet, bare)
        yield replace(plan, secrets=secrets)
    if where.rehearsal is not None:
        yield _plan(
            "rehearsal", "midwatch.drills.rehearsal", where.rehearsal, (), data, fleet, bare
        )


def notes(where: Plans, fleet: Fleet, inherited: Mapping[str, str]) -> list[str]:
    """Return what a person should know of keys that agents do not find any more."""
    names = unused(fleet, inherited)
    if where.gateway is None or where.rehearsal is not None or not names:
        return []
    return [
        f"{', '.join(names)}: kept from agents, and no provider of the gateway takes it; name one under"
        " models.providers, or set the variable in the agent's env, whose calls then go past the gateway"
    ]


def _plan(
    name: str,
    module: str,
    address: Address,
    options: tuple[str, ...],
    data: Path,
    fleet: Fleet,
    inherited: Mapping[str, str],
) -> Plan:
    env = {
        **inherited,
        "PYTHONUNBUFFERED": "1",
        "MIDWATCH_SPOOL": str(data / "spool" / name),
    }
    command = (sys.executable, "-m", module, "--listen", str(address), *options)
    return Plan(name, command, address.url, env, fleet.root, echo=name == "hub")
