"""An agent at a prompt: found, told once, not judged hung, and taken back when it goes on."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.states import State
from midwatch.supervisor.orders import Orders
from midwatch.supervisor.terminal import carry_out
from midwatch.wire.notify import Notice

QUESTION = "Do you trust the files in this folder? (y/N)"
BEATS = {"liveness": "heartbeat", "heartbeat": {"every": 15.0, "missed": 2}}
MEANT_TO_WAIT = {"liveness": "none"}


def at_terminal(make: Any, **entry: Any) -> Any:
    house = make(tty=True, **entry)
    house.keeper.begin(resumed=False)
    house.system.advance(1.5)
    return house


def prints(house: Any, text: str) -> None:
    house.process.launch.on_output(text.encode())


def asks(house: Any, text: str = QUESTION) -> None:
    prints(house, text)
    house.process.reads_terminal = True


def test_a_trust_dialog_is_told_with_its_screen_well_within_half_a_minute(make: Any) -> None:
    house = at_terminal(make)
    asks(house, f"\x1b[2J\x1b[H\x1b[1mWelcome\x1b[0m\r\n\r\n{QUESTION} ")
    house.system.advance(12.0)
    assert house.keeper.state is State.WAITING
    assert house.keeper.reason == f"waits for input: {QUESTION!r}"
    (told,) = house.events("run.waiting")
    assert told["question"] == QUESTION
    assert told["screen"] == ["Welcome", "", QUESTION]
    assert "midwatch attach inbox" in house.said[-1]


def test_it_is_told_once_however_long_it_waits(make: Any) -> None:
    house = at_terminal(make)
    asks(house)
    house.system.advance(8 * 3600.0)
    assert len(house.events("run.waiting")) == 1
    assert house.keeper.state is State.WAITING


def test_a_look_at_the_terminal_asks_for_nothing_else(make: Any) -> None:
    """Where a process stands costs milliseconds, its threads and sockets; that is for who hangs."""
    house = at_terminal(make)

    def standing(_process: Any) -> None:
        raise AssertionError("asked for more than whether it reads")

    house.system.standing = standing
    asks(house)
    house.system.advance(600.0)
    assert house.keeper.state is State.WAITING


def test_an_agent_that_waits_is_not_judged_hung(make: Any) -> None:
    house = at_terminal(make, **BEATS)
    house.keeper.hear(Notice(beat=True))
    asks(house)
    house.system.advance(3600.0)
    assert (house.events("run.hung"), len(house.system.launched)) == ([], 1)


@pytest.mark.parametrize("every", [0.5, 2.0, 600.0])
def test_whoever_waits_is_known_to_wait_before_it_could_count_as_hung(
    make: Any, every: float
) -> None:
    house = at_terminal(make, liveness="heartbeat", heartbeat={"every": every + 1.0, "missed": 2})
    house.keeper.hear(Notice(beat=True))
    asks(house)
    house.system.advance(3 * every + 60.0)
    assert (house.events("run.hung"), house.keeper.state) == ([], State.WAITING)


def test_an_answered_agent_that_hangs_after_all_is_found(make: Any) -> None:
    house = at_terminal(make, **BEATS)
    asks(house)
    house.system.advance(60.0)
    house.process.reads_terminal = False
    house.system.advance(40.0)
    assert len(house.events("run.hung")) == 1


async def test_input_lets_it_go_on(make: Any) -> None:
    house = at_terminal(make)
    asks(house)
    house.system.advance(12.0)
    result, data = await carry_out(house.keeper, "input", {"text": "y", "enter": True}, "ada")
    assert (result, data["characters"], bytes(house.process.typed)) == ("sent", 1, b"y\r")
    assert house.keeper.state is State.RUNNING
    (event,) = house.events("run.input")
    assert event == {"by": "ada", "characters": 1}  # not what was typed: it may be a password


@pytest.mark.parametrize("sign", ["beat", "ready"])
def test_a_word_of_the_agent_lets_it_go_on(make: Any, sign: str) -> None:
    house = at_terminal(make)
    asks(house)
    house.system.advance(12.0)
    house.process.reads_terminal = False
    house.keeper.hear(Notice(**{sign: True}))
    assert house.keeper.state is State.RUNNING


def test_output_lets_it_go_on_when_it_reads_no_longer(make: Any) -> None:
    house = at_terminal(make)
    asks(house)
    house.system.advance(12.0)
    house.process.reads_terminal = False
    prints(house, "y\r\nThank you.\r\n")
    house.system.advance(1.0)
    assert house.keeper.state is State.RUNNING


def test_a_clock_on_the_screen_ends_no_waiting_and_tells_nothing_twice(make: Any) -> None:
    house = at_terminal(make)
    asks(house)
    house.system.advance(12.0)
    for second in range(120):
        prints(house, f"\x1b7\x1b[20;200H12:00:{second % 60:02}\x1b8")
        house.system.advance(1.0)
    assert house.keeper.state is State.WAITING
    assert len(house.events("run.waiting")) == 1


def test_the_next_question_is_told_too(make: Any) -> None:
    house = at_terminal(make)
    asks(house)
    house.system.advance(60.0)
    prints(house, "\r\nPassword: ")
    house.system.advance(60.0)
    assert [e["question"] for e in house.events("run.waiting")] == [QUESTION, "Password:"]


def test_a_shell_that_is_meant_to_wait_is_told_once_in_its_life(make: Any) -> None:
    house = at_terminal(make, **MEANT_TO_WAIT)
    for number in range(20):
        asks(house, f"\r\nresult {number}\r\n>>> ")
        house.system.advance(60.0)
        house.keeper.typed("ada")
        house.system.advance(0.1)
    assert len(house.events("run.waiting")) == 1


def test_a_password_that_a_tool_asks_for_is_found_in_an_open_call(make: Any) -> None:
    house = at_terminal(make, **BEATS)
    house.keeper.hear(Notice(beat=True, call="open"))
    asks(house, "git@example.org's password: ")
    house.system.advance(20.0)
    assert house.events("run.waiting")[0]["question"] == "git@example.org's password:"


# -- controls: none of these waits -----------------------------------------------------------------


def test_an_agent_that_works_and_prints_is_never_reported(make: Any) -> None:
    house = at_terminal(make)
    for line in range(600):
        asks(house, f"step {line}: is this a question?\r\n")  # it reads between two lines, too
        house.system.advance(5.0)
    assert house.events("run.waiting") == []


def test_an_agent_that_is_quiet_but_does_not_read_is_never_reported(make: Any) -> None:
    house = at_terminal(make)
    prints(house, QUESTION)
    house.process.reads_terminal = False
    house.system.advance(8 * 3600.0)
    assert house.events("run.waiting") == []


def test_an_agent_that_is_caught_in_one_read_alone_is_not_reported(make: Any) -> None:
    house = at_terminal(make)
    for _ in range(50):
        house.process.reads_terminal = False
        prints(house, "done? ")
        house.system.advance(7.8)
        house.process.reads_terminal = True  # at the first look, not at the second
        house.system.advance(0.7)
        house.process.reads_terminal = False
        house.system.advance(7.0)
    assert house.events("run.waiting") == []


@pytest.mark.parametrize(
    "word", [Notice(call="open"), Notice(extend_s=3600.0)], ids=["an open call", "a declared step"]
)
def test_an_agent_at_work_that_also_listens_to_its_terminal_is_not_reported(
    make: Any, word: Notice
) -> None:
    house = at_terminal(make)
    asks(house, "thinking…\r\n")
    house.keeper.hear(word)
    house.system.advance(1800.0)
    assert house.events("run.waiting") == []


def test_beats_and_working_children_are_no_waiting(make: Any) -> None:
    house = at_terminal(make)
    asks(house, "> ")
    for _ in range(60):
        house.keeper.hear(Notice(beat=True))
        house.system.advance(5.0)
    for _ in range(300):  # no sample is taken here but the duty's own
        house.process.children_cpu_s += 0.5
        house.system.advance(1.0)
    assert house.events("run.waiting") == []


def test_an_agent_without_a_terminal_is_not_looked_at(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    asks(house)
    house.system.advance(3600.0)
    assert house.events("run.waiting") == []


def test_a_host_that_slept_makes_nobody_wait(make: Any) -> None:
    house = at_terminal(make)
    prints(house, QUESTION)
    house.system.advance(1.0)
    house.process.reads_terminal = True
    house.system.stand_still(3600.0)
    house.keeper.forgive(3600.0)
    house.system.advance(3.0)
    assert house.events("run.waiting") == []


def test_an_agent_that_drains_is_not_called_waiting(make: Any) -> None:
    house = at_terminal(make)
    house.keeper.hear(Notice(draining=True))
    asks(house, QUESTION)
    house.system.advance(300.0)
    assert (house.events("run.waiting"), house.keeper.state) == ([], State.DRAINING)


def test_every_change_of_state_follows_the_table(make: Any) -> None:
    house = at_terminal(make, **{**BEATS, "restart": {"when": "never"}})
    house.system.advance(60.0)
    assert house.keeper.state is State.UNHEALTHY
    asks(house)
    house.system.advance(60.0)
    assert house.keeper.state is State.WAITING
    house.system.end(house.process, code=0)
    house.system.advance(0.1)
    assert house.keeper.odd_edges == 0


# -- orders ----------------------------------------------------------------------------------------


async def test_input_without_a_terminal_says_what_to_set(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    result, data = await carry_out(house.keeper, "input", {"text": "y"}, "ada")
    assert data == {"why": "no-terminal"}
    assert "`tty: true`" in result


async def test_input_to_an_agent_that_does_not_run_says_so(make: Any) -> None:
    house = at_terminal(make)
    house.system.end(house.process, code=0)
    house.system.advance(0.1)
    _, data = await carry_out(house.keeper, "input", {"text": "y"}, "ada")
    assert data == {"why": "not-running"}


async def test_a_terminal_that_takes_nothing_more_is_told(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = at_terminal(make)
    monkeypatch.setattr(house.system, "write", lambda *_: False)
    _, data = await carry_out(house.keeper, "input", {"text": "y"}, "ada")
    assert data == {"why": "full"}


@pytest.mark.parametrize(
    "given", [{}, {"text": 7}, {"text": "x" * 5000}, {"text": "y", "enter": 1}]
)
async def test_input_that_is_none_is_refused(make: Any, given: dict[str, Any]) -> None:
    house = at_terminal(make)
    _, data = await carry_out(house.keeper, "input", given, "ada")
    assert data == {"why": "input"}
    assert bytes(house.process.typed) == b""


async def test_the_screen_of_an_agent_without_a_terminal_is_its_last_lines(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    prints(house, "one\ntwo\n")
    _, data = await carry_out(house.keeper, "screen", {}, "ada")
    assert (data["lines"], data["tty"], data["cursor"]) == (["one", "two"], False, None)


async def test_the_screen_is_drawn_anew_only_when_something_came(make: Any) -> None:
    house = at_terminal(make)
    prints(house, "one\r\n")
    _, first = await carry_out(house.keeper, "screen", {}, "ada")
    record = house.keeper.run.record
    drawn = record.drawn
    await carry_out(house.keeper, "screen", {}, "ada")
    assert record.drawn is drawn
    prints(house, "two")
    _, then = await carry_out(house.keeper, "screen", {}, "ada")
    assert (first["lines"], then["lines"], then["cursor"]) == (["one"], ["one", "two"], [1, 3])


def test_a_new_run_begins_with_an_empty_screen(make: Any) -> None:
    house = at_terminal(make)
    asks(house)
    house.system.advance(12.0)
    house.system.end(house.process, code=1)
    house.system.advance(20.0)
    assert len(house.system.launched) == 2
    assert house.keeper.run.record.bytes() == b""
    assert house.keeper.state is State.RUNNING


async def test_orders_carry_data_both_ways_and_name_one_agent(make: Any) -> None:
    house = at_terminal(make)
    prints(house, "one")
    orders = Orders({"web.1": house.keeper, "web.2": house.keeper})
    seen = await orders.obey("web.1", "screen", "ada", {})
    assert (seen.result, seen.data["lines"], seen.state) == ("seen", ["one"], "running")
    both = await orders.obey("web", "input", "ada", {"text": "y"})
    assert both.data == {"why": "several"}
    assert bytes(house.process.typed) == b""
    sent = await orders.obey("web.2", "input", "ada", {"text": "y", "enter": False})
    assert (sent.result, bytes(house.process.typed)) == ("sent", b"y")
    assert (orders.obeyed, orders.refused) == (2, 1)
