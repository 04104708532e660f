"""Waiting for input, or only quiet: a decision from what is seen of a terminal. Pure; monotonic seconds.

An agent waits when its tree stands in a read of the terminal and for a while nothing else came from it:
no output, no beat, no call that ended, no working child. That is looked at twice, so that nobody is
caught between two reads. An agent that says that it is at work (an open call, a declared step) is
believed, unless its screen ends in a question: a tool may run `ssh`, and `ssh` may ask.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from midwatch.core import units
from midwatch.core.liveness import Evidence
from midwatch.core.plain import clean

QUIET_S: Final = 8.0
"""How long an agent must be quiet. With the second look this is well under the catalogue's 30 s."""

CONFIRM_S: Final = 1.0
"""Between the two looks."""

AGAIN_S: Final = 5.0
"""Between two looks at an agent that waits."""

QUESTION_CHARACTERS: Final = 160

_ASKS: Final = re.compile(
    r"[?:>\]»❯›$#%]\s*$"  # the usual ends of prompts
    r"|\(\s*y(?:es)?\s*/\s*n(?:o)?\b|\[\s*y(?:es)?\s*/\s*n(?:o)?\b"  # (y/N), [Y/n], (yes/no/[fingerprint])
    r"|\bpress\s+(?:any\s+key|enter|return)\b|\benter\s+to\s+(?:confirm|continue)\b",
    re.IGNORECASE,
)
_TELLS: Final = re.compile(r"\w.*[?]|\(\s*y(?:es)?\s*/\s*n|\[\s*y(?:es)?\s*/\s*n", re.IGNORECASE)
_NUMBERS: Final = re.compile(r"[0-9]+")
_FRAME: Final = re.compile(r"[─-╿▀-▟|+*=~_-]{2,}|[│┃║╎╏▏▕]")
"""Lines and corners that programs draw around a dialog."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a quiet agent saw."""

    reads: bool
    """Its tree stands in a read of the terminal."""
    asks: bool
    """Its screen ends in what looks like a question."""
    since: float | None = None
    """Since when earlier looks found it reading; None: this is the first one."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Waits or not, why, and in how many seconds to look again."""

    waits: bool
    reason: str
    look_in_s: float
    reads: bool = False
    """It reads, but that has to be confirmed."""


def quiet_since(evidence: Evidence) -> float:
    """Return when the last thing came from the agent, or went to it."""
    e = evidence
    signs = (e.started, e.output, e.beat, e.call, e.child_work, e.waited)
    return max(s for s in signs if s is not None)


def patience(silence_s: float | None) -> float:
    """Return how long an agent must be quiet, where `silence_s` of it (None: any) count as a hang.

    Whoever waits must be known to wait before it can count as hung.
    """
    return QUIET_S if silence_s is None else max(0.0, min(QUIET_S, silence_s / 3))


def judge(look: Look, evidence: Evidence, now: float, quiet_s: float) -> Decision:
    """Tell whether a run on a terminal waits for input. `quiet_s` is its `patience`."""
    quiet = now - quiet_since(evidence)
    if quiet < quiet_s:
        return Decision(False, "something came from it", max(0.05, quiet_s - quiet))
    if not look.reads:
        return Decision(False, "does not read its terminal", max(quiet_s, CONFIRM_S))
    excuse = _excuse(evidence, now)
    if excuse and not look.asks:
        return Decision(False, f"reads its terminal, but {excuse}", max(quiet_s, CONFIRM_S))
    confirm = min(CONFIRM_S, quiet_s / 4)
    if look.since is None or now - look.since < confirm:
        return Decision(False, "reads its terminal", max(confirm, 0.05), reads=True)
    reason = f"reads its terminal, quiet for {units.show_duration(quiet)}"
    return Decision(True, reason, max(0.05, min(AGAIN_S, quiet_s / 2)), reads=True)


def question_of(lines: Sequence[str]) -> str:
    """Return what the screen asks: the last line with a question near the end, else the last line
    that says anything; empty when there is none."""
    said = [text for line in lines if (text := clean(_FRAME.sub(" ", line), QUESTION_CHARACTERS))]
    asked = next((line for line in reversed(said[-12:]) if _TELLS.search(line)), None)
    if asked is not None and said[-1] is not asked and _is_prompt(said[-1]):
        return said[-1]
    return asked or (said[-1] if said else "")


def is_same(question: str, other: str) -> bool:
    """Tell whether two questions differ at most in their numbers: a clock, a counter."""
    return _NUMBERS.sub("#", question) == _NUMBERS.sub("#", other)


def asks(lines: Sequence[str]) -> bool:
    """Tell whether a screen ends in what looks like a question: `Password:`, `(y/N)`, a dialog."""
    said = [text for line in lines if (text := _FRAME.sub(" ", line).strip())]
    if not said:
        return False
    return bool(_ASKS.search(said[-1])) or any(_TELLS.search(line) for line in said[-8:])


def _is_prompt(line: str) -> bool:
    """Tell whether a line is a question of its own, such as `Password for git:`."""
    return bool(re.search(r"\w{2,}.*:\s*$", line))


def _excuse(evidence: Evidence, now: float) -> str:
    if evidence.call_open is not None:
        return "a call is open"
    if evidence.step_until is not None and now < evidence.step_until:
        return "it is in a declared step"
    return "it is draining" if evidence.draining is not None else ""
