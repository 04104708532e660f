"""Hard limits of a run that the operating system does not hold it to: what is over, in words. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from midwatch.core import units
from midwatch.core.terms import Limits

THREADS_PER_PROCESS: Final = 16
"""`limits.processes` allows so many threads for each process. A browser or a numerical library starts
dozens, which is no fork bomb; threads without end are."""

GROWTH: Final = 0.1
"""Part of `limits.disk` that a run may add to a directory that was over the limit before it."""

LINES: Final = 10
"""How far back in the output a refused write may explain the end."""

_TOO_LARGE: Final = re.compile(
    r"File too large|File size limit exceeded|\bEFBIG\b|\bSIGXFSZ\b|errno 27\b", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit by its name in the fleet file, and by how much it was passed."""

    limit: str
    used: int
    bound: int
    reason: str


def tasks_of(processes: int | None) -> int | None:
    """Return how many processes and threads together the kernel may allow."""
    return None if processes is None else processes * THREADS_PER_PROCESS


def too_many(limits: Limits, processes: int, threads: int) -> Excess | None:
    """Judge the processes and threads of a tree."""
    bound = limits.processes
    if bound is None:
        return None
    if processes > bound:
        return Excess(
            "processes", processes, bound, f"{processes:,} processes, limits.processes is {bound:,}"
        )
    most = bound * THREADS_PER_PROCESS
    if threads > most:
        words = f"{threads:,} threads, limits.processes ({bound:,}) allows {most:,}"
        return Excess("processes", threads, most, words)
    return None


def too_large(limits: Limits, used: int, before: int) -> Excess | None:
    """Judge the bytes in an agent's own directory; `before`: when the run began.

    What was there already is not the run's doing: it may then add a tenth of the limit.
    """
    bound = limits.disk
    if bound is None:
        return None
    allowed = bound if before < bound else before + int(bound * GROWTH)
    if used <= allowed:
        return None
    grown = "" if before < bound else f", {units.show_size(before)} of it from before"
    reason = (
        f"{units.show_size(used)} in its directory{grown}, limits.disk is {units.show_size(bound)}"
    )
    return Excess("disk", used, bound, reason)


def refused_write(
    limits: Limits, code: int | None, number: int | None, tail: Sequence[str]
) -> Excess | None:
    """Tell whether a run ended because the kernel let a file grow no further.

    By SIGXFSZ, also through a shell; or by the error that it gets which ignores that signal, as
    Python does.
    """
    if limits.disk is None:
        return None
    by_signal = signal.SIGXFSZ in (number, (code or 0) - 128)
    said = bool(code) and any(_TOO_LARGE.search(line) for line in list(tail)[-LINES:])
    if not by_signal and not said:
        return None
    bound = limits.disk
    return Excess("disk", bound, bound, f"a file reached limits.disk, {units.show_size(bound)}")
