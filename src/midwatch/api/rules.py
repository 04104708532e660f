"""Which scope a route needs: one table, first match wins. What it does not name is refused to all
but the admin, so a forgotten route is closed, not open."""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from midwatch.core.access import Scope


class Open(Enum):
    """Routes that need no scope."""

    ALWAYS = "always"
    LOOPBACK = "loopback"  # only while the hub listens on this machine alone


class Rule(NamedTuple):
    methods: frozenset[str]
    path: re.Pattern[str]
    needs: Scope | Open


def _rule(methods: str, path: str, needs: Scope | Open) -> Rule:
    return Rule(frozenset(methods.split()), re.compile(path, re.DOTALL), needs)


RULES: Final = (
    _rule("GET HEAD", r"/healthz|/readyz", Open.ALWAYS),
    _rule("GET HEAD", r"/metrics", Open.LOOPBACK),
    _rule("GET HEAD", r"/login|/favicon\.ico|/static/[^/]+", Open.ALWAYS),
    _rule("GET HEAD POST", r"/ping/.*", Open.LOOPBACK),
    _rule("POST", r"/api/(beats|events|runs|samples)|/v1/(traces|metrics|logs)", Scope.WRITE),
    _rule("GET", r"/api/nodes/[^/]+/commands", Scope.NODE),
    _rule("POST", r"/api/nodes/[^/]+/replies", Scope.NODE),
    _rule("GET POST DELETE", r"/api/tokens(/.*)?|/api/login-links", Scope.ADMIN),
    _rule("POST", r"/api/agents/[^/]+/[^/]+|/api/incidents/[^/]+/ack", Scope.ACT),
    _rule("POST", r"/api/reload|/api/gateway", Scope.ADMIN),
    _rule("POST", r"/logout|/api/sql", Scope.READ),
    _rule("GET HEAD", r"/.*", Scope.READ),
)


MAX_CACHED_PATH: Final = 256
"""Characters of a path whose rule is remembered: strangers choose paths, and long ones would add up."""


def needed(method: str, path: str) -> Scope | Open:
    """Return what a request needs. A path that no rule names needs admin."""
    return _cached(method, path) if len(path) <= MAX_CACHED_PATH else _find(method, path)


def _find(method: str, path: str) -> Scope | Open:
    for rule in RULES:
        if method in rule.methods and rule.path.fullmatch(path):
            return rule.needs
    return Scope.ADMIN


_cached: Final = lru_cache(maxsize=1024)(_find)
