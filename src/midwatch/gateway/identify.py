"""Whose call it is, by the key that it shows. Nothing is asked of anybody: a signature, or a digest in memory.

What is no key of ours is refused with what to do about it: a provider's own key, a token for the hub, none at all.
Answers are remembered by digest, so that no comparison takes longer for a better guess, and forgotten whenever
keys or runs change: a revocation holds from the next request on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final

from midwatch.core import access
from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Budgets, Limit, limits_of
from midwatch.core.calls.labels import Labels
from midwatch.core.terms import Budget
from midwatch.gateway.dialects import Refusal
from midwatch.gateway.keys import Key, Keys, digest_of
from midwatch.gateway.runs import Runs
from midwatch.gateway.settings import Settings

MAX_KNOWN: Final = 10_000
"""Keys whose owner is remembered; the oldest is looked at anew."""

MAX_KEY: Final = 1_024
MAX_AGENT: Final = 500
"""Characters of x-midwatch-agent."""

_PROVIDERS: Final = (
    # how a key begins, the variable that it usually stands in
    ("sk-ant-", "ANTHROPIC_API_KEY"),
    ("sk-or-", "OPENROUTER_API_KEY"),
    ("sk-", "OPENAI_API_KEY"),
    ("AIza", "GEMINI_API_KEY"),
    ("AQ.", "GEMINI_API_KEY"),
    ("gsk_", "GROQ_API_KEY"),
    ("xai-", "XAI_API_KEY"),
    ("pplx-", "PERPLEXITY_API_KEY"),
)

_SUB_AGENT: Final = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}(?::[A-Za-z0-9][A-Za-z0-9._-]{0,62})*"
)


@dataclass(slots=True)
class Known:
    """Who shows a key."""

    payer: Payer
    budget: Budget | None = None
    """Of a long-lived key."""
    models: tuple[str, ...] = ()
    """Patterns of the models that it may use; all when empty."""
    expires_at: float | None = None
    labels: Labels | None = None
    """What its calls may say of task and tags; None: what its agent's may."""
    _limits: tuple[Budgets, tuple[Limit, ...]] | None = None

    def limits(self, budgets: Budgets) -> tuple[Limit, ...]:
        """Return every limit that holds for its calls; worked out once for one set of budgets."""
        if self._limits is None or self._limits[0] is not budgets:
            self._limits = budgets, limits_of(self.payer, budgets, self.budget)
        return self._limits[1]


class Identify:
    """Knows all keys of one gateway."""

    def __init__(
        self,
        secret: bytes,
        keys: Keys,
        runs: Runs,
        settings: Callable[[], Settings],
        wall: Callable[[], float],
    ) -> None:
        self._secret = secret
        self._keys = keys
        self._runs = runs
        self._settings = settings
        self._wall = wall
        self._known: dict[bytes, tuple[Known, Key | None, str]] = {}
        self.revoked: Callable[[str, str, str], object] = lambda _key, _agent, _why: None
        """Told when somebody shows a key that was revoked: its name, its agent, why it is refused."""
        keys.changed = self.forget

    def forget(self) -> None:
        """Look at every key anew: after a change of keys, runs or settings."""
        self._known.clear()

    def __call__(self, shown: str, named: str = "") -> Known | Refusal:
        """Return who shows the key `shown`. `named`: the sub-agent that the call says it is of."""
        if not shown:
            return _no("no key: send the one that this agent found in its environment, or one of midwatch key create")  # fmt: skip
        if len(shown) > MAX_KEY:
            return _no("this is no key of this gateway: it is too long")
        digest = blake2b(f"{named}\0{shown}".encode("utf-8", "replace"), digest_size=16).digest()
        found = self._known.get(digest)
        if found is None:
            looked = self._look(shown, named)
            if isinstance(looked, Refusal):
                return looked
            if len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            found = self._known[digest] = looked
        known, key, secret = found
        now = self._wall()
        over = self._over(known, key, secret, now)
        if over is not None:
            if key is not None and key.revoked_at is not None:
                self.revoked(key.name, key.agent, over)
            return _no(over)
        if key is not None:
            self._keys.used(key, now)
        return known

    def over(self, payer: Payer) -> Refusal | None:
        """Return why a payer's calls under way are to end, or None."""
        if payer.key is not None:
            key = self._keys.named(payer.key)
            now = self._wall()
            if key is None:
                return _no(f"the key {payer.key!r} is not known any more")
            ended = key.revoked_at is not None or (
                key.expires_at is not None and now >= key.expires_at
            )
            return _no(f"the key {payer.key!r} was revoked or has expired") if ended else None
        top = payer.agent.partition(":")[0]
        if payer.run and self._runs.is_over(top, payer.run, self._wall()):
            return _no(_RUN_OVER)
        return None

    def _over(self, known: Known, key: Key | None, secret: str, now: float) -> str | None:
        if key is not None:
            return key.over(secret, now)
        payer = known.payer
        top = payer.agent.partition(":")[0]
        return _RUN_OVER if payer.run and self._runs.is_over(top, payer.run, now) else None

    def _look(self, shown: str, named: str) -> tuple[Known, Key | None, str] | Refusal:
        if shown.startswith(access.KEY_PREFIX):
            found = self._of_run(shown) if "." in shown else self._long_lived(shown)
        else:
            return _not_ours(shown)
        if isinstance(found, Refusal) or not named:
            return found
        known, key, secret = found
        payer = known.payer
        if named == payer.agent:
            return found
        fits = payer.agent and named.startswith(f"{payer.agent}:") and len(named) <= MAX_AGENT
        if not fits or _SUB_AGENT.fullmatch(named) is None:
            whose = payer.agent or f"the key {payer.key}"
            return Refusal(
                "midwatch_key",
                f"x-midwatch-agent: {named[:100]!r} is no sub-agent of {whose}: its name begins"
                f" with {payer.agent or 'an agent of the key'}:",
                403,
            )
        return replace(known, payer=replace(payer, agent=named)), key, secret

    def _of_run(self, shown: str) -> tuple[Known, Key | None, str] | Refusal:
        claims = access.verify_key(self._secret, shown)
        if claims is None:
            return _no("this key is not of this instance: its signature is not ours")
        entry = claims.entry or claims.agent
        agent = self._settings().agent(entry)
        group = agent.group if agent is not None else None
        payer = Payer(claims.agent, claims.entry, group, claims.run_id)
        return Known(payer), None, ""

    def _long_lived(self, shown: str) -> tuple[Known, Key | None, str] | Refusal:
        secret = digest_of(shown)
        key = self._keys.find(secret)
        if key is None:
            return _no("this key is not known here; see midwatch key list")
        group = key.group
        if key.agent:
            agent = self._settings().agent(key.agent)
            group = agent.group if agent is not None else None
        payer = Payer(agent=key.agent, group=group, key=key.name)
        return Known(payer, key.budget, key.models, key.expires_at, key.labels), key, secret


_RUN_OVER: Final = "this key is of a run that has ended"


def _not_ours(shown: str) -> Refusal:
    for prefix in (access.RUN_PREFIX, access.API_PREFIX, access.NODE_PREFIX):
        if shown.startswith(prefix):
            return _no(
                f"{prefix}… is a token for the hub, and no key for model calls; take the key from"
                " OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY of a run, or make one with midwatch key create"
            )
    for prefix, variable in _PROVIDERS:
        if shown.startswith(prefix):
            return _no(
                f"this is a provider's key, and agents do not hold those here: take {variable} out of"
                " agents.NAME.env and env_file (and out of the program), and give it to the gateway under"
                " models.providers"
            )
    return _no("this is no key of this gateway; keys begin with mwk_")


def _no(message: str) -> Refusal:
    return Refusal("midwatch_key", message, 401)
