"""The fleet file: what it means, and what it says when it cannot be used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from midwatch.core.errors import FleetFileError, Problem
from midwatch.core.fleet import Fleet
from midwatch.core.fleetfile.reader import FIRST_FLEET, MAX_EXPANDED, check_conditions, load, read
from midwatch.core.quantities import split_listen


def no_file(path: str) -> str:
    raise FileNotFoundError(2, "No such file or directory", path)


def fleet(text: str, env: Mapping[str, str] | None = None, read_file: Any = no_file) -> Fleet:
    return load(text, file="f", root="/srv", env=env or {}, read_file=read_file)


def problems(
    text: str, env: Mapping[str, str] | None = None, read_file: Any = no_file
) -> list[str]:
    with pytest.raises(FleetFileError) as caught:
        fleet(text, env, read_file)
    return str(caught.value).split("\n")


def agent(body: str) -> str:
    return f"agents:\n  a:\n    command: [x]\n    {body}\n"


CONTRACT = """\
fleet: night-shift
timezone: Europe/Paris
defaults:
  heartbeat: {every: 60s, missed: 2}
  restart: {when: failure, attempts: 3, backoff: 5s..5m, cooldown: 5m, stable_after: 10m}
  limits: {memory: 1GiB, open_files: 16384, processes: 256, wall: 24h, disk: 5GiB, stop_grace: 20s}
  budget: {per_day: $10, per_hour: $2, per_run: $1, per_call: $0.50, warn_at: 80%}
budget: {per_month: $200}
agents:
  inbox:
    command: [python, agents/inbox.py]
    group: support
    env: {TZ: Europe/Paris}
    env_file: .env
    instances: 1
    loop: {tokens_per_cycle: 10x, tool_calls_per_cycle: 5x, same_call: 5}
    liveness: heartbeat
    verify: [{file: out/report.md, newer_than: start, not_empty: true}]
  nightly-report:
    command: [python, agents/report.py]
    schedule: {cron: "0 6 * * *", timezone: Europe/Paris, missed: once, overlap: skip}
    limits: {memory: 2GiB, wall: ~}
models: {on_cut: continue}
tools: {}
alerts: [{name: error-rate, when: error_rate > 0.05 && calls >= 20, for: 5m}]
routes:
  - {match: severity == "critical", to: ops, repeat: 4h}
notify: {ops: "slack://…"}
hub: {listen: "127.0.0.1:8700", otlp_http: "127.0.0.1:4318", otlp_grpc: "127.0.0.1:4317"}
gateway: {listen: "127.0.0.1:8701"}
"""


def test_the_fleet_file_of_the_contract_is_read() -> None:
    read_ = fleet(CONTRACT)
    inbox, report = read_.agents["inbox"], read_.agents["nightly-report"]
    assert (read_.fleet, read_.timezone, read_.root) == ("night-shift", "Europe/Paris", "/srv")
    assert inbox.heartbeat.every == 60
    assert inbox.restart.backoff == (5.0, 300.0)
    assert inbox.budget.per_call == 500_000_000
    assert inbox.loop.tokens_per_cycle == 10.0
    assert read_.routes[0].repeat == 4 * 3600
    assert report.schedule is not None
    assert report.schedule.cron == "0 6 * * *"


def test_defaults_are_laid_under_each_agent_key_by_key() -> None:
    report = fleet(CONTRACT).agents["nightly-report"].limits
    assert report.memory == 2 * 2**30  # its own
    assert report.wall is None  # lifted with ~
    assert report.disk == 5 * 2**30  # from the defaults
    assert report.stop_grace == 20.0


def test_environments_are_added_and_the_agents_own_wins() -> None:
    text = "defaults: {env: {A: 1, B: 2}}\n" + agent("env: {B: 3}")
    assert fleet(text).agents["a"].env == {"A": "1", "B": "3"}


def test_the_snapshot_with_plain_numbers_reads_as_the_same_fleet() -> None:
    read_ = fleet(CONTRACT)
    snapshot = json.loads(read_.model_dump_json())
    assert snapshot["agents"]["inbox"]["limits"]["memory"] == 2**30
    again = Fleet.model_validate(snapshot)
    assert again == read_
    assert again.resolved() == read_


def test_keys_that_later_versions_enforce_are_named_in_notes() -> None:
    source = read(CONTRACT, file="f", root="/srv", env={}, read_file=no_file)
    assert [(note.line, note.key) for note in source.notes] == [
        (16, "loop.tool_calls_per_cycle"), (18, "verify"), (24, "tools"), (25, "alerts"),
    ]  # fmt: skip
    assert "not judged by this version" in source.notes[0].message


def test_no_note_is_given_for_what_is_not_used_and_for_names_that_look_like_keys() -> None:
    text = "agents:\n  alerts: {command: [x], env: {tools: a}}\n  verify: {command: [x]}\n"
    assert read(text, file="f", root="/", env={}, read_file=no_file).notes == []


def test_a_group_without_an_entry_is_noted_when_there_are_entries() -> None:
    text = "groups: {support: {budget: {per_day: $1}}}\n" + agent("group: suport")
    notes = read(text, file="f", root="/", env={}, read_file=no_file).notes
    assert [n.message for n in notes if n.key == "agents.a.group"] == [
        "'suport' has no entry under 'groups:'; did you mean 'support'?"
    ]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_says_how_to_begin(text: str) -> None:
    assert problems(text) == f"f:1:1: the file is empty; begin with:\n\n{FIRST_FLEET}".split("\n")


@pytest.mark.parametrize("text", ["fleet: x\n", "agents:\n", "agents: {}\n", "agents: []\n"])
def test_a_fleet_without_agents_says_how_to_begin(text: str) -> None:
    assert f"agents: there is no agent; begin with:\n\n{FIRST_FLEET}" in "\n".join(problems(text))


def test_what_the_messages_suggest_is_itself_right() -> None:
    assert list(fleet(FIRST_FLEET).agents) == ["hello"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key:value", "f:1:1: expected 'key: value' lines, with a space after the ':', got 'key:value'"),
        ("- a", "f:1:1: expected 'key: value' lines, with a space after the ':', got a list"),
        (agent("comand: [y]"), "f:4:5: agents.a.comand: unknown key; did you mean 'command'?"),
        (agent("memory: 1GiB"), "f:4:5: agents.a.memory: unknown key; did you mean 'limits.memory'?"),
        (agent("cron: 0 6 * * *"), "f:4:5: agents.a.cron: unknown key; did you mean 'schedule.cron'?"),
        (agent("root: /x"), "f:4:5: agents.a.root: unknown key; known here: command, external, group, cwd, env, env_file, instances, lease, tty, sandbox, liveness, heartbeat, restart, limits, children, budget, calls, loop, schedule, verify, enabled, rollback"),
        (agent("x: 1\nroot: /x")[:-1].replace("    x: 1\n", ""), "f:4:1: root: unknown key; known here: fleet, timezone, defaults, budget, budgets, groups, agents, models, tools, alerts, routes, notify, hub, gateway"),
        (agent("x: 1\nb: {command: [y]}")[:-1].replace("    x: 1\n", ""), "f:4:1: b: unknown key; an agent stands under 'agents:', indented"),
        ("agents:\n  inbox: {command: [x]}\nbudgets: [{agent: 'inbx:search', per_day: $1}]", "f:3:19: budgets[0].agent: there is no agent 'inbx'; did you mean 'inbox'?"),
        (agent("limits: {memory: 1G}"), "f:4:22: agents.a.limits.memory: expected a size such as 512MiB or 5GB, got '1G'; did you mean 1GiB?"),
        (agent("limits: {memory: 512}"), "f:4:22: agents.a.limits.memory: expected a size with its unit, such as 512MiB or 1GiB, got 512"),
        (agent("limits: {wall: 60}"), "f:4:20: agents.a.limits.wall: expected a duration with its unit, such as 90s or 5m, got 60; did you mean 60s?"),
        (agent("limits: {wall: 1:30}"), "f:4:20: agents.a.limits.wall: YAML reads 1:30 as the number 90; write 90, or put it in quotes when you mean the text"),
        (agent("limits: {open_files: 0600}"), "f:4:26: agents.a.limits.open_files: YAML reads 0600 as the number 384; write 384, or put it in quotes when you mean the text"),
        (agent("limits: {open_files: 4}"), "f:4:26: agents.a.limits.open_files: expected at least 16, got 4"),
        (agent("budget: {per_day: 10}"), "f:4:23: agents.a.budget.per_day: expected money with its unit, such as $1.50 or $0.002, got 10; did you mean $10?"),
        (agent("budget: {warn_at: 80}"), "f:4:23: agents.a.budget.warn_at: expected a ratio with its unit, such as 80% or 10x, got 80; did you mean 80%?"),
        (agent("restart: {when: no}"), "f:4:21: agents.a.restart.when: expected one of always, failure, never, got no, which YAML reads as false; put it in quotes when you mean the text"),
        (agent("restart: {when: allways}"), "f:4:21: agents.a.restart.when: expected one of always, failure, never, got 'allways'; did you mean 'always'?"),
        (agent("restart: {backoff: 5m..5s}"), "f:4:24: agents.a.restart.backoff: expected the smaller delay first, such as 5s..5m, got '5m..5s'"),
        (agent("restart: {backoff: [5s, 5m]}"), "f:4:24: agents.a.restart.backoff: expected one or two durations such as 5s..5m, got a list"),
        (agent("restart: {backoff: 5}"), "f:4:24: agents.a.restart.backoff: expected one or two durations such as 5s..5m, got 5"),
        (agent("restart: 5"), "f:4:14: agents.a.restart: expected 'key: value' lines, got 5"),
        (agent("instances: 1.5"), "f:4:16: agents.a.instances: expected a whole number, got 1.5"),
        (agent("instances: 501"), "f:4:16: agents.a.instances: expected at most 500, got 501"),
        (agent("enabled: maybe"), "f:4:14: agents.a.enabled: expected true or false, got 'maybe'"),
        (agent("group: yes"), "f:4:12: agents.a.group: expected text, got yes, which YAML reads as true; put it in quotes when you mean the text"),
        (agent("group: a/b"), "f:4:12: agents.a.group: expected a name of up to 63 letters, digits, dots, dashes and underscores, a letter or digit first, got 'a/b'"),
        (agent("env: {A: ~}"), "f:4:14: agents.a.env.A: expected text, got nothing"),
        (agent('env: {"A=B": x}'), "f:4:10: agents.a.env: expected names of variables without '=', got 'key: value' lines"),
        (agent("verify: {file: x}"), "f:4:13: agents.a.verify: expected a list, such as [a, b], got 'key: value' lines"),
        (agent("schedule: {timezone: UTC}"), "f:4:15: agents.a.schedule: expected exactly one of cron, every and at, got 'key: value' lines"),
        (agent("schedule: {every: 1h, cron: 0 6 * * *}"), "f:4:15: agents.a.schedule: expected exactly one of cron, every and at, got 'key: value' lines; cron and every are given: take out what you do not mean"),
        (agent("schedule: {every: 0s}"), "f:4:23: agents.a.schedule.every: expected at least 1s from one start to the next, got '0s'"),
        (agent("schedule: {every: 15m, jitter: 20m}"), "f:4:36: agents.a.schedule.jitter: expected a jitter shorter than every, got '20m'; starts would overtake each other"),
        (agent("schedule: {at: tomorrow}"), "f:4:20: agents.a.schedule.at: expected a day and a time such as 2026-11-30 06:00, got 'tomorrow'"),
        (agent("schedule: {every: 1h, between: 25:00..06:00}"), "f:4:36: agents.a.schedule.between: expected hours of the day such as 22:00..06:00, got '25:00..06:00'; no clock shows 25:00"),
        (agent("schedule: {cron: 0 0 31 2 *}"), "f:4:22: agents.a.schedule.cron: expected a cron expression that fires some day, got '0 0 31 2 *'; no such day is in any calendar"),
        ("agents:\n  a: {}\n", "f:2:3: agents.a: command is missing: write command: [program, argument…]"),
        ("agents:\n  a:\n", "f:2:3: agents.a: command is missing: write command: [program, argument…]"),
        ("agents:\n  a: {command: x y}\n", "f:2:16: agents.a.command: expected a list such as [python, agent.py], got 'x y'"),
        ("agents:\n  a: {command: []}\n", "f:2:16: agents.a.command: expected at least the program's name, got an empty list"),
        ('agents:\n  a: {command: [" "]}\n', "f:2:16: agents.a.command: expected the program's name first, got a list"),
        ("agents:\n  a b: {command: [x]}\n", "f:2:3: agents.a b: expected a name of up to 63 letters, digits, dots, dashes and underscores, a letter or digit first, got 'a b'"),
        ("agents:\n  midwatch: {command: [x]}\n", "f:2:3: agents.midwatch: the name 'midwatch' is Midwatch's own; choose another"),
        ("agents:\n  gateway: {command: [x]}\n", "f:2:3: agents.gateway: the name 'gateway' is Midwatch's own; choose another"),
        ("agents:\n  Hub: {command: [x]}\n", "f:2:3: agents.Hub: the name 'Hub' is Midwatch's own; choose another"),
        (agent("x: 1\ntimezone: Pariss")[:-1].replace("    x: 1\n", ""), "f:4:11: timezone: expected a time zone such as Europe/Paris, got 'Pariss'; did you mean 'Europe/Paris'?"),
        ("notify: {ops: slack}\n" + agent(""), "f:1:15: notify.ops: expected an apprise URL such as slack://… or mailto://…, got 'slack'"),
        ("notify: {ops: 'json://x'}\nroutes: [{to: opps}]\n" + agent(""), "f:2:15: routes[0].to: there is no 'opps' under 'notify:'; did you mean 'ops'?"),
        ("routes: [{to: ops}]\n" + agent(""), "f:1:15: routes[0].to: there is no 'ops' under 'notify:'; add it there"),
        ("hub: {listen: 8700}\n" + agent(""), "f:1:15: hub.listen: expected an address and a port such as 127.0.0.1:8700, got 8700; did you mean 127.0.0.1:8700?"),
        ("hub: {listen: '127.0.0.1:70000'}\n" + agent(""), "f:1:15: hub.listen: expected an address and a port such as 127.0.0.1:8700, got '127.0.0.1:70000'"),
        ("gateway: {listen: '0.0.0.0:8700'}\n" + agent(""), "f:1:19: gateway.listen: port 8700 is also that of hub.listen; choose another"),
        ("hub: {otlp_http: '127.0.0.1:8701'}\n" + agent(""), "f:1:18: hub.otlp_http: port 8701 is also that of gateway.listen; choose another"),
    ],
)  # fmt: skip
def test_one_mistake_gives_one_message_with_its_place(text: str, message: str) -> None:
    assert [line for line in problems(text) if line] == [message]


def test_everything_that_is_wrong_is_said_at_once_in_the_order_of_the_file() -> None:
    text = """\
timezone: Europe/Pariss
agents:
  inbox:
    comand: [x]
    limits: {memory: 1G}
  inbox:
    command: [y]
  other: {instances: 0}
routes: [{to: nobody}]
"""
    assert [line.split(": ")[0] + " " + line.split(": ")[1] for line in problems(text)] == [
        "f:1:11 timezone",
        "f:4:5 agents.inbox.comand",
        "f:5:22 agents.inbox.limits.memory",
        "f:6:3 agents.inbox",
        "f:8:3 agents.other",
        "f:8:22 agents.other.instances",
        "f:9:15 routes[0].to",
    ]


def test_words_for_processes_stay_as_written() -> None:
    text = agent("env: {UMASK: 0022, ON: yes, N: 1_000, DAY: 2024-01-01, F: 1.10}")
    text = text.replace("[x]", "[sleep, 5, no, 1e3]")
    read_ = fleet(text).agents["a"]
    assert read_.command == ["sleep", "5", "no", "1e3"]
    assert read_.env == {
        "UMASK": "0022",
        "ON": "yes",
        "N": "1_000",
        "DAY": "2024-01-01",
        "F": "1.10",
    }


def test_a_section_whose_lines_are_all_comments_is_left_out() -> None:
    text = "defaults:\nbudget:\ngroups:\nroutes:\nnotify:\nhub:\n" + agent("env:\n    limits:")
    assert fleet(text) == fleet(agent(""))


def test_variables_and_files_are_expanded_once() -> None:
    text = agent('env: {A: "${X}-${X}", B: "${file:secret}", C: "$${X} $X", D: "${file:/abs}"}')
    files = {"/srv/secret": "s3\n", "/abs": "${X}\r\n"}
    env = fleet(text, {"X": "${Y}"}, files.__getitem__).agents["a"].env
    assert env == {"A": "${Y}-${Y}", "B": "s3", "C": "${X} $X", "D": "${X}"}


def test_an_expanded_quantity_is_read_like_a_written_one() -> None:
    text = agent('limits: {memory: "${MEM}", open_files: "${N}"}')
    limits = fleet(text, {"MEM": "1GiB", "N": "64"}).agents["a"].limits
    assert (limits.memory, limits.open_files) == (2**30, 64)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${HOEM}", "${HOEM} is not set in the environment; did you mean 'HOME'?"),
        ("${NOPE}", "${NOPE} is not set in the environment; set it, or export it"),
        (
            "${HOME:-x}",
            "'${HOME:-x}' names nothing; write ${NAME} or ${file:PATH}, and $${ for a plain ${",
        ),
        ("${}", "'${}' names nothing; write ${NAME} or ${file:PATH}, and $${ for a plain ${"),
        ("${HOME", "'${' is not closed by '}'; '$${' gives a plain '${'"),
        ("${file:}", "${file:} names no file; write ${file:PATH}"),
        ("${file:gone}", "${file:gone} cannot be read: No such file or directory"),
        ("${BAD}", "${BAD} holds characters that are not text"),
    ],
)
def test_what_cannot_be_expanded_is_said_at_its_line(value: str, message: str) -> None:
    env = {"HOME": "/h", "BAD": "\udcff"}
    assert problems(agent(f"env: {{A: '{value}'}}"), env) == [f"f:4:14: agents.a.env.A: {message}"]


def test_a_value_that_came_from_elsewhere_is_never_shown() -> None:
    text = agent(
        'limits: {memory: "${SECRET}", wall: "x${SECRET}", open_files: "${SECRET}"}\n    liveness: "${SECRET}"'
    )
    text += 'notify: {ops: "${SECRET}"}\n'
    said = problems(text, {"SECRET": "hunter2"})
    assert len(said) == 5
    assert "hunter2" not in "\n".join(said)
    assert "got the value of '${SECRET}'" in said[0]


def test_expansions_are_bounded_in_sum() -> None:
    text = agent(f'env: {{A: "{"${X}" * 50}"}}')
    (said,) = problems(text, {"X": "x" * (MAX_EXPANDED // 10)})
    assert said == "f:4:14: agents.a.env.A: all ${…} together are longer than 4000000 characters"


def test_instances_never_share_a_name_with_another_agent() -> None:
    text = "agents:\n  web: {command: [x], instances: 3}\n  web.2: {command: [x]}\n"
    assert problems(text) == [
        "f:2:34: agents.web.instances: one of the 3 instances would be called 'web.2', and so is another agent; rename that one"
    ]
    long = "a" * 62
    assert (
        "longer than 63 characters"
        in problems(f"agents: {{{long}: {{command: [x], instances: 2}}}}")[0]
    )


def test_conditions_that_cannot_be_decided_are_named_with_their_line() -> None:
    text = """\
routes:
  - {match: severity == "critical" && count > 3, to: console}
  - {match: "severity = 5", to: console}
  - {match: severty == "x", to: console}
  - {match: "1 + 1", to: console}
""" + agent("")
    found = check_conditions(read(text, file="f", root="/", env={}, read_file=no_file))
    assert [(problem.line, problem.key) for problem in found] == [
        (3, "routes[1].match"), (4, "routes[2].match"), (5, "routes[3].match"),
    ]  # fmt: skip
    assert "is not a CEL expression" in found[0].message
    assert "severty" in found[1].message
    assert "must give true or false" in found[2].message


def test_an_external_agent_needs_no_command() -> None:
    assert fleet("agents: {a: {external: true}}").agents["a"].command is None


def test_the_console_is_a_target_without_being_declared() -> None:
    assert fleet("routes: [{to: console}]\n" + agent("")).routes[0].to == "console"


def test_ports_that_the_system_chooses_are_never_equal() -> None:
    text = "hub: {listen: '127.0.0.1:0'}\ngateway: {listen: '127.0.0.1:0'}\n" + agent("")
    assert split_listen(fleet(text).hub.listen) == ("127.0.0.1", 0)


@pytest.mark.parametrize(
    ("text", "parts"), [("[::1]:8700", ("::1", 8700)), ("localhost:1", ("localhost", 1))]
)
def test_addresses_are_split(text: str, parts: tuple[str, int]) -> None:
    assert split_listen(text) == parts


# -- whatever is written, the answer is a fleet or FleetFileError ---------------------------------

_WORDS = st.sampled_from(
    ["agents", "a", "command", "limits", "memory", "env", "restart", "when", "budget", "routes", "notify",
     "schedule", "cron", "hub", "listen", "defaults", "x", "yes", "1GiB", "5s..5m", "$1", "0 6 * * *", "root",
     "groups", "alerts", "verify", "timezone", "UTC", "${X}", "<<", "backoff", "group", "external"]
)  # fmt: skip
_SCALARS = st.one_of(
    _WORDS, st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)
)
_TREES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(_WORDS, inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.text(max_size=300))
def test_arbitrary_text_is_a_fleet_or_an_error_for_people(text: str) -> None:
    _fleet_or_error(text)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(_WORDS, _TREES, max_size=5), st.dictionaries(_WORDS, _TREES, max_size=4))
def test_an_arbitrary_tree_is_a_fleet_or_an_error_for_people(
    top: dict[str, Any], entry: dict[str, Any]
) -> None:
    _fleet_or_error(
        yaml.safe_dump({**top, "agents": {"a": {"command": ["x"], **entry}}}, allow_unicode=True)
    )


def _fleet_or_error(text: str) -> None:
    found: list[Problem] = []
    try:
        read_ = fleet(text, {"X": "value"})
    except FleetFileError as error:
        found = error.problems
    else:
        assert Fleet.model_validate_json(read_.model_dump_json()) == read_
        return
    assert found
    for problem in found:
        assert problem.line >= 1
        for jargon in (
            "Input should",
            "pydantic",
            "validation error",
            "NoneType",
            "something else",
        ):
            assert jargon not in problem.message


_seconds = st.integers(0, 10_000).map(lambda n: f"{n}s")
_sizes = st.integers(1, 10_000).map(lambda n: f"{n}MiB")
_money = st.integers(0, 10**12).map(lambda n: f"${n // 10**9}.{n % 10**9:09}")
_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True).filter(
    lambda name: name not in ("midwatch", "supervisor")
)
_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).map(
    lambda text: text.replace("${", "$ {")
)
_agents = st.fixed_dictionaries(
    {"command": st.lists(_text.filter(str.strip), min_size=1, max_size=3)},
    optional={
        "env": st.dictionaries(st.from_regex(r"[A-Z]{1,8}", fullmatch=True), _text, max_size=3),
        "limits": st.fixed_dictionaries({}, optional={"memory": _sizes, "wall": _seconds}),
        "budget": st.fixed_dictionaries({}, optional={"per_day": _money, "per_call": _money}),
        "heartbeat": st.fixed_dictionaries({"every": _seconds}),
        "instances": st.integers(1, 500),
    },
)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(_names, _agents, min_size=1, max_size=4),
    st.fixed_dictionaries({}, optional={"heartbeat": st.fixed_dictionaries({"every": _seconds})}),
)
def test_every_right_fleet_is_read_and_survives_the_snapshot(
    agents: dict[str, Any], defaults: dict[str, Any]
) -> None:
    text = yaml.safe_dump({"agents": agents, "defaults": defaults})
    read_ = fleet(text)
    assert {n: a.command for n, a in read_.agents.items()} == {
        n: a["command"] for n, a in agents.items()
    }
    assert {n: a.env for n, a in read_.agents.items()} == {
        n: a.get("env", {}) for n, a in agents.items()
    }
    assert Fleet.model_validate_json(read_.model_dump_json()) == read_
