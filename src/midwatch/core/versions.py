"""Versions: what a run was made of, how that differs from what is there now, and when a change is taken back.

Pure. Of an environment only a keyed hash is known: no value leaves the supervisor. An entry is *good* once
a run of it was stable, or ended its work well; a newer one that fails before that is on trial, and is
taken back when its `rollback` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

from midwatch.core.change import Difference
from midwatch.core.exits import Verdict
from midwatch.core.plain import text_of
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
    verdict: Verdict, *, wanted: bool, proven: bool, good_known: bool, changed: Difference
) -> Rollback:
    """Return whether the end of a run takes its entry back to the last good one.

    `wanted` is the entry's `rollback`, `proven` whether a run of this entry was ever good, `good_known`
    whether an earlier good entry is kept, `changed` the difference between that and this one.
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
    if not changed:
        return Rollback(False, "the last good entry says the same")
    return Rollback(True, f"{changed.said}, and then: {verdict.reason}")


def since_changed(keys: Sequence[str], end: str) -> str:
    """Return the note that is shown as drift after an entry was taken back."""
    return (
        f"the changed entry ({', '.join(keys[:5])}) was taken back after it had failed ({end}); "
        "change the fleet file again to try anew"
    )
