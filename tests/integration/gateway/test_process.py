"""The gateway as a process: calls with the official clients, holds, keys, ends of every kind."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from .conftest import HELLO, Running, until  # noqa: TID252  there is no tests package

MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
SLOW = {
    "x-rehearsal-behave": json.dumps(
        {"mode": "slow", "first_token": 0.0, "between": 0.25, "words": 400}
    )
}
ROOT = Path(__file__).resolve().parents[3]


def chats(gateway: Running, key: str = "", **given: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key or gateway.key(), **given)


def chat(gateway: Running, key: str = "") -> Any:
    with chats(gateway, key) as client:
        return client.chat.completions.with_raw_response.create(
            model="gpt-4o-mini", messages=MESSAGES, max_tokens=50
        )


class Stream:
    """A slow stream that a client reads in a thread, and how it ended."""

    def __init__(self, gateway: Running, key: str = "") -> None:
        self.error: Exception | None = None
        self.pieces = 0
        self.ended_at = 0.0
        self._client = chats(gateway, key, max_retries=0)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        until(lambda: self.pieces > 1, "the stream begins")

    def _read(self) -> None:
        try:
            with (
                self._client,
                self._client.chat.completions.create(
                    model="gpt-4o-mini", messages=MESSAGES, stream=True, extra_headers=SLOW
                ) as stream,
            ):
                for _ in stream:
                    self.pieces += 1
        except Exception as error:
            self.error = error
        self.ended_at = time.monotonic()

    def over(self) -> str:
        """Return what its client was told."""
        self._thread.join(40)
        assert not self._thread.is_alive()
        return str(self.error)


def test_a_call_of_each_official_client_is_carried_and_its_cost_is_that_of_the_ledger(
    gateway: Running,
) -> None:
    raw = chat(gateway)
    assert raw.parse().choices[0].message.content
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key()) as claude:
        said = claude.messages.with_raw_response.create(
            model="claude-haiku-4-5", messages=MESSAGES, max_tokens=50
        )
        assert said.parse().usage.output_tokens > 0
    for headers in (raw.headers, said.headers):
        told = gateway.ask("GET", f"/self/calls/{headers['x-midwatch-call']}").json()
        assert told["cost_usd"] == pytest.approx(float(headers["x-midwatch-cost-usd"]), abs=1e-12)
        assert (told["state"], len(told["attempts"]), told["estimated"]) == ("settled", 1, False)
    total = gateway.control("GET", "cost?by=agent")
    assert [(row["name"], row["calls"]) for row in total["rows"]] == [("inbox", 2)]


def test_what_the_ledger_says_is_what_the_provider_bills(gateway: Running) -> None:
    with (
        chats(gateway) as client,
        client.chat.completions.create(
            model="gpt-4o-mini", messages=MESSAGES, stream=True, max_tokens=30
        ) as stream,
    ):
        assert sum(1 for _ in stream) > 2
    (call,) = gateway.control("GET", "calls")["calls"]
    billed = json.loads(
        _get(f"{gateway.rehearsal_url}/rehearsal/billed/calls?call={call['call_id']}")
    )
    assert [(b["input"], b["output"]) for b in billed["calls"]] == [
        (call["input_tokens"], call["output_tokens"])
    ]


def test_tokens_are_counted_without_a_reservation_and_free(shared: Running) -> None:
    with anthropic.Anthropic(base_url=shared.url, api_key=shared.key("counter")) as claude:
        counted = claude.messages.count_tokens(model="claude-haiku-4-5", messages=MESSAGES)
    assert counted.input_tokens > 0
    assert shared.control("GET", "calls?agent=counter")["calls"] == []


def test_an_exhausted_budget_is_asked_once_and_told(stopped: Running) -> None:
    stopped.fleet(agents={"inbox": {"command": ["x"], "budget": {"per_day": 40_000}}})
    stopped.start()
    chat(stopped)
    with pytest.raises(openai.RateLimitError, match="inbox has used"):
        chat(stopped)
    assert 'type="midwatch_budget"} 1' in stopped.ask("GET", "/metrics").body.decode()
    left = stopped.ask("GET", "/self/budget").json()
    assert (left["left_nusd"], left["limits"][0]["window"]) == (28_450, "day")


def test_a_budget_that_parks_holds_the_agent_until_it_is_resumed(stopped: Running) -> None:
    budget = {"per_day": 40_000, "on_exhausted": "park"}
    stopped.fleet(agents={"inbox": {"command": ["x"], "budget": budget}})
    stopped.start()
    assert stopped.ask("POST", "/v1/chat/completions", HELLO).status == 200
    assert stopped.ask("POST", "/v1/chat/completions", HELLO).status == 429
    again = stopped.ask("POST", "/v1/chat/completions", HELLO)
    assert (again.status, again.json()["error"]["type"]) == (403, "midwatch_budget")
    assert "midwatch resume inbox" in again.json()["error"]["message"]
    assert [hold["kind"] for hold in stopped.control("GET", "state")["holds"]] == ["budget"]
    assert stopped.control("POST", "lift", {"agent": "inbox"})["lifted"][0]["agent"] == "inbox"
    assert stopped.ask("POST", "/v1/chat/completions", HELLO).status == 429


def test_the_kill_switch_cuts_streams_with_a_receipt_and_survives_kill_9(gateway: Running) -> None:
    stream = Stream(gateway)
    began = time.monotonic()
    told = gateway.control("POST", "kill", {"agent": "inbox", "why": "it spends", "by": "ada"})
    assert "kill switch" in stream.over()
    assert stream.ended_at - began < 20  # promised is one second; a busy machine takes its time
    receipt = told["receipt"]
    assert (receipt["calls_cut"], receipt["still_ending"], told["durable"]) == (1, 0, True)
    (call,) = gateway.control("GET", "calls")["calls"]
    assert (call["state"], call["outcome"]) == ("settled", "killed")
    assert receipt["settled_nusd"] == call["cost_nusd"] > 0
    gateway.end(signal.SIGKILL)
    gateway.start()
    refused = gateway.ask("POST", "/v1/chat/completions", HELLO)
    assert (refused.status, "it spends" in refused.json()["error"]["message"]) == (403, True)
    sub_agent = gateway.ask("POST", "/v1/chat/completions", HELLO, x_midwatch_agent="inbox:search")
    assert sub_agent.status == 403
    gateway.control("POST", "lift", {"agent": "inbox"})
    assert gateway.ask("POST", "/v1/chat/completions", HELLO).status == 200


def test_what_was_spent_under_a_tag_is_shown_to_whom_it_belongs(stopped: Running) -> None:
    allowed = {"command": ["x"], "calls": {"tags": {"customer": ["acme"]}}}
    agents = {"inbox": {"command": ["x"]}, "acme": allowed}
    stopped.fleet(agents=agents, budgets=[{"tag": "customer", "total": 10**9}])
    stopped.start()

    def accounts(agent: str, customer: str) -> list[str]:
        tags = {"x_midwatch_tags": f"customer={customer}"}
        key = stopped.key(agent=agent)
        told = stopped.ask("GET", "/self/budget", key=key, **tags).json()
        return [limit["account"] for limit in told["limits"]]

    assert accounts("inbox", "acme") == []
    assert accounts("acme", "acme") == ["tag:customer=acme"]
    assert accounts("acme", "other") == []


def test_what_a_kill_9_left_open_is_settled_by_a_persons_figures_once(gateway: Running) -> None:
    Stream(gateway)
    gateway.end(signal.SIGKILL)
    gateway.start()
    (call,) = gateway.control("GET", "calls")["calls"]
    assert (call["state"], call["provider"], call["model"]) == ("open", "openai", "gpt-4o-mini")
    row = {"call": call["call_id"], "usage": {"prompt_tokens": 10, "completion_tokens": 4}}
    told = gateway.control("POST", "reconcile", {"rows": [row], "by": "ada"})
    cost = 10 * 150 + 4 * 600
    assert told["rows"] == [
        {"call": call["call_id"], "result": "settled", "was_nusd": call["reserved_nusd"], "cost_nusd": cost}
    ]  # fmt: skip
    assert gateway.control("POST", "reconcile", {"rows": [row]})["results"] == {"same": 1}
    found = gateway.control("GET", f"calls/{call['call_id']}")
    assert (found["state"], found["cost_nusd"], found["estimated"]) == ("settled", cost, False)
    assert [one["by"] for one in found["corrections"]] == ["ada"]
    assert gateway.control("GET", "audit")["sound"]
    assert gateway.control("POST", "reconcile")["results"] == {}


def test_a_whole_answer_that_is_waited_for_is_cut_by_the_kill_switch_too(gateway: Running) -> None:
    late = {"x-rehearsal-behave": json.dumps({"mode": "slow", "first_token": 600.0})}
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(gateway.ask("POST", "/v1/chat/completions", HELLO, **late).status)

    thread = threading.Thread(target=ask)
    thread.start()
    until(lambda: gateway.control("GET", "state")["calls_under_way"] == 1)
    told = gateway.control("POST", "kill", {"agent": "inbox"})
    thread.join(40)
    assert (statuses, told["receipt"]["calls_cut"], told["receipt"]["still_ending"]) == (
        [403],
        1,
        0,
    )


def test_a_suspended_agent_keeps_its_stream_and_begins_no_other(gateway: Running) -> None:
    stream = Stream(gateway)
    gateway.control("POST", "hold", {"agent": "inbox", "why": "a look at it", "by": "ada"})
    assert (
        gateway.ask("POST", "/v1/chat/completions", HELLO).json()["error"]["type"]
        == "midwatch_suspended"
    )
    pieces = stream.pieces
    until(lambda: stream.pieces > pieces)
    gateway.control("POST", "kill", {"agent": "inbox"})
    stream.over()


def test_a_revoked_key_ends_its_streams_and_is_refused_from_then_on(gateway: Running) -> None:
    made = gateway.control("POST", "keys", {"name": "ci", "person": "ada", "models": ["gpt-4o*"]})
    key: str = made["key"]
    stream = Stream(gateway, key)
    told = gateway.control("POST", "keys/ci/revoke")
    assert told["receipt"]["calls_cut"] == 1
    assert "was revoked" in stream.over()
    with pytest.raises(openai.AuthenticationError, match="revoked"):
        chat(gateway, key)
    assert key not in "".join(
        path.read_text(errors="replace") for path in (gateway.data / "gateway").glob("*.json")
    )


def test_a_key_is_shown_once_rotates_with_overlap_and_keeps_to_its_models(gateway: Running) -> None:
    first: str = gateway.control(
        "POST", "keys", {"name": "ci", "agent": "inbox", "models": ["gpt-4o*"]}
    )["key"]
    second: str = gateway.control("POST", "keys/ci/rotate", {"overlap_s": 3600})["key"]
    third: str = gateway.control("POST", "keys/ci/rotate", {"overlap_s": 0})["key"]
    statuses = [
        gateway.ask("POST", "/v1/chat/completions", HELLO, k).status for k in (first, second, third)
    ]
    assert statuses == [401, 401, 200]
    other = gateway.ask("POST", "/v1/chat/completions", {**HELLO, "model": "o3"}, third)
    assert (other.status, "gpt-4o* alone" in other.json()["error"]["message"]) == (403, True)
    listed = [m["id"] for m in gateway.ask("GET", "/v1/models", key=third).json()["data"]]
    assert "gpt-4o-mini" in listed
    assert all(name.startswith("gpt-4o") for name in listed)
    (shown,) = gateway.control("GET", "keys")["keys"]
    assert (shown["state"], [h["ends_in"] for h in shown["hints"]]) == ("active", [third[-4:]])
    gateway.end(signal.SIGKILL)
    gateway.start()
    assert gateway.ask("POST", "/v1/chat/completions", HELLO, third).status == 200
    assert gateway.control("GET", "cost?by=key")["rows"][0]["name"] == "ci"


def test_the_key_of_an_ended_run_is_good_for_its_grace_alone(gateway: Running) -> None:
    stream = Stream(gateway)
    assert gateway.control("POST", "runs/ended", {"agent": "inbox", "run": "run-1", "grace_s": 0})[
        "durable"
    ]
    assert "has ended" in stream.over()
    refused = gateway.ask("POST", "/v1/chat/completions", HELLO)
    assert (refused.status, "has ended" in refused.json()["error"]["message"]) == (401, True)
    assert (
        gateway.ask("POST", "/v1/chat/completions", HELLO, gateway.key(run="run-2")).status == 200
    )


def test_kill_9_in_mid_stream_leaves_the_reservation_counted(stopped: Running) -> None:
    stopped.fleet(agents={"inbox": {"command": ["x"], "budget": {"per_day": 5_000_000_000}}})
    stopped.start()
    stream = Stream(stopped)
    reserved = stopped.ask("GET", "/self/budget").json()["limits"][0]["reserved_nusd"]
    assert reserved > 0
    stopped.end(signal.SIGKILL)
    assert stream.over() != "None"
    stopped.start()
    (limit,) = stopped.ask("GET", "/self/budget").json()["limits"]
    assert (limit["reserved_nusd"], limit["spent_nusd"]) == (reserved, 0)
    assert stopped.control("GET", "audit")["sound"]


def test_a_stop_in_good_order_tells_clients_and_settles_what_they_had(stopped: Running) -> None:
    gateway = stopped
    gateway.arguments = ("--grace", "0.2")
    gateway.start()
    stream = Stream(gateway)
    assert gateway.end() == 0
    assert "the gateway stops" in stream.over()
    gateway.start()
    (call,) = gateway.control("GET", "calls")["calls"]
    assert (call["state"], call["cost_nusd"] > 0) == ("settled", True)


def test_a_sub_agent_is_charged_with_the_agents_above_it_and_none_names_another_s(
    shared: Running,
) -> None:
    key = shared.key("outbox")
    chat = ("POST", "/v1/chat/completions", HELLO, key)
    assert shared.ask(*chat, x_midwatch_agent="outbox:search").status == 200
    (call,) = shared.control("GET", "calls?agent=outbox")["calls"]
    assert call["agent"] == "outbox:search"
    assert {"agent:outbox", "agent:outbox:search"} <= set(call["accounts"])
    for name in ("other", "outboxes:search", "outbox:", "outbox:a b"):
        refused = shared.ask(*chat, x_midwatch_agent=name)
        assert (refused.status, refused.json()["error"]["type"]) == (403, "midwatch_key"), name


def test_calls_of_others_are_not_found(shared: Running) -> None:
    call = shared.ask("POST", "/v1/chat/completions", HELLO).headers["x-midwatch-call"]
    assert shared.ask("GET", f"/self/calls/{call}").json()["outcome"] == "ok"
    assert shared.ask("GET", f"/self/calls/{call}", key=shared.key("archive")).status == 404


def test_instances_of_an_entry_share_its_budget(stopped: Running) -> None:
    entry = {"command": ["x"], "budget": {"per_day": 5_000_000_000}}
    stopped.fleet(agents={"inbox.1": entry, "inbox.2": entry})
    stopped.start()
    keys = [stopped.key(f"inbox.{n}", f"run-{n}", "inbox") for n in (1, 2)]
    for key in keys:
        assert stopped.ask("POST", "/v1/chat/completions", HELLO, key).status == 200
    spent = [
        stopped.ask("GET", "/self/budget", key=key).json()["limits"][0]["spent_nusd"]
        for key in keys
    ]
    assert spent[0] == spent[1] == stopped.control("GET", "cost?by=agent")["total_nusd"]


def test_a_bad_snapshot_leaves_the_old_one_in_force(gateway: Running) -> None:
    (gateway.data / "fleet.json").write_text("{")
    told = gateway.control("POST", "reload")
    assert (told["status"], "stays in force" in told["error"]["message"]) == (422, True)
    assert gateway.ask("POST", "/v1/chat/completions", HELLO).status == 200
    gateway.fleet(models={"policy": [{"deny": "not today"}]})
    assert gateway.control("POST", "reload")["status"] == 200
    assert gateway.control("GET", "state")["unserved"] == 0
    assert (
        "not today" in gateway.ask("POST", "/v1/chat/completions", HELLO).json()["error"]["message"]
    )
    assert gateway.ask("GET", "/v1/models").json()["data"] == []


@pytest.mark.parametrize("token", ["", "mwt_abc", "run"])
def test_only_the_supervisor_controls(shared: Running, token: str) -> None:
    refused = shared.ask(
        "GET", "/control/state", key=shared.key() if token == "run" else token or "x"
    )
    assert refused.status == 401


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("sk-ant-api03-abcdefgh", "take ANTHROPIC_API_KEY out of"),
        ("sk-proj-abcdefgh", "take OPENAI_API_KEY out of"),
        ("AIzaSyabcdefgh", "take GEMINI_API_KEY out of"),
        ("mwr_abc.def", "is a token for the hub"),
        ("mwt_abc", "is a token for the hub"),
        ("mwk_eyJhIjoiaW5ib3gifQ.c2lnbmF0dXJl", "its signature is not ours"),
        ("mwk_unknown", "is not known here"),
        ("nonsense", "keys begin with mwk_"),
    ],
)  # fmt: skip
def test_what_is_no_key_is_refused_with_what_to_do(shared: Running, key: str, says: str) -> None:
    with pytest.raises(openai.AuthenticationError, match=re.escape(says)) as refused:
        chat(shared, key)
    assert "abcdefgh" not in str(refused.value)


def test_the_page_of_metrics_and_a_gateway_name_the_same_metrics(shared: Running) -> None:
    shared.ask("POST", "/v1/chat/completions", HELLO)
    served = set(
        re.findall(r"^# TYPE (\S+)", shared.ask("GET", "/metrics").body.decode(), re.MULTILINE)
    )
    page = (ROOT / "docs/reference/metrics.md").read_text()
    documented = set(re.findall(r"^\| `(midwatch_gateway_[a-z0-9_]+)`", page, re.MULTILINE))
    assert served == documented


def _newer(data: Path) -> None:
    (data / "gateway").mkdir()
    (data / "gateway" / "holds.json").write_text('{"v": 2, "entries": {}}')


def _damaged(data: Path) -> None:
    (data / "gateway").mkdir()
    (data / "gateway" / "keys.json").write_text("[]")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda data: (data / "fleet.json").unlink(), "the gateway is started by midwatch up"),
        (lambda data: (data / "secret").write_bytes(b"short"), "too short to sign keys"),
        (_newer, "holds.json is of version '2', and this midwatch knows 1; update midwatch"),
        (_damaged, "keys.json is damaged; put a copy back"),
    ],
)  # fmt: skip
def test_what_keeps_it_from_running_is_one_sentence_and_code_2(
    stopped: Running, harm: Callable[[Path], Any], says: str
) -> None:
    harm(stopped.data)
    said = _run("--data", str(stopped.data), "--listen", "127.0.0.1:0")
    assert (said.returncode, says in said.stderr, "Traceback" in said.stderr) == (2, True, False)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_that_is_taken_is_told_with_what_to_do(stopped: Running, taken: int) -> None:
    said = _run("--data", str(stopped.data), "--listen", f"127.0.0.1:{taken}")
    assert (said.returncode, "choose another with gateway.listen" in said.stderr) == (2, True)


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "midwatch.gateway", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read()
