from __future__ import annotations

import pytest

from midwatch.api.rules import Open, needed
from midwatch.core.access import Scope


@pytest.mark.parametrize(
    ("method", "path", "needs"),
    [
        ("GET", "/healthz", Open.ALWAYS),
        ("GET", "/static/watch.js", Open.ALWAYS),
        ("GET", "/static/../api/fleet", Scope.READ),
        ("GET", "/metrics", Open.LOOPBACK),
        ("POST", "/ping/inbox", Open.LOOPBACK),
        ("POST", "/api/beats", Scope.WRITE),
        ("GET", "/api/beats", Scope.READ),
        ("POST", "/v1/traces", Scope.WRITE),
        ("POST", "/api/agents/inbox/kill", Scope.ACT),
        ("GET", "/api/agents/inbox/logs", Scope.READ),
        ("POST", "/api/incidents/1/ack", Scope.ACT),
        ("POST", "/api/gateway", Scope.ADMIN),
        ("GET", "/api/gateway", Scope.READ),
        ("POST", "/api/sql", Scope.READ),
        ("GET", "/api/export/spans", Scope.READ),
        ("GET", "/api/tokens", Scope.ADMIN),
        ("DELETE", "/api/tokens/1", Scope.ADMIN),
        ("POST", "/api/login-links", Scope.ADMIN),
        ("GET", "/api/nodes/n/commands", Scope.NODE),
        ("POST", "/api/nodes/n/replies", Scope.NODE),
        ("GET", "/", Scope.READ),
        ("POST", "/forgotten", Scope.ADMIN),
        ("DELETE", "/", Scope.ADMIN),
        ("POST", "/api/forgotten", Scope.ADMIN),
        ("PUT", "/api/fleet", Scope.ADMIN),
        ("DELETE", "/api/tokens/a\nb", Scope.ADMIN),
        ("GET", "/api/tokens/a\nb", Scope.ADMIN),
        ("GET", "/api/agents/" + "x" * 5000, Scope.READ),
    ],
)
def test_each_route_needs_its_scope(method: str, path: str, needs: Scope | Open) -> None:
    assert needed(method, path) is needs
