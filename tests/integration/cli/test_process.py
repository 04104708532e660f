"""The command line as a process: exit codes, what reaches stdout, what is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import FakeHub, Midwatch, agent  # noqa: TID252  there is no tests package


def test_version_and_help_exit_0(shell: Midwatch) -> None:
    assert shell("version").out.startswith("midwatch ")
    ended = shell("--help")
    assert ended.code == 0
    for command in ("up", "status", "kill", "logs", "incidents", "ack", "check", "token", "link"):
        assert f" {command} " in ended.out


@pytest.mark.parametrize(
    "words", [("statsu",), ("status", "--nope"), ("stop",), ("logs", "x", "-n", "-1")]
)
def test_usage_errors_exit_2_and_leave_stdout_empty(
    shell: Midwatch, words: tuple[str, ...]
) -> None:
    ended = shell(*words)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err


def test_json_on_stdout_is_one_document_and_nothing_else(shell: Midwatch, data: Path) -> None:
    ended = shell("incidents", "--json", "--data", data)
    assert (ended.code, ended.err) == (1, "")
    assert len(json.loads(ended.out)) == 2


def test_no_hub_exits_3(shell: Midwatch, tmp_path: Path) -> None:
    ended = shell("status", "--json", "--data", tmp_path / "none")
    assert (ended.code, ended.out) == (3, "")


def test_a_reader_that_goes_away_is_no_error_worth_a_trace(
    shell: Midwatch, data: Path, hub: FakeHub
) -> None:
    hub.routes["GET /api/agents"] = {"items": [agent(f"a{n}") for n in range(5000)], "next": None}
    command = "set -o pipefail; {py} -m midwatch.cli status --data {data} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command.format(py=sys.executable, data=data)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("a0 ")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        ("version >/dev/full", 2, "midwatch: cannot write the output: No space left on device"),
        ("version >&-", 0, ""),
        ("status --data nowhere 2>&-", 3, ""),
    ],
)
def test_an_output_that_cannot_be_written_is_an_error_for_people(
    tmp_path: Path, command: str, code: int, said: str
) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m midwatch.cli {command}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(said)
    assert "Traceback" not in done.stderr


def test_asking_imports_no_server(shell: Midwatch, data: Path) -> None:
    script = (
        "import sys; from midwatch.cli import app; code = app.run(sys.argv[1:]);"
        "heavy = {'fastapi', 'duckdb', 'apprise', 'granian', 'sqlalchemy', 'yaml', 'psutil', 'rich'};"
        "found = sorted(heavy & set(sys.modules));"
        "sys.exit(f'imported {found}' if found else code)"
    )
    ended = shell("status", "--data", data, python=("-c", script))
    assert (ended.code, ended.err) == (0, "")


def test_without_the_server_extra_one_line_says_how_to_install_it(shell: Midwatch) -> None:
    script = (
        "import sys; sys.modules['typer'] = None; sys.argv[0] = 'midwatch';"
        "from midwatch.cli.__main__ import main; main()"
    )
    ended = shell("status", python=("-c", script))
    assert (ended.code, ended.out) == (2, "")
    assert 'pip install "midwatch[server]"' in ended.err
    assert "Traceback" not in ended.err


def test_a_missing_module_of_our_own_is_not_mistaken_for_the_extra(shell: Midwatch) -> None:
    script = (
        "import sys; sys.modules['midwatch.cli.app'] = None; sys.argv[0] = 'midwatch';"
        "from midwatch.cli.__main__ import main; main()"
    )
    assert "ModuleNotFoundError" in shell("status", python=("-c", script)).err
