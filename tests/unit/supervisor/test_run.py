from __future__ import annotations

from midwatch.core.liveness import Evidence
from midwatch.supervisor.machine.fake import FakeSystem
from midwatch.supervisor.machine.system import Exit, Launch, Sample
from midwatch.supervisor.run import Run

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
