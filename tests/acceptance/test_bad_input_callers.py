"""Who may not: no token, the wrong one, another's agent, a foreign host, another site's page.

Each is refused with one problem document, and nothing is harmed by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from midwatch.core.access import mint_run
from midwatch.drills.instance import Instance

Problem = Callable[..., dict[str, Any]]
BEAT = b'{"agent": "outside"}'


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """The instance of this file."""
    agents = {"inbox": {"command": ["sleep", "600"]}, "outside": {"external": True}}
    with Instance(tmp_path_factory.mktemp("callers"), agents) as one:
        assert one.wait(lambda: (one.agent("inbox") or {}).get("state") == "running", 40)
        yield one


@pytest.fixture
def hub(instance: Instance, client_of: Callable[..., Any]) -> Iterator[Any]:
    """The admin's client; what follows the test proves that nothing was harmed."""
    client = client_of(instance)
    before = client.stored(instance)
    yield client
    assert client.stored(instance) == before
    assert client.get("/readyz").json["status"] == "ok"


@pytest.fixture
def run_token(instance: Instance) -> str:
    return mint_run((instance.data / "secret").read_bytes(), "inbox", "run-1")


ROUTES = [
    ("GET", "/api/agents"),
    ("GET", "/api/stream"),
    ("GET", "/api/openapi.json"),
    ("GET", "/"),
    ("POST", "/api/beats"),
    ("POST", "/v1/traces"),
    ("POST", "/api/agents/inbox/stop"),
    ("POST", "/api/tokens"),
    ("GET", "/api/nodes/here/commands"),
]


@pytest.mark.parametrize(
    "token",
    [None, "", "nonsense", "mwt_" + "A" * 43, "mwr_e30.e30", "mwn_e30.x", "\xe9" * 2000],
    ids=["none", "empty", "nonsense", "unknown", "forged run", "forged node", "very long"],
)
def test_without_a_valid_token_every_route_answers_401(
    token: str | None, hub: Any, is_problem: Problem
) -> None:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    for method, path in ROUTES:
        body = BEAT if method == "POST" else None
        answer = hub.ask(method, path, body, headers=headers, token=None)
        is_problem(answer, 401, "token")
        assert answer.headers["www-authenticate"].startswith("Bearer"), path


def test_a_token_may_do_what_its_scope_names_and_no_more(
    instance: Instance,
    client_of: Callable[..., Any],
    midwatch: Callable[..., Any],
    is_problem: Problem,
) -> None:
    tokens = {}
    for scope in ("read", "write", "act"):
        made = midwatch(
            "token", "create", f"for-{scope}", "--scope", scope, "--data", instance.data
        )
        assert made.code == 0, made
        tokens[scope] = made.out.strip()
    admin = client_of(instance)
    before = admin.stored(instance)
    asked = {
        "read": ("GET", "/api/agents", None),
        "write": ("POST", "/api/beats", b"{}"),
        "act": ("POST", "/api/agents/inbox/stop", None),
        "admin": ("POST", "/api/tokens", b'{"name": "more", "scopes": ["admin"]}'),
    }
    for holds, token in tokens.items():
        client = client_of(instance, token)
        for needs, (method, path, body) in asked.items():
            if needs != holds:
                problem = is_problem(client.ask(method, path, body), 403, f"the scope '{needs}'")
                assert f"token for-{holds} holds {holds}" in problem["detail"]
    assert client_of(instance, tokens["read"]).get("/api/agents").status == 200
    assert admin.stored(instance) == before
    revoked = midwatch("token", "revoke", "for-read", "--data", instance.data)
    assert revoked.code == 0
    is_problem(client_of(instance, tokens["read"]).get("/api/agents"), 401, "revoked")


def test_a_run_writes_for_its_own_agent_alone(
    hub: Any, run_token: str, is_problem: Problem
) -> None:
    foreign = "this token writes for 'inbox' only"
    is_problem(hub.post("/api/beats", {"agent": "outside"}, token=run_token), 403, foreign)
    lie = {"kind": "run.ended", "data": {"end": "done"}}
    is_problem(hub.post("/api/events", lie, token=run_token), 403, "Midwatch's own to say")
    is_problem(hub.get("/ping/outside", token=run_token), 403, "pings for 'inbox' only")
    is_problem(hub.get("/api/agents/inbox", token=run_token), 403, "the scope 'read'")
    is_problem(hub.post("/api/agents/outside/stop", token=run_token), 403, "the scope 'act'")
    other = run_token[:-2] + ("AA" if not run_token.endswith("AA") else "BB")
    is_problem(hub.post("/api/beats", {}, token=other), 401, "this token is not known here")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8700", "127.0.0.1.evil.example", "169.254.169.254", "", "["],
)
def test_a_foreign_host_is_refused_whatever_the_token(
    host: str, hub: Any, is_problem: Problem
) -> None:
    for path in ("/api/agents", "/", "/healthz", "/ping/outside", "/login"):
        is_problem(hub.get(path, headers={"host": host}), 421, "this hub is not called")


def test_another_site_s_page_can_do_nothing_with_the_cookie(
    hub: Any, instance: Instance, midwatch: Callable[..., Any], is_problem: Problem
) -> None:
    link = midwatch("link", "--data", instance.data)
    assert link.code == 0, link
    path = "/login" + link.out.strip().partition("/login")[2]
    entered = hub.get(path, token=None)
    assert entered.status == 303
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    mine = {"cookie": cookie.partition(";")[0]}
    ask = hub.ask
    assert ask("GET", "/api/agents", headers=mine, token=None).status == 200
    stop = ("POST", "/api/agents/inbox/stop")
    for site in (
        {"sec-fetch-site": "cross-site", "origin": "http://evil.example"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {},
    ):
        answer = ask(*stop, headers={**mine, **site}, token=None)
        is_problem(answer, 403, "another site's page may not do this")
    is_problem(ask("POST", "/api/beats", BEAT, headers=mine, token=None), 403)
    # our own page may act, though not do what is the admin's
    ours = {**mine, "sec-fetch-site": "same-origin"}
    is_problem(ask("POST", "/api/agents/nobody/stop", headers=ours, token=None), 404, "nobody")
    is_problem(ask("POST", "/api/tokens", b"{}", headers=ours, token=None), 403, "'admin'")
    is_problem(hub.get(path, token=None), 401, "used already", "midwatch link")
