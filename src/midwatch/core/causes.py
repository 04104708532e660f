"""Why a run ended, in words: from the supervisor's `run.ended` to phrases for sentences.

The table has a line for each `core.exits.End`. A value that it does not know is worded by its name, so
that a newer supervisor never breaks an older hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from midwatch.core.exits import End, signal_name
from midwatch.core.plain import number_of, text_of, whole_of
from midwatch.core.units import show_duration, show_size

CRASHES: Final = frozenset({End.FAILED, End.SIGNAL, End.CANNOT_START})
"""Ends that are a crash, and a crash loop when they repeat."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One end in two grammatical forms."""

    did: str
    """After the agent's name: `ran out of memory (1.0 GiB)`."""
    after: str
    """After "after": `running out of memory (1.0 GiB)`."""


def memory_of(data: Mapping[str, Any]) -> str:
    """Return ` (1.0 GiB of 1.0 GiB, +40 MiB an hour)` as far as it is known, or nothing."""
    rss, limit = number_of(data, "rss_bytes"), number_of(data, "rss_limit_bytes")
    slope = number_of(data, "rss_slope_bytes_h")
    parts: list[str] = []
    if rss is not None:
        parts.append(show_size(rss) + (f" of {show_size(limit)}" if limit else ""))
    if slope is not None:
        parts.append(f"{'+' if slope >= 0 else ''}{show_size(slope)} an hour")
    return f" ({', '.join(parts)})" if parts else ""


def _silent(_data: Mapping[str, Any]) -> Cause:
    return Cause("exited with code 0 without a word", "an exit with code 0 that nobody asked for")


def _failed(data: Mapping[str, Any]) -> Cause:
    code = whole_of(data, "exit_code")
    words = ("" if code is None else f" with code {code}") + _said(data)
    return Cause(f"exited{words}", f"an exit{words}")


def _signal(data: Mapping[str, Any]) -> Cause:
    number = whole_of(data, "signal")
    name = "a signal" if number is None else signal_name(number)
    return Cause(f"was killed by {name}", f"being killed by {name}")


def _memory(data: Mapping[str, Any]) -> Cause:
    amount = memory_of(data)
    return Cause(f"ran out of memory{amount}", f"running out of memory{amount}")


def _credentials(data: Mapping[str, Any]) -> Cause:
    name = text_of(data, "credential", 80)
    if name is None or name.startswith("API key"):
        whose = "its " + (name or "API key")
        return Cause(f"stopped because {whose} was refused", f"the refusal of {whose}")
    return Cause(f"stopped because its credential {name} was refused", f"the refusal of {name}")


def _rate_limited(data: Mapping[str, Any]) -> Cause:
    asked = number_of(data, "retry_after_s")
    words = f", which asked for {show_duration(asked)}" if asked else ""
    return Cause(
        f"stopped because its provider refused it for a while{_said(data)}{words}",
        f"a refusal by its provider{_said(data)}",
    )


def _quota(data: Mapping[str, Any]) -> Cause:
    name = text_of(data, "credential", 80)
    of = f" of {name}" if name and not name.startswith("API key") else ""
    return Cause(f"stopped because the quota{of} is used up{_said(data)}", f"a used-up quota{of}")


def _budget(data: Mapping[str, Any]) -> Cause:
    asked = number_of(data, "retry_after_s")
    words = f", which has room again in {show_duration(asked)}" if asked else ""
    return Cause(f"stopped because its budget is used up{words}", "a used-up budget")


def _host_shutdown(_data: Mapping[str, Any]) -> Cause:
    return Cause("was stopped with the machine", "the machine's shutdown")


def _hung(data: Mapping[str, Any]) -> Cause:
    silent = number_of(data, "silent_s")
    if silent:
        words = f"no sign of work for {show_duration(silent)}"
    else:
        # the head of the supervisor's reason: what was missed, without the rule behind it
        words = re.split("[:;]", text_of(data, "reason") or "no sign of work")[0]
    return Cause(f"hung: {words}", f"hanging ({words})")


def _wall_clock(data: Mapping[str, Any]) -> Cause:
    # a sub-agent's own; of an agent's run that was told at its limit already
    bound = number_of(data, "ttl_s") or number_of(data, "duration_s")
    length = f" ({show_duration(bound)})" if bound else ""
    return Cause(f"reached its time limit{length}", f"reaching its time limit{length}")


def _limit(data: Mapping[str, Any]) -> Cause:
    reason = text_of(data, "reason") or "a limit"
    return Cause(f"was stopped: {reason}", f"reaching a limit ({reason})")


def _configuration(data: Mapping[str, Any]) -> Cause:
    words = _said(data)
    return Cause(
        f"stopped because its configuration is wrong{words}",
        f"an error in its configuration{words}",
    )


def _dependency(data: Mapping[str, Any]) -> Cause:
    words = _said(data)
    return Cause(
        f"stopped because something that it needs is missing{words}", f"a missing dependency{words}"
    )


def _cannot_start(data: Mapping[str, Any]) -> Cause:
    reason = text_of(data, "reason")
    words = f": {reason}" if reason else ""
    return Cause(f"could not be started{words}", f"a failed start{words}")


_WORDS: Final[dict[End, Callable[[Mapping[str, Any]], Cause]]] = {
    End.FINISHED: lambda _: Cause("finished", "finishing"),
    End.SILENT: _silent,
    End.FAILED: _failed,
    End.SIGNAL: _signal,
    End.OUT_OF_MEMORY: _memory,
    End.CREDENTIALS: _credentials,
    End.HUNG: _hung,
    End.WALL_CLOCK: _wall_clock,
    End.OPERATOR: lambda _: Cause("was stopped by a person", "being stopped by a person"),
    End.SUSPENDED: lambda _: Cause("was suspended", "being suspended"),
    End.LOST: lambda _: Cause("ended with its supervisor", "the death of its supervisor"),
    End.SHUTDOWN: lambda _: Cause("was stopped with Midwatch", "Midwatch's own restart"),
    End.CANNOT_START: _cannot_start,
    End.LIMIT: _limit,
    End.RATE_LIMITED: _rate_limited,
    End.QUOTA: _quota,
    End.BUDGET: _budget,
    End.HOST_SHUTDOWN: _host_shutdown,
    End.CONFIGURATION: _configuration,
    End.DEPENDENCY: _dependency,
    End.PLANNED: lambda _: Cause("was restarted as planned", "a planned restart"),
    End.CHANGED: lambda _: Cause("was replaced", "being replaced"),
}


_ENDS: Final = frozenset(e.value for e in End)


def cause_of(data: Mapping[str, Any]) -> Cause:
    """Return the words for a `run.ended` event's `data`."""
    end = text_of(data, "end", 40) or "for an unknown reason"
    if end in _ENDS:
        return _WORDS[End(end)](data)
    return Cause(f"ended ({end})", f"an end ({end})")


def next_of(data: Mapping[str, Any]) -> str:
    """Return what the supervisor does next; empty when unknown.

    `restart after 5 seconds` is read hours later too, and still true.
    """
    step = data.get("next")
    if step == "restart":
        delay = number_of(data, "next_in_s") or 0.0
        return "restart at once" if delay < 1 else f"restart after {show_duration(delay)}"
    if step == "park":
        return "parked until a person starts it"
    return "not restarted" if step == "stop" else ""


def done_of(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the supervisor did by itself, as actions of the incident."""
    step = data.get("next")
    return (step,) if isinstance(step, str) and step in ("restart", "park", "stop") else ()


def _said(data: Mapping[str, Any]) -> str:
    """Return ` (the line that explains it)`, or nothing."""
    line = _last_line(data)
    return f" ({line})" if line else ""


def _last_line(data: Mapping[str, Any]) -> str | None:
    """Return the line that explains the end: the supervisor's choice, else the last that says something."""
    said = text_of(data, "said", 120)
    if said is not None:
        return said
    tail = data.get("tail")
    if isinstance(tail, str):
        lines: list[Any] = tail.splitlines()
    elif isinstance(tail, list):
        lines = tail  # pyright: ignore[reportUnknownVariableType]
    else:
        return None
    for line in reversed(lines[-20:]):
        if isinstance(line, str) and line.strip():
            return text_of({"line": line}, "line", 120)
    return None
