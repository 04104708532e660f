"""What explains a hang is taken before the process is ended, and travels bounded."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from midwatch.core.detection import Facts
from midwatch.core.detectors.hung_loop import hung_loop
from midwatch.core.fleet import Agent
from midwatch.core.incident import Finding
from midwatch.supervisor.machine import stacks
from midwatch.supervisor.machine.fake import FakeProcess
from midwatch.supervisor.machine.system import Standing
from midwatch.wire.notify import Notice

BEATS = {"liveness": "heartbeat", "heartbeat": {"every": 10.0, "missed": 2}}
STANDING = Standing(
    state="S",
    waits_in="wait_woken",
    threads=("MainThread S wait_woken recvfrom", "answer S inet_csk_accept accept4"),
    sockets=("tcp 127.0.0.1:40000 → 127.0.0.1:50000 ESTABLISHED",),
)
KEY = "sk-proj-" + "a1B2" * 12
DUMP = (
    "Fatal Python error: Aborted\n\n"
    "Current thread 0x00007f1c2e1d4040 (most recent call first):\n"
    '  File "/app/agent.py", line 31 in fetch\n'
    '  File "/app/agent.py", line 40 in <module>\n'
)


@pytest.fixture(autouse=True)
def without_py_spy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "ask", lambda _: None)


def hang(make: Any, *, dump: str = DUMP, before: str = "fetching\n", **entry: Any) -> Any:
    house = make(**{**BEATS, **entry})
    house.keeper.begin(resumed=False)
    house.keeper.hear(Notice(beat=True))
    process: FakeProcess = house.process
    process.standing = STANDING
    process.launch.on_output(before.encode())
    signal_one = house.system.signal_one

    def answer(target: Any, number: int) -> bool:
        if number == 6 and not process.ended:
            process.launch.on_output(dump.encode())
        return signal_one(target, number)

    house.system.signal_one = answer
    house.system.advance(21.0)
    return house


def test_where_it_stands_travels_at_once_and_its_stacks_with_the_end(make: Any) -> None:
    house = hang(make)
    (hung,) = house.events("run.hung")
    assert hung["standing"] == {
        "state": "S",
        "waits_in": "wait_woken",
        "threads": list(STANDING.threads),
        "sockets": list(STANDING.sockets),
    }
    assert hung["tail"] == ["fetching"]
    assert hung["reason"].endswith("the kernel has it in wait_woken")
    (ended,) = house.events("run.ended")
    assert (ended["end"], ended["tail"]) == ("hung", ["fetching"])
    assert '  File "/app/agent.py", line 31 in fetch' in ended["stack"]


def test_the_incident_keeps_both_parts(make: Any) -> None:
    house = hang(make)
    evidence: dict[str, Any] = {}
    for kind in ("run.hung", "run.ended"):
        evidence |= found(kind, house.events(kind)[0]).evidence
    assert evidence["waits_in"] == "wait_woken"
    assert evidence["sockets"] == list(STANDING.sockets)
    assert evidence["tail"] == ["fetching"]
    assert any("line 31 in fetch" in line for line in evidence["stack"])


def found(kind: str, data: dict[str, Any]) -> Finding:
    item = {"id": "1", "agent": "inbox", "at": 0.0, "kind": kind, "data": data}
    verdict = hung_loop.judge(
        Facts(agent="inbox", item=item, now=0.0, config=Agent(external=True), managed=True)
    )
    assert isinstance(verdict, Finding)
    return verdict


def test_evidence_is_bounded_whatever_it_is_told(make: Any) -> None:
    lines = "".join(f'  File "{"x" * 2000}", line {n} in f\n' for n in range(2000))
    house = hang(make, dump=DUMP + lines, before="é" * 400 + "\n" + "line \x1b[31m\n" * 3000)
    monstrous = ["\x1b]0;" + "☠" * 5000] * 500
    evidence: dict[str, Any] = {}
    for kind in ("run.hung", "run.ended"):
        event = house.events(kind)[0]
        assert len(json.dumps(event).encode()) < 20_000
        event["standing"] = {"threads": monstrous, "sockets": monstrous, "state": monstrous[0]}
        event["stack"] = event["tail"] = monstrous
        evidence |= found(kind, event).evidence
    assert len(json.dumps(evidence, ensure_ascii=False).encode()) <= 16 * 1024


def test_fifty_lines_are_kept(make: Any) -> None:
    house = hang(make, before="".join(f"line {n}\n" for n in range(200)))
    assert house.events("run.hung")[0]["tail"] == [f"line {n}" for n in range(150, 200)]


def test_a_secret_in_a_stack_is_redacted(make: Any) -> None:
    house = hang(make, dump=DUMP + f'  File "/app/{KEY}", line 1 in f\n')
    assert KEY not in json.dumps(house.recorder.items)
    assert "[redacted]" in json.dumps(house.events("run.ended"))


def test_a_program_that_prints_no_stack_has_none(make: Any) -> None:
    house = hang(make, dump="")
    assert "stack" not in house.events("run.ended")[0]


def test_an_end_that_is_no_hang_has_no_stack(make: Any) -> None:
    house = make([(5.0, "print Fatal Python error: Aborted"), (6.0, "signal 6")])
    house.keeper.begin(resumed=False)
    house.system.advance(7.0)
    (ended,) = house.events("run.ended")
    assert "stack" not in ended
    assert ended["tail"] == ["Fatal Python error: Aborted"]


# -- py-spy, where it is installed -----------------------------------------------------------------


class Answer:
    """A `stacks.Dump` by hand."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.done = threading.Event()


def test_py_spy_is_asked_first_and_the_process_lives_until_it_has_answered(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = Answer()
    monkeypatch.setattr(stacks, "ask", lambda _: dump)
    house = hang(make)
    assert (len(house.events("run.hung")), house.process.signals) == (1, [])
    dump.lines = ["Thread 7 (idle): MainThread", "    recv (agent.py:31)"]
    dump.done.set()
    house.system.advance(2.0)
    assert house.events("run.ended")[0]["stack"] == dump.lines


def test_an_agent_that_goes_on_while_py_spy_looks_is_spared(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = Answer()
    monkeypatch.setattr(stacks, "ask", lambda _: dump)
    house = hang(make)
    house.keeper.hear(Notice(beat=True))
    dump.done.set()
    house.system.advance(5.0)
    assert (house.process.signals, len(house.system.launched)) == ([], 1)


def test_who_is_never_restarted_tells_its_stacks_while_it_hangs(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = Answer()
    monkeypatch.setattr(stacks, "ask", lambda _: dump)
    house = hang(make, restart={"when": "never"})
    dump.lines = ["Thread 7 (idle): MainThread"]
    dump.done.set()
    house.system.advance(100.0)
    assert [e.get("stack") for e in house.events("run.hung")] == [None, dump.lines]
