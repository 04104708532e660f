"""The fleet file read again by a real supervisor over real processes, asked by SIGHUP. Without a hub."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

DEADLINE_S = 40.0


def sleep(seconds: int = 600, **entry: Any) -> dict[str, Any]:
    return {"command": ["sleep", str(seconds)], **entry}


SLOW = {
    "command": [
        "sh",
        "-c",
        "trap 'until [ -e go ]; do sleep 0.05; done; echo left >> ended; exit 0' TERM; touch listens; while :; do sleep 0.05; done",
    ],
    "limits": {"stop_grace": "2m"},
}
"""It ends when it is asked to and the file `go` is there. `listens` is there once it can be asked."""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_only_what_changed_is_restarted(instances: Any, tmp_path: Path) -> None:
    one = instances()
    (tmp_path / ".env").write_text("A=1\n")
    one.write({
        "same": sleep(), "command": sleep(1000), "gone": sleep(), "live": sleep(),
        "secret": sleep(env_file=".env"), "web": sleep(instances=2),
    })  # fmt: skip
    one.up()
    one.says("web.2: started")
    before = {
        n: one.pid(n) for n in ("same", "command", "gone", "live", "secret", "web.1", "web.2")
    }
    (tmp_path / ".env").write_text("A=2\n")
    one.write({
        "same": sleep(), "command": sleep(1001), "live": sleep(group="x", budget={"per_day": "$1"}),
        "secret": sleep(env_file=".env"), "web": sleep(instances=3), "new": sleep(),
    })  # fmt: skip
    said = one.reload()
    for name in ("secret", "command"):
        one.says(f"{name}: started", 2)
    for line in (
        "command: restarted (command changed)",
        "gone: stopped and removed",
        "live: applied without a restart (group, budget.per_day changed)",
        "secret: restarted (env_file (its content) changed)",
        "web.3: started",
        "new: started",
        "6 of 9 agents changed, 3 unchanged",
    ):
        assert line in said
    after = {n: one.pid(n) for n in before}
    assert [n for n in before if before[n] != after[n]] == ["command", "secret"]
    assert not alive(before["gone"])
    assert not alive(before["command"])
    fleet = json.loads((one.data / "fleet.json").read_bytes())
    assert set(fleet["agents"]) == {
        "same",
        "command",
        "live",
        "secret",
        "web.1",
        "web.2",
        "web.3",
        "new",
    }
    assert fleet["agents"]["live"]["group"] == "x"
    assert "nothing has changed" in one.reload()
    assert one.end() == 0


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda f: f.write_text("agents:\n  inbox:\n    comand: [sleep, '1']\n"),
            "did you mean 'command'",
        ),
        (lambda f: f.write_text(""), "the file is empty"),
        (lambda f: f.write_text(f.read_text()[:-9] + "{["), "not reloaded"),
        (lambda f: f.unlink(), "there is no fleet file"),
        (lambda f: (f.unlink(), f.mkdir()), "is a directory"),
        (lambda f: f.write_bytes(b"\xff\xfe"), "not UTF-8"),
    ],
    ids=["misspelt", "empty", "torn", "removed", "directory", "binary"],
)
def test_a_file_that_cannot_be_used_changes_nothing(instances: Any, damage: Any, says: str) -> None:
    one = instances()
    one.write({"inbox": sleep()})
    one.up()
    one.says("inbox: started")
    one.until(lambda: (one.data / "fleet.json").exists(), "fleet.json")
    pid, fleet = one.pid("inbox"), (one.data / "fleet.json").read_bytes()
    damage(one.file)
    assert says in one.reload("not reloaded")
    assert (one.pid("inbox"), alive(pid)) == (pid, True)
    assert (one.data / "fleet.json").read_bytes() == fleet
    assert one.end() == 0


def test_a_file_that_is_written_slowly_is_read_when_it_is_whole(instances: Any) -> None:
    """An editor that writes in place: for a moment the file lacks its last agents, and is valid."""
    one = instances()
    agents = {f"a{n}": sleep() for n in range(3)}
    one.write(agents)
    one.up(quiet_s=1.0)
    one.says("a2: started")
    pids = [one.pid(name) for name in agents]
    whole = one.file.read_text() + "  b:\n    command: [sleep, '600']\n"
    with one.file.open("w") as file:
        for number, line in enumerate(whole.splitlines(keepends=True)):
            file.write(line)
            file.flush()
            if number == 3:
                one.process.send_signal(signal.SIGHUP)
            time.sleep(0.02)
    one.says("was read again")
    one.says("b: started")
    assert "removed" not in one.console
    assert [one.pid(name) for name in agents] == pids
    assert one.end() == 0


def test_what_a_person_held_stays_held_and_what_is_parked_gets_a_new_chance(instances: Any) -> None:
    one = instances()
    crash, job = {"command": ["sh", "-c", "exit 3"]}, sleep(schedule={"at": "2099-01-01T06:00"})
    off = {"off": sleep(enabled=False), "job": {**job, "enabled": False}}
    one.write({"crash": crash, **off, "on": sleep()})
    one.up()
    one.says("crash: parked")
    assert "off: started" not in one.console
    one.write({"crash": sleep(), "off": sleep(), "job": job, "on": sleep(enabled=False)})
    said = one.reload()
    assert "job: scheduled: next run at 2099-01-01 06:00" in said
    assert "crash: started (command changed)" in said
    assert "off: started (enabled changed)" in said
    assert "on: stopped: not enabled in the fleet file" in said
    assert not alive(one.pid("on"))
    # a stop in good order is remembered, an end by the file is not: it is no person's
    one.write({"crash": sleep(), "off": sleep(), "job": job, "on": sleep()})
    assert "on: started (enabled changed)" in one.reload()
    assert "job: started" not in one.console
    assert one.end() == 0


def test_two_reloads_at_once_follow_one_another_and_one_while_stopping_does_nothing(
    instances: Any,
) -> None:
    stubborn = {
        "command": ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"],
        "limits": {"stop_grace": "1s"},
    }
    one = instances()
    one.write({"slow": stubborn})
    one.up()
    one.says("slow: started")
    one.write({"slow": {**stubborn, "env": {"A": "1"}}, "new": sleep()})
    for _ in range(3):
        one.process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    one.says("new: started")
    one.says("slow: started", 2)
    assert one.console.count("new: started, pid") == 1
    before = len(one.console)
    one.process.send_signal(signal.SIGTERM)
    one.says("stopping; agents get time")
    one.write({"late": sleep()})
    one.process.send_signal(signal.SIGHUP)
    assert one.process.wait(DEADLINE_S) == 0
    assert "Midwatch is stopping; nothing was changed" in one.console[before:]
    assert "late: started" not in one.console


def test_an_agent_that_left_and_came_back_while_it_ended_runs_once(
    instances: Any, tmp_path: Path
) -> None:
    one = instances()
    one.write({"slow": SLOW, "other": sleep()})
    one.up()
    one.says("other: started")
    first = one.pid("slow")
    one.until((tmp_path / "listens").exists, "the trap")
    one.write({"other": sleep()})
    one.process.send_signal(signal.SIGHUP)
    # the next file comes before its end
    kept = one.data / "fleet.json"
    one.until(lambda: "slow" not in json.loads(kept.read_bytes())["agents"], "the reload")
    assert alive(first)
    one.write({"slow": SLOW, "other": sleep()})
    one.process.send_signal(signal.SIGHUP)
    one.until(lambda: "slow" in json.loads(kept.read_bytes())["agents"], "the next reload")
    assert alive(first)
    (tmp_path / "go").touch()
    one.says("slow: started, pid", 2)
    assert not alive(first)
    assert one.end() == 0
    assert not alive(one.pid("slow"))


def test_a_changed_agent_that_fails_is_rolled_back_also_after_a_restart(instances: Any) -> None:
    good = sleep(
        rollback=True, restart={"stable_after": "1500ms", "backoff": "20ms..50ms", "attempts": 2}
    )
    bad = {**good, "command": ["sh", "-c", "echo boom; exit 3"]}
    one = instances()
    one.write({"inbox": good})
    one.up()
    one.until(lambda: (one.data / "supervisor/versions").exists(), "the good entry on disk")
    assert (one.data / "supervisor/versions").stat().st_mode & 0o777 == 0o600
    one.write({"inbox": bad})
    one.reload()
    one.says("rolled back: command changed, and then: exit code 3")
    one.until(lambda: alive(one.pid("inbox")), "the good entry to run")
    kept = one.data / "supervisor/versions"
    one.until(
        lambda: json.loads(kept.read_bytes())["inbox"]["refused"] != "", "the refusal on disk"
    )
    one.end(signal.SIGKILL)
    before = len(one.console)
    one.up()
    one.says("inbox: the changed entry (command) was taken back")
    one.says("inbox: started", 4)
    assert "boom" not in one.console[before:]
    assert alive(one.pid("inbox"))
    # changed again: a new trial
    one.write({"inbox": {**bad, "command": ["sh", "-c", "exit 4"]}})
    one.reload()
    one.says("and then: exit code 4")
    assert one.end() == 0


def test_what_has_drifted_is_said(instances: Any) -> None:
    one = instances()
    one.write({"inbox": sleep()})
    one.up()
    one.says("inbox: started")
    one.write({"inbox": sleep(601)})
    one.says("the fleet file was changed; midwatch reload takes it over")
    one.file.write_text("agents: {")
    one.says("the fleet file was changed and has problems")
    one.file.unlink()
    one.says("is gone; agents go on as it was loaded")
    assert one.end() == 0


def test_a_file_that_was_just_written_is_not_waited_for_until_the_next_look(instances: Any) -> None:
    one = instances()
    one.write({"inbox": sleep()})
    one.up(look_s=600.0, glance_s=0.05)
    one.says("inbox: started")
    for seconds in (601, 602):
        one.write({"inbox": sleep(seconds)})
        one.says("the fleet file was changed; midwatch reload takes it over", seconds - 600)
        one.reload()
    assert one.end() == 0


def test_a_second_supervisor_waits_and_takes_over(instances: Any) -> None:
    first, second = instances("one"), instances("two")
    first.write({"inbox": sleep()})
    first.up()
    first.says("inbox: started")
    second.up()
    second.says(f"inbox: not started: runs already under pid {first.process.pid} (data directory")
    first.end(signal.SIGKILL)
    second.says("inbox: started")
    assert second.end() == 0


def test_with_a_terminal_the_end_of_it_is_the_end(instances: Any) -> None:
    one = instances()
    one.write({"inbox": sleep()})
    ours, theirs = os.openpty()
    one.up_at(theirs)
    os.close(theirs)
    one.says("inbox: started")
    os.close(ours)  # the kernel tells the leader of the session
    assert one.process.wait(DEADLINE_S) == 0
    assert "nothing is left running" in one.console


def test_an_agent_that_is_enabled_again_while_it_ends_runs_and_keeps_its_lease(
    instances: Any, tmp_path: Path
) -> None:
    one = instances()
    one.write({"slow": SLOW})
    one.up()
    one.says("slow: started")
    first = one.pid("slow")
    one.until((tmp_path / "listens").exists, "the trap")
    one.write({"slow": {**SLOW, "enabled": False}})
    one.process.send_signal(signal.SIGHUP)
    kept = one.data / "fleet.json"
    one.until(
        lambda: not json.loads(kept.read_bytes())["agents"]["slow"]["enabled"], "the first reload"
    )
    assert alive(first)
    one.write({"slow": SLOW})
    one.process.send_signal(signal.SIGHUP)
    one.until(
        lambda: json.loads(kept.read_bytes())["agents"]["slow"]["enabled"], "the second reload"
    )
    assert alive(first)
    (tmp_path / "go").touch()
    one.says("slow: started, pid", 2)
    two = instances("other")
    two.up()
    two.says("runs already under pid")
    assert one.end() == 0


def test_an_agent_that_comes_back_comes_as_the_file_has_it_then_and_the_stop_waits_for_who_leaves(
    instances: Any, tmp_path: Path
) -> None:
    one = instances()
    kept = one.data / "fleet.json"

    def write(**agents: Any) -> None:
        one.write(agents)
        one.process.send_signal(signal.SIGHUP)
        wanted = {name: agent["command"] for name, agent in agents.items()}
        one.until(
            lambda: (
                {n: a["command"] for n, a in json.loads(kept.read_bytes())["agents"].items()}
                == wanted
            ),
            "the reload",
        )

    one.write({"slow": SLOW, "other": sleep()})
    one.up()
    one.says("other: started")
    first = one.pid("slow")
    one.until((tmp_path / "listens").exists, "the trap")
    write(other=sleep())
    write(other=sleep(), slow=sleep(1000))
    write(other=sleep())
    write(other=sleep(), slow=sleep(2000))
    assert alive(first)
    (tmp_path / "go").touch()
    one.says("slow: started, pid", 2)
    command = Path(f"/proc/{one.pid('slow')}/cmdline").read_bytes()
    assert command == b"sleep\0" + b"2000\0"
    # one that leaves is still within its grace when Midwatch is stopped
    for name in ("go", "listens", "ended"):
        (tmp_path / name).unlink()
    write(other=sleep(), slow=SLOW)
    one.says("slow: started, pid", 3)
    one.until((tmp_path / "listens").exists, "the trap")
    write(other=sleep())
    one.process.send_signal(signal.SIGTERM)
    one.says("stopping; agents get time")
    (tmp_path / "go").touch()
    assert one.process.wait(DEADLINE_S) == 0
    assert (tmp_path / "ended").read_text() == "left\n"


def test_an_agent_by_another_name_with_the_same_lease_waits_for_its_own_end(instances: Any) -> None:
    one = instances()
    one.write({"old": sleep(lease="box")})
    one.up()
    one.says("old: started")
    first = one.pid("old")
    one.write({"new": sleep(lease="box")})
    assert "new: starts when the last run of old has ended" in one.reload()
    one.says("new: started, pid")
    assert not alive(first)
    assert "runs already under" not in one.console
    assert one.end() == 0


def test_after_a_rollback_the_next_file_is_compared_with_what_runs(instances: Any) -> None:
    trial = {"rollback": True, "restart": {"stable_after": "1500ms"}}
    good, bad = sleep(**trial), {"command": ["sh", "-c", "exit 3"], **trial}
    one = instances()
    one.write({"inbox": good})
    one.up()
    one.says("inbox: started")
    one.until((one.data / "supervisor/versions").exists, "its entry is good")
    one.write({"inbox": bad})
    one.reload("rolled back")
    one.says("inbox: started, pid", 3)
    back = one.pid("inbox")
    # the file goes back to what runs: nothing to do; with another bad one: a restart, although only a live key
    # differs from the last file
    one.write({"inbox": good})
    assert "nothing has changed" in one.reload()
    assert one.pid("inbox") == back
    one.write({"inbox": {**bad, "group": "new"}})
    assert "inbox: restarted (command, group changed)" in one.reload()
    assert one.end() == 0


def test_another_time_zone_for_the_fleet_is_one_for_its_schedules(instances: Any) -> None:
    one = instances()
    agents = {"nightly": sleep(schedule={"cron": "0 6 * * *"})}
    one.write(agents, timezone="UTC")
    one.up()
    one.says("06:00 UTC")
    one.write(agents, timezone="Asia/Tokyo")
    assert "nightly: stays scheduled (schedule changed)" in one.reload()
    assert one.end() == 0
