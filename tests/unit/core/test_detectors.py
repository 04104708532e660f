"""Each detector, case by case: what it finds, how it words it, and what it must leave alone."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.detection import OVERDUE, Detector, Facts, Verdict, load, wake_of
from midwatch.core.exits import End
from midwatch.core.fleet import Agent
from midwatch.core.incident import Clear, Finding
from midwatch.core.loop import Cycle, Excess
from midwatch.core.terms import Heartbeat, Loop, Schedule
from midwatch.wire.items import Kind

NOW = 1_750_000_000.0
ALL = load()
MANAGED = Agent(command=["run"])
EXTERNAL = Agent(external=True)


def _event(kind: str, at: float = NOW, agent: str = "prices", **data: Any) -> dict[str, Any]:
    return {"id": "i", "agent": agent, "at": at, "kind": kind, "data": data}


def _ended(end: str, **data: Any) -> dict[str, Any]:
    return _event("run.ended", run_id="r1", end=end, **data)


def _facts(item: dict[str, Any], **more: Any) -> Facts:
    more.setdefault("config", MANAGED)
    more.setdefault("managed", True)
    return Facts(agent=item.get("agent", "prices"), item=item, now=NOW, **more)


def _verdicts(facts: Facts, wake: str | None = None) -> dict[str, Verdict]:
    """Ask every detector that the item wakes, as the watch does."""
    kind = Kind.EVENT if "kind" in facts.item else Kind.BEAT
    woken = wake or wake_of(kind, facts.item)
    asked: list[Detector] = [d for d in ALL.values() if woken in d.on]
    found = {d.kind: d.judge(facts) for d in asked}
    return {kind: verdict for kind, verdict in found.items() if verdict is not None}


def _only(facts: Facts, wake: str | None = None) -> Finding:
    (verdict,) = _verdicts(facts, wake).values()
    assert isinstance(verdict, Finding)
    return verdict


@pytest.mark.parametrize(
    ("item", "kind", "severity", "sentence", "done"),
    [
        (
            _ended("silent", exit_code=0, next="restart", next_in_s=0.0),
            "silent-exit",
            "warning",
            "prices: exited with code 0 without a word; restart at once",
            ("restart",),
        ),
        (
            _ended(
                "out-of-memory",
                signal=9,
                rss_bytes=1_073_741_824,
                rss_limit_bytes=1_073_741_824,
                rss_slope_bytes_h=41_943_040,
                next="restart",
                next_in_s=5.2,
            ),
            "oom-kill",
            "warning",
            "prices: ran out of memory (1.0 GiB of 1.0 GiB, +40 MiB an hour); restart after 5 seconds",
            ("restart",),
        ),
        (
            _ended("failed", exit_code=3, failures=1, tail=["boom", ""], next="restart"),
            "crash",
            "warning",
            "prices: exited with code 3 (boom); restart at once",
            ("restart",),
        ),
        (
            _ended("signal", signal=11, failures=2, next="restart", next_in_s=12),
            "crash",
            "warning",
            "prices: was killed by SIGSEGV; restart after 12 seconds",
            ("restart",),
        ),
        (
            _ended("cannot-start", failures=1, reason="no program 'pyhton'", next="park"),
            "crash",
            "critical",
            "prices: could not be started: no program 'pyhton'; parked until a person starts it",
            ("park",),
        ),
        (
            _ended("failed", exit_code=1, failures=3, next="restart", next_in_s=61),
            "crash-loop",
            "warning",
            "prices: exited with code 1; 3 failed starts in a row; restart after 1 minute",
            ("restart",),
        ),
        (
            _ended("failed", exit_code=1, failures=4, next="park"),
            "crash-loop",
            "critical",
            "prices: exited with code 1; 4 failed starts in a row; parked until a person starts it",
            ("park",),
        ),
        (
            _ended(
                "credentials", exit_code=1, credential="OPENAI_API_KEY", failures=1, next="park"
            ),
            "auth-crash",
            "critical",
            "prices: stopped because its credential OPENAI_API_KEY was refused;"
            " parked until a person starts it",
            ("park",),
        ),
        (
            _ended("credentials", credential="API key", next="park"),
            "auth-crash",
            "critical",
            "prices: stopped because its API key was refused; parked until a person starts it",
            ("park",),
        ),
        (
            _ended("hung", next="restart", silent_s=120),
            "hung-loop",
            "warning",
            "prices: hung: no sign of work for 2 minutes; restart at once",
            ("restart",),
        ),
        (
            _ended(
                "hung", next="restart", reason="no beat for 3 seconds: one is due every 1 second"
            ),
            "hung-loop",
            "warning",
            "prices: hung: no beat for 3 seconds; restart at once",
            ("restart",),
        ),
        (
            _event("run.hung", last_beat_at=NOW - 150, silent_s=150, interval_s=60, missed=2),
            "hung-loop",
            "warning",
            "prices: no beat for 2 minutes, one is due every 1 minute; last worked at 15:04:10",
            (),
        ),
        (
            _ended("wall-clock", duration_s=64, ttl_s=60, next="stop"),
            "wall-clock-over",
            "critical",
            "prices: reached its time limit (1 minute); not restarted",
            ("stop",),
        ),
        (
            _ended("wall-clock", duration_s=86_400, next="stop"),
            "wall-clock-over",
            "critical",
            "prices: reached its time limit (1 day); not restarted",
            ("stop",),
        ),
        (
            _event(
                "hub.down",
                agent="midwatch",
                **{"from": NOW - 247, "to": NOW, "gap_s": 247, "reason": "no answer"},
            ),
            "hub-down",
            "warning",
            "midwatch: the hub was down for 4 minutes, since 15:02:33 (no answer);"
            " agents ran on, and what they reported was kept",
            (),
        ),
        (
            _event("gateway.down", agent="midwatch", **{"from": NOW - 8, "to": NOW}),
            "gateway-down",
            "warning",
            "midwatch: the gateway was down for 8 seconds, since 15:06:32;"
            " no agent was restarted because of it",
            (),
        ),
        (
            _event("disk.low", agent="midwatch", reason="1.9 GiB of 40 GiB are free"),
            "disk-full",
            "warning",
            "midwatch: 1.9 GiB of 40 GiB are free",
            (),
        ),
        (
            _event("disk.full", agent="midwatch", reason="0.9 GiB of 40 GiB are free"),
            "disk-full",
            "critical",
            "midwatch: 0.9 GiB of 40 GiB are free",
            (),
        ),
        (
            _event(
                "supervisor.lost",
                agent="midwatch",
                **{"from": NOW - 2, "to": NOW, "gap_s": 2.0, "orphans": 1, "resumed": ["a", "b"]},
            ),
            "supervisor-killed",
            "warning",
            "midwatch: the supervisor died after 15:06:38; nothing was watched for 2 seconds;"
            " 1 orphan stopped; 2 agents resumed",
            ("restart",),
        ),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else None,
)
def test_a_report_becomes_one_finding_in_one_sentence(
    item: dict[str, Any], kind: str, severity: str, sentence: str, done: tuple[str, ...]
) -> None:
    finding = _only(_facts(item))
    assert finding.kind == kind
    assert finding.sentence == sentence
    assert finding.severity == severity
    assert finding.done == done
    assert finding.reason
    assert finding.transient == (kind in ("hub-down", "gateway-down", "supervisor-killed"))


@pytest.mark.parametrize("end", ["finished", "operator", "suspended", "shutdown", "lost"])
def test_an_end_that_somebody_wanted_is_no_failure(end: str) -> None:
    assert _verdicts(_facts(_ended(end, next="stop"))) == {}


@pytest.mark.parametrize("end", list(End))
def test_an_expected_end_is_no_failure_whatever_it_was(end: End) -> None:
    assert _verdicts(_facts(_ended(end.value, expected=True, failures=5))) == {}


@pytest.mark.parametrize("end", list(End))
@pytest.mark.parametrize("failures", [1, 3])
def test_no_end_is_told_twice(end: End, failures: int) -> None:
    assert len(_verdicts(_facts(_ended(end.value, failures=failures)))) <= 1


def test_a_failed_run_of_a_schedule_is_a_warning_because_the_next_one_comes() -> None:
    nightly = Agent(command=["run"], schedule=Schedule(cron="0 6 * * *"))
    facts = _facts(_ended("failed", exit_code=1, failures=1, next="stop"), config=nightly)
    assert _only(facts).severity == "warning"


def test_a_crash_ends_when_it_has_become_a_loop() -> None:
    facts = _facts(_ended("failed", failures=3), open_kinds={"crash": NOW - 5})
    verdicts = _verdicts(facts)
    assert isinstance(verdicts["crash"], Clear)
    assert isinstance(verdicts["crash-loop"], Finding)


def test_an_open_crash_loop_takes_later_crashes_whatever_their_count() -> None:
    facts = _facts(_ended("failed", failures=1), open_kinds={"crash-loop": NOW - 5})
    assert list(_verdicts(facts)) == ["crash-loop"]


RUNNER_KINDS = ["silent-exit", "oom-kill", "crash", "crash-loop", "auth-crash", "hung-loop"]


@pytest.mark.parametrize("kind", RUNNER_KINDS)
@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"item": _event("agent.recovered", stable_s=600)}, "stable for 10 minutes"),
        (
            {"item": _event("agent.state"), "state": "starting", "state_before": "parked"},
            "started again",
        ),
        (
            {"item": _event("agent.state"), "state": "stopped", "state_before": "backing-off"},
            "stopped by a person",
        ),
        ({"item": _ended("finished")}, "a later run finished in good order"),
        (
            {"item": _event("agent.state"), "state": "running", "state_at": NOW - 600},
            "running for 10 minutes without a failure",
        ),
    ],
    ids=["recovered", "started", "stopped", "finished", "time"],
)
def test_an_incident_about_a_run_ends(kind: str, facts: dict[str, Any], reason: str) -> None:
    verdicts = _verdicts(_facts(open_kinds={kind: NOW - 700}, **facts))
    assert verdicts == {kind: Clear(kind, "prices", reason, NOW)}


@pytest.mark.parametrize("kind", RUNNER_KINDS)
@pytest.mark.parametrize(
    "facts",
    [
        {"item": _event("agent.state"), "state": "running", "state_before": "starting"},
        {"item": _event("agent.state"), "state": "running", "state_at": NOW - 599},
        {"item": _event("agent.state"), "state": "backing-off", "state_before": "running"},
        {"item": _event("agent.state"), "state": "stopped", "state_before": "running"},
        {"item": _event("agent.state"), "state": "running", "state_before": "lost"},
    ],
    ids=["started", "young", "backs off", "not restarted", "node is back"],
)
def test_an_incident_about_a_run_goes_on(kind: str, facts: dict[str, Any]) -> None:
    assert _verdicts(_facts(open_kinds={kind: NOW - 10}, **facts)) == {}


# --- hung without a supervisor


def _silent(config: Agent, **more: Any) -> dict[str, Verdict]:
    values: dict[str, Any] = {"last_beat_at": NOW - 130, "beat_due_at": NOW - 10, **more}
    values.setdefault("managed", False)
    return _verdicts(_facts({}, config=config, **values), OVERDUE)


def test_an_agent_that_only_beats_is_hung_after_two_missed_beats() -> None:
    verdict = _silent(EXTERNAL)["hung-loop"]
    assert isinstance(verdict, Finding)
    assert verdict.sentence == (
        "prices: no beat for 2 minutes, one is due every 1 minute; last worked at 15:04:30"
    )
    assert (verdict.severity, verdict.do, verdict.evidence_at) == ("critical", None, NOW - 10)


def test_a_stranger_that_stops_beating_is_only_a_warning() -> None:
    verdict = _silent(EXTERNAL, declared=False)["hung-loop"]
    assert isinstance(verdict, Finding)
    assert verdict.severity == "warning"


@pytest.mark.parametrize(
    "more",
    [{"managed": True}, {"beat_due_at": NOW + 1}, {"beat_due_at": None}, {"last_beat_at": None}],
    ids=["the supervisor decides", "a long step was declared", "not judged", "never beat"],
)
def test_slow_but_alive_is_not_hung(more: dict[str, Any]) -> None:
    assert _silent(EXTERNAL, **more) == {}


@pytest.mark.parametrize("sign", ["beat", "agent.step", "agent.progress"])
def test_the_next_sign_of_work_ends_it(sign: str) -> None:
    item = {"id": "b", "agent": "prices", "at": NOW} if sign == "beat" else _event(sign)
    facts = _facts(
        item,
        managed=False,
        cycle=_cycle() if sign == "beat" else None,
        beat_due_at=NOW + 120,
        open_kinds={"hung-loop": NOW - 50},
    )
    assert _verdicts(facts) == {"hung-loop": Clear("hung-loop", "prices", "it works again", NOW)}


def test_an_old_beat_out_of_a_spool_does_not_end_it() -> None:
    facts = _facts(
        {"id": "b", "agent": "prices", "at": NOW - 900},
        managed=False,
        cycle=_cycle(),
        beat_due_at=NOW - 10,
        open_kinds={"hung-loop": NOW - 50},
    )
    assert _verdicts(facts) == {}


# --- runaway


def _cycle(*excess: Excess, tokens: int = 190, cost: int | None = None) -> Cycle:
    return Cycle(NOW, tokens, cost, 190.0, None, False, excess)


def _beat(at: float = NOW) -> dict[str, Any]:
    return {"id": "b", "agent": "inbox", "at": at, "tokens": 41_200}


LOUD = Excess("tokens", 41_200, 190.0, 5_000.0, 10.0)


def test_a_runaway_is_told_with_its_numbers_and_suspended() -> None:
    facts = _facts(_beat(), cycle=_cycle(LOUD, tokens=41_200), spent_nusd=380_000_000)
    finding = _only(facts)
    assert finding.sentence == "inbox: 41,200 tokens in one cycle, usual 190"
    assert (finding.kind, finding.severity, finding.do) == ("runaway-loop", "critical", "suspend")
    assert finding.evidence["spent_nusd"] == 380_000_000
    assert "loop.tokens_per_cycle: 10x" in finding.reason


def test_money_is_told_as_money() -> None:
    dear = Excess("cost", 4_000_000_000, 20_000_000.0, 200_000_000.0, 10.0)
    finding = _only(_facts(_beat(), cycle=_cycle(dear, cost=4_000_000_000)))
    assert finding.sentence == "inbox: $4 in one cycle, usual $0.02"


@pytest.mark.parametrize(
    ("more", "do"),
    [
        ({"config": Agent(command=["x"], loop=Loop(action="notify"))}, None),
        ({"config": Agent(command=["x"], loop=Loop(action="restart"))}, "restart"),
        ({"managed": False}, None),
        ({"item": _beat(NOW - 3_600)}, None),
        ({"cycle": _cycle(Excess("tokens", 600_000, None, 500_000.0, 10.0))}, None),
    ],
    ids=["notify", "restart", "nobody can act", "an hour old", "no baseline"],
)
def test_the_action_is_the_fleet_files_where_acting_makes_sense(
    more: dict[str, Any], do: str | None
) -> None:
    values: dict[str, Any] = {"item": _beat(), "cycle": _cycle(LOUD), **more}
    assert _only(_facts(**values)).do == do


def test_a_runaway_ends_after_three_usual_cycles() -> None:
    for calm, over in ((2, False), (3, True)):
        facts = _facts(
            _beat(), cycle=_cycle(), calm_cycles=calm, open_kinds={"runaway-loop": NOW - 60}
        )
        assert bool(_verdicts(facts)) is over


def test_a_suspended_runaway_ends_when_a_person_resumes_it_and_not_by_time() -> None:
    kinds = {"runaway-loop": NOW - 86_400}
    resumed = _facts(
        _event("agent.state"), state="starting", state_before="suspended", open_kinds=kinds
    )
    assert list(_verdicts(resumed)) == ["runaway-loop"]
    waiting = _facts(
        _event("agent.state"), state="running", state_at=NOW - 80_000, open_kinds=kinds
    )
    assert _verdicts(waiting) == {}


# --- pings


def test_a_failure_that_a_ping_reports_is_told_and_ends_with_the_next_success() -> None:
    facts = _facts(
        _event("ping.fail", agent="backup", exit_code=3, body="disk\nfull"),
        config=EXTERNAL,
        managed=False,
    )
    assert _only(facts).sentence == "backup: reported a failure with exit status 3 (disk full)"
    for result, over in (("failed", False), ("ok", True)):
        beat = {"id": "b", "agent": "backup", "at": NOW, "result": result}
        after = _facts(
            beat, config=EXTERNAL, managed=False, cycle=_cycle(), open_kinds={"crash": 1.0}
        )
        assert bool(_verdicts(after)) is over


# --- hostile data


@pytest.mark.parametrize("event", ["run.ended", "run.hung", "ping.fail"])
@pytest.mark.parametrize(
    "junk", ["x" * 9_000, -1, 1e300, None, [], {"a": 1}, True, "\x1b[31m\n\u202e"]
)
def test_no_field_of_a_report_can_break_a_detector_or_its_sentence(event: str, junk: Any) -> None:
    names = [
        "exit_code",
        "signal",
        "duration_s",
        "rss_bytes",
        "rss_limit_bytes",
        "rss_slope_bytes_h",
        "tail",
        "next",
        "next_in_s",
        "failures",
        "attempts",
        "credential",
        "reason",
        "last_beat_at",
        "silent_s",
        "interval_s",
        "missed",
        "run_id",
        "body",
    ]
    for end in (*[e.value for e in End], junk):
        item = _event(event, end=end, **dict.fromkeys(names, junk))
        for verdict in _verdicts(_facts(item, managed=event != "ping.fail")).values():
            assert isinstance(verdict, Finding)
            assert verdict.sentence.isprintable()
            assert len(verdict.sentence) <= 400


@pytest.mark.parametrize("event", ["hub.down", "supervisor.lost"])
def test_only_midwatch_itself_may_report_its_own_gaps(event: str) -> None:
    assert _verdicts(_facts(_event(event, agent="inbox", gap_s=5))) == {}


def test_the_heartbeat_of_the_fleet_file_is_what_is_told() -> None:
    config = Agent(external=True, heartbeat=Heartbeat(every=5.0, missed=3))
    verdict = _silent(config, last_beat_at=NOW - 16)["hung-loop"]
    assert isinstance(verdict, Finding)
    assert "no beat for 16 seconds, one is due every 5 seconds" in verdict.sentence
    assert verdict.reason.startswith("no beat for 3 intervals of 5 s")


def test_room_on_the_disk_ends_its_incident() -> None:
    facts = _facts(_event("disk.fine", agent="midwatch", reason="20 GiB are free"))
    assert _verdicts(facts) == {"disk-full": Clear("disk-full", "midwatch", "20 GiB are free", NOW)}
