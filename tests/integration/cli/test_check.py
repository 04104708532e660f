"""`midwatch check`, and what `midwatch up` refuses before anything is started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import Midwatch  # noqa: TID252  there is no tests package

GOOD = 'agents:\n  a: {command: [python3, -c, "pass"]}\n'


def test_a_right_file_exits_0(midwatch: Midwatch, tmp_path: Path) -> None:
    (tmp_path / "midwatch.yaml").write_text("fleet: night\n" + GOOD)
    ended = midwatch("check")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == "midwatch.yaml: fleet 'night' with 1 agent is right\n"


def test_what_is_not_enforced_yet_is_noted_and_exits_0(midwatch: Midwatch, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("tools: {}\n" + GOOD)
    ended = midwatch("check", "-f", "f.yaml")
    assert ended.code == 0
    assert ended.out.startswith("note: f.yaml:1:1: tools: is read, but tool calls are not judged")
    document = midwatch("check", "-f", "f.yaml", "--json").json
    assert document["ok"] is True
    assert [note["key"] for note in document["notes"]] == ["tools"]


def test_problems_go_to_stderr_with_file_line_and_column_and_exit_2(
    midwatch: Midwatch, tmp_path: Path
) -> None:
    (tmp_path / "midwatch.yaml").write_text(
        "agents:\n  a: {comand: [x]}\n  b: {command: [pythn3]}\n"
    )
    ended = midwatch("check")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "midwatch.yaml:2:7: agents.a.comand: unknown key; did you mean 'command'?\n"
        "midwatch: 1 problem in midwatch.yaml\n"
    )
    (tmp_path / "midwatch.yaml").write_text("agents:\n  b: {command: [pythn3]}\n")
    ended = midwatch("check")
    assert ended.code == 2
    assert "there is no program 'pythn3' in PATH; did you mean 'python3" in ended.err
    document = midwatch("check", "--json").json
    assert document["ok"] is False
    assert document["problems"][0]["key"] == "agents.b.command[0]"


@pytest.mark.parametrize("command", ["check", "up"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no fleet file 'midwatch.yaml'"),
        (b"", "the file is empty"),
        (b"agents:\n\ta: {}\n", "indent with spaces"),
        (b"\xff\xfea\x00", "is not UTF-8 text"),
        (b"x" * 4_000_001, "larger than 4000000 bytes"),
        (b"agents: {a: {command: [/nonexistent]}}", "there is no file '/nonexistent'"),
    ],
)
def test_a_file_that_cannot_be_used_exits_2_and_starts_nothing(
    midwatch: Midwatch, tmp_path: Path, command: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "midwatch.yaml").write_bytes(content)
    ended = midwatch(command, env={"MIDWATCH_DATA": str(tmp_path / "data")})
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert not (tmp_path / "data").exists()


def test_a_missing_file_says_how_to_begin(midwatch: Midwatch) -> None:
    ended = midwatch("up")
    assert "agents:\n  hello:\n    command:" in ended.err
    assert "midwatch check" in ended.err


def test_a_directory_and_an_unreadable_path_are_refused(midwatch: Midwatch, tmp_path: Path) -> None:
    assert "is a directory" in midwatch("check", "-f", tmp_path).err
    assert midwatch("check", "-f", "a" * 300).code == 2
    assert "cannot read the fleet file" in midwatch("check", "-f", "a" * 300).err


def test_a_device_without_end_is_not_read_to_its_end(midwatch: Midwatch) -> None:
    if not os.path.exists("/dev/zero"):
        pytest.skip("no /dev/zero")
    assert "larger than" in midwatch("check", "-f", "/dev/zero").err


def test_files_and_variables_are_read_from_the_fleet_files_directory(
    midwatch: Midwatch, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "secret").write_text("x")
    (tmp_path / "sub" / "f.yaml").write_text(
        'agents:\n  a: {command: [python3, -c, pass], env: {A: "${file:secret}", B: "${WHO}"}}\n'
    )
    assert midwatch("check", "-f", "sub/f.yaml", env={"WHO": "me"}).code == 0
    assert "${WHO} is not set" in midwatch("check", "-f", "sub/f.yaml").err


def test_the_schema_is_printed_without_a_file(midwatch: Midwatch) -> None:
    document = midwatch("check", "--schema").json
    assert document["title"] == "Midwatch fleet file"
    assert "agents" in document["properties"]


def test_a_wrong_hub_address_is_refused(midwatch: Midwatch, tmp_path: Path) -> None:
    (tmp_path / "midwatch.yaml").write_text(GOOD)
    ended = midwatch("up", "--hub-listen", "8700")
    assert ended.code == 2
    assert "127.0.0.1:8700" in ended.err
