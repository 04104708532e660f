"""Which sub-agent a process is, where nobody but itself says so, and what it may start in turn."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import midwatch as mw
from midwatch.sdk import lineage, runtime
from midwatch.sdk.lineage import find, identify, own_name
from midwatch.sdk.settings import Settings
from midwatch.sdk.testing import MemoryNotifier, MemoryTransport, Recording
from midwatch.wire.notify import MAX_DEPTH

MADE = {
    "MIDWATCH_AGENT": "inbox",
    "MIDWATCH_RUN_ID": "run-1",
    "MIDWATCH_SPOOL": "/spool/inbox",
    "NOTIFY_SOCKET": "@n",
    "OTEL_RESOURCE_ATTRIBUTES": "team=a,midwatch.agent=inbox,midwatch.run_id=run-1",
}


@pytest.fixture
def below(monkeypatch: pytest.MonkeyPatch) -> None:
    def yes(_: object) -> bool:
        return True

    def ticks(_: str) -> int:
        return 4711

    monkeypatch.setattr(lineage, "_is_below", yes)
    monkeypatch.setattr(lineage, "_first", ticks)


def place(agent: str | None = None, **env: str) -> tuple[str, str, bool] | None:
    found = find(MADE | env, agent)
    return None if found is None else (found.agent, found.run_id, found.introduces)


@pytest.mark.usefixtures("below")
def test_another_name_below_the_agent_is_a_sub_agents() -> None:
    found = find(MADE, "search")
    assert found is not None
    assert (found.agent, found.introduces) == ("inbox:search", True)
    assert found.run_id != "run-1"
    whole = find(MADE, "inbox:search")
    assert whole is not None
    assert whole.agent == "inbox:search"
    other = find(MADE, "billing:x y")
    assert other is not None
    assert other.agent == "inbox:billing-x-y"  # nobody takes another agent's name


@pytest.mark.usefixtures("below")
def test_its_own_name_is_no_other() -> None:
    assert find(MADE, None) is None
    assert find(MADE, "inbox") is None
    assert find({}, "search") is None
    sub = dict(MADE)
    identify(sub, "inbox:search", "run-2", "run-1")
    assert find(sub, None) is None
    assert find(sub, "search") is None  # called again
    assert find(sub, "inbox:search") is None


@pytest.mark.usefixtures("below")
def test_a_name_in_the_environment_that_the_run_was_not_given_is_a_sub_agents() -> None:
    assert place(MIDWATCH_AGENT="inbox:a") == ("inbox:a", "run-1.a.4711", False)
    assert place(MIDWATCH_AGENT="inbox:a", OTEL_RESOURCE_ATTRIBUTES="") == (
        "inbox:a",
        "run-1.a.4711",
        False,
    )
    assert place(MIDWATCH_AGENT="billing:a") is None


def test_the_first_process_of_a_run_is_the_agent_whatever_it_is_called() -> None:
    assert find(MADE, "search") is None  # our parent carries no run
    assert place(MIDWATCH_AGENT="inbox:a") is None


@pytest.mark.usefixtures("below")
def test_a_sub_agents_beats_are_not_its_parents() -> None:
    settings = Settings(MADE | {"MIDWATCH_AGENT": "inbox:a"})
    assert (settings.notify_socket, settings.family_socket) == (None, "@n")
    assert settings.spool_dir == "/spool/inbox/a"
    assert settings.run_id == "run-1.a.4711"
    assert settings.resource == {
        "team": "a",
        "service.name": "inbox:a",
        "midwatch.agent": "inbox:a",
        "midwatch.run_id": "run-1.a.4711",
        "service.instance.id": "run-1.a.4711",
    }


def test_systemds_socket_stays_that_of_who_has_no_run() -> None:
    settings = Settings({"NOTIFY_SOCKET": "@n", "MIDWATCH_AGENT": "a:b"})
    assert (settings.notify_socket, settings.introduction) == ("@n", None)


PROGRAM = """
import os, subprocess, sys
from midwatch.sdk.lineage import find
if len(sys.argv) > 1:
    env = {**os.environ, "MIDWATCH_AGENT": sys.argv[1], "MIDWATCH_RUN_ID": "run-1"}
    again = [sys.executable, "-c", os.environ["PROGRAM"], *sys.argv[2:]]
    sys.exit(subprocess.run(again, env=env).returncode)
found = find(os.environ, None)
print("nobody" if found is None else f"{found.agent} {found.run_id}", flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_all_processes_of_a_sub_agent_know_one_run() -> None:
    """The last one of each line tells what it finds out about itself from those above it."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MIDWATCH_", "OTEL_"))}
    env["PROGRAM"] = PROGRAM

    def said(*names: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *names],
            env=env, stdout=subprocess.PIPE, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    assert said("inbox") == "nobody"
    assert said("inbox", "inbox") == "nobody"
    agent, run_id = said("inbox", "inbox:a", "inbox:a").split()
    assert agent == "inbox:a"
    assert run_id.startswith("run-1.a.")
    assert int(run_id.rpartition(".")[2]) > 0


def test_what_init_says_of_itself_its_children_find_in_their_environment(
    monkeypatch: pytest.MonkeyPatch, below: None
) -> None:
    heard: list[dict[str, Any]] = []

    def child(_: object, told: dict[str, Any]) -> None:
        heard.append(told)

    monkeypatch.setattr("midwatch.sdk.notify.Notifier.child", child)
    for name in [n for n in os.environ if n.startswith(("MIDWATCH_", "OTEL_"))]:
        monkeypatch.delenv(name)
    for name, value in MADE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MIDWATCH_FAMILY_SOCKET", "@n")  # so that it is put back
    monkeypatch.setenv("MIDWATCH_PARENT_RUN_ID", "")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "inbox")
    try:
        mw.init(agent="search", ttl_s=60, memory_bytes=1 << 20)
        mw.init(agent="search", ttl_s=60, memory_bytes=1 << 20)
        now = runtime.current
        assert now is not None
        run_id = now.run_id
        assert heard == [
            {
                "self": True,
                "run": run_id,
                "agent": "inbox:search",
                "pid": os.getpid(),
                "ttl_s": 60,
                "memory_bytes": 1 << 20,
            }
        ]
        assert (now.agent, now.notifier) == ("inbox:search", None)
        assert os.environ["MIDWATCH_AGENT"] == "inbox:search"
        assert os.environ["MIDWATCH_RUN_ID"] == run_id
        assert "NOTIFY_SOCKET" not in os.environ
    finally:
        runtime.current = None


# -- below sub-agents ----------------------------------------------------------------------------


def sub_agent(agent: str, monkeypatch: pytest.MonkeyPatch) -> Recording:
    """Be a sub-agent: it has a line for what it starts, and none for beats."""
    seen = Recording(MemoryTransport(agent, "run-2"), MemoryNotifier())
    now = runtime.Runtime(agent, "run-2", seen.transport, None, seen.notifier, traces=False)
    monkeypatch.setattr(runtime, "current", now)
    return seen


def test_a_sub_agent_tells_of_those_that_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = sub_agent("inbox:search", monkeypatch)
    child = mw.spawn([sys.executable, "-c", ""], name="fetch", ttl_s=60)
    child.wait(60)
    assert seen.notifier.children == [
        {
            "run": child.run_id,
            "agent": "inbox:search:fetch",
            "outlive": False,
            "parent": "run-2",
            "ttl_s": 60,
        },
        {"run": child.run_id, "code": 0},
    ]


def test_too_deep_a_sub_agent_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    deepest = "inbox" + ":a" * MAX_DEPTH
    sub_agent(deepest, monkeypatch)
    with pytest.raises(ValueError, match=f"5 levels below its agent, and {MAX_DEPTH} is the most"):
        mw.spawn([sys.executable, "-c", ""], name="more")
    sub_agent("i" * 60 + (":" + "a" * 40), monkeypatch)
    with pytest.raises(ValueError, match="142 characters, and 128 is the most"):
        mw.spawn([sys.executable, "-c", ""], name="b" * 60)


def test_an_odd_name_is_made_a_name() -> None:
    assert own_name("../../etc pass:wd\n") == "etc-pass-wd"
    assert own_name("") == "child"
    assert own_name("x" * 500) == "x" * 40
