"""What is kept of an agent that may be rolled back: what was good, and what was taken back.

It holds what the fleet file and the env file held, secrets too: it stands in one file, mode 0600, and
nothing of it is told, logged or shown but names of keys and commits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from midwatch.core.fleet import Agent
from midwatch.core.versions import Revision


@dataclass(frozen=True, slots=True)
class Good:
    """What a good run was made of."""

    agent: Agent
    env_file: bytes | None = None
    """The content of its env file; None: it has none, or it was not kept."""
    revision: Revision | None = None
    """Of its code; None: no git, or not known."""


@dataclass(slots=True)
class Back:
    """What was taken back, and is not tried again before it is another."""

    entry: str
    """Hash of the entry that failed."""
    env_file: str = ""
    """Hash of its env file's content."""
    commit: str = ""
    """What was checked out; empty: not known."""
    edited: bool = False
    """It had changes on top of that."""
    code: bool = False
    """The good code runs, from a worktree."""
    place: str = ""
    """The name of that worktree, once it was made."""
    note: str = ""
    """What is shown about it."""

    @property
    def pending(self) -> bool:
        """Its code is being looked for, and nothing of it is told. Not kept: a supervisor that dies now
        leaves to the next one a trial, not a decision that nobody was told of."""
        return self.code and not self.place

    def tried(self, there: Revision | None) -> bool:
        """Tell whether the code that is there now is what failed."""
        if there is None or not self.commit:
            return True
        return there.commit == self.commit and (
            bool(there.dirty) == self.edited or there.dirty is None
        )


@dataclass(slots=True)
class Kept:
    """What is remembered of one agent."""

    good: Good | None = None
    back: Back | None = None

    def to_json(self) -> dict[str, Any]:
        good, back = self.good, self.back
        found: dict[str, Any] = {"good": None, "refused": "", "note": ""}
        if good is not None:
            found["good"] = good.agent.model_dump(mode="json")
            if good.env_file is not None:
                found["env_file"] = good.env_file.decode("utf-8", "surrogateescape")
            if good.revision is not None:
                found["revision"] = good.revision.to_json()
        if back is not None and not back.pending:
            found |= {
                "refused": back.entry, "refused_env_file": back.env_file, "refused_commit": back.commit,
                "refused_edited": back.edited, "code": back.code, "place": back.place, "note": back.note,
            }  # fmt: skip
        return found

    @staticmethod
    def of(data: Mapping[str, Any]) -> Kept:
        """Read what `to_json` wrote, also an older version. Raises ValueError, KeyError, TypeError."""
        good: Good | None = None
        if data.get("good"):
            env_file: object = data.get("env_file")
            content = (
                env_file.encode("utf-8", "surrogateescape") if isinstance(env_file, str) else None
            )
            good = Good(
                Agent.model_validate(data["good"]), content, _revision(data.get("revision"))
            )
        back: Back | None = None
        if data["refused"]:
            back = Back(
                str(data["refused"]), str(data.get("refused_env_file", "")), str(data.get("refused_commit", "")),
                data.get("refused_edited") is True, data.get("code") is True, str(data.get("place", "")),
                str(data["note"]),
            )  # fmt: skip
        return Kept(good, back)


def _revision(value: object) -> Revision | None:
    if not isinstance(value, dict):
        return None
    known = cast("dict[str, Any]", value)
    branch: object = known.get("branch")
    dirty: object = known.get("dirty")
    return Revision(
        str(known["commit"]),
        branch if isinstance(branch, str) else None,
        dirty if isinstance(dirty, bool) else None,
    )
