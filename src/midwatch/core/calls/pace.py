"""The loop breaker: one agent's calls against its own pace, and against what it has asked before.

Four measures, each against the agent itself, none against a fixed number alone:

- tokens and dollars of the running window (a minute) against the usual window. What exceeds the usual is
  not learned, so a runaway never becomes usual.
- the newest tool result (tool, arguments and result together) again and again, one after the other or in
  turns of two. The same call with a result that changes is honest polling and counts for nothing.
- the whole request again and again within ten minutes, as a third or more of what is asked meanwhile: who goes
  round many things, each of which stays as it is, polls.

- how much more each call sends than the one before of its conversation (`growth`).

An agent and its sub-agents together have a pace, too (`asked_within`), or names that are used once would hide
any loop. Its calls are of many at work beside each other, so that rows of results say nothing there, and a request
may be made `TREE` times as often.

Decisions are for the gateway, which acts where the power is; the sentence is for the person.
Times are monotonic seconds. After `forgive` everything counts anew, so that a resumed agent is not held
by what it did before.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

from midwatch.core.baseline import Baseline
from midwatch.core.calls.ask import Ask
from midwatch.core.calls.growth import Growth
from midwatch.core.calls.judgement import FINE, Judgement, Level
from midwatch.core.loop import FIRST_CYCLES
from midwatch.core.models import Calls
from midwatch.core.terms import Loop
from midwatch.core.units import show_money

SLOTS: Final = 12
"""Parts of a window: its sum is right to a twelfth."""

WARN_SHARE: Final = 0.5
"""A warning is told at this share of the limit."""

WARN_REPEATS: Final = 3
"""The same call with the same result, so many times in a row: told, not yet stopped."""

REQUESTS_S: Final = 600.0
"""How long a request is remembered."""

REQUESTS: Final = 256
"""Different requests that are remembered; the oldest goes first."""

REQUEST_SHARE: Final = 1 / 3
"""A request is a loop's when it is at least this share of all between its first time and its last: a loop of up to
three. A round of many is honest work, however often it is gone."""

TREE: Final = 4
"""How many times as often as one agent a whole tree of them may make the same request: many begin alike."""

POLLING_TAG: Final = "poll"
"""A call with this tag says that it repeats on purpose; it counts where the fleet file says `calls.polling`."""

POLLS: Final = 600
"""The same declared poll within `REQUESTS_S`: once a second. Who asks more often does not wait for anything."""


@dataclass(slots=True)
class _Window:
    """A sum over the last `length_s`, and the usual sum of those before."""

    length_s: float
    usual: Baseline = field(default_factory=Baseline)
    _slots: deque[tuple[int, int]] = field(default_factory=deque[tuple[int, int]])
    _sum: int = 0
    _began: float | None = None
    _in_window: int = 0
    _over: bool = False

    def add(self, value: int, now: float) -> int:
        """Add to the running window; return its sum."""
        self._close(now)
        slot = int(now * SLOTS / self.length_s)
        if self._slots and self._slots[-1][0] == slot:
            self._slots[-1] = (slot, self._slots[-1][1] + value)
        else:
            self._slots.append((slot, value))
        self._sum += value
        while self._slots[0][0] <= slot - SLOTS:
            self._sum -= self._slots.popleft()[1]
        self._in_window += value
        return self._sum

    def exceeded(self) -> None:
        """The running window is no usual one: it will not be learned."""
        self._over = True

    def forget(self) -> None:
        self._slots.clear()
        self._sum = self._in_window = 0
        self._began, self._over = None, False

    def _close(self, now: float) -> None:
        """Windows for the baseline lie side by side, from the first call after a pause on."""
        if self._began is None:
            self._began = now
        elif now >= self._began + self.length_s:
            if not self._over:
                self.usual.add(self._in_window)
            self._began, self._in_window, self._over = now, 0, False


@dataclass(slots=True)
class Pace:
    """What is remembered of one agent's calls."""

    loop: Loop
    calls: Calls
    _tokens: _Window = field(init=False)
    _cost: _Window = field(init=False)
    _results: deque[str] = field(default_factory=lambda: deque[str](maxlen=64))
    at: float = 0.0
    """When it was asked last."""
    _requests: dict[str, list[tuple[float, int]]] = field(
        default_factory=dict[str, "list[tuple[float, int]]"]
    )
    """Request → when it was made, and the how manieth of all it was."""
    _count: int = 0
    _growth: Growth = field(default_factory=Growth)

    def __post_init__(self) -> None:
        self._tokens = _Window(self.calls.window)
        self._cost = _Window(self.calls.window)

    def asked(self, ask: Ask, now: float, tree: Pace | None = None) -> Judgement:
        """Judge a call before it is made, by what it repeats and by how much it adds. `tree`: of the agent and all
        of its sub-agents."""
        repeated = self._repeated(ask, now)
        of_all = None if tree is None else tree._growth
        grown = self._growth.judge(ask, self.calls.growth, self.loop.floor_tokens, of_all)
        return grown if grown.level > repeated.level else repeated

    def answered(self, ask: Ask, tree: Pace | None = None) -> None:
        """Take what a call sent that was answered."""
        of_all = None if tree is None else tree._growth
        self._growth.answered(ask, self.calls.growth, self.loop.floor_tokens, of_all)

    def _repeated(self, ask: Ask, now: float) -> Judgement:
        tagged = POLLING_TAG in ask.tags
        if tagged and self.calls.polling:
            return self._request(ask.request_hash, now, max(POLLS, self.calls.same_request))
        by_request = self._request(ask.request_hash, now, self.calls.same_request)
        by_result = self._result(ask.result_hash)
        judged = by_request if by_request.level > by_result.level else by_result
        if tagged and judged.level is not Level.FINE:
            hint = (
                f"{judged.sentence} (the tag {POLLING_TAG} counts with calls.polling: true alone)"
            )
            return replace(judged, sentence=hint)
        return judged

    def asked_within(self, ask: Ask, now: float) -> Judgement:
        """Judge a call of this tree, whichever of its agents makes it."""
        polls = POLLING_TAG in ask.tags and self.calls.polling
        once = max(POLLS, self.calls.same_request) if polls else self.calls.same_request
        return self._request(ask.request_hash, now, TREE * once)

    def unasked(self, ask: Ask) -> None:
        """The call was not answered for no fault of its own, so that asking again repeats nothing."""
        times = self._requests.get(ask.request_hash)
        if times:
            times.pop()
        if self._results and self._results[-1] == ask.result_hash:
            self._results.pop()

    def settled(self, tokens: int, cost_nusd: int, now: float) -> Judgement:
        """Judge a call when its usage is known, by the pace of the running window."""
        by_tokens = self._spent("tokens", tokens, self._tokens, self.loop.floor_tokens, now)
        by_cost = self._spent("cost", cost_nusd, self._cost, self.loop.floor_cost, now)
        return by_cost if by_cost.level > by_tokens.level else by_tokens

    def forgive(self) -> None:
        """Begin to count anew; what is usual stays known."""
        for window in (self._tokens, self._cost):
            window.forget()
        self._results.clear()
        self._requests.clear()
        self._growth.forgive()

    def to_json(self) -> dict[str, list[int]]:
        """Return what is usual, to be given to `recall` after a restart."""
        known = {
            "tokens": self._tokens.usual,
            "cost": self._cost.usual,
            "growth": self._growth.usual,
        }
        return {name: usual.to_json() for name, usual in known.items() if len(usual)}

    def recall(self, data: dict[str, list[int]]) -> None:
        self._tokens.usual = Baseline(data.get("tokens", ()))
        self._cost.usual = Baseline(data.get("cost", ()))
        self._growth.usual = Baseline(data.get("growth", ()))

    def _spent(
        self, measure: str, value: int, window: _Window, floor: int, now: float
    ) -> Judgement:
        usual = window.usual.usual
        total = window.add(value, now)
        limit = self.calls.rate * (FIRST_CYCLES * floor if usual is None else usual)
        limit = max(limit, float(floor))
        if total < limit * WARN_SHARE or total < floor:
            return FINE
        window.exceeded()
        shown = _show(measure, total)
        compared = "and nothing known to compare it with" if usual is None else f"usual {_show(measure, usual)}"  # fmt: skip
        level = Level.LOOP if total >= limit and usual is not None else Level.WARN
        evidence = {
            "measure": measure, "value": total, "usual": usual, "threshold": round(limit),
            "window_s": window.length_s,
        }  # fmt: skip
        return Judgement(
            level, "runaway-loop", f"{shown} within {window.length_s:g} s, {compared}", evidence
        )

    def _result(self, result: str | None) -> Judgement:
        if result is None:
            self._results.clear()  # a person, or new work, came in between
            return FINE
        self._results.append(result)
        count, what = _run_length(self._results)
        if count < WARN_REPEATS:
            return FINE
        level = Level.LOOP if count >= self.loop.same_call else Level.WARN
        said = f"{what} {count} times in a row"
        return Judgement(level, "same-call-loop", said, {"count": count, "hash": result[:16]})

    def _request(self, request: str, now: float, allowed: int) -> Judgement:
        """Note a request; it is a loop's when it is the `allowed`-th of its like."""
        self.at = now
        self._count += 1
        times = self._requests.pop(request, None) or list[tuple[float, int]]()
        times.append((now, self._count))
        oldest = 0 if len(times) <= allowed else len(times) - allowed
        while times[oldest][0] <= now - REQUESTS_S:
            oldest += 1
        del times[:oldest]
        self._requests[request] = times
        if len(self._requests) > REQUESTS:
            del self._requests[next(iter(self._requests))]
        if len(times) < allowed:
            return FINE
        meanwhile = times[-1][1] - times[0][1] + 1
        if len(times) < meanwhile * REQUEST_SHARE:
            return FINE
        over_s = times[-1][0] - times[0][0]
        said = f"the same request {len(times)} times within {max(over_s, 1):.0f} s"
        evidence = {"count": len(times), "hash": request[:16], "seconds": round(over_s, 1)}
        return Judgement(Level.LOOP, "same-call-loop", said, evidence)


def _run_length(results: deque[str]) -> tuple[int, str]:
    """Return how often the end of a row repeats: one result, or two in turns."""
    newest = results[-1]
    count = 0
    for result in reversed(results):
        if result != newest:
            break
        count += 1
    if count > 1 or len(results) < 4:
        return count, "the same tool call with the same result"
    other, pairs = results[-2], 0
    row = list(results)
    while len(row) >= 2 and row[-1] == newest and row[-2] == other:
        pairs += 1
        del row[-2:]
    return pairs, "the same two tool calls in turns with the same results"


def _show(measure: str, value: float) -> str:
    return f"{round(value):,} tokens" if measure == "tokens" else show_money(round(value))
