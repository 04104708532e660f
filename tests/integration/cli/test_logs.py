"""`midwatch logs` reads the captured output, across rotations, and follows it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from midwatch.cli import logs

from .conftest import Midwatch  # noqa: TID252  there is no tests package


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
        deadline = time.monotonic() + 20
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
    assert process.wait(10) == 0
    text = (tmp_path / "out").read_text()
    assert text.count("last words") == 1
    assert text.index("last words") < text.index("after rotation")


def test_a_rotation_while_the_kept_files_are_read_loses_and_doubles_nothing(tmp_path: Path) -> None:
    for name, text in (("output.log.2", "1"), ("output.log.1", "2"), ("output.log", "3")):
        (tmp_path / name).write_text(f"{text}\n")
    with contextlib.closing(logs._Tail(tmp_path / "output.log")) as tail:
        lines = logs._kept(tmp_path, tail)
        read = [next(lines)]
        for number in (2, 1):
            (tmp_path / f"output.log.{number}").rename(tmp_path / f"output.log.{number + 1}")
        (tmp_path / "output.log").rename(tmp_path / "output.log.1")
        (tmp_path / "output.log").write_text("4\n")
        read += lines
    assert read == [b"1\n", b"2\n", b"3\n", b"4\n"]


def test_a_file_that_somebody_emptied_is_followed_from_its_new_begin(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    path.write_text("many words\n")
    with contextlib.closing(logs._Tail(path)) as tail:
        assert list(tail.read()) == [b"many words\n"]
        path.write_text("few\n")
        assert list(tail.read()) == [b"few\n"]
