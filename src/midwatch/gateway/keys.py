"""Long-lived keys: of an agent outside this machine, a team, a person. Random, shown once, kept as a digest.

A key says who pays (`key:NAME`, and its agent or group), which models it may use, until when, and what it may spend.
Rotation gives a new secret, and the old one stays good for the overlap. A name is never given twice while its
charges can still be asked for: a revoked key stays listed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from midwatch.core.access import KEY_PREFIX
from midwatch.core.calls.labels import Labels
from midwatch.core.terms import Budget
from midwatch.gateway.kept import Entry, Kept

MAX_KEYS: Final = 10_000

MAX_OVERLAP_S: Final = 90 * 86_400.0

USED_EVERY_S: Final = 600.0
"""The time of last use is kept no more exactly than this."""

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


class BadKey(Exception):
    """What is wanted of a key cannot be. `status` for the answer; the text says what to do."""

    def __init__(self, message: str, status: int = 422) -> None:
        self.status = status
        super().__init__(message)


class Wanted(BaseModel):
    """A key that somebody asks for. Whose it is: one of agent, group and person."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    agent: str | None = None
    group: str | None = None
    person: str | None = None
    models: list[str] = Field(default=[], max_length=100)
    """Patterns of models that it may use, `gpt-4o*` or `anthropic/*`; all when empty."""
    tasks: list[str] | None = Field(default=None, max_length=100)
    """Patterns of tasks that its calls may name; any when left out."""
    tags: dict[str, list[str]] | None = Field(default=None, max_length=100)
    """Tag → patterns of values that its calls may give; any when left out."""
    expires_at: float | None = None
    """Unix seconds; never when left out."""
    budget: dict[str, Any] = {}
    """As in the fleet file, amounts in nano-dollars."""
    by: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """One key as it is known here: everything but its secret."""

    name: str
    agent: str
    group: str | None
    person: str
    models: tuple[str, ...]
    labels: Labels | None
    """What its calls may say of task and tags; None: anything."""
    budget: Budget | None
    expires_at: float | None
    revoked_at: float | None
    digests: Mapping[str, float | None]
    """Digest of each secret → until when it is good; None: as long as the key."""
    entry: Entry

    def over(self, digest: str, now: float) -> str | None:
        """Return why a secret of this key is good no more, or None."""
        if self.revoked_at is not None:
            return f"the key {self.name!r} was revoked"
        if self.expires_at is not None and now >= self.expires_at:
            return f"the key {self.name!r} has expired"
        until = self.digests.get(digest, 0.0)
        if until is not None and now >= until:
            return f"the key {self.name!r} was rotated, and this one is no longer good"
        return None


def digest_of(key: str) -> str:
    """Return what is kept of a key. The key is random and long: nothing slower is needed."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


class Keys:
    """All long-lived keys of a data directory."""

    def __init__(self, path: Path, wall: Callable[[], float]) -> None:
        self.changed: Callable[[], object] = lambda: None
        """Called when keys differ from what they were, here or in another process."""
        self._wall = wall
        self._by_name: dict[str, Key] = {}
        self._by_digest: dict[str, Key] = {}
        self.document = Kept(path, self._read)

    def open(self) -> None:
        """Read them. Raises SetupError. Blocking."""
        self.document.open()
        self._read()

    def find(self, digest: str) -> Key | None:
        """Return the key that a digest belongs to, revoked ones too."""
        return self._by_digest.get(digest)

    def named(self, name: str) -> Key | None:
        return self._by_name.get(name)

    def create(self, wanted: Mapping[str, Any]) -> str:
        """Make a key and return its secret, which nobody can read again. Raises BadKey."""
        asked = self._checked(wanted)
        if asked.name in self._by_name:
            raise BadKey(
                f"there is a key {asked.name!r} already; rotate it, or choose another name", 409
            )
        if len(self._by_name) >= MAX_KEYS:
            raise BadKey(f"there are {MAX_KEYS} keys; revoke what nobody uses", 409)
        secret = KEY_PREFIX + secrets.token_urlsafe(32)
        entry = asked.model_dump()
        entry |= {"created_at": self._wall(), "revoked_at": None, "used_at": None}
        entry["secrets"] = [_secret(secret)]
        # of two processes that make a key of one name, the first one's stays
        self.document.change(asked.name, lambda there: entry if there is None else there)
        return secret

    def rotate(self, name: str, overlap_s: float) -> str:
        """Give a key a new secret and return it; the old one stays good for `overlap_s`. Raises BadKey."""
        self._must_live(name)
        if not 0 <= overlap_s <= MAX_OVERLAP_S:
            raise BadKey(f"overlap_s: expected 0 to {MAX_OVERLAP_S:.0f}, got {overlap_s!r}")
        now = self._wall()
        secret = KEY_PREFIX + secrets.token_urlsafe(32)
        fresh = _secret(secret)
        self.document.change(name, lambda entry: _rotated(entry, fresh, now, now + overlap_s))
        return secret

    def revoke(self, name: str) -> float:
        """End a key now; return when it ended. Again is no change. Raises BadKey."""
        key = self._by_name.get(name)
        if key is None:
            raise _unknown(name)
        if key.revoked_at is None:
            now = self._wall()
            self.document.change(name, lambda entry: _revoked(entry, now))
        return self._by_name[name].revoked_at or 0.0

    def used(self, key: Key, now: float) -> None:
        """Note that a key was used, now and then. Nothing else of it changes, whoever changed it meanwhile."""
        if now - (key.entry.get("used_at") or 0.0) >= USED_EVERY_S:
            self.document.change(key.name, lambda entry: _used(entry, now))

    def all(self) -> list[dict[str, Any]]:
        """Return what may be shown of all keys, by name."""
        return [show(self._by_name[name], self._wall()) for name in sorted(self._by_name)]

    def _must_live(self, name: str) -> None:
        key = self._by_name.get(name)
        if key is None:
            raise _unknown(name)
        if key.revoked_at is not None:
            raise BadKey(f"the key {name!r} was revoked; create another", 409)

    def _checked(self, wanted: Mapping[str, Any]) -> Wanted:
        try:
            asked = Wanted.model_validate(wanted)
            Budget.model_validate(asked.budget)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BadKey(f"{where or 'key'}: {first['msg']}") from None
        if NAME.fullmatch(asked.name) is None:
            raise BadKey(f"name: expected letters, digits, . _ @ and -, got {asked.name[:80]!r}")
        whose = [w for w in (asked.agent, asked.group, asked.person) if w]
        if len(whose) != 1 or len(whose[0]) > 200:
            raise BadKey("exactly one of agent, group and person says whose key it is")
        if asked.expires_at is not None and asked.expires_at <= self._wall():
            raise BadKey(f"expires_at: expected a time to come, got {asked.expires_at!r}")
        return asked

    def _read(self) -> None:
        self._by_name = {name: _key(name, entry) for name, entry in self.document.entries.items()}
        self._by_digest = {digest: key for key in self._by_name.values() for digest in key.digests}
        self.changed()


def show(key: Key, now: float) -> dict[str, Any]:
    """Return what may be shown of a key."""
    shown = {k: v for k, v in key.entry.items() if k != "secrets"}
    live = [one for one in key.entry["secrets"] if one["until"] is None or one["until"] > now]
    shown["hints"] = [{"ends_in": one["hint"], "until": one["until"]} for one in live]
    over = key.revoked_at is not None or (key.expires_at is not None and now >= key.expires_at)
    state = "revoked" if key.revoked_at is not None else "expired" if over else "active"
    return {**shown, "name": key.name, "state": state}


def _key(name: str, entry: Entry) -> Key:
    budget: dict[str, Any] = entry.get("budget") or {}
    return Key(
        name=name,
        agent=entry.get("agent") or "",
        group=entry.get("group"),
        person=entry.get("person") or "",
        models=tuple(entry.get("models") or ()),
        labels=Labels(entry.get("tasks"), entry.get("tags"))
        if entry.get("tasks") is not None or entry.get("tags") is not None
        else None,
        budget=Budget.model_validate(budget) if budget else None,
        expires_at=entry.get("expires_at"),
        revoked_at=entry.get("revoked_at"),
        digests={one["digest"]: one["until"] for one in entry["secrets"]},
        entry=entry,
    )


def _secret(secret: str) -> Entry:
    return {"digest": digest_of(secret), "hint": secret[-4:], "until": None}


def _rotated(entry: Entry | None, fresh: Entry, now: float, until: float) -> Entry | None:
    if entry is None:
        return None
    old = [one for one in entry["secrets"] if one["until"] is None or one["until"] > now]
    old = [{**one, "until": min(one["until"] or until, until)} for one in old]
    return {**entry, "secrets": [*old[-8:], fresh]}


def _revoked(entry: Entry | None, now: float) -> Entry | None:
    return entry and {**entry, "revoked_at": entry.get("revoked_at") or now}


def _used(entry: Entry | None, now: float) -> Entry | None:
    return entry and {**entry, "used_at": max(entry.get("used_at") or 0.0, now)}


def _unknown(name: str) -> BadKey:
    return BadKey(f"no key is called {name[:80]!r}; see midwatch key list", 404)
