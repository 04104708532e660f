"""What must exist on this machine before the fleet is started."""

from __future__ import annotations

from midwatch.core.fleetfile import read
from midwatch.core.fleetfile.host import check_host

PROGRAMS = {"python3", "node", "env"}
PATHS = {"/srv/a.py", "/srv/work", "/srv/work/b.py", "/srv/bin/tool", "/srv/.env"}


def missing(text: str) -> list[str]:
    def refuse(path: str) -> str:
        raise FileNotFoundError(path)

    def which(name: str, path: str | None) -> str | None:
        return name if name in PROGRAMS and path != "/nowhere" else None

    source = read(text, file="f", root="/srv", env={}, read_file=refuse)
    problems = check_host(source, which, PATHS.__contains__, lambda: sorted(PROGRAMS))
    return [problem.render("f") for problem in problems]


def test_a_fleet_that_can_be_started_gives_no_problem() -> None:
    text = """\
agents:
  a: {command: [python3, -u, a.py, --input, gone.py], env_file: .env}
  b: {command: [python3, b.py], cwd: work}
  c: {command: [bin/tool]}
  d: {command: [/srv/bin/tool]}
  e: {command: [python3, -m, gone.py]}
  f: {command: [python3, -c, "open('x.py')"]}
  g: {external: true}
"""
    assert missing(text) == []


def test_a_program_that_does_not_exist_names_the_nearest() -> None:
    assert missing("agents:\n  a: {command: [pyhton3, a.py]}\n  b: {command: [zzz]}\n") == [
        "f:2:17: agents.a.command[0]: there is no program 'pyhton3' in PATH; did you mean 'python3'?",
        "f:3:17: agents.b.command[0]: there is no program 'zzz' in PATH; install it, or write its whole path",
    ]


def test_the_agents_own_path_counts() -> None:
    assert missing("agents:\n  a: {command: [node], env: {PATH: /nowhere}}\n") != []


def test_files_that_do_not_exist_are_named_with_their_whole_path() -> None:
    text = """\
defaults: {env_file: gone.env}
agents:
  a: {command: [./gone]}
  b: {command: [python3, gone.py], env_file: .env}
  c: {command: [node, x.js], cwd: nowhere, env_file: .env}
"""
    assert missing(text) == [
        "f:1:22: agents.a.env_file: there is no file '/srv/gone.env'; create it, or take env_file out",
        "f:3:17: agents.a.command[0]: there is no file '/srv/./gone'; correct the path",
        "f:4:26: agents.b.command[1]: there is no file '/srv/gone.py'; correct the path, or set cwd",
        "f:5:35: agents.c.cwd: there is no directory '/srv/nowhere'; create it, or correct the path",
    ]


def test_a_network_through_the_proxy_is_a_problem_until_the_guard_is_there() -> None:
    text = """\
defaults: {sandbox: {network: proxy}}
agents:
  a: {command: [node]}
  b: {command: [node], sandbox: {network: off}}
"""
    assert missing(text) == [
        "f:1:31: agents.a.sandbox.network: 'proxy' comes with the guard, which this version does not have yet; write on or off"
    ]


def test_an_env_file_where_a_walled_agent_may_write_is_told_before_the_start() -> None:
    text = """\
agents:
  a: {command: [python3, a.py], env_file: .env}
  b: {command: [python3, b.py], cwd: work, sandbox: {}}
"""
    assert missing(text) == []
    (told,) = missing(text + "  c: {command: [python3, a.py], sandbox: {}}\n")
    assert told.startswith(
        "f:2:43: agents.a.env_file: '/srv/.env' lies where agent 'c' may write from inside its walls"
    )
    assert missing("defaults: {sandbox: {}, env_file: .env}\n" + text) == []
