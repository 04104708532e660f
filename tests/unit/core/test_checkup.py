"""What the doctor thinks of a machine, from bare facts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from midwatch.core.checkup import (
    HostFacts,
    held,
    host,
    is_full,
    key,
    keys,
    passed_on,
    trusted,
    verdict,
)  # fmt: skip
from midwatch.core.fleet import Fleet
from midwatch.core.models import Models

CGROUPS = {"memory": "cgroup", "processes": "cgroup", "cpu_weight": "cgroup", "open_files": "rlimit", "disk": "rlimit"}  # fmt: skip
GOOD = HostFacts(
    system="Linux", release="6.8", full=True, delegation="cgroup v2 at /x", held_by=CGROUPS, walls=None,
    files=65_536, disk_free=100 * 2**30, memory_free=8 * 2**30, now=1_800_000_000.0,
)  # fmt: skip


def levels(facts: HostFacts) -> dict[str, str]:
    return {check.name: check.level for check in host(facts)}


def test_a_good_machine_has_nothing_to_do() -> None:
    checks = list(host(GOOD))
    assert {check.level for check in checks} == {"ok"}
    assert not any(check.do for check in checks)
    assert verdict(checks) == "all is well"


@pytest.mark.parametrize(
    ("changed", "name", "level"),
    [
        ({"full": False}, "system", "warn"),
        ({"system": "Darwin", "full": False}, "system", "warn"),
        ({"held_by": {**CGROUPS, "memory": "sampling"}}, "limits", "warn"),
        ({"held_by": {**CGROUPS, "disk": "nothing: no quota"}}, "limits", "warn"),
        ({"walls": "bwrap is missing"}, "sandbox", "ok"),
        ({"walls": "bwrap is missing", "sandboxed": ["a"]}, "sandbox", "warn"),
        ({"files": 1024}, "open files", "warn"),
        ({"disk_free": 100 * 2**20}, "disk", "bad"),
        ({"disk_free": 2**30}, "disk", "warn"),
        ({"memory_free": 2**20}, "memory", "warn"),
        ({"now": 1000.0}, "clock", "bad"),
        ({"zones": False}, "time zones", "bad"),
        ({"lingers": False}, "lingering", "warn"),
        ({"hides": True}, "hidden processes", "ok"),
        ({"hides": True, "held_by": {"memory": "sampling"}}, "hidden processes", "warn"),
    ],
    ids=range(15),
)
def test_each_weakness_is_told_with_what_to_do(
    changed: dict[str, object], name: str, level: str
) -> None:
    checks = {check.name: check for check in host(replace(GOOD, **changed))}  # pyright: ignore[reportArgumentType]
    assert checks[name].level == level
    assert bool(checks[name].do) == (level != "ok")


def test_what_is_not_told_is_not_judged() -> None:
    assert levels(replace(GOOD, files=None, disk_free=None, memory_free=None)).keys() == {
        "system", "limits", "sandbox", "time zones",
    }  # fmt: skip


def test_limits_are_grouped_by_what_holds_them() -> None:
    assert held(CGROUPS) == "memory, processes, cpu weight by cgroup; open files, disk by rlimit"
    assert is_full(CGROUPS)
    assert not is_full({**CGROUPS, "memory": "sampling"})


def test_limits_that_no_instance_has_told_are_what_one_would_have() -> None:
    told = {c.name: c.text for c in host(GOOD)}["limits"]
    expected = {c.name: c.text for c in host(replace(GOOD, expected=True))}["limits"]
    assert "would" not in told
    assert expected == f"an instance started here would have {told}"


MODELS = Models.model_validate(
    {
        "providers": {
            "openai": {"keys": [{"name": "a", "from": "env:KEY"}, {"from": "file:/run/k"}]},
            "bare": {},
        }
    }
)


def test_references_of_keys_are_found() -> None:
    assert list(keys(MODELS)) == [
        ("models.providers.openai", "env:KEY"),
        ("models.providers.openai", "file:/run/k"),
    ]


def test_a_key_is_named_and_never_shown() -> None:
    assert key("w", "env:KEY", there=True).level == "ok"
    missing = key("w", "env:KEY", there=False)
    assert missing.level == "warn"  # a service has an environment of its own
    assert missing.do.startswith("export KEY before midwatch up; for a service")
    assert key("w", "file:/k", there=False).level == "bad"
    assert key("w", "file:/k", there=True, private=False).do == "chmod 600 /k"
    leaked = key("w", "sk-proj-secret", there=False)
    assert leaked.level == "bad"
    assert "secret" not in leaked.text + leaked.do


FLEET = Fleet.model_validate(
    {
        "agents": {
            "open": {"command": ["x"]},
            "shut": {"command": ["x"], "sandbox": {"env": ["TAVILY_*"]}},
            "away": {"external": True},
        }
    }
)


def test_a_key_that_agents_inherit_is_warned_of_with_their_names() -> None:
    (cloud, tavily) = passed_on(FLEET, ["TAVILY_API_KEY", "HF_TOKEN", "OPENAI_API_KEY", "TZ"])
    assert (cloud.name, cloud.level) == ("HF_TOKEN", "warn")
    assert cloud.text.startswith("it is passed on to open: it also opens model providers")
    assert tavily.text.startswith("it is passed on to open, shut, whose calls")
    assert "models.providers" in tavily.do
    walled = Fleet.model_validate({"agents": {"shut": {"command": ["x"], "sandbox": {"env": []}}}})
    assert list(passed_on(walled, ["TAVILY_API_KEY"])) == []


def test_who_has_no_walls_is_said_to_be_trusted() -> None:
    (one,) = trusted(FLEET)
    assert (one.level, one.do) == ("ok", "")
    assert one.text.startswith("no sandbox: open may read whatever you may, files with keys")
    walled = Fleet.model_validate({"agents": {"shut": {"command": ["x"], "sandbox": {}}}})
    assert list(trusted(walled)) == []
