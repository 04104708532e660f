from __future__ import annotations

from midwatch.core.liveness import Evidence, judge
from midwatch.core.terms import Heartbeat
from midwatch.supervisor.machine.fake import FakeSystem
from midwatch.supervisor.machine.system import Exit, Launch, Sample
from midwatch.supervisor.run import Run
from midwatch.wire.notify import Notice

MIB = 1024 * 1024


def sample(rss_bytes: int) -> Sample:
    return Sample(
        rss_bytes=rss_bytes, cpu_s=0, children_cpu_s=0, children=0, threads=1, open_files=3
    )


def make_run() -> Run:
    launch = Launch(["x"], {}, "/", "r1", lambda _: None, lambda _: None)
    system = FakeSystem()
    system.programs["x"] = ()
    process = system.spawn(launch)
    return Run("r1", process, 0.0, 0.0, "first start", 1, Evidence(started=0.0), 0)


def test_what_a_dying_process_no_longer_holds_does_not_hide_what_it_held() -> None:
    run = make_run()
    for second, rss in enumerate((100, 150, 190)):
        run.take(sample(rss * MIB), float(second))
    run.take(sample(0), 3.0)  # a zombie has no memory
    facts = run.facts(Exit(None, 9), 3.0, limit=192 * MIB, tail=[], long_lived=True, oom_kills=0)
    assert facts.rss_bytes == 190 * MIB
    assert facts.rss_slope_bytes_h == 45 * MIB * 3600


def test_an_open_call_at_the_gateway_is_a_sign_of_life_until_it_ends() -> None:
    run = make_run()
    run.called(100.0, open_s=30.0, ended_s=None)
    assert (run.evidence.call_open, run.evidence.call) == (70.0, 100.0)
    run.called(101.0, open_s=31.0, ended_s=None)
    assert run.evidence.call_open == 70.0
    run.called(102.0, open_s=None, ended_s=0.5)
    assert (run.evidence.call_open, run.evidence.call) == (None, 102.0)
    run.called(110.0, open_s=None, ended_s=2.0)
    assert run.evidence.call == 108.0
    assert judge("activity", Heartbeat(every=10, missed=2), run.evidence, 120.0).hung is False


def test_a_call_of_the_run_before_proves_nothing_of_this_one() -> None:
    run = make_run()
    run.started = 100.0
    run.called(101.0, open_s=None, ended_s=30.0)
    assert run.evidence.call is None
    run.called(102.0, open_s=30.0, ended_s=None)
    assert run.evidence.call_open == 100.0


def test_what_the_gateway_does_not_know_does_not_end_a_call_that_the_agent_declared() -> None:
    run = make_run()
    run.hear(Notice(call="open"), 10.0, 10.0)
    run.called(20.0, open_s=None, ended_s=None)
    assert run.evidence.call_open == 10.0
