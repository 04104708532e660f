"""An instance with its gateway as a user has it: no agent holds a key, and orders reach the calls themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

DEADLINE_S = 40.0

SECRET = "sk-the-secret-of-the-test"
INHERITED = {
    "OPENAI_API_KEY": SECRET,
    "ANTHROPIC_API_KEY": f"sk-ant-{SECRET}",
    "ANTHROPIC_AUTH_TOKEN": SECRET,
    "GOOGLE_API_KEY": SECRET,
    "GROQ_API_KEY": SECRET,
    "TEAM_KEY": SECRET,
}

CALLER = """
import json, os, time, urllib.error, urllib.request

url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
head = {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "content-type": "application/json"}
body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}).encode()
while True:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, head), timeout=30) as answer:
            answer.read()
    except OSError as error:
        print(error, flush=True)
    time.sleep(0.2)
"""

FLEET = {
    "fleet": "carried",
    "agents": {
        "caller": {
            "command": [sys.executable, "caller.py"],
            "limits": {"stop_grace": "1s"},
            "loop": {"action": "notify"},  # it asks the same for ever
        },
        "owner": {
            "command": [sys.executable, "-c", "import time; time.sleep(600)"],
            "env": {"ANTHROPIC_API_KEY": "sk-ant-its-own"},
        },
    },
    "budget": {"per_day": "$10"},
    "models": {
        "providers": {
            "openai": {
                "kind": "openai",
                "base_url": "http://127.0.0.1:9/v1",  # nobody: only a rehearsal answers
                "price_of": "openai",
                "keys": [{"from": "env:TEAM_KEY"}],
            }
        },
    },
    "hub": {"listen": "127.0.0.1:0"},
    "gateway": {"listen": "127.0.0.1:0"},
}


class Running:
    """One instance, from outside."""

    def __init__(self, folder: Path, midwatch: Callable[..., Any], *options: str) -> None:
        self.data = folder / "data"
        self.midwatch = midwatch
        (folder / "caller.py").write_text(CALLER)
        (folder / "midwatch.yaml").write_text(yaml.safe_dump(FLEET, sort_keys=False))
        self.console = folder / "console"
        with self.console.open("wb") as console:
            self.process = subprocess.Popen(
                [midwatch.program, "up", "--data", str(self.data), *options],  # type: ignore[attr-defined]
                cwd=folder,
                env={**os.environ, **INHERITED, "MIDWATCH_LEASES": str(folder / "leases")},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self.until(lambda: "Watching 2 agents" in self.console.read_text(), "the instance is up")

    def until(self, condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, (
                f"not so in time: {what}\n{self.console.read_text()}"
            )
            time.sleep(0.05)

    def do(self, *words: str) -> str:
        """Run a command against it and return what it printed."""
        ended = self.midwatch(*words, "--data", self.data)
        assert ended.code == 0, ended.err
        return str(ended.out)

    def agent(self, name: str) -> dict[str, Any]:
        found = self.midwatch("status", name, "--json", "--data", self.data)
        return dict(json.loads(found.out)) if found.out else {}

    def pids(self, part: str) -> list[int]:
        """Return the processes of this instance whose command line holds a text."""
        found = subprocess.run(
            ["ps", "-e", "-o", "pid=,args="], capture_output=True, text=True, check=True
        )
        rows = [line.split(None, 1) for line in found.stdout.splitlines()]
        return [
            int(row[0])
            for row in rows
            if len(row) == 2 and part in row[1] and environ(int(row[0])).get("MIDWATCH_SPOOL", "").startswith(f"{self.data}/")
        ]  # fmt: skip

    def call(self, key: str, path: str = "/v1/chat/completions") -> tuple[int, dict[str, Any]]:
        """Return what the gateway answers to a key; 0 while it does not."""
        gateway = json.loads((self.data / "instance.json").read_text())["gateway_url"]
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
        request = urllib.request.Request(
            gateway + path,
            None if path.startswith("/self") else json.dumps(body).encode(),
            {"authorization": f"Bearer {key}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())
        except OSError:
            return 0, {}

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            self.process.kill()


def environ(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with; empty when it is gone."""
    try:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(pair.decode().split("=", 1) for pair in pairs if b"=" in pair)


@pytest.fixture(scope="module")
def rehearsed(
    tmp_path_factory: pytest.TempPathFactory, midwatch: Callable[..., Any]
) -> Iterator[Running]:
    one = Running(tmp_path_factory.mktemp("rehearsed"), midwatch, "--rehearsal")
    yield one
    one.end()


def key_of(one: Running) -> str:
    """Return the key of the run that lives; just after a start its process may not be known yet."""
    found: list[str] = []

    def known() -> bool:
        key = environ(one.agent("caller").get("pid") or 0).get("OPENAI_API_KEY")
        found.extend([key] if key else [])
        return bool(found)

    one.until(known, "the caller has its key")
    return found[-1]


def test_in_a_rehearsal_nobody_has_a_key_and_every_call_goes_through_the_gateway(
    rehearsed: Running,
) -> None:
    parts = ("midwatch.hub", "midwatch.gateway", "drills.rehearsal", "caller.py", "time.sleep(600)")
    rehearsed.until(lambda: all(map(rehearsed.pids, parts)), "all of its processes run")
    for pid in (pid for part in parts for pid in rehearsed.pids(part)):
        values = " ".join(environ(pid).values())
        assert SECRET not in values
        assert "sk-ant-its-own" not in values, "a rehearsal never spends"
    status, answer = rehearsed.call(key_of(rehearsed), "/self/budget")
    assert (status, answer["agent"]) == (200, "caller")

    def is_charged() -> bool:
        told = rehearsed.call(key_of(rehearsed), "/self/budget")[1]
        return any(limit["spent_nusd"] for limit in told.get("limits", ()))

    rehearsed.until(is_charged, "its calls are charged")


def test_a_suspended_agent_keeps_its_process_and_no_call_through_the_death_of_the_gateway(
    rehearsed: Running,
) -> None:
    pid, key = rehearsed.agent("caller")["pid"], key_of(rehearsed)
    assert "its calls are refused, its process is left" in rehearsed.do("suspend", "caller")
    status, answer = rehearsed.call(key)
    assert (status, answer["error"]["type"]) == (403, "midwatch_suspended")
    (gateway,) = rehearsed.pids("midwatch.gateway")
    os.kill(gateway, signal.SIGKILL)
    rehearsed.until(lambda: rehearsed.pids("midwatch.gateway") not in ([], [gateway]), "a new one")
    rehearsed.until(lambda: rehearsed.call(key)[0], "its answer")
    assert rehearsed.call(key)[0] == 403
    rehearsed.until(lambda: rehearsed.agent("caller")["state"] == "suspended", "it is shown so")
    assert rehearsed.agent("caller")["pid"] == pid
    assert "its process goes on" in rehearsed.do("resume", "caller")
    assert rehearsed.call(key)[0] == 200
    assert rehearsed.agent("caller")["pid"] == pid


def test_kill_is_refused_at_the_gateway_too_until_somebody_starts_the_agent(
    rehearsed: Running,
) -> None:
    key = key_of(rehearsed)
    receipt = rehearsed.do("kill", "caller")
    assert "gone in" in receipt
    assert "cut" in receipt
    assert rehearsed.call(key)[0] in (401, 403)
    rehearsed.do("start", "caller")
    rehearsed.until(lambda: rehearsed.agent("caller")["state"] == "running", "it runs again")
    assert rehearsed.call(key_of(rehearsed))[0] == 200


def test_a_lasting_key_works_until_it_is_revoked(rehearsed: Running) -> None:
    key = rehearsed.do("key", "create", "team", "--person", "ada", "--budget", "per_day=1").strip()
    assert rehearsed.call(key)[0] == 200
    assert "person ada" in rehearsed.do("key", "list")
    assert rehearsed.do("key", "revoke", "team").startswith("revoked: team")
    assert rehearsed.call(key)[0] == 401
    assert "allowed" in rehearsed.do("policy", "explain", "caller", "gpt-4o-mini")


def test_a_reload_reaches_the_gateway_and_what_it_has_against_the_file_is_told(
    rehearsed: Running,
) -> None:
    file = rehearsed.data.parent / "midwatch.yaml"
    document = yaml.safe_load(file.read_text())
    document["agents"]["caller"]["budget"] = {"per_call": "$0.0000001"}
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    rehearsed.do("reload")
    status, answer = rehearsed.call(key_of(rehearsed))
    assert (status, answer["error"]["type"]) == (403, "midwatch_budget")


def test_outside_of_a_rehearsal_the_gateway_alone_has_the_keys(
    tmp_path: Path, midwatch: Callable[..., Any]
) -> None:
    one = Running(tmp_path, midwatch)
    try:
        parts = ("midwatch.hub", "midwatch.gateway", "caller.py", "time.sleep(600)")
        one.until(lambda: all(map(one.pids, parts)), "all of its processes run")
        for part in parts:
            for pid in one.pids(part):
                assert SECRET not in " ".join(environ(pid).values())
        (gateway,) = one.pids("midwatch.gateway")
        assert SECRET not in " ".join(environ(gateway).values()), "it was handed it when it asked"
        assert "is not there" not in one.do("status")
        (owner,) = one.pids("time.sleep(600)")
        own = environ(owner)
        assert (own["ANTHROPIC_API_KEY"], own.get("ANTHROPIC_BASE_URL")) == ("sk-ant-its-own", None)
        assert own["OPENAI_API_KEY"].startswith("mwk_")
        past = "owner: its Anthropic calls go past the gateway"
        one.until(lambda: past in one.do("status"), "the status says who goes past the gateway")
        said = one.do("suspend", "owner")
        assert "its process was stopped, since its calls with ANTHROPIC_API_KEY" in said
        told = lambda: "GROQ_API_KEY" in one.console.read_text()  # noqa: E731
        one.until(told, "who used it directly is told")
    finally:
        one.end()
