"""What is told to the supervisor when its socket is full."""

from __future__ import annotations

from midwatch.sdk.notify import Notifier


class Slow(Notifier):
    """A notifier whose socket can be full; `meanwhile` runs in the middle of the next send."""

    def __init__(self) -> None:
        super().__init__("@nowhere")
        self.full = False
        self.told: list[bytes] = []
        self.meanwhile: str | None = None

    def _put(self, datagram: bytes) -> bool:
        said, self.meanwhile = self.meanwhile, None
        if said is not None:
            self.step(said, None)
        if self.full:
            return False
        self.told.append(datagram)
        return True


def test_what_a_full_socket_refuses_is_told_later_in_order_and_beats_are_not() -> None:
    one = Slow()
    one.full = True
    one.step("a", None)
    one.beat()
    one.step("b", None)
    one.full = False
    one.step("c", None)
    assert one.told == [b"STATUS=a", b"STATUS=b", b"STATUS=c"]


def test_two_that_send_at_once_lose_nothing_of_what_waits() -> None:
    one = Slow()
    one.full = True
    one.step("a", None)
    one.step("b", None)
    one.full = False
    one.meanwhile = "from a signal handler"
    one.step("c", None)
    assert sorted(one.told) == [
        b"STATUS=a",
        b"STATUS=b",
        b"STATUS=c",
        b"STATUS=from a signal handler",
    ]


def test_an_ended_call_is_told_as_a_sign_of_work_but_not_over_one_that_is_open() -> None:
    one = Slow()
    one.called()
    one.called()  # close behind the first: it says nothing new
    assert one.told == [b"X_MIDWATCH_CALL=done"]
    other = Slow()
    other.call_opened()
    other.called()
    assert other.told == [b"X_MIDWATCH_CALL=open"]
    other.call_done()
    assert other.told == [b"X_MIDWATCH_CALL=open", b"X_MIDWATCH_CALL=done"]
