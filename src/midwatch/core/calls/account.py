"""Who pays for a call: one payer, and the accounts that each of its calls is charged to.

A call is charged to every account of its payer, whether or not that account has a budget: a budget that is set
later knows what was spent before. An agent's instances share its account; a sub-agent (`inbox:search`) charges
itself and all above it; a session belongs to the agent at the top of its tree, so that an agent cannot spend from
another one's session by naming it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from hashlib import blake2b
from typing import Final

from midwatch.core.sealed import sealed

FLEET: Final = "fleet"

MAX_DEPTH: Final = 8
"""Levels of sub-agents with accounts of their own; what is deeper charges the eighth."""

MAX_PART: Final = 120
"""Characters of a run's, session's, key's or tag's name in an account; a longer one ends in its digest."""

BRIEF: Final = ("run:", "session:")
"""Accounts that come and go. They have a total and no calendar."""


def clean(text: str, limit: int = MAX_PART) -> str:
    """Return text that every database takes and every page can show: bounded, one line, no NUL, no lone
    surrogates. Different texts stay different: whatever is changed ends in a digest of the whole."""
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text
    raw = text.encode("utf-8", "surrogatepass")
    kept = "".join(c if c.isprintable() and not "\ud800" <= c <= "\udfff" else "?" for c in text)
    if kept == text and len(text) <= limit:
        return text
    return f"{kept[: limit - 13]}~{blake2b(raw, digest_size=6).hexdigest()}"


@sealed
class Payer:
    """Who a call is charged to."""

    agent: str = ""
    """`inbox`, an instance `inbox.2`, a sub-agent `inbox:search`; empty for a person's or a team's key."""
    entry: str = ""
    """The agent's name in the fleet file, where it differs: `inbox` of the instance `inbox.2`."""
    group: str | None = None
    run: str | None = None
    session: str | None = None
    key: str | None = None
    """A long-lived key's name; None for the key of a run."""
    tags: Mapping[str, str] = field(default_factory=dict[str, str])
    _accounts: tuple[str, ...] | None = field(default=None, init=False, compare=False, repr=False)

    def tree(self) -> tuple[str, ...]:
        """Return the agent's account names from the top of its tree: `inbox`, `inbox:search`."""
        if not self.agent:
            return ()
        top, *below = self.agent.split(":")
        path = clean(self.entry or top)
        names = [path]
        for part in below[: MAX_DEPTH - 1]:
            path = f"{path}:{clean(part)}"
            names.append(path)
        return tuple(names)

    @property
    def run_account(self) -> str | None:
        """The run's account, None without a run."""
        return f"run:{clean(self.run)}" if self.run else None

    @property
    def session_account(self) -> str | None:
        """The session's account, `session:inbox/ID`; without an agent it is the key's."""
        if not self.session:
            return None
        tree = self.tree()
        owner = tree[0] if tree else f"key {clean(self.key or '')}".replace("/", "%2F")
        return f"session:{owner}/{clean(self.session)}"

    def accounts(self) -> tuple[str, ...]:
        """Return the accounts that a call is charged to, the widest first."""
        if self._accounts is None:
            # a key's payer is one for all of its calls
            object.__setattr__(self, "_accounts", self._all())
        return self._accounts or ()

    def _all(self) -> tuple[str, ...]:
        names = [FLEET]
        if self.group:
            names.append(f"group:{clean(self.group)}")
        names += [f"agent:{name}" for name in self.tree()]
        names += [name for name in (self.run_account, self.session_account) if name]
        if self.key:
            names.append(f"key:{clean(self.key)}")
        names += [tag_account(name, value) for name, value in self.tags.items()]
        return tuple(names)


def tag_account(name: str, value: str) -> str:
    """Return `tag:customer=acme`."""
    return f"tag:{clean(name)}={clean(value)}"


def is_brief(account: str) -> bool:
    """Tell whether an account is that of a run or a session."""
    return account.startswith(BRIEF)


def in_words(account: str) -> str:
    """Return an account as a sentence names it: `inbox`, `group support`, `session 42 of inbox`."""
    kind, _, name = account.partition(":")
    if kind == "session":
        owner, _, session = name.partition("/")
        return f"session {session} of {owner}"
    named = {"fleet": "the fleet", "agent": name, "tag": name}
    return named.get(kind, f"{kind} {name}")
