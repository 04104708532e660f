"""The how-to pages do what they say: `midwatch check` takes their fleet files, the command line their commands."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cronsim import CronSim
from typer.main import get_command

from midwatch.cli import app

sys.path.insert(0, str(Path(__file__).parents[1]))
from pages import FOLDER, PAGES, blocks, fleets, furnish, translated

MAX_LINES = 150


# -- the pages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_a_page_is_short(page: Path) -> None:
    assert len(page.read_text().splitlines()) <= MAX_LINES


def test_the_index_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", (FOLDER / "README.md").read_text()))
    assert linked == {page.name for page in PAGES} - {"README.md"}


# -- fleet files ------------------------------------------------------------------------------------


def _shown() -> Iterator[Any]:
    for page in PAGES:
        for number, text in enumerate(fleets(page), 1):
            yield pytest.param(text, id=f"{page.stem}-{number}")


@pytest.mark.parametrize("text", list(_shown()))
def test_check_takes_every_fleet_file_shown(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = furnish(tmp_path, text)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    code = app.run(["check", "-f", str(file), "--json"])
    said = capsys.readouterr()
    assert said.err == ""
    answer = json.loads(said.out)
    assert (code, answer["problems"]) == (0, [])
    later = {note["key"] for note in answer["notes"]}
    assert later == set(), "a page shows keys that this version reads and does not follow"


# -- commands ---------------------------------------------------------------------------------------


def _commands() -> Iterator[Any]:
    """Yield each use of `midwatch` in a shell line, as words, also behind && and before a pipe."""
    for page in PAGES:
        text = "\n".join(blocks(page, "console", "sh")).replace("\\\n", " ")
        for number, line in enumerate(text.splitlines(), 1):
            lexer = shlex.shlex(
                line.strip().removeprefix("$ "), posix=True, punctuation_chars="|&;<>"
            )
            lexer.whitespace_split = True
            try:
                words = list(lexer)
            except ValueError:
                continue  # output, with an apostrophe in it
            parts = " ".join("\0" if set(w) <= set("|&;<>") else shlex.quote(w) for w in words)
            for part in parts.split("\0"):
                use = shlex.split(part.strip().removeprefix("sudo "))
                if use[:1] == ["midwatch"]:
                    yield pytest.param(use[1:], id=f"{page.stem}-{number}-{'-'.join(use[1:3])}")


@cache
def _command_line() -> Any:
    return get_command(app.build())


@pytest.mark.parametrize("words", list(_commands()))
def test_every_command_shown_is_one_with_options_that_it_has(words: list[str]) -> None:
    command: Any = _command_line()
    path, rest = ["midwatch"], list(words)
    while hasattr(command, "commands"):
        if command.invoke_without_command and (not rest or rest[0].startswith("-")):
            break
        known = rest[:1] and rest[0] in command.commands
        assert known, f"no command {' '.join([*path, *rest[:1]])}"
        path.append(rest.pop(0))
        command = command.commands[path[-1]]
    assert len(path) > 1
    # raises for an option or an argument that it does not take, and for one that is missing
    command.make_context(" ".join(path), rest)


# -- coming from ------------------------------------------------------------------------------------


def _units(page: Path) -> dict[str, configparser.ConfigParser]:
    found: dict[str, configparser.ConfigParser] = {}
    for text in blocks(page, "ini"):
        parser = configparser.ConfigParser(strict=True, interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(text)
        found[text.splitlines()[0].removeprefix("# ")] = parser
    return found


def test_every_program_of_supervisord_is_an_agent() -> None:
    page, agents = translated("supervisord")
    (conf,) = _units(page).values()
    programs = {s.partition(":")[2]: conf[s] for s in conf.sections() if s.startswith("program:")}
    assert set(programs) == set(agents)
    for name, program in programs.items():
        entry = agents[name]
        assert program["directory"] == f"/srv/agents/{entry['cwd']}"
        assert int(program.get("numprocs", "1")) == entry.get("instances", 1)
        words = shlex.split(program["command"])
        assert words[1:] == [str(word) for word in entry["command"][1:]]
        assert words[0].endswith(entry["command"][0])
        assert (program.get("autostart") != "false") == entry.get("enabled", True)
    members = {name for name, entry in agents.items() if entry.get("group") == "support"}
    assert set(conf["group:support"]["programs"].split(",")) == members


def test_every_app_of_pm2_is_an_agent() -> None:
    page, agents = translated("pm2")
    text = blocks(page, "js")[0]
    assert re.findall(r'name: "(\w+)"', text) == list(agents)
    node = shutil.which("node")
    if node is None:
        return
    program = f"const module = {{}};\n{text}\nconsole.log(JSON.stringify(module.exports.apps))"
    done = subprocess.run([node, "-e", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    for one in json.loads(done.stdout):
        entry = agents[one["name"]]
        words = [
            one.get("interpreter", "node"), *one.get("node_args", "").split(), one["script"],
            *one.get("args", "").split(),
        ]  # fmt: skip
        assert entry["command"] == words
        assert entry["cwd"] == one["cwd"].removeprefix("./")
        assert entry.get("env", {}) == one.get("env", {})
        assert entry.get("instances", 1) == one.get("instances", 1)


def test_every_service_of_systemd_is_an_agent(tmp_path: Path) -> None:
    page, agents = translated("systemd")
    units = _units(page)
    services = {name.removesuffix(".service") for name in units if name.endswith(".service")}
    assert services == set(agents)
    scheduled = {name for name, entry in agents.items() if "schedule" in entry}
    assert {n.removesuffix(".timer") for n in units if n.endswith(".timer")} == scheduled
    for name in services:
        service = units[f"{name}.service"]["Service"]
        place = Path("/srv/agents", agents[name]["cwd"])
        command = [str(place / agents[name]["command"][0]), *agents[name]["command"][1:]]
        assert shlex.split(service["ExecStart"]) == command
        assert service["WorkingDirectory"] == str(place)


def test_every_line_of_the_crontab_is_an_agent() -> None:
    page, agents = translated("cron")
    lines = [
        line
        for line in blocks(page, "crontab")[0].splitlines()
        if line and not line.startswith("#") and not re.match(r"\w+=", line)
    ]
    rules: dict[str, str | None] = {}
    for line in lines:
        rule = None if line.startswith("@reboot") else " ".join(line.split()[:5])
        if rule is not None:
            CronSim(rule, datetime(2026, 1, 1))  # noqa: DTZ001  any day will do
        place = re.search(r"cd /srv/agents/(\w+) &&", line)
        assert place is not None
        rules[place[1]] = rule
    assert rules == {name: entry.get("schedule", {}).get("cron") for name, entry in agents.items()}
    assert {entry["cwd"] for entry in agents.values()} == set(rules)
