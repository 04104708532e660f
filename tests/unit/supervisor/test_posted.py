"""What hub, gateway and rehearsal are started with: who gets which keys, and by which way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from midwatch.core.fleet import Fleet
from midwatch.core.fleetfile.reader import RESERVED
from midwatch.supervisor.address import Address
from midwatch.supervisor.post import Plan
from midwatch.supervisor.posted import notes, plans
from midwatch.supervisor.supervisor import Plans

DATA = Path("/data")
INHERITED = {
    "PATH": "/bin", "OPENAI_API_KEY": "sk-o", "TEAM_KEY": "sk-t", "LEDGER": "postgresql://l",
    "GROQ_API_KEY": "gsk", "MIDWATCH_TOKEN": "mwt", "NOTIFY_SOCKET": "/s",
}  # fmt: skip
TEAM = {"providers": {"mine": {"base_url": "https://m/v1", "keys": [{"from": "env:TEAM_KEY"}]}}}


def _where(*, rehearsal: bool = False) -> Plans:
    def at(port: int) -> Address:
        return Address("127.0.0.1", port)

    return Plans("here", at(1), at(2), at(3) if rehearsal else None)


def _plans(*, rehearsal: bool = False, **fleet: Any) -> dict[str, Plan]:
    whole = Fleet.model_validate({"agents": {}, "gateway": {"ledger": "env:LEDGER"}, **fleet})
    return {p.name: p for p in plans(_where(rehearsal=rehearsal), DATA, whole, INHERITED)}


def test_no_post_finds_a_key_in_its_environment_and_the_gateway_is_handed_all_of_them() -> None:
    found = _plans(models=TEAM)
    assert list(found) == ["hub", "gateway"]
    assert found["gateway"].secrets == {
        "OPENAI_API_KEY": "sk-o", "TEAM_KEY": "sk-t", "LEDGER": "postgresql://l", "GROQ_API_KEY": "gsk",
    }  # fmt: skip
    assert found["hub"].secrets == {}
    for plan in found.values():
        assert plan.env.keys() - {"PYTHONUNBUFFERED", "MIDWATCH_SPOOL"} == {"PATH"}
        assert "sk-" not in repr(plan)


def test_the_hub_alone_finds_the_addresses_of_its_stores() -> None:
    found = _plans(
        models=TEAM, hub={"stores": {"state": "env:LEDGER", "telemetry": "env:TEAM_KEY"}}
    )
    assert {n: v for n, v in found["hub"].env.items() if n in INHERITED} == {
        "PATH": "/bin", "LEDGER": "postgresql://l", "TEAM_KEY": "sk-t",
    }  # fmt: skip
    assert not {"LEDGER", "TEAM_KEY"} & found["gateway"].env.keys()


def test_in_a_rehearsal_the_gateway_gets_its_ledger_and_no_key() -> None:
    found = _plans(models=TEAM, rehearsal=True)
    assert list(found) == ["hub", "gateway", "rehearsal"]
    assert found["gateway"].secrets == {"LEDGER": "postgresql://l"}
    assert "OPENAI_API_KEY" not in found["gateway"].env
    assert found["gateway"].command[-6:-4] == ("--rehearsal", "http://127.0.0.1:3")
    assert _plans(gateway={"ledger": None}, rehearsal=True)["gateway"].secrets == {}


@pytest.mark.parametrize("rehearsal", [False, True])
def test_a_key_that_nobody_takes_is_told_of_unless_nothing_is_spent(rehearsal: bool) -> None:
    told = notes(_where(rehearsal=rehearsal), Fleet.model_validate({"agents": {}}), INHERITED)
    assert [note.split(":")[0] for note in told] == ([] if rehearsal else ["GROQ_API_KEY"])
    assert notes(Plans("here"), Fleet.model_validate({"agents": {}}), INHERITED) == []


def test_no_agent_is_called_like_a_post_and_shares_its_spool() -> None:
    found = _plans(rehearsal=True)
    assert len(found) == 3
    assert found.keys() <= RESERVED
