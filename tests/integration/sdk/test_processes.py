"""The SDK in whole processes: their end, their death, their children, their supervisor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.wire import notify

Until = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program in the environment of an agent."""
    children: list[subprocess.Popen[str]] = []

    def one(program: str, url: str | None, **environ: str) -> subprocess.Popen[str]:
        base = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "MIDWATCH_AGENT": "inbox",
            "MIDWATCH_RUN_ID": "run-1",
            "MIDWATCH_TOKEN": "secret",
            "MIDWATCH_SPOOL": str(tmp_path / "spool"),
        }
        if url is not None:
            base["MIDWATCH_URL"] = url
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program)],
            env=base | environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield one
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


class Supervisor:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.heard: list[notify.Notice] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while (datagram := self.socket.recv(notify.MAX_DATAGRAM_BYTES)) != b"end":
            self.heard.append(notify.decode(datagram))

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"end", self.socket.getsockname())
        self._thread.join()
        self.socket.close()


@pytest.fixture(params=["file", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Supervisor, str]]:
    name = str(tmp_path / "n.sock")
    if request.param == "abstract":
        name = f"@midwatch-test-{os.getpid()}-{tmp_path.name}"
    one = Supervisor("\0" + name[1:] if name.startswith("@") else name)
    yield one, name
    one.close()


def test_a_process_that_ends_delivers_what_it_said_last(hub: Any, run: Any) -> None:
    child = run(
        """
        import midwatch as mw
        mw.init()
        with mw.cycle() as cycle:
            cycle.usage(tokens=1200, cost_usd=0.004)
            cycle.done(items=2, unit="mails")
        mw.outcome("success", goal_met=True)
        """,
        hub.url,
    )
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (0, "", "")
    (beat,) = hub.beats
    assert beat["tokens"] == 1200
    assert beat["cost_usd"] == 0.004
    assert beat["items"] == 2
    assert beat["unit"] == "mails"
    assert beat["result"] == "ok"
    assert beat["agent"] == "inbox"
    assert beat["run_id"] == "run-1"
    assert [event["kind"] for event in hub.events] == ["agent.outcome"]
    assert hub.events[0]["data"] == {"status": "success", "goal_met": True}
    (span,) = hub.spans
    assert span["name"] == "cycle"
    traces = next(body for path, _, body in hub.requests if path == "/v1/traces")
    resource = traces["resourceSpans"][0]["resource"]["attributes"]
    assert {pair["key"]: pair["value"]["stringValue"] for pair in resource} == {
        "service.name": "inbox",
        "midwatch.agent": "inbox",
        "midwatch.run_id": "run-1",
    }


def test_spans_go_where_opentelemetry_says(hub: Any, new_hub: Any, run: Any) -> None:
    collector = new_hub()
    child = run(
        "import midwatch as mw\nmw.init()\nwith mw.cycle(): pass\n",
        hub.url,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20other,x-tenant=night",
    )
    child.communicate(timeout=60)
    assert len(hub.beats) == 1
    assert hub.spans == []
    assert len(collector.spans) == 1
    headers = collector.requests[0][1]
    assert headers["authorization"] == "Bearer other"
    assert headers["x-tenant"] == "night"


def test_without_a_hub_the_end_of_a_process_is_quick_and_nothing_is_lost(
    run: Any, free_port: int, new_hub: Any
) -> None:
    program = "import midwatch as mw\nmw.init()\nfor n in range(100): mw.beat(items=n)\n"
    child = run(program, f"http://127.0.0.1:{free_port}")
    child.communicate(timeout=60)
    assert child.returncode == 0
    hub = new_hub(free_port)
    later = run("import midwatch as mw\nmw.init()\nmw.beat(items=100)\n", hub.url)
    later.communicate(timeout=60)
    assert [beat["items"] for beat in hub.beats] == list(range(101))


def test_what_a_killed_process_could_not_deliver_is_delivered_by_the_next_run(
    run: Any, free_port: int, new_hub: Any
) -> None:
    child = run(
        """
        import midwatch as mw, time
        mw.init()
        for n in range(300):
            mw.beat(items=n)
        mw.event("decision", {"chosen": "refund"})
        with mw.cycle(): pass
        while mw.statistics()["spooled"] < 303: time.sleep(0.01)
        print("spooled", flush=True)
        time.sleep(60)
        """,
        f"http://127.0.0.1:{free_port}",
    )
    assert child.stdout.readline() == "spooled\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    hub = new_hub(free_port)
    later = run(
        "import midwatch as mw\nmw.init()\nmw.flush(10)\n", hub.url, MIDWATCH_RUN_ID="run-2"
    )
    later.communicate(timeout=60)
    assert [beat.get("items") for beat in hub.beats] == [*range(300), None]
    assert {beat["run_id"] for beat in hub.beats} == {"run-1"}
    assert [event["data"] for event in hub.events] == [{"chosen": "refund"}]
    assert len(hub.spans) == 1
    traces = next(body for path, _, body in hub.requests if path == "/v1/traces")
    pairs = traces["resourceSpans"][0]["resource"]["attributes"]
    assert {"key": "midwatch.run_id", "value": {"stringValue": "run-1"}} in pairs


def test_a_torn_line_in_the_spool_costs_itself_only(
    run: Any, free_port: int, new_hub: Any, tmp_path: Path
) -> None:
    run(
        "import midwatch as mw\nmw.init()\nfor n in range(3): mw.beat(items=n)\n",
        f"http://127.0.0.1:{free_port}",
    ).communicate(timeout=60)
    (segment,) = (tmp_path / "spool").glob("items.*/*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(lines[0] + lines[1][:-20] + b"\n" + lines[2] + lines[0][:30])
    hub = new_hub(free_port)
    run("import midwatch as mw\nmw.init()\nmw.flush(10)\n", hub.url).communicate(timeout=60)
    assert [beat["items"] for beat in hub.beats] == [0, 2]
    assert hub.events[-1]["data"]["counts"] == {"torn": 2}


def test_a_child_of_multiprocessing_delivers_its_own_beats(hub: Any, run: Any) -> None:
    child = run(
        """
        import multiprocessing
        import midwatch as mw
        def work(n):
            mw.beat(items=n)
        if __name__ == "__main__":
            mw.init()
            mw.beat(items=0)
            context = multiprocessing.get_context("fork")
            workers = [context.Process(target=work, args=(n,)) for n in (1, 2)]
            for worker in workers: worker.start()
            for worker in workers: worker.join()
        """,
        hub.url,
    )
    _, err = child.communicate(timeout=60)
    assert err == ""
    assert sorted(beat["items"] for beat in hub.beats) == [0, 1, 2]


def test_the_supervisor_hears_of_life_steps_calls_and_the_end(
    run: Any, supervisor: tuple[Supervisor, str], until: Until
) -> None:
    ear, name = supervisor
    child = run(
        """
        import midwatch as mw, time
        mw.init()
        mw.step("downloading 3 GB", expect_s=2400)
        @mw.tool(timeout_s=5)
        def search(): return 1
        with mw.cycle(): search()
        time.sleep(0.05)
        mw.beat()
        mw.draining()
        mw.outcome("success")
        """,
        None,
        NOTIFY_SOCKET=name,
    )
    _, err = child.communicate(timeout=60)
    assert err == ""
    until(lambda: any(notice.done for notice in ear.heard), "the end is heard")
    assert ear.heard == [
        notify.Notice(ready=True),
        notify.Notice(status="downloading 3 GB", extend_s=3600.0),
        notify.Notice(call="open"),
        notify.Notice(call="done"),
        notify.Notice(beat=True),
        notify.Notice(beat=True),
        notify.Notice(draining=True),
        notify.Notice(done=True),
    ]


def test_beats_reach_the_supervisor_while_the_hub_hangs(
    run: Any, supervisor: tuple[Supervisor, str], until: Until
) -> None:
    ear, name = supervisor
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        child = run(
            """
            import midwatch as mw, sys
            mw.init()
            for _ in sys.stdin: mw.beat()
            """,
            f"http://127.0.0.1:{silent.getsockname()[1]}",
            NOTIFY_SOCKET=name,
        )
        for number in range(1, 4):
            child.stdin.write("\n")
            child.stdin.flush()
            until(
                lambda n=number: sum(notice.beat for notice in ear.heard) >= n, "it is heard", 4.0
            )
            threading.Event().wait(0.03)  # closer beats are told as one
        child.kill()


def test_beats_that_follow_closely_are_told_once(
    run: Any, supervisor: tuple[Supervisor, str], until: Until
) -> None:
    ear, name = supervisor
    program = "import midwatch as mw\nmw.init()\nfor _ in range(1000): mw.beat()\nmw.draining()\n"
    run(program, None, NOTIFY_SOCKET=name).communicate(timeout=60)
    until(lambda: any(notice.draining for notice in ear.heard), "the end is heard")
    assert 1 <= sum(notice.beat for notice in ear.heard) < 50


def test_a_supervisor_that_is_gone_is_no_harm(run: Any, tmp_path: Path) -> None:
    program = "import midwatch as mw\nmw.init()\nmw.beat()\nmw.step('x', 3)\nprint('fine')\n"
    child = run(program, None, NOTIFY_SOCKET=str(tmp_path / "nobody.sock"))
    assert child.communicate(timeout=60) == ("fine\n", "")


def test_one_complaint_for_a_hub_that_is_away_and_none_of_the_rest(
    run: Any, free_port: int
) -> None:
    child = run(
        """
        import midwatch as mw, time
        from midwatch.sdk import lane
        lane.COMPLAIN_AFTER_S = 0.3
        mw.init()
        for n in range(20):
            mw.beat(); mw.flush(0.05)
        """,
        f"http://127.0.0.1:{free_port}",
    )
    _, err = child.communicate(timeout=60)
    assert err.count("\n") == 1
    assert "cannot reach 127.0.0.1" in err
    assert "secret" not in err


def test_a_hub_that_is_away_for_a_moment_is_not_worth_a_word(run: Any, free_port: int) -> None:
    child = run(
        "import midwatch as mw\nmw.init()\nfor n in range(5): mw.beat(); mw.flush(0.05)\n",
        f"http://127.0.0.1:{free_port}",
    )
    _, err = child.communicate(timeout=60)
    assert err == ""


def test_a_wrong_address_of_the_hub_is_told_once_and_the_agent_works(run: Any) -> None:
    child = run("import midwatch as mw\nmw.init()\nmw.beat()\nprint('fine')\n", "not-a-url")
    out, err = child.communicate(timeout=60)
    assert out == "fine\n"
    assert "expected http://HOST:PORT" in err


def test_a_wrong_address_for_spans_does_not_cost_the_beats(hub: Any, run: Any) -> None:
    program = "import midwatch as mw\nmw.init()\nmw.beat()\nassert mw.flush(5)\n"
    child = run(program, hub.url, OTEL_EXPORTER_OTLP_ENDPOINT="localhost:4318")
    _, err = child.communicate(timeout=60)
    assert err.startswith("spans are not sent: 'localhost:4318/v1/traces' is not an address")
    assert len(hub.beats) == 1


def test_a_signal_handler_may_use_every_name_at_any_moment(hub: Any, run: Any) -> None:
    child = run(
        """
        import midwatch as mw, signal, os, threading
        mw.init()
        heard = 0
        def on_signal(*_):
            global heard
            heard += 1
            mw.event("signal", {"n": heard}); mw.beat(); mw.draining(); mw.flush(0)
        signal.signal(signal.SIGALRM, on_signal)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        for _ in range(5000):
            with mw.cycle() as c: c.usage(tokens=1)
            mw.event("loop")
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(heard > 10)
        """,
        hub.url,
    )
    out, err = child.communicate(timeout=90)
    assert (out, err) == ("True\n", "")
