from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midwatch.wire.notify import Notice, decode, encode

line = st.text(st.characters(blacklist_characters="\n\r", blacklist_categories=["Cs"]), max_size=40)


@given(
    st.builds(
        Notice,
        ready=st.booleans(),
        beat=st.booleans(),
        draining=st.booleans(),
        done=st.booleans(),
        status=st.none() | line,
        extend_s=st.none() | st.integers(0, 10**6).map(float),
        call=st.none() | st.sampled_from(["open", "done"]),
    )
)
def test_a_notice_survives_the_socket(notice: Notice) -> None:
    assert decode(encode(notice)) == notice


@given(st.binary(max_size=200))
def test_any_datagram_is_read_without_an_error(datagram: bytes) -> None:
    assert isinstance(decode(datagram), Notice)


def test_what_systemd_daemons_send_is_understood() -> None:
    assert decode(b"READY=1\nSTATUS=Ready to serve\nMAINPID=42\nWATCHDOG=1") == Notice(
        ready=True, beat=True, status="Ready to serve"
    )


def test_a_newline_in_a_status_cannot_forge_a_beat() -> None:
    assert decode(encode(Notice(status="busy\nWATCHDOG=1"))) == Notice(status="busy WATCHDOG=1")
