"""Supervisor and gateway: what is told, in which order, and what mends a difference; over real HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.calls.variables import Past
from midwatch.core.descent import Branch
from midwatch.core.family import Born
from midwatch.core.fleet import Agent
from midwatch.core.states import State
from midwatch.supervisor.counter import Counter
from midwatch.supervisor.journal import Journal
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.machine.fake import FakeSystem
from midwatch.supervisor.orders import Orders
from midwatch.supervisor.output.capture import Capture, Writer
from midwatch.supervisor.reporter import Recorder, Reports
from midwatch.supervisor.surroundings import Surroundings
from midwatch.supervisor.switchboard import Switchboard

DEADLINE_S = 30.0


class StubGateway:
    """Holds agents as the gateway does, and remembers what it was asked."""

    def __init__(self) -> None:
        self.holds: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, Any]] = []
        self.refuses: dict[str, tuple[int, str]] = {}
        self.server: asyncio.Server | None = None
        self.serving: set[asyncio.Task[Any]] = set()
        self.port = 0

    async def open(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()
            await self.server.wait_closed()
            self.server = None
        for task in list(self.serving):
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            await self._serve_one(reader, writer)
        except asyncio.IncompleteReadError:
            pass  # whoever asked has gone
        finally:
            self.serving.discard(task)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        fields = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:])}
        assert fields["authorization"] == "Bearer mwn_token"
        length = int(fields.get("content-length", "0"))
        body = json.loads(await reader.readexactly(length)) if length else None
        status, answer = self._answer(f"{method} {path}", body or {})
        content = json.dumps(answer).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(content)))
        writer.write(content)
        await asyncio.gather(writer.drain(), return_exceptions=True)

    def _answer(self, route: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if route != "GET /control/state":
            self.asked.append((route, body))
        if route in self.refuses:
            status, message = self.refuses[route]
            return status, {"error": {"message": message}}
        agent = body.get("agent", "")
        match route:
            case "GET /control/state":
                return 200, {"holds": list(self.holds.values())}
            case "POST /control/hold":
                self.holds[agent] = {"agent": agent, "kind": "suspended", "why": body["why"]}
                return 200, {"durable": True}
            case "POST /control/lift":
                self.holds.pop(agent, None)
                return 200, {"held_by": self.holds.get(agent.partition(":")[0])}
            case "POST /control/kill":
                self.holds[agent] = {"agent": agent, "kind": "killed", "why": body["why"]}
                return 200, {"receipt": {"calls_cut": 2, "settled_nusd": 120_000_000}}
            case _:
                return 200, {"problems": ["key a is not there"], "route": route}

    def told(self, part: str) -> list[Any]:
        return [body for route, body in self.asked if part in route]


class House:
    """A node with one agent, and its gateway."""

    def __init__(self, folder: Path, gateway: StubGateway) -> None:
        self.gateway = gateway
        self.system = FakeSystem()
        self.system.programs["agent"] = ()
        self.said: list[str] = []
        self.past: list[Past] = []
        self.writer = Writer()
        self.keepers: dict[str, Keeper] = {}
        url = f"http://127.0.0.1:{gateway.port}"
        self.board = Switchboard(
            url, "mwn_token", self.keepers, lambda _: self.past, self.said.append
        )
        around = Surroundings(
            system=self.system,
            journal=Journal(folder / "journal"),
            reports=Reports(Recorder(), "here"),
            say=self.said.append,
            environment=lambda _name, _agent, run_id: {"MIDWATCH_RUN_ID": run_id},
            directory=lambda _: "/",
            fingerprint=lambda _: "",
            hear_now=lambda _: None,
            random=lambda: 0.0,
            run_begins=self.board.began,
            run_over=self.board.over,
        )
        self.keeper = Keeper(
            "inbox", Agent(command=["agent"]), around, Capture(self.writer, folder)
        )
        self.keepers["inbox"] = self.keeper
        self.keeper.begin(resumed=False)
        self.system.advance(2.0)
        self.orders = Orders(self.keepers, self.board, lambda name: name == "elsewhere")

    async def order(self, do: str, agent: str = "inbox") -> str:
        """Give an order while the agent's own time goes on."""
        asked = asyncio.ensure_future(self.orders.obey(agent, do))
        while not asked.done():
            self.system.advance(0.01)
            await asyncio.sleep(0.002)
        return (await asked).result

    async def until(self, condition: Any, what: str) -> None:
        deadline = asyncio.get_running_loop().time() + DEADLINE_S
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, f"not so in time: {what}"
            await asyncio.sleep(0.005)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    gateway = StubGateway()
    await gateway.open()
    one = House(tmp_path, gateway)
    work = asyncio.ensure_future(one.board.work())
    await one.until(lambda: gateway.told("runs/began"), "the run's begin")
    yield one
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await gateway.close()
    one.writer.close()


async def test_suspend_leaves_the_process_and_resume_lets_it_go_on(house: House) -> None:
    assert await house.order("suspend") == "suspended; its calls are refused, its process is left"
    assert house.gateway.holds["inbox"]["why"] == "suspended by a person"
    assert (house.keeper.state, house.system.launched[-1].signals) == (State.SUSPENDED, [])
    assert await house.order("suspend") == "already suspended"
    assert await house.order("start") == "it is suspended; resume it instead"
    assert await house.order("restart") == "it is suspended; resume it instead"
    assert await house.order("resume") == "resumed; its process goes on"
    assert house.gateway.holds == {}
    assert (house.keeper.state, len(house.system.launched)) == (State.RUNNING, 1)


async def test_without_a_gateway_that_answers_the_process_is_stopped_and_the_answer_says_so(
    house: House,
) -> None:
    await house.gateway.close()
    said = await house.order("suspend")
    assert said.startswith("suspended; its process was stopped, since the gateway does not answer")
    assert (house.keeper.state, house.keeper.run) == (State.SUSPENDED, None)
    await house.gateway.open()
    house.board.back()
    await house.until(lambda: "inbox" in house.gateway.holds, "the hold at the gateway")


async def test_calls_that_go_past_the_gateway_are_stopped_with_the_process(house: House) -> None:
    house.past = [Past("inbox", "its OpenAI calls", "OPENAI_API_KEY")]
    said = await house.order("suspend")
    assert said == (
        "suspended; its process was stopped, since its calls with OPENAI_API_KEY go past the gateway"
    )
    assert (house.keeper.state, house.keeper.run) == (State.SUSPENDED, None)


async def test_kill_cuts_calls_first_and_says_what_that_came_to(house: House) -> None:
    said = await house.order("kill")
    assert said.startswith("killed: pid ")
    assert said.endswith("; 2 calls cut after $0.12")
    assert house.gateway.holds["inbox"]["kind"] == "killed"
    assert house.keeper.state is State.STOPPED
    await house.board.compare()
    assert "inbox" in house.gateway.holds, "nothing lifts it but a start"
    assert await house.order("start") == "started"
    assert house.gateway.holds == {}


async def test_an_agent_that_the_gateway_holds_by_itself_is_suspended_here_too(
    house: House,
) -> None:
    house.gateway.holds["inbox"] = {
        "agent": "inbox",
        "kind": "loop",
        "why": "the same call 5 times",
    }
    await house.until(lambda: house.keeper.state is State.SUSPENDED, "the suspension")
    assert house.keeper.reason == "held by the gateway: the same call 5 times"
    assert house.keeper.run is not None
    assert await house.order("resume") == "resumed; its process goes on"
    assert house.gateway.holds == {}


def loop_hold(house: House, then: str, ago_s: float) -> dict[str, Any]:
    run = house.keeper.run
    assert run is not None
    since = time.time() - ago_s
    return {"agent": "inbox", "kind": "loop", "why": "in circles", "then": then, "run": run.run_id, "since": since}  # fmt: skip


async def test_a_loop_that_is_answered_with_a_restart_is_restarted_though_the_hub_is_away(
    house: House,
) -> None:
    house.gateway.holds["inbox"] = loop_hold(house, "restart", 0.0)
    await house.board.compare()
    assert (house.keeper.state, len(house.system.launched)) == (State.RUNNING, 1), "the hub's order"
    house.gateway.holds["inbox"] = loop_hold(house, "restart", 60.0)
    await house.board.compare()
    await house.board.compare()
    house.system.advance(5.0)
    assert (house.keeper.state, len(house.system.launched)) == (State.RUNNING, 2)
    await house.board.compare()
    assert house.gateway.holds == {}, "it was of the run before"
    assert len(house.system.launched) == 2


async def test_a_restart_that_the_hub_orders_is_done_once(house: House) -> None:
    house.gateway.holds["inbox"] = loop_hold(house, "restart", 0.0)
    await house.board.compare()
    assert await house.order("restart") == "restarted"
    await house.until(lambda: not house.gateway.holds, "the hold is lifted")
    assert len(house.system.launched) == 2


async def test_a_loop_that_is_answered_with_a_stop_holds_until_a_person_starts_the_agent(
    house: House,
) -> None:
    house.gateway.holds["inbox"] = loop_hold(house, "stop", 60.0)
    await house.board.compare()
    house.system.advance(60.0)
    assert (house.keeper.state, house.keeper.run) == (State.STOPPED, None)
    assert house.keeper.reason.startswith("stopped, held by the gateway: in circles")
    await house.board.compare()
    assert "inbox" in house.gateway.holds
    assert await house.order("start") == "started"
    assert house.gateway.holds == {}


async def test_a_gateway_that_forgot_is_told_again_and_one_that_kept_too_much_lifts_it(
    house: House,
) -> None:
    await house.order("suspend")
    house.gateway.holds.clear()
    await house.until(lambda: "inbox" in house.gateway.holds, "the hold, again")
    await house.order("resume")
    house.gateway.holds["inbox"] = {"agent": "inbox", "kind": "suspended", "why": "long ago"}
    await house.until(lambda: not house.gateway.holds, "the old hold is lifted")
    assert house.keeper.state is State.RUNNING


async def test_what_a_gateway_that_is_away_should_know_waits_for_it(house: House) -> None:
    await house.order("suspend")
    await house.gateway.close()
    assert "is told as soon as it does" in await house.order("resume")
    await house.order("restart")
    await house.gateway.open()
    house.board.back()
    await house.until(lambda: not house.gateway.holds, "the hold is lifted late")
    runs = [one.launch.run_id for one in house.system.launched]
    await house.until(
        lambda: [b["run"] for b in house.gateway.told("runs/ended")] == runs[:1], "the end of a run"
    )
    await house.until(
        lambda: [b["run"] for b in house.gateway.told("runs/began")] == runs, "both beginnings"
    )


async def test_a_gateway_that_is_back_is_told_which_runs_live_and_nothing_of_those_that_ended(
    house: House,
) -> None:
    def last() -> Any:
        told = [body for route, body in house.gateway.asked if route == "POST /control/runs"]
        return told[-1]["live"] if told else None

    first = house.system.launched[0].launch.run_id
    await house.until(lambda: last() == {"inbox": [first]}, "the first run")
    await house.gateway.close()
    await house.order("restart")
    house.board._untold.clear()  # pyright: ignore[reportPrivateUsage]  its end is never told
    second = house.system.launched[1].launch.run_id
    await house.gateway.open()
    house.board.back()
    await house.until(lambda: last() == {"inbox": [second]}, "the second run, without the first")
    await house.order("stop")
    house.gateway.asked.clear()
    house.board.back()  # another gateway has taken its place before we asked
    await house.until(lambda: last() == {}, "no run")


async def test_a_kill_that_the_gateway_did_not_hear_of_is_told_when_it_is_back(
    house: House,
) -> None:
    await house.gateway.close()
    said = await house.order("kill")
    assert said.endswith(
        "; the gateway does not answer: it refuses the agent's calls as soon as it is back"
    )
    assert house.keeper.state is State.STOPPED
    said = await house.order("kill", "inbox:search")
    assert said.startswith("its calls are refused as soon as the gateway, which does not answer")
    await house.gateway.open()
    house.board.back()
    await house.until(lambda: len(house.gateway.holds) == 2, "both holds")
    assert {hold["kind"] for hold in house.gateway.holds.values()} == {"killed"}


async def test_who_was_started_again_before_the_gateway_heard_of_its_kill_may_call(
    house: House,
) -> None:
    await house.gateway.close()
    await house.order("kill")
    assert "is told as soon as it does" in await house.order("start")
    await house.gateway.open()
    house.board.back()
    await house.until(
        lambda: bool(house.gateway.told("control/lift")) and not house.gateway.holds, "no hold"
    )
    assert [r for r, _ in house.gateway.asked if r.endswith(("kill", "lift"))] == [
        "POST /control/kill", "POST /control/lift",
    ]  # fmt: skip
    assert house.keeper.state in (State.STARTING, State.RUNNING)


async def test_a_sub_agent_whose_agent_is_held_is_not_free_yet_and_the_answer_says_so(
    house: House,
) -> None:
    await house.order("suspend")
    await house.order("suspend", "inbox:search")
    assert await house.order("resume", "inbox:search") == (
        "resumed; held with inbox, which is to be resumed"
    )
    house.gateway.refuses["POST /control/hold"] = (422, "no agent is called so")
    said = await house.order("suspend", "inbox:search")
    assert said == "not done: no agent is called so"


async def test_resume_of_one_that_is_not_suspended_still_frees_it_at_the_gateway(
    house: House,
) -> None:
    house.gateway.holds["inbox"] = {"agent": "inbox", "kind": "loop", "why": "just now"}
    with house.board.about("inbox"):  # the gateway holds it, and we do not know yet
        assert (await house.order("resume")).startswith("not suspended: ")
    assert house.gateway.holds == {}


async def test_a_run_whose_sub_agents_outlive_it_keeps_its_key_for_a_day(house: House) -> None:
    for outlive, grace in ((True, 86_400.0), (False, None)):
        house.gateway.asked.clear()
        run = house.keeper.run
        assert run is not None
        born = Born("child", "inbox:search", None, None, outlive=outlive)
        run.kin["child"] = Branch(born, None, set())
        await house.order("restart")
        await house.until(lambda: bool(house.gateway.told("runs/ended")), "the end")
        (told,) = house.gateway.told("runs/ended")
        assert (told["run"], told.get("grace_s")) == (run.run_id, grace)


async def test_what_the_gateway_fails_at_is_told_again_and_what_it_refuses_is_not(
    house: House,
) -> None:
    house.gateway.refuses["POST /control/runs/ended"] = (500, "the disk is full")
    await house.order("restart")
    await house.until(lambda: len(house.gateway.told("runs/ended")) > 1, "again")
    began = len(house.gateway.told("runs/began"))
    house.gateway.refuses["POST /control/runs/ended"] = (422, "no such run")
    await house.until(lambda: len(house.gateway.told("runs/began")) > began, "what came after it")
    told = len(house.gateway.told("runs/ended"))
    house.board.back()
    await house.board.compare()
    assert len(house.gateway.told("runs/ended")) == told


async def test_without_a_gateway_nothing_is_told_and_a_suspended_agent_has_no_process(
    tmp_path: Path, house: House
) -> None:
    house.orders = Orders(house.keepers, None, lambda _: False)
    assert await house.order("suspend") == "suspended"
    assert (house.keeper.state, house.keeper.run) == (State.SUSPENDED, None)
    assert await house.order("resume") == "resumed"
    assert house.keeper.run is not None
    alone = Switchboard(None, "mwn_token", house.keepers, lambda _: [], house.said.append)
    alone.ended("inbox", "r")
    assert (await alone.lift("inbox"), await alone.kill("inbox", "", ""), await alone.reload()) == (
        "", None, [],
    )  # fmt: skip
    await asyncio.wait_for(alone.work(), DEADLINE_S)
    answer = await Counter(alone).carry_out({"path": "/control/keys"})
    assert (answer.state, answer.data["status"]) == ("refused", 503)
    assert answer.result == "the gateway does not answer: no gateway runs here"


async def test_more_than_can_wait_is_dropped_and_counted(house: House) -> None:
    await house.gateway.close()
    for number in range(2_001):
        house.board.ended("inbox", f"r{number}")
    assert house.board.untold_dropped >= 1


async def test_a_reload_that_the_gateway_refuses_is_told(house: House) -> None:
    assert await house.board.reload() == ["key a is not there"]
    house.gateway.refuses["POST /control/reload"] = (422, "models: no provider 'x'")
    assert await house.board.reload() == [
        "the gateway goes on by what it had: models: no provider 'x'"
    ]
    await house.gateway.close()
    (note,) = await house.board.reload()
    assert "when it is back" in note


async def test_a_sub_agent_is_held_at_the_gateway_alone(house: House) -> None:
    assert await house.order("suspend", "inbox:search") == "suspended; its calls are refused"
    assert list(house.gateway.holds) == ["inbox:search"]
    assert await house.order("resume", "inbox:search") == "resumed"
    assert await house.order("suspend", "elsewhere") == "suspended; its calls are refused"
    assert "elsewhere" in house.gateway.holds
    assert "no agent" in await house.order("suspend", "other:search")
    assert "no agent" in await house.order("start", "elsewhere")


async def test_questions_are_passed_on_and_what_decides_about_agents_is_not(house: House) -> None:
    counter = Counter(house.board)
    answer = await counter.carry_out({"method": "GET", "path": "/control/keys"})
    assert (answer.state, answer.data["status"]) == ("answered", 200)
    assert answer.data["body"]["route"] == "GET /control/keys"
    house.gateway.refuses["POST /control/keys"] = (409, "there is a key 'a' already")
    answer = await counter.carry_out({"method": "POST", "path": "/control/keys", "body": {}})
    assert (answer.state, answer.result) == ("refused", "there is a key 'a' already")
    before = len(house.gateway.asked)
    for method, path in (
        ("POST", "/control/hold"),
        ("POST", "/control/lift"),
        ("POST", "/control/reload"),
        ("POST", "/control/runs/ended"),
        ("GET", "/v1/models"),
        ("GET", "/control/keys/../hold"),
        ("GET", "/control/keys HTTP/1.1\r\nx: y"),
        ("DELETE", "/control/keys"),
    ):
        answer = await counter.carry_out({"method": method, "path": path})
        assert (path, answer.data["status"]) == (path, 422)
    assert len(house.gateway.asked) == before


async def test_the_state_also_says_whose_calls_go_past(house: House) -> None:
    house.past = [Past("inbox", "its OpenAI calls", "OPENAI_API_KEY")]
    answer = await Counter(house.board).carry_out({"path": "/control/state"})
    (sentence,) = answer.data["body"]["past"]
    assert sentence.startswith("inbox: its OpenAI calls go past the gateway")
