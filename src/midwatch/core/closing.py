"""The closing words of a run: the end of its output, read as statements, the newest first. Pure.

A statement is a line and the indented lines below it: the frames of a traceback, the details of an
error object, the fields of a validation error. What explains an end stands at the end: after it come
words of farewell and what programs add by habit (`Node.js v20.1.0`, npm's summary), but hardly
anything else. An error that another one follows was dealt with, unless that one was caused by it.
Every expression here is linear in its text: output is hostile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

CLOSING: Final = 2
"""Statements after an error, beside farewells and habits; after more of them the run went on working."""

FAREWELLS: Final = 8
"""Farewells and habits after an error that are passed over, at most."""

MAX_LINE: Final = 2000
"""Characters of a line that are read."""

MAX_LINES: Final = 80
"""Lines that are read, from the end."""


@dataclass(frozen=True, slots=True)
class Statement:
    """Something that the run said."""

    text: str
    """Its lines; the first one is the head."""
    frames: str = ""
    """The traceback that it ends, without the head."""
    after: int = 0
    """Statements that came after it, beside farewells and habits."""

    @property
    def head(self) -> str:
        return self.text.partition("\n")[0]

    @property
    def is_error(self) -> bool:
        """Tell whether it is an error that nothing caught: it stands under frames or above them."""
        return (
            bool(self.frames)
            or _STACK.search(self.text) is not None
            or _PANIC.match(self.text) is not None
        )

    @property
    def is_bug(self) -> bool:
        """Tell whether it is an error of the program itself, not one that wraps another."""
        return _BUG.match(self.text) is not None

    @property
    def is_remark(self) -> bool:
        """Tell whether the program said it in passing: below the level of an error, or about to try again."""
        return _REMARK.search(self.head) is not None

    @property
    def is_complaint(self) -> bool:
        """Tell whether it says that something failed: an error, or a line that has a word for one.

        An agent that works on texts prints the words of errors without meaning one.
        """
        return self.is_error or _COMPLAINT.search(self.head) is not None


_STACK: Final = re.compile(r"\n\s+at \S")
_PANIC: Final = re.compile(
    r"panic: |thread '.{0,80}' \(?.{0,20}\)? ?panicked at |fatal error: |Segmentation fault"
)
_BUG: Final = re.compile(
    r"(?:Uncaught )?(?:Type|Attribute|Name|Key|Index|ZeroDivision|Assertion|UnboundLocal|Recursion|NotImplemented"
    r"|Syntax|Indentation|Reference|Range)Error\b"
)
_REMARK: Final = re.compile(
    r"(?:^|[\s\[|:(])(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING)(?:$|[\s\]|:)])"
    r"|^.{0,60}?(?:^|[\s\[|(])(?:trace|debug|info|notice|warn|warning)[\])]?(?::\s|\]|\)|\|)"
    r"|\"?\blevel(?:name)?\"?\s?[:=]\s?\"?(?:trace|debug|info|notice|warn)"
    r"|(?i:\b(?:retrying|will retry|backing off|falling back|switching to|skipping|skipped|ignored|ignoring)\b)"
)

_COMPLAINT: Final = re.compile(
    r"(?:Error|Exception)\b|(?i:\b(?:error|exception|failed|failure|fatal|critical|refused|rejected|denied|unauthori[sz]ed"
    r"|forbidden)\b)|\b(?:40[0-4]|429|529)\b"
)

_FOLLOWS: Final = re.compile(r"\s|[}\])]+[,;]?$|[\u2500-\u257f]|Require stack:$|- /")
"""Indented, a closing bracket, a box drawn around something, or Node's list of who required it."""

_HABITS: Final = re.compile(
    r"Node\.js v\d|npm (?:ERR!|error|warn|notice|WARN)|> |-{3,} ?[A-Z]|\s*\d+: 0x[0-9a-f]|For (?:more|further) information"
    r"|\S+:\d+: \w*Warning: |Unclosed (?:client session|connector)|client_session: |connector: "
    r"|.*\n\s+/\S+\.go:\d|goroutine \d|exit status \d|note: (?:run with|Some details)|stack backtrace:|\s*\d+: \S+$"
    r"|\s*at \S|Emitted 'error' event|Run '\S.{0,80} --help'"
)
"""What programs add to an error, or after it, without saying more."""

_FAREWELL: Final = re.compile(
    r"(?i).*\b(?:shut(?:ting)? ?down|stopp(?:ed|ing)|exit(?:s|ed|ing)?|clos(?:ed|ing)|clean(?:ed|ing)? ?up|bye|abort(?:ed|ing)?"
    r"|terminat(?:ed|ing)|finished|flush(?:ed|ing)|giv(?:ing|en) up|gave up|fail(?:ed|ure)|errors?|fatal|critical)\b"
)
"""What a program says on its way out, or about an error that it has met."""

_FIELD: Final = re.compile(r"\S.{0,200}\n\s.{0,2000}\[type=\w+, input_")

_GROUP: Final = re.compile(r"\s*\+ Exception Group Traceback|\s*\+-\+?-{8,}")
_GROUP_MARGIN: Final = re.compile(r"\s*(?:\| ?|\+ (?=Exception Group))")
_GROUP_RULE: Final = re.compile(r"\s*\+[-+]+(?: \d+ -+)?$")

_FRAME: Final = re.compile(r"^\s+File \"", re.MULTILINE)
_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_MEANWHILE: Final = "During handling of the above exception, another exception occurred:"


def statements(tail: Sequence[str]) -> Iterator[Statement]:
    """Yield what was said last, the newest first, as long as it may explain the end.

    An uncaught error ends the search, because what was said before it was not the end; an error that
    another one caused is passed on to its cause.
    """
    said = _unraisable(_split(_ungroup([line[:MAX_LINE] for line in tail[-MAX_LINES:]])))
    after = passed = 0
    at = len(said) - 1
    while at >= 0 and after <= CLOSING and passed <= FAREWELLS:
        text = said[at]
        frames = said[at - 1] if at > 0 and _is_frames(said[at - 1]) else ""
        statement = Statement(text, frames, after)
        if not _is_frames(text) and text not in (_CAUSE, _MEANWHILE):
            yield statement
        if statement.is_error and not _HABITS.match(text):
            older = at - 2 if frames else at - 1
            if older < 0 or not _leads_on(said[older], statement):
                return
            at = older - 1
            continue
        if _HABITS.match(text) or _FAREWELL.match(statement.head):
            passed += 1
        elif statement.is_remark:
            return  # it went on with its work
        else:
            after += 1
        at -= 1


def headline(tail: Sequence[str]) -> str:
    """Return the line that says most about the end: of the uncaught error, else the last that says something."""
    last = ""
    for statement in statements(tail):
        if _HABITS.match(statement.text):
            continue
        if statement.is_error:
            return statement.head.strip()
        last = last or statement.text.rpartition("\n")[2].strip()
    return last or next((line.strip() for line in reversed(tail) if line.strip()), "")


def _leads_on(marker: str, error: Statement) -> bool:
    """Tell whether the error before this one is what it is about.

    An `except` that raises an error of its own wraps the first one; a TypeError in it is its own end.
    """
    return marker == _CAUSE or (marker == _MEANWHILE and not error.is_bug)


def _is_frames(text: str) -> bool:
    return _FRAME.search(text) is not None


def _ungroup(lines: list[str]) -> list[str]:
    """Take the margin off an exception group, so that its exceptions read like others."""
    if not any(_GROUP.match(line) for line in lines):
        return lines
    return [_GROUP_MARGIN.sub("", line, count=1) for line in lines if not _GROUP_RULE.match(line)]


def _split(lines: list[str]) -> list[str]:
    said: list[list[str]] = []
    fresh = True
    for line in lines:
        if not line.strip():
            fresh = True
            continue
        if said and not fresh and _FOLLOWS.match(line):
            said[-1].append(line)
        else:
            said.append([line])
        fresh = False
    return _gather_fields(["\n".join(part) for part in said])


def _gather_fields(said: list[str]) -> list[str]:
    """Put pydantic's fields, each a statement by its shape, below the error that lists them."""
    kept: list[str] = []
    for text in said:
        if kept and _FIELD.match(text):
            kept[-1] += "\n" + text
        else:
            kept.append(text)
    return kept


def _unraisable(said: list[str]) -> list[str]:
    """Leave out errors in destructors: Python prints them after the error that ended the program."""
    kept: list[str] = []
    skip = 0
    for text in said:
        if text.startswith("Exception ignored in"):
            skip = 2  # its traceback, and its error
        elif skip:
            skip -= 1
        else:
            kept.append(text)
    return kept
