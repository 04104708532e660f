"""Who may do what: callers, scopes, and the token of a run.

A run token names its agent and run and is signed with the instance's secret, so that the hub
verifies it without looking anything up: `mwr_` + base64url(JSON) + `.` + base64url(HMAC-SHA256).
It lives as long as telemetry of its run may arrive (a spool of six weeks), writes for its own agent
only, and dies with the secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    READ = "read"  # see
    WRITE = "write"  # report: beats, events, runs, samples, spans
    ACT = "act"  # start, stop, acknowledge, approve
    ADMIN = "admin"  # tokens; includes all others
    NODE = "node"  # a supervisor: takes commands, reports for its agents


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request. `agent` is set for a run token: it may write for that agent alone."""

    name: str
    scopes: frozenset[Scope]
    agent: str | None = None
    run_id: str | None = None

    def may(self, scope: Scope) -> bool:
        """Tell whether the caller holds `scope`; admin holds all but node."""
        return scope in self.scopes or (Scope.ADMIN in self.scopes and scope is not Scope.NODE)

    def speaks_for(self, agent: str) -> bool:
        """Tell whether what it writes may be about `agent`: a run's token, about its own and its
        sub-agents, `inbox` and `inbox:search`."""
        return self.agent is None or agent == self.agent or agent.startswith(f"{self.agent}:")


@dataclass(frozen=True, slots=True)
class RunKey:
    """Whose calls a signed key carries."""

    agent: str
    run_id: str
    entry: str = ""
    """The agent's name in the fleet file where it differs."""


RUN_PREFIX = "mwr_"
NODE_PREFIX = "mwn_"
API_PREFIX = "mwt_"
KEY_PREFIX = "mwk_"
"""Keys for the gateway: a run's is signed and needs no look-up, a long-lived one is random and has no dot."""


def _sign(secret: bytes, body: bytes) -> bytes:
    return base64.urlsafe_b64encode(hmac.digest(secret, body, hashlib.sha256)).rstrip(b"=")


def _mint(secret: bytes, prefix: str, claims: dict[str, str]) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims, separators=(",", ":")).encode()).rstrip(b"=")
    return prefix + (body + b"." + _sign(secret, prefix.encode() + body)).decode()


def _verify(secret: bytes, prefix: str, token: str) -> dict[str, str] | None:
    if not token.startswith(prefix) or len(token) > 1024:
        return None
    body, dot, signature = token[len(prefix) :].encode("utf-8", "replace").partition(b".")
    if not dot or not hmac.compare_digest(_sign(secret, prefix.encode() + body), signature):
        return None
    claims: dict[str, str] = json.loads(base64.urlsafe_b64decode(body + b"=" * (-len(body) % 4)))
    return claims


def mint_run(secret: bytes, agent: str, run_id: str) -> str:
    """Return the token that a run finds in MIDWATCH_TOKEN."""
    return _mint(secret, RUN_PREFIX, {"a": agent, "r": run_id})


def mint_node(secret: bytes, node: str) -> str:
    """Return the token by which a supervisor reports and takes commands."""
    return _mint(secret, NODE_PREFIX, {"n": node})


def mint_key(secret: bytes, agent: str, run_id: str, entry: str = "") -> str:
    """Return the key by which a run's model calls are carried; `entry` is the agent's name in the fleet file
    where it differs (`inbox` of `inbox.2`). It is no token: it reads and reports nothing."""
    claims = {"a": agent, "r": run_id}
    return _mint(secret, KEY_PREFIX, {**claims, "e": entry} if entry not in ("", agent) else claims)


def verify_key(secret: bytes, key: str) -> RunKey | None:
    """Return whose key it is, or None when the signature is not ours."""
    claims = _verify(secret, KEY_PREFIX, key)
    return None if claims is None else RunKey(claims["a"], claims["r"], claims.get("e", ""))


def verify(secret: bytes, token: str) -> Caller | None:
    """Return the caller that a signed token names, or None when the signature is not ours."""
    claims = _verify(secret, RUN_PREFIX, token)
    if claims is not None:
        return Caller(f"run {claims['r']}", frozenset({Scope.WRITE}), claims["a"], claims["r"])
    claims = _verify(secret, NODE_PREFIX, token)
    if claims is not None:
        return Caller(f"node {claims['n']}", frozenset({Scope.WRITE, Scope.READ, Scope.NODE}))
    return None
