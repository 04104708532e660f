"""Versions: what a run was made of, how that differs from what is there now, and when a change is taken back.

Pure. Of an environment only a keyed hash is known: no value leaves the supervisor. An entry, its env file's
content and its code are *good* once a run of them was stable, or ended its work well; newer ones that fail
before that are on trial, and are taken back when `rollback` says so, each where that is possible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

from midwatch.core.change import Difference, listed
from midwatch.core.exits import Verdict
from midwatch.core.plain import text_of, texts_of
from midwatch.core.restart import REFUSED

SHORT: Final = 12
"""Characters of a revision in sentences."""


@dataclass(frozen=True, slots=True)
class Revision:
    """What is checked out in a directory."""

    commit: str
    branch: str | None = None
    dirty: bool | None = None
    """Files under version control differ from what was last added. None: not known."""

    def __str__(self) -> str:
        return self.commit[:SHORT] + ("-dirty" if self.dirty else "")

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are known."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Version:
    """What one run was made of."""

    configuration: str
    """Keyed hash of its resolved entry and of its env file's content."""
    environment: str
    """Keyed hash of the variables that it was given, without those that differ in each run."""
    revision: Revision | None = None
    """Of its directory; None where there is no git, or it was not known yet."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields that travel."""
        found: dict[str, Any] = {
            "configuration": self.configuration,
            "environment": self.environment,
        }
        if self.revision is not None:
            found["revision"] = self.revision.to_json()
        return found


def shown(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a `run.started` event says of its version, bounded; None when it says nothing."""
    found: dict[str, Any] = {
        name: text for name in ("configuration", "environment") if (text := text_of(data, name, 64))
    }
    there: object = data.get("revision")
    if isinstance(there, dict):
        known = cast("dict[str, Any]", there)
        if (commit := text_of(known, "commit", 64)) is not None:
            dirty: object = known.get("dirty")
            found["revision"] = {
                "commit": commit,
                "branch": text_of(known, "branch"),
                "dirty": dirty if isinstance(dirty, bool) else None,
            }
    return found or None


def drift(
    ran_with: Revision | None, there: Revision | None, file: Difference | None, note: str = ""
) -> list[str]:
    """Return in sentences what differs between a run and what is there now; none when nothing does.

    `file` is what the fleet file has changed since it was loaded, `note` a reason of its own (an entry
    that was taken back).
    """
    found = [note] if note else []
    if file:
        found.append(f"the fleet file says otherwise: {file.said}; midwatch reload takes it over")
    moved = ran_with is not None and there is not None and ran_with.commit != there.commit
    if moved and ran_with is not None and there is not None:
        found.append(
            f"its code moved from {ran_with.commit[:SHORT]} to {there.commit[:SHORT]} since it was started"
        )
    return found


@dataclass(frozen=True, slots=True)
class Rollback:
    """Whether an entry is taken back, and why or why not."""

    back: bool
    reason: str


def judge(
    verdict: Verdict,
    *,
    wanted: bool,
    proven: bool,
    good_known: bool,
    changed: Difference,
    code: str = "",
) -> Rollback:
    """Return whether the end of a run takes back what has changed since the last good one.

    `wanted` is the entry's `rollback`, `proven` whether a run of this entry was ever good, `good_known`
    whether an earlier good one is kept, `changed` the difference between that entry and this one, `code`
    what `code_change` says.
    """
    if not wanted:
        return Rollback(False, "rollback is off")
    if verdict.end in REFUSED:
        return Rollback(False, "its provider refused it, whatever the entry says")
    if verdict.expected:
        return Rollback(False, "nobody called this end a failure")
    if proven:
        return Rollback(False, "this entry was good before")
    if not good_known:
        return Rollback(False, "no good entry from before is known")
    if not changed and not code:
        return Rollback(False, "the last good entry says the same")
    what = ", ".join(words for words in (changed.said if changed else "", code) if words)
    return Rollback(True, f"{what}, and then: {verdict.reason}")


def code_change(good: Revision | None, ran: Revision | None) -> str:
    """Return in words how the code of a run differs from the last good one; empty: not, or not known."""
    if good is None or ran is None:
        return ""
    if good.commit != ran.commit:
        return f"its code moved from {good.commit[:SHORT]} to {ran.commit[:SHORT]}"
    if good.dirty is False and ran.dirty:
        return "its code was edited without a commit"
    return ""


def stays(good: Revision | None) -> str:
    """Return why the last good code cannot be had again; empty when git may have it."""
    if good is None:
        return "which code was good is not known"
    if good.dirty:
        return f"the last good run had changes on top of {good.commit[:SHORT]} that nobody kept"
    if good.dirty is None:
        return f"whether the last good run had changes on top of {good.commit[:SHORT]} is not known"
    return ""


@dataclass(frozen=True, slots=True)
class Takeback:
    """What is taken back, and what is not."""

    keys: tuple[str, ...] = ()
    """Of the entry."""
    env_file: bool = False
    """Its content."""
    code: tuple[str, str] | None = None
    """From which commit, and to which."""
    left: tuple[tuple[str, str], ...] = ()
    """What stays as it is: (what, why)."""

    def __bool__(self) -> bool:
        return bool(self.keys) or self.env_file or self.code is not None

    @property
    def said(self) -> str:
        """Return `its changed entry (command) and its code (from 1234 back to abcd)`."""
        parts: list[str] = []
        if self.keys:
            parts.append(f"its changed entry ({listed(self.keys)})")
        if self.env_file:
            parts.append("its env file's content")
        if self.code is not None:
            newer, older = (commit[:SHORT] for commit in self.code)
            back = (
                f"from {newer} back to {older}"
                if newer != older
                else f"back to {older} as committed"
            )
            parts.append(f"its code ({back})")
        return ", ".join(parts[:-1]) + (" and " if parts[:-1] else "") + parts[-1] if parts else ""

    @property
    def left_said(self) -> str:
        """Return `its code stays as it is: git does not have abcd any more`; empty when nothing stays."""
        return "; ".join(f"{what} stays as it is: {why}" for what, why in self.left)

    @property
    def until(self) -> str:
        """Return what has to change before the refused one is tried again."""
        parts = ["the fleet file"] if self.keys else []
        parts += ["the env file"] if self.env_file else []
        parts += ["the code"] if self.code is not None else []
        last = parts.pop() if parts else "the fleet file"
        return f"{', '.join(parts)} or {last}" if parts else last

    @property
    def note(self) -> str:
        """Return what is shown as drift while it is in force, after `… had failed`."""
        left = f"; {self.left_said}" if self.left else ""
        return f"{left}; change {self.until} again to try anew"

    def to_json(self) -> dict[str, Any]:
        """Return the fields that travel."""
        found: dict[str, Any] = {"keys": list(self.keys), "env_file": self.env_file}
        if self.code is not None:
            found["code"] = {"from": self.code[0], "to": self.code[1]}
        if self.left:
            found["left"] = [{"what": what, "why": why} for what, why in self.left]
        return found

    @staticmethod
    def of(data: Mapping[str, Any]) -> Takeback:
        """Read what `to_json` wrote, bounded."""
        code: object = data.get("code")
        commits: tuple[str, str] | None = None
        if isinstance(code, dict):
            known = cast("dict[str, Any]", code)
            newer, older = text_of(known, "from", 64), text_of(known, "to", 64)
            commits = (newer, older) if newer and older else None
        left: list[tuple[str, str]] = []
        there: object = data.get("left")
        for part in cast("list[Any]", there)[:5] if isinstance(there, list) else []:
            if isinstance(part, dict):
                words = cast("dict[str, Any]", part)
                left.append(
                    (
                        text_of(words, "what", 40) or "a part",
                        text_of(words, "why", 160) or "unknown",
                    )
                )
        keys = tuple(texts_of(data, "keys", 20))
        return Takeback(keys, data.get("env_file") is True, commits, tuple(left))


def since_changed(taken: Takeback, end: str) -> str:
    """Return the note that is shown as drift after something was taken back."""
    what = taken.said.removeprefix("its ") or "changed entry"
    verb = "were" if " and " in what else "was"
    return f"the {what} {verb} taken back after it had failed ({end}){taken.note}"
