"""Finds where a program's threads stood, in what it printed. Pure.

A Python process under faulthandler (we switch it on, see `supervisor.environment`) answers SIGABRT with
`Fatal Python error: Aborted` and one block for each thread, the innermost call first. Whatever was
printed after that heading belongs to it: the process is dead when the last line is out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_HEADING: Final = re.compile(r"Fatal Python error: |(?:Current thread|Thread) 0x[0-9a-f]+ ")
_BLOCK: Final = re.compile(
    r"Fatal Python error: |(?:Current thread|Thread) 0x[0-9a-f]+ |  File \"|  \.\.\.|  <no Python frame>"
    r"|Stack \(most recent|Extension modules: |Current thread's C stack|  Binary file \"|\s*$"
)


def find_stack(lines: Sequence[str]) -> list[str]:
    """Return the lines of the last dump in the output, without what other threads printed into it;
    empty when there is none."""
    starts = [n for n, line in enumerate(lines) if line.startswith("Fatal Python error: ")]
    start = starts[-1] if starts else _first_thread(lines)
    if start is None:
        return []
    dump = [line.rstrip() for line in lines[start:] if _BLOCK.match(line)]
    return [line for line in dump if line and not line.startswith("Extension modules: ")]


def before_stack(lines: Sequence[str]) -> list[str]:
    """Return the output up to the dump: what the program itself said last."""
    for number, line in enumerate(lines):
        if _HEADING.match(line):
            return list(lines[:number])
    return list(lines)


def _first_thread(lines: Sequence[str]) -> int | None:
    """Return where a dump begins whose heading was lost."""
    return next((n for n, line in enumerate(lines) if _HEADING.match(line)), None)
