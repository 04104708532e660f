"""Change as a person sees it: reload, act on groups, versions and drift, over a whole instance."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from midwatch.drills.instance import Instance

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
DEADLINE_S = 30


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    folder = tmp_path_factory.mktemp("change")
    git = folder / ".git"
    (git / "refs/heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "refs/heads/main").write_text("a" * 40 + "\n")
    limits = {"limits": {"stop_grace": "2s"}}
    agents = {
        "inbox": {"command": SLEEP, "group": "support", **limits},
        "web": {"command": SLEEP, "group": "site", "instances": 2, **limits},
    }
    with Instance(folder, agents) as one:
        # each test may be the first one here
        assert one.wait(lambda: len(known := pids(one)) == 3 and all(known.values()), DEADLINE_S)
        yield one


def change(instance: Instance, **agents: Any) -> None:
    """Write the fleet file with other agents; None takes one out."""
    document = yaml.safe_load(instance.file.read_text())
    for name, entry in agents.items():
        if entry is None:
            del document["agents"][name]
        else:
            document["agents"][name] = {**document["agents"].get(name, {"command": SLEEP}), **entry}
    instance.file.write_text(yaml.safe_dump(document, sort_keys=False))


def pids(instance: Instance) -> dict[str, int]:
    return {a["agent"]: a["pid"] for a in instance.get("/api/agents")["items"]}


def test_versions_and_drift_are_shown(instance: Instance, midwatch: Callable[..., Any]) -> None:
    def inbox() -> Any:
        return instance.get("/api/agents/inbox")

    assert instance.wait(lambda: inbox()["state"] == "running", DEADLINE_S)
    # no start waits for git: the revision is told a moment after the run
    assert instance.wait(lambda: inbox()["version"]["revision"] is not None, DEADLINE_S)
    version = inbox()["version"]
    assert version["revision"]["commit"] == "a" * 40
    assert instance.wait(lambda: instance.get("/api/runs?agent=inbox&limit=1")["items"], DEADLINE_S)
    (run,) = instance.get("/api/runs?agent=inbox&limit=1")["items"]
    assert run["configuration"] == version["configuration"]
    assert run["environment"] == version["environment"]
    assert run["command"] == SLEEP
    assert inbox()["drift"] == []
    (instance.directory / ".git/refs/heads/main").write_text("b" * 40 + "\n")
    change(instance, inbox={"env": {"A": "3"}})
    assert instance.wait(lambda: len(inbox()["drift"]) == 2, DEADLINE_S)
    shown = midwatch("status", "inbox", "--data", instance.data).out
    assert (
        "drift: the fleet file says otherwise: env changed; midwatch reload takes it over" in shown
    )
    assert "drift: its code moved from aaaaaaaaaaaa to bbbbbbbbbbbb since it was started" in shown
    assert "aaaaaaaaaaaa on main" in shown
    midwatch("reload", "--data", instance.data)
    assert instance.wait(lambda: inbox()["drift"] == [], DEADLINE_S)
    known = lambda: (inbox()["version"]["revision"] or {}).get("commit")  # noqa: E731
    assert instance.wait(lambda: known() == "b" * 40, DEADLINE_S)


def test_a_reload_restarts_what_changed_and_says_so(
    instance: Instance, midwatch: Callable[..., Any]
) -> None:
    assert instance.wait(lambda: all(pids(instance).get(n) for n in ("inbox", "web.1")), DEADLINE_S)
    before = pids(instance)
    change(instance, inbox={"env": {"A": "5"}}, web={"budget": {"per_day": "$3"}}, new={})
    said = midwatch("reload", "--data", instance.data, "-f", instance.file)
    assert (said.code, said.err) == (0, "")
    assert sorted(said.out.splitlines()) == [
        "inbox: restarted (env changed)",
        "new: started",
        "web.1: applied without a restart (budget.per_day changed)",
        "web.2: applied without a restart (budget.per_day changed)",
    ]
    assert instance.wait(
        lambda: pids(instance).get("inbox") not in (None, before["inbox"]), DEADLINE_S
    )
    after = pids(instance)
    assert (after["web.1"], after["web.2"]) == (before["web.1"], before["web.2"])
    # the hub judges by the new file at once, and no restart of ours is a failure
    assert instance.get("/api/agents/web.1")["today"]["budget_usd"] == 3
    assert instance.incidents() == []
    again = midwatch("reload", "--data", instance.data, "--json")
    assert {item["result"] for item in json.loads(again.out)["agents"]} == {"unchanged"}
    change(instance, new=None)
    assert midwatch("reload", "--data", instance.data).out.startswith("new: stopped and removed\n")
    assert instance.wait(lambda: "new" not in pids(instance), DEADLINE_S)


def test_a_file_with_problems_is_refused_with_all_of_them(
    instance: Instance, midwatch: Callable[..., Any]
) -> None:
    whole, before = instance.file.read_text(), pids(instance)
    instance.file.write_text(whole.replace("group: support", "gruop: support") + "extra: 1\n")
    said = midwatch("reload", "--data", instance.data)
    assert (said.code, said.out) == (2, "")
    assert f"{instance.file}:" in said.err
    assert "did you mean 'group'" in said.err
    assert "extra" in said.err
    assert "2 problems" in said.err
    instance.file.write_text(whole)
    assert pids(instance) == before
    other = midwatch("reload", "--data", instance.data, "-f", instance.directory / "other.yaml")
    assert (other.code, str(instance.file) in other.err) == (2, True)


def test_groups_and_patterns_are_acted_on_together(
    instance: Instance, midwatch: Callable[..., Any]
) -> None:
    stopped = midwatch("stop", "group:site", "--data", instance.data, "--json")
    assert [(i["agent"], i["state"]) for i in json.loads(stopped.out)] == [
        ("web.1", "stopped"),
        ("web.2", "stopped"),
    ]
    started = midwatch("start", "we*.1", "web", "--data", instance.data, "--json")
    assert {i["agent"] for i in json.loads(started.out)} == {"web.1", "web.2"}
    nobody = midwatch("stop", "group:sight", "zz*", "--data", instance.data)
    assert nobody.code == 2
    assert "did you mean 'site'" in nobody.err
    assert "zz*" in nobody.err


def test_what_a_person_stopped_stays_so_when_its_entry_changes(
    instance: Instance, midwatch: Callable[..., Any]
) -> None:
    midwatch("stop", "inbox", "--data", instance.data)
    change(instance, inbox={"env": {"A": "2"}})
    said = midwatch("reload", "--data", instance.data)
    assert "inbox: stays stopped (env changed)" in said.out
    assert midwatch("start", "inbox", "--data", instance.data).code == 0


def test_only_an_admin_may_reload(instance: Instance, client_of: Callable[..., Any]) -> None:
    token = subprocess.run(
        [Path(sys.executable).with_name("midwatch"), "token", "create", "actor", "--scope", "act",
         "--data", str(instance.data)],
        capture_output=True, text=True, timeout=30, check=True,
    ).stdout.strip()  # fmt: skip
    assert client_of(instance, token).post("/api/reload").status == 403
    assert client_of(instance).post("/api/reload").status == 200
