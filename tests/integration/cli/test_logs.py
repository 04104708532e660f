"""`midwatch logs` reads the captured output, across rotations, and follows it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from .conftest import TOKEN, FakeHub, Midwatch  # noqa: TID252  there is no tests package


def stamp(minutes_ago: float) -> str:
    at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "logs" / "inbox"
    folder.mkdir(parents=True)
    (folder / "output.log.2").write_text(stamp(90) + "oldest\n")
    (folder / "output.log.1").write_text(stamp(30) + "older\n" + stamp(20) + "old\n")
    (folder / "output.log").write_text(stamp(1) + "new\n")
    (folder / "output.log.bak").write_text("not ours\n")
    return folder


def said(text: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in text.splitlines()]


def test_all_that_is_kept_is_printed_oldest_first(
    midwatch: Midwatch, folder: Path, tmp_path: Path
) -> None:
    ended = midwatch("logs", "inbox", "--data", tmp_path)
    assert (ended.code, said(ended.out)) == (0, ["oldest", "older", "old", "new"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--since", "25m"), ["old", "new"]),
        (("--since", "2h"), ["oldest", "older", "old", "new"]),
        (("--since", "2000-01-01"), ["oldest", "older", "old", "new"]),
        (("--since", "2100-01-01T00:00+02:00"), []),
        (("-n", "1"), ["new"]),
        (("-n", "0"), []),
        (("--since", "40m", "-n", "2"), ["old", "new"]),
    ],
)
def test_less_is_printed_when_less_is_asked(
    midwatch: Midwatch, folder: Path, tmp_path: Path, options: tuple[str, ...], expected: list[str]
) -> None:
    assert said(midwatch("logs", "inbox", *options, "--data", tmp_path).out) == expected


def test_output_that_is_no_text_is_passed_on_as_it_is(
    shell: Midwatch, folder: Path, tmp_path: Path
) -> None:
    (folder / "output.log").write_text(stamp(1) + "a\nno time of its own \x00\n")
    ended = shell("logs", "inbox", "--since", "10m", "--data", tmp_path)
    assert ended.out.splitlines()[-1] == "no time of its own \x00"


def test_an_unknown_agent_names_the_nearest(
    midwatch: Midwatch, folder: Path, tmp_path: Path
) -> None:
    ended = midwatch("logs", "inbx", "--data", tmp_path)
    assert (ended.code, ended.err) == (
        2,
        "midwatch: there is no output of an agent 'inbx'; did you mean 'inbox'?\n",
    )
    assert midwatch("logs", "../logs/inbox", "--data", tmp_path).code == 2
    assert midwatch("logs", "inbox", "--data", tmp_path / "none").code == 2


def test_a_time_that_is_none_is_refused(midwatch: Midwatch, folder: Path, tmp_path: Path) -> None:
    ended = midwatch("logs", "inbox", "--since", "yesterday", "--data", tmp_path)
    assert ended.code == 2
    assert "--since: expected how long ago (10m, 2h)" in ended.err


@pytest.fixture
def following(
    folder: Path, tmp_path: Path
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[str], None]]]:
    out = tmp_path / "out"
    with out.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "midwatch.cli", "logs", "inbox", "-f", "--data", str(tmp_path)],
            stdout=stream, stderr=subprocess.PIPE,
        )  # fmt: skip

    def expect(text: str) -> None:
        deadline = time.monotonic() + 40
        while text.encode() not in out.read_bytes():
            assert process.poll() is None, process.stderr and process.stderr.read()
            assert time.monotonic() < deadline, out.read_bytes()
            time.sleep(0.02)

    try:
        yield process, expect
    finally:
        process.kill()
        process.communicate()


def test_output_is_followed_across_a_rotation_until_ctrl_c(
    following: tuple[subprocess.Popen[bytes], Callable[[str], None]], folder: Path, tmp_path: Path
) -> None:
    process, expect = following
    expect("new")
    with (folder / "output.log").open("a") as stream:
        stream.write("first addition\n")
    expect("first addition")
    with (folder / "output.log").open("a") as stream:
        stream.write("last words\n")
    (folder / "output.log").rename(folder / "output.log.1")
    (folder / "output.log").write_text("after rotation\n")
    expect("after rotation")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    text = (tmp_path / "out").read_text()
    assert text.count("last words") == 1
    assert text.index("last words") < text.index("after rotation")


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """Two agents, two instances of a third, and the hub, which print by turns."""
    lines = {
        "inbox": [(5, "INFO: one"), (3, "ERROR: three")],
        "prices": [(4, '{"level":"warn","msg":"two"}'), (2, "level=info msg=four")],
        "worker.1": [(1, "Traceback (most recent call last):"), (0.9, "  File x"), (0.8, "ValueError: y")],
        "worker.2": [(0.5, "plain")],
        "hub": [(0.1, "own business")],
    }  # fmt: skip
    for name, said in lines.items():
        folder = tmp_path / "logs" / name
        folder.mkdir(parents=True)
        (folder / "output.log").write_text("".join(f"{stamp(ago)}{text}\n" for ago, text in said))
    return tmp_path


def rows(text: str) -> list[tuple[str, str]]:
    return [(head.strip(), rest[26:]) for head, _, rest in (line.partition("|") for line in text.splitlines())]  # fmt: skip


def test_several_agents_are_interleaved_by_time_and_named(midwatch: Midwatch, fleet: Path) -> None:
    ended = midwatch("logs", "inbox", "prices", "--data", fleet)
    assert rows(ended.out) == [
        ("inbox", "INFO: one"),
        ("prices", '{"level":"warn","msg":"two"}'),
        ("inbox", "ERROR: three"),
        ("prices", "level=info msg=four"),
    ]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ((), {"inbox", "prices", "worker.1", "worker.2"}),
        (("w*",), {"worker.1", "worker.2"}),
        (("worker", "inbox"), {"worker.1", "worker.2", "inbox"}),
        (("hub", "p*"), {"hub", "prices"}),
        (("--agent", "w*", "--agent", "prices"), {"worker.1", "worker.2", "prices"}),
    ],
)
def test_names_globs_and_instances_choose(
    midwatch: Midwatch, fleet: Path, asked: tuple[str, ...], expected: set[str]
) -> None:
    ended = midwatch("logs", *asked, "--data", fleet)
    assert {name for name, _ in rows(ended.out)} == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--level", "error"), ["ERROR: three", "Traceback (most recent call last):", "  File x", "ValueError: y"]),
        (("--level", "WARN"), ['{"level":"warn","msg":"two"}', "ERROR: three",
                               "Traceback (most recent call last):", "  File x", "ValueError: y"]),
        (("--grep", "t(wo|hree)"), ['{"level":"warn","msg":"two"}', "ERROR: three"]),
        (("--grep", "(?i)error: th"), ["ERROR: three"]),
        (("--grep", "msg=four"), ["level=info msg=four"]),
        (("--since", "150s", "--until", "60s"), ["level=info msg=four", "Traceback (most recent call last):"]),
    ],
)  # fmt: skip
def test_lines_are_chosen_by_level_pattern_and_time(
    midwatch: Midwatch, fleet: Path, options: tuple[str, ...], expected: list[str]
) -> None:
    ended = midwatch("logs", *options, "--data", fleet)
    found = [text for _, text in rows(ended.out) if text != "plain"]
    assert found[: len(expected)] == expected


def test_json_is_one_document_with_level_and_fields(midwatch: Midwatch, fleet: Path) -> None:
    ended = midwatch("logs", "prices", "inbox", "--json", "--data", fleet)
    document = json.loads(ended.out)
    assert [entry["level"] for entry in document] == ["info", "warning", "error", "info"]
    assert document[1]["fields"] == {"level": "warn", "msg": "two"}
    assert document[3]["message"] == "four"
    assert json.loads(midwatch("logs", "inbox", "-n", "0", "--json", "--data", fleet).out) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--grep", "(a"), "is no pattern (RE2)"),
        (("--grep", r"(a)\1"), "is no pattern (RE2)"),
        (("--level", "loud"), "expected one of trace, debug, info"),
        (("--until", "soon"), "--until: expected how long ago"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_can(
    midwatch: Midwatch, fleet: Path, options: tuple[str, ...], said: str
) -> None:
    ended = midwatch("logs", "inbox", *options, "--data", fleet)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


def test_a_hub_elsewhere_is_asked_with_the_same_options(
    midwatch: Midwatch, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = {
        None: {"lines": [stamp(3) + "one"], "after": "1.1.1", "more": True, "gap": False},
        "1.1.1": {"lines": [stamp(1) + "three"], "after": "1.1.2", "more": False, "gap": False},
    }
    hub.routes["GET /api/agents"] = {
        "items": [{"agent": "inbox"}, {"agent": "prices"}],
        "next": None,
    }
    hub.routes["GET /api/agents/inbox/logs"] = lambda query: pages[query.get("after")]
    hub.routes["GET /api/agents/prices/logs"] = {"lines": [stamp(2) + "two"], "more": False}
    monkeypatch.setenv("MIDWATCH_TOKEN", TOKEN)
    ended = midwatch("logs", "--url", hub.url, "--level", "info", "--grep", "t|o", "--since", "1h")
    assert ended.err == ""
    assert rows(ended.out) == [("inbox", "one"), ("prices", "two"), ("inbox", "three")]
    asked = [query for route, query, _ in hub.asked if route == "GET /api/agents/inbox/logs"]
    assert (asked[0]["level"], asked[0]["grep"], asked[1]["after"]) == ("info", "t|o", "1.1.1")
