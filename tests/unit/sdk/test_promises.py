"""What every public name promises: it never raises, never waits, and does nothing without a hub.

The tests walk the public names themselves, so that a new one is held to the promise too.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import midwatch as mw
import midwatch.sdk
from midwatch.sdk import runtime, shield
from midwatch.sdk.scope import Scope
from midwatch.sdk.testing import MemoryNotifier, recording

LONGEST_S = 0.05
TRIES = 4
"""Further tries of what took too long."""

NAMES = [name for name in mw.__all__ if not isinstance(getattr(mw, name), type)]


class Hostile:
    """Raises whatever is done with it."""

    def _no(self, *_: Any) -> Any:
        raise RuntimeError("hostile")

    __str__ = __repr__ = __bool__ = __float__ = __int__ = __index__ = __len__ = __iter__ = _no
    __eq__ = __hash__ = __lt__ = __gt__ = __add__ = __getitem__ = __call__ = __format__ = _no  # pyright: ignore[reportAssignmentType]

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("hostile")


class HostileText(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("hostile")

    def isprintable(self) -> bool:
        raise RuntimeError("hostile")


def endless() -> Iterator[int]:
    return itertools.count()


def nested() -> Any:
    value: Any = {}
    value["self"] = value
    return value


VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    10**400,
    1e308,
    math.nan,
    math.inf,
    -math.inf,
    "",
    "x" * 2_000_000,
    "\ud800 lone",
    "line\nbreak\0",
    b"bytes",
    object(),
    Hostile(),
    HostileText("x"),
    {Hostile: Hostile(), 1: {2: {3}}},
    nested(),
    [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]],
    list(range(100_000)),
    endless(),
    Exception,
    print,
    lambda: 1 / 0,
    threading.Lock(),
    float,
]


class BrokenTransport:
    """A transport that fails at everything."""

    def __getattr__(self, name: str) -> Any:
        raise OSError(28, "No space left on device")


class BrokenNotifier(BrokenTransport):
    """A notifier that fails at everything."""


def uses(which: str, /, *args: Any, **kwargs: Any) -> Callable[[], Any]:
    """Use a public name in all the ways there are, with these arguments."""
    function = getattr(mw, which)

    def use() -> None:
        made = function(*args, **kwargs)
        if which in {"cycle", "session", "turn"} and isinstance(made, Scope):
            with made as scope:
                if isinstance(scope, mw.Cycle):
                    scope.usage(*args, **kwargs)
                    scope.done(*args, **kwargs)
                    scope.fail(*args, **kwargs)
            made(lambda: None)
        if which == "tool" and callable(made) and not args:
            assert made(lambda: 7)() == 7

    return use


def all_uses(value: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    keywords = (
        "tokens",
        "cost_usd",
        "items",
        "unit",
        "result",
        "error",
        "data",
        "expect_s",
        "track",
    )
    keywords += ("name", "retries", "side_effect", "poll", "goal_met", "total", "unknown", "agent")
    for name in NAMES:
        if name == "flush":
            continue  # it waits as long as it is told: see below
        if name == "spawn":
            continue  # it starts a process, and fails as subprocess does: see test_spawn
        yield name, uses(name)
        yield name, uses(name, value)
        yield name, uses(name, value, value)
        for keyword in keywords:
            yield f"{name} {keyword}", uses(name, **{keyword: value})


def check(value: Any) -> None:
    for name, use in all_uses(value):
        began = time.perf_counter()
        try:
            use()
        except RuntimeError as error:  # what the agent's own function raises is the agent's
            assert name.startswith("tool"), (name, error)  # noqa: PT017
        took_s = time.perf_counter() - began
        for _ in range(TRIES):
            if took_s > LONGEST_S:  # a busy machine may take the processor away
                began = time.perf_counter()
                use()
                took_s = time.perf_counter() - began
        assert took_s < LONGEST_S, f"{name} took {took_s * 1000:.0f} ms"


@pytest.fixture(autouse=True)
def _swallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the shield does what it does in an agent."""
    monkeypatch.setattr(shield, "RAISE", False)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_no_name_raises_or_waits_whatever_it_is_given(value: Any) -> None:
    with recording():
        check(value)


@pytest.mark.parametrize("value", [None, Hostile(), "x"], ids=["none", "hostile", "text"])
def test_no_name_raises_or_waits_when_transport_and_supervisor_are_broken(
    value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken: Any = runtime.Runtime("a", "r", None, None, traces=True)
    broken.transport, broken.notifier, broken.traces = BrokenTransport(), BrokenNotifier(), True
    monkeypatch.setattr(runtime, "current", broken)
    check(value)
    assert mw.flush() is False
    assert mw.statistics() == {}
    assert shield.swallowed


@pytest.mark.parametrize("value", [None, Hostile(), "x"], ids=["none", "hostile", "text"])
def test_without_a_hub_nothing_is_done(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr("socket.socket.__init__", lambda *args, **_: opened.append(args))
    threads = threading.active_count()
    check(value)
    assert mw.flush() is True
    assert runtime.current is None
    assert threading.active_count() == threads
    assert opened == []


def test_flush_waits_no_longer_than_it_is_told() -> None:
    for given in VALUES:
        if isinstance(given, int | float) and given is not True and given > 1:
            continue
        took: list[float] = []
        for _ in range(1 + TRIES):
            began = time.perf_counter()
            mw.flush(given)
            took.append(time.perf_counter() - began)
        assert min(took) < LONGEST_S


def test_interrupts_pass_the_shield() -> None:
    @shield.shielded
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_the_flag_of_our_tests_makes_the_shield_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    @shield.shielded
    def failing() -> None:
        raise ValueError("a bug of ours")

    assert failing() is None
    assert shield.swallowed == {"failing:ValueError": 1}
    monkeypatch.setattr(shield, "RAISE", True)
    with pytest.raises(ValueError, match="a bug of ours"):
        failing()


def test_reasons_are_bounded() -> None:
    for number in range(1_000):
        with shield.kept(f"place {number}"):
            raise ValueError
    assert len(shield.swallowed) <= shield.MAX_REASONS + 1
    assert sum(shield.swallowed.values()) == 1_000


def test_every_scope_works_in_sync_and_async_code() -> None:
    async def inside() -> list[str]:
        async with mw.cycle() as cycle, mw.session("s"), mw.turn():
            mw.beat()
            mw.step("x")
            mw.progress(1, 2)
            mw.event("e")
            cycle.done()
        return seen.event_kinds()

    with recording() as seen:
        assert asyncio.run(inside()) == ["agent.step", "agent.progress", "e"]
        with mw.cycle(), mw.session("s"), mw.turn():
            pass
    assert len(seen.beats) == 2
    assert isinstance(seen.notifier, MemoryNotifier)


def test_all_public_names_are_documented() -> None:
    for name in mw.__all__:
        assert getattr(mw, name).__doc__, f"{name} has no docstring"


def test_what_does_raise_is_written_where_the_promise_is() -> None:
    """`spawn` fails as `subprocess.Popen` does; who reads only the promise must not be surprised."""
    readme = Path(__file__).resolve().parents[3].joinpath("README.md").read_text(encoding="utf-8")
    for text in (mw.__doc__ or "", midwatch.sdk.__doc__ or "", readme):
        assert "never raises" in text
        assert "spawn" in text
        assert "raises what `subprocess.Popen` raises" in text.replace("\n", " ") or (
            "fails as `subprocess.Popen` does" in text
        )
        assert "ToolTimeout" in text
    with pytest.raises(FileNotFoundError):
        mw.spawn(["/no/such/program"], name="x")
