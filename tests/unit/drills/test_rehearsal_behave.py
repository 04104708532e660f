"""Misbehaviour: whom it is about, how often it applies, and that it repeats exactly."""

from __future__ import annotations

import pytest

from midwatch.drills.rehearsal.behave import (
    PRESETS,
    Asked,
    Mode,
    read,
    read_header,
    split_model,
)
from midwatch.drills.rehearsal.orders import MAX_BEHAVIOURS, Orders


def asked(fingerprint: str = "f", **who: str) -> Asked:
    base = {"api": "chat", "model": "gpt-4o-mini", "agent": "inbox", "key": "rehearsal", "task": ""}
    return Asked(**{**base, **who}, fingerprint=fingerprint)


@pytest.mark.parametrize(
    ("name", "model", "mode"),
    [
        ("gpt-4o-mini:slow", "gpt-4o-mini", Mode.SLOW),
        ("gpt-4o-mini:429", "gpt-4o-mini", Mode.RATE_LIMIT),
        ("claude-haiku-4-5:529", "claude-haiku-4-5", Mode.OVERLOADED),
        ("qwen3:8b", "qwen3:8b", None),
        ("ft:gpt-4o:org::id", "ft:gpt-4o:org::id", None),
        ("gpt-4o", "gpt-4o", None),
        (":slow", ":slow", None),
    ],
)
def test_a_mode_behind_the_models_name_is_split_off(
    name: str, model: str, mode: Mode | None
) -> None:
    got, behaviour = split_model(name)
    assert (got, behaviour.mode if behaviour else None) == (model, mode)


@pytest.mark.parametrize(
    ("order", "who", "holds"),
    [
        ({"mode": "error"}, {}, True),
        ({"mode": "error", "model": "gpt-*"}, {}, True),
        ({"mode": "error", "model": "gpt-*"}, {"model": "claude-haiku-4-5"}, False),
        ({"mode": "error", "agent": "inbox", "api": "chat"}, {}, True),
        ({"mode": "error", "agent": "prices"}, {}, False),
        ({"mode": "error", "key": "other"}, {}, False),
        ({"mode": "error", "task": "health*"}, {"task": "health_check"}, True),
    ],
)
def test_a_behaviour_holds_for_those_that_it_names(
    order: dict[str, object], who: dict[str, str], holds: bool
) -> None:
    assert read(order).holds_for(asked(**who)) is holds


def test_a_behaviour_begins_after_skip_and_ends_after_times() -> None:
    orders = Orders()
    orders.add(read({"mode": "error", "skip": 1, "times": 2}))
    got = [orders.choose(asked(), n) is not None for n in range(5)]
    assert got == [False, True, True, False, False]
    assert orders.listed()[0]["matched"] == 5
    assert orders.listed()[0]["applied"] == 2


def test_the_newest_behaviour_wins_and_ok_shields_from_the_rest() -> None:
    orders = Orders()
    orders.add(read("error"))
    number = orders.add(read({"mode": "ok", "agent": "inbox"}))
    assert orders.choose(asked(), 0) is None
    assert orders.clear(number) == 1
    chosen = orders.choose(asked(), 0)
    assert chosen is not None
    assert chosen.mode is Mode.ERROR


def test_chance_is_about_right_and_repeats_exactly() -> None:
    def draw(seed: int) -> list[bool]:
        orders = Orders(seed)
        orders.add(read({"mode": "error", "p": "30%"}))
        return [orders.choose(asked(f"question {n}"), 0) is not None for n in range(2000)]

    assert 520 < sum(draw(1)) < 680
    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_retry_of_the_same_question_draws_anew() -> None:
    orders = Orders(7)
    orders.add(read({"mode": "error", "p": 0.5}))
    drawn = {orders.choose(asked(), orders.count("f")) is None for _ in range(30)}
    assert drawn == {True, False}


@pytest.mark.parametrize(
    ("text", "mode", "first_token"),
    [("slow", Mode.SLOW, 2.0), ('{"mode": "slow", "first_token": "50ms"}', Mode.SLOW, 0.05)],
)
def test_a_header_names_a_mode_or_holds_json(text: str, mode: Mode, first_token: float) -> None:
    behaviour = read_header(text)
    assert (behaviour.mode, behaviour.first_token) == (mode, first_token)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("slwo", "mode: "),
        ({"mode": "slow", "p": 2}, "p: "),
        ({"mode": "slow", "first_token": "soon"}, "first_token: "),
        ({"mode": "slow", "first_token": float("nan")}, "first_token: "),
        ({"mode": "slow", "times": 0}, "times: "),
        ({"mode": "slow", "colour": "red"}, "colour: "),
        ({}, "mode: "),
        (None, "behaviour: "),
    ],
)
def test_a_wrong_behaviour_is_refused_by_its_field(value: object, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^{complaint}"):
        read(value)


def test_behaviours_are_bounded() -> None:
    orders = Orders()
    for _ in range(MAX_BEHAVIOURS):
        orders.add(read("ok"))
    with pytest.raises(ValueError, match="DELETE some first"):
        orders.add(read("ok"))


@pytest.mark.parametrize(
    ("order", "holds"),
    [
        ({"path": "/a/*"}, True),
        ({"path": "/b/*"}, False),
        ({"stream": True}, True),
        ({"stream": False}, False),
        ({"prefill": True}, False),
        ({"has": "top_k"}, True),
        ({"has": "seed"}, False),
    ],
)
def test_a_behaviour_may_be_about_a_path_a_form_or_a_field(
    order: dict[str, object], holds: bool
) -> None:
    who = Asked(
        "chat", "m", "", "", "", "f", path="/a/v1", stream=True, fields=frozenset({"top_k"})
    )
    assert read({"mode": "error", **order}).holds_for(who) is holds


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_short_name_is_a_behaviour(name: str) -> None:
    model, behaviour = split_model(f"m:{name}")
    assert model == "m"
    assert behaviour == read(PRESETS[name]) == read_header(name)


def test_a_status_must_be_told() -> None:
    with pytest.raises(ValueError, match="needs status"):
        read("status")
    assert split_model("m:status") == ("m:status", None)


@pytest.mark.parametrize(
    "order",
    [
        {"mode": "shape", "headers": {"x y": "1"}},
        {"mode": "shape", "headers": {"x": "1\r\ny: 2"}},
        {"mode": "shape", "type": "text/html\r\nx: y"},
        {"mode": "redirect", "location": "/a\r\nx: y"},
        {"mode": "shape", "sse": "upside-down"},
        {"mode": "status", "status": 999},
    ],
)
def test_an_order_cannot_break_out_of_its_place(order: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        read(order)
