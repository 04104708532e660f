"""What systemd writes when the machine is going down, and what only looks like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from midwatch.supervisor.machine.hostdown import NOLOGIN, SCHEDULED, going_down, look

NOW = 1_750_000_000.0

# as `shutdown -r +1` leaves it in /run/systemd/shutdown/scheduled
PLANNED = "USEC={usec}\nWARN_WALL=1\nMODE={mode}\n"

# as systemd-user-sessions writes it to /run/nologin
GOING = (
    "System is going down. Unprivileged users are not permitted to log in anymore."
    " For technical details, see pam_nologin(8).\n"
)
BOOTING = (
    "System is booting up. Unprivileged users are not permitted to log in yet."
    " Please come back later. For technical details, see pam_nologin(8).\n"
)


def _planned(at: float, mode: str = "reboot") -> str:
    return PLANNED.format(usec=int(at * 1e6), mode=mode)


@pytest.mark.parametrize(
    ("scheduled", "nologin", "said"),
    [
        (_planned(NOW + 5), "", "it reboots"),
        (_planned(NOW - 5, "poweroff"), "", "it powers off"),
        (_planned(NOW + 5, "soft-something"), "", "it goes down"),
        ("", GOING, "it goes down"),
        (_planned(NOW + 3600), "", ""),
        (_planned(NOW - 3600), "", ""),
        ("", BOOTING, ""),
        ("", "no logins today, we repair the disk\n", ""),
        ("USEC=\nMODE=reboot\n", "", ""),
        ("USEC=99999999999999999999999999\n", "", ""),
        ("\x00\xff garbage USEC", "\x00", ""),
        ("", "", ""),
    ],
)
def test_only_a_shutdown_that_is_happening_counts(scheduled: str, nologin: str, said: str) -> None:
    assert going_down(scheduled, nologin, NOW) == said


def test_the_files_are_read_where_systemd_writes_them(tmp_path: Path) -> None:
    assert look(str(tmp_path), NOW) == ""
    (tmp_path / SCHEDULED).parent.mkdir(parents=True)
    (tmp_path / SCHEDULED).write_text(_planned(NOW))
    assert look(str(tmp_path), NOW) == "it reboots"
    (tmp_path / SCHEDULED).unlink()
    (tmp_path / NOLOGIN).write_text(GOING)
    assert look(str(tmp_path), NOW) == "it goes down"
