"""The unit as text: what it says, and that no path can say more than it should."""

from __future__ import annotations

import plistlib
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.fleet import Fleet
from midwatch.core.service import (
    Service,
    check_name,
    command,
    launchd,
    quote,
    status_of,
    stop_s_of,
    unit,
)
from midwatch.core.units import Unexpected


def service(**changed: object) -> Service:
    fields = {
        "name": "night", "program": ("/opt/mw/bin/midwatch",), "file": "/srv/fleet/midwatch.yaml",
        "data": "/var/lib/midwatch", "root": "/srv/fleet", "run_as": "agents", "uid": 998,
        "env_file": "/etc/midwatch/night.env", "stop_s": 45.0,
    }  # fmt: skip
    return Service(**{**fields, **changed})  # pyright: ignore[reportArgumentType]


def sections(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("["):
            name = line
        elif line and not line.startswith("#"):
            found.setdefault(name, []).append(line)
    return found


def test_the_unit_is_watched_hardened_and_delegated() -> None:
    found = sections(unit(service()))
    assert {"StartLimitIntervalSec=5min", "StartLimitBurst=10"} <= set(found["[Unit]"])
    assert {
        "Type=notify", "NotifyAccess=main", "WatchdogSec=30s", "Restart=always", "KillMode=mixed",
        "Delegate=yes", "OOMPolicy=continue", "TimeoutStopSec=75s", "LimitNOFILE=65536",
        "NoNewPrivileges=yes", "ProtectSystem=strict", "User=agents", "ProtectControlGroups=no",
        "ExecStart=/opt/mw/bin/midwatch up -f /srv/fleet/midwatch.yaml --data /var/lib/midwatch",
        "ExecReload=/opt/mw/bin/midwatch reload --data /var/lib/midwatch",
        "ReadWritePaths=-/var/lib/midwatch -/srv/fleet",
        "ReadWritePaths=-/tmp -/var/tmp -/run/user/998",
        "EnvironmentFile=-/etc/midwatch/night.env", "RestartPreventExitStatus=2",
        "CapabilityBoundingSet=", "ProtectKernelTunables=yes",
    } <= set(found["[Service]"])  # fmt: skip
    assert found["[Install]"] == ["WantedBy=multi-user.target"]
    assert not any(line.startswith("PrivateTmp") for line in found["[Service]"])


def test_agents_with_walls_of_their_own_keep_an_unmasked_proc() -> None:
    text = unit(service(sandboxed=True))
    assert "ProtectKernelTunables" not in text
    assert "ProtectKernelLogs" not in text


def test_a_users_unit_needs_no_mount_namespace() -> None:
    text = unit(service(user_scope=True, run_as=None))
    assert "WantedBy=default.target" in text
    for key in ("User=", "ProtectSystem", "ReadWritePaths", "network-online", "RuntimeDirectory"):
        assert key not in text
    assert "NoNewPrivileges=yes" in text


def test_spaces_percent_signs_quotes_and_dollars_mean_themselves() -> None:
    text = unit(service(file='/srv/a b/50%/it\'s "$HOME"/m.yaml', root="/srv/a b/50%"))
    assert r'-f "/srv/a b/50%%/it' in text
    assert r"'s \"$$HOME\"/m.yaml" in text
    assert "WorkingDirectory=/srv/a b/50%%\n" in text
    assert '"-/srv/a b/50%%"' in text


@pytest.mark.parametrize("path", ["/a\nExecStartPre=/bin/evil", "/a\rb", "/a\x00", "/a\x7f"])
def test_a_path_that_would_begin_another_line_is_refused(path: str) -> None:
    for key in ("file", "data", "root"):
        with pytest.raises(Unexpected):
            unit(service(**{key: path}))


@pytest.mark.parametrize("root", ["/srv/fleet\\", "/srv/fleet "])
def test_a_directory_whose_end_systemd_would_not_leave_as_it_is_is_refused(root: str) -> None:
    with pytest.raises(Unexpected, match="ends in neither"):
        unit(service(root=root))


@given(
    st.lists(
        st.text(st.characters(min_codepoint=32, exclude_characters="\x7f"), max_size=20),
        min_size=1,
        max_size=4,
    )
)
def test_a_command_line_reads_back_as_its_words(words: list[str]) -> None:
    """systemd's quoting is a subset of the shell's once specifiers and variables are undone."""
    text = command(words).replace("%%", "%").replace("$$", "$")
    assert "\n" not in text
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters, lexer.whitespace = True, "", " "
    assert list(lexer) == list(words)


def test_an_empty_word_stays_a_word() -> None:
    assert quote("") == '""'


@pytest.mark.parametrize("name", ["a/b", "", "-x", "a b", "x" * 70, "../up"])
def test_a_name_that_is_no_units_is_refused(name: str) -> None:
    with pytest.raises(Unexpected):
        check_name(name)
    assert check_name("night.service") == "night"


def test_the_longest_grace_decides_how_long_a_stop_may_take() -> None:
    fleet = Fleet.model_validate(
        {
            "agents": {
                "a": {"command": ["x"]},
                "b": {"command": ["x"], "limits": {"stop_grace": "2m"}},
            }
        }
    )
    assert stop_s_of(fleet.resolved()) == 120


def test_launchd_is_told_the_same() -> None:
    found = plistlib.loads(launchd(service(), "/log").encode())
    assert found["ProgramArguments"][1:3] == ["up", "-f"]
    assert (found["KeepAlive"], found["ExitTimeOut"]) == (True, 75)


def test_the_status_counts_states_the_most_frequent_first() -> None:
    assert status_of({}) == "no agents"
    assert status_of({"a": "running"}) == "1 agent: 1 running"
    assert (
        status_of({"a": "parked", "b": "running", "c": "running"})
        == "3 agents: 2 running, 1 parked"
    )
