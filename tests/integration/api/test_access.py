from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from midwatch.core.access import mint_node, mint_run

COOKIE = "midwatch_8700"


async def enter(hub: Any) -> str:
    code = (await hub.hub.login.new_link()).rpartition("=")[2]
    answer = await hub.client.get(f"/login?code={code}", token=None)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    return cookie.partition(";")[0]


async def test_these_need_no_token_on_loopback(hub: Any) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/ping/inbox", "/login"):
        assert (await hub.client.get(path, token=None)).status == 200, path


async def test_everything_else_is_401_without_one_and_with_a_wrong_one(hub: Any) -> None:
    for method, path in (
        ("GET", "/api/fleet"),
        ("GET", "/api/openapi.json"),
        ("GET", "/api/stream"),
        ("POST", "/api/beats"),
        ("POST", "/v1/traces"),
        ("POST", "/api/agents/inbox/stop"),
        ("GET", "/api/nodes/here/commands"),
        ("GET", "/api/tokens"),
        ("POST", "/api/login-links"),
        ("GET", "/"),
        ("GET", "/api/whatever"),
    ):
        for token in (None, "mwt_wrong", "mwr_e30.AAAA", "x" * 5000, "é"):
            answer = await hub.client.ask(method, path, token=token)
            assert answer.status == 401, (method, path, token)
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_off_loopback_pings_and_metrics_need_a_token_as_well(tmp_path: Any) -> None:
    from midwatch.api.names import is_loopback

    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("192.168.1.5")


async def test_a_token_does_what_its_scopes_say_until_it_is_revoked(hub: Any) -> None:
    made = (await hub.client.post("/api/tokens", {"name": "laptop", "scopes": ["read"]})).json()
    token = made.get("token", made)
    assert (await hub.client.get("/api/fleet", token=token)).status == 200
    for path in ("/api/beats", "/api/agents/inbox/stop", "/api/tokens"):
        assert (await hub.client.post(path, {}, token=token)).status == 403
    listed = (await hub.client.get("/api/tokens")).json()["items"]
    assert [t["name"] for t in listed] == ["laptop"]
    assert token not in str(listed)
    assert (await hub.client.post("/api/tokens", {"name": "laptop"})).status == 409
    assert (await hub.client.ask("DELETE", "/api/tokens/laptop")).status == 204
    assert (await hub.client.get("/api/fleet", token=token)).status == 401
    assert (await hub.client.ask("DELETE", "/api/tokens/laptop")).status == 404


async def test_a_token_expires(hub: Any) -> None:
    wanted = {"name": "short", "scopes": ["read"], "expires_in_s": 1.5}
    token = (await hub.client.post("/api/tokens", wanted)).json()["token"]
    assert (await hub.client.get("/api/fleet", token=token)).status == 200
    deadline = time.monotonic() + 30
    while (await hub.client.get("/api/fleet", token=token)).status == 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_link_works_once_and_its_cookie_reads_and_acts(hub: Any) -> None:
    link = await hub.hub.login.new_link()
    file = hub.data / "hub" / "link"
    assert file.read_text().strip() == link
    assert file.stat().st_mode & 0o777 == 0o600
    cookie = await enter(hub)
    code = link.rpartition("=")[2]
    assert (await hub.client.get(f"/login?code={code}", token=None)).status == 303
    assert (await hub.client.get(f"/login?code={code}", token=None)).status == 401
    headers = {"cookie": cookie}
    assert (await hub.client.get("/api/fleet", token=None, headers=headers)).status == 200
    assert (await hub.client.get("/api/tokens", token=None, headers=headers)).status == 403


async def test_a_look_at_the_link_does_not_use_it_up(hub: Any) -> None:
    link = (await hub.hub.login.new_link()).removeprefix("http://127.0.0.1:8700")
    await hub.client.ask("HEAD", link, token=None)
    assert (await hub.client.get(link, token=None)).status == 303


async def test_strangers_do_not_fill_the_memory_with_cookies(hub: Any) -> None:
    for number in range(3):
        cookie = f"{COOKIE}={number}{'x' * 5000}"
        answer = await hub.client.get("/api/fleet", token=None, headers={"cookie": cookie})
        assert answer.status == 401
    assert hub.hub._callers._stored == {}


async def test_by_cookie_only_our_own_page_may_change_things(hub: Any) -> None:
    cookie = await enter(hub)
    headers: dict[str, str]
    for headers, status in (
        ({"sec-fetch-site": "same-origin"}, 404),
        ({"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8700"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://127.0.0.1:8700"}, 404),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({}, 403),
    ):
        answer = await hub.client.post(
            "/api/incidents/none/ack", token=None, headers={"cookie": cookie, **headers}
        )
        assert answer.status == status, headers


PUBLIC = "http://midwatch.example:8700"


def reachable(hub: Any, **said: Any) -> None:
    """Let the hub read a fleet file that says how it is called."""
    file = hub.data / "fleet.json"
    fleet = json.loads(file.read_text())
    file.write_text(json.dumps({**fleet, "hub": said}))
    hub.hub._reload()


async def test_forms_behind_a_balancer_are_taken_from_the_public_address_and_no_other(
    hub: Any,
) -> None:
    async def acked(origin: str, **more: str) -> Any:
        # the balancer calls the hub by a name of its own, and browsers say no more than this over plain HTTP
        headers = {"cookie": await enter(hub), "origin": origin, **more}
        return await hub.client.post("/api/incidents/none/ack", token=None, headers=headers)

    refused = await acked(PUBLIC)
    assert refused.status == 403
    assert "hub.public_url" in refused.json()["detail"]
    assert PUBLIC in refused.json()["detail"]
    # what a proxy says of names is believed from nobody
    forged = {"x-forwarded-host": "midwatch.example:8700", "forwarded": "host=midwatch.example"}
    assert (await acked(PUBLIC, **forged)).status == 403
    reachable(hub, public_url=PUBLIC)
    assert (await acked(PUBLIC)).status == 404
    assert (await acked("http://127.0.0.1:8700")).status == 404
    for other in (
        "https://midwatch.example:8700",
        "http://midwatch.example",
        "http://evil.example",
    ):
        assert (await acked(other)).status == 403, other
    assert (await acked(PUBLIC, **{"sec-fetch-site": "cross-site"})).status == 403


async def test_the_public_address_is_a_name_of_the_hub_and_login_links_lead_there(hub: Any) -> None:
    hub.client.host = "midwatch.example"
    refused = await hub.client.get("/healthz")
    assert refused.status == 421
    assert "hub.public_url" in refused.json()["detail"]
    reachable(hub, public_url="https://Midwatch.example/", hosts=["balancer"])
    assert (await hub.client.get("/healthz")).status == 200
    link = await hub.hub.login.new_link()
    assert link.startswith("https://midwatch.example/login?code=")
    code = link.rpartition("=")[2]
    cookie = (await hub.client.get(f"/login?code={code}", token=None)).headers["set-cookie"]
    assert cookie.startswith("midwatch_443=")
    assert cookie.endswith("; Secure")
    hub.client.host = "balancer:8700"
    assert (await hub.client.get("/healthz")).status == 200
    reachable(hub)
    assert (await hub.client.get("/healthz")).status == 421


async def test_what_a_proxy_passed_on_did_not_begin_on_this_machine(hub: Any) -> None:
    for header in ("x-forwarded-for", "Forwarded", "via", "x-real-ip"):
        headers = {header: "192.0.2.7"}
        for path in ("/ping/inbox", "/metrics"):
            asked = await hub.client.get(path, token=None, headers=headers)
            assert asked.status == 401, (header, path)
            assert (await hub.client.get(path, headers=headers)).status == 200, (header, path)


async def test_of_many_links_the_oldest_are_void(hub: Any) -> None:
    links = [
        (await hub.hub.login.new_link()).removeprefix("http://127.0.0.1:8700") for _ in range(22)
    ]
    found = [(await hub.client.get(link, token=None)).status for link in links]
    assert found.count(401) == 2
    assert found[-1] == 303


async def test_logging_out_ends_the_login(hub: Any) -> None:
    headers = {"cookie": await enter(hub), "sec-fetch-site": "same-origin"}
    assert (await hub.client.post("/logout", token=None, headers=headers)).status == 303
    assert (await hub.client.get("/api/fleet", token=None, headers=headers)).status == 401


async def test_a_strange_cookie_is_no_login(hub: Any) -> None:
    for cookie in ("", "midwatch_8700=", "midwatch_8700=wrong", "a=b; ;;=", "\x01"):
        answer = await hub.client.get("/api/fleet", token=None, headers={"cookie": cookie})
        assert answer.status == 401, cookie


async def test_a_foreign_host_name_is_refused(hub: Any) -> None:
    for host, status in (
        ("127.0.0.1:8700", 200),
        ("localhost", 200),
        ("[::1]:8700", 200),
        ("hub.example:8700", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("[", 421),
    ):
        hub.client.host = host
        assert (await hub.client.get("/healthz")).status == status, host


async def test_another_sites_page_cannot_ping(hub: Any) -> None:
    headers = {"sec-fetch-site": "cross-site"}
    assert (await hub.client.get("/ping/inbox", token=None, headers=headers)).status == 403


async def test_a_person_who_is_not_signed_in_gets_a_page_not_json(hub: Any) -> None:
    answer = await hub.client.get("/", token=None, headers={"accept": "text/html"})
    assert answer.status == 401
    assert answer.headers["content-type"].startswith("text/html")


async def test_a_node_token_takes_only_its_own_commands(hub: Any) -> None:
    token = mint_node(hub.secret, "here")
    assert (await hub.client.get("/api/nodes/here/commands?wait=0", token=token)).json() == []
    assert (await hub.client.get("/api/nodes/other/commands", token=token)).status == 403
    assert (await hub.client.get("/api/nodes/here/commands")).status == 403
    run = mint_run(hub.secret, "inbox", "r")
    assert (await hub.client.get("/api/nodes/here/commands", token=run)).status == 403
