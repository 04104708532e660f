"""Agents of the great frameworks, unchanged, through the gateway: what they see, what is asked, charged and told.

    python tests/emitters/through.py --home DIR

DIR/.venv holds the frameworks (`install.py`). Each script holds three turns by every interface that its
framework has - one whole with a tool, one streamed, one streamed with a tool - once straight before the rehearsal
model, once as an agent of `midwatch up`, with nothing but its environment changed, and once as an agent that has
money for one call. Prints a table; exit 1 when a cell is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from expected import PRICES
from matrix import aligned

from midwatch.drills.instance import Instance
from midwatch.drills.rehearsal import script
from midwatch.drills.rehearsal.calls import Record
from midwatch.drills.rehearsal.model import Rehearsal
from midwatch.drills.rehearsal.thread import running

HERE = Path(__file__).parent
DEADLINE_S = 600.0
"""For all of them together, on a machine that has other things to do."""

QUIET = {"OPENAI_AGENTS_DISABLE_TRACING": "1", "LANGSMITH_TRACING": "false"}
"""They would send what they do to their makers."""


@dataclass(frozen=True)
class Framework:
    name: str
    script: str
    packages: tuple[str, ...]

    @property
    def poor(self) -> str:
        """The name of its agent that has no money."""
        return f"{self.name}-poor"


FRAMEWORKS = (
    Framework("openai-agents", "through_openai_agents.py", ("openai-agents", "openai")),
    Framework("langgraph", "through_langgraph.py", ("langgraph", "langchain-openai", "openai")),
    Framework("pydantic-ai", "through_pydantic_ai.py",
              ("pydantic-ai-slim", "openai", "anthropic", "google-genai")),
)  # fmt: skip

ONE_CALL = "$0.01"
"""The longest answer of gpt-4o-mini is reserved for $0.0099: a second call does not fit, whatever the first came to.
Those of the other models do not fit at all, and are refused for good."""

Told = list[dict[str, Any]]


@contextmanager
def model() -> Iterator[Rehearsal]:
    with running(script.load(HERE / "weather.yaml")) as playing:
        yield playing


# -- running them ----------------------------------------------------------------------------------


def straight(one: Framework, python: Path, folder: Path) -> tuple[Told, list[Record]]:
    """Run a script before the model itself; return what it saw and what was asked."""
    says = folder / f"{one.name}.json"
    with model() as playing:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "SAYS": str(says),
            "WHO": one.name,
            "OPENAI_BASE_URL": f"{playing.url}/v1",
            "ANTHROPIC_BASE_URL": playing.url,
            "GOOGLE_GEMINI_BASE_URL": playing.url,
            **dict.fromkeys(("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"), "rehearsal"),
            **QUIET,
        }
        command = [str(python), str(HERE / "agents" / one.script)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{one.name}: exit {done.returncode}\n{done.stderr[-3000:]}")
        return json.loads(says.read_text()), playing.calls.records()


def fleet(python: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the agents: each framework twice, the second time with money for one call."""
    agents: dict[str, dict[str, Any]] = {}
    for one in FRAMEWORKS:
        for name in (one.name, one.poor):
            agents[name] = {
                "command": [str(python), str(HERE / "agents" / one.script)],
                "env": {"SAYS": str(folder / f"{name}.json"), "WHO": name, **QUIET},
                "restart": {"when": "never"},
                "liveness": "process",
            }
        agents[one.poor]["budget"] = {"per_day": ONE_CALL}
    return agents


def providers(url: str) -> dict[str, Any]:
    keys = [{"name": "main", "from": "env:DRILL_MAIN_KEY"}]
    return {
        "openai": {"base_url": f"{url}/v1", "keys": keys},
        "anthropic": {"kind": "anthropic", "base_url": url, "keys": keys},
        "gemini": {"kind": "gemini", "base_url": url, "keys": keys, "price_of": "google"},
    }


def noon() -> str:
    """Return a time zone in which no midnight is near: the budgets of a day would begin anew."""
    return "UTC" if 6 <= time.gmtime().tm_hour < 18 else "Etc/GMT-12"


@dataclass
class Through:
    """What came of it all behind the gateway, by agent."""

    told: dict[str, Told]
    asked: list[Record]
    ledger: dict[str, list[dict[str, Any]]]
    traces: dict[str, list[dict[str, Any]]]


def through(python: Path, folder: Path) -> Through:
    """Run all of them as agents of one instance. Raises RuntimeError when one of them does not end well."""
    names = [name for one in FRAMEWORKS for name in (one.name, one.poor)]
    with model() as playing:
        models = {"providers": providers(playing.url)}
        agents = fleet(python, folder)
        with Instance(folder / "instance", agents, models=models, timezone=noon()) as instance:
            done = lambda: {name for name in names if (folder / f"{name}.json").exists()}  # noqa: E731
            if not instance.wait(lambda: len(done()) == len(names), DEADLINE_S):
                missing = sorted(set(names) - done())
                raise RuntimeError(f"{missing} did not end:\n{instance.last_words(40)}")
            told = {name: json.loads((folder / f"{name}.json").read_text()) for name in names}

            def traces(name: str) -> list[dict[str, Any]]:
                return list(instance.get(f"/api/traces?agent={name}&limit=200")["items"])

            calls = len(playing.calls.records()) + sum(
                "error" in turn for one in FRAMEWORKS for turn in told[one.poor]
            )
            # at most: what is not there by then is shown as wrong
            instance.wait(lambda: sum(len(traces(name)) for name in names) >= calls, 30)
            return Through(
                told,
                playing.calls.records(),
                {name: instance.gateway(f"calls?agent={name}")["calls"] for name in names},
                {name: traces(name) for name in names},
            )


# -- judging ---------------------------------------------------------------------------------------


def question(one: Record) -> str:
    """Return what was asked and how it was answered, in a form that can be compared."""
    kept = (one.api, one.model, one.stream, one.turn, one.user, one.system, one.tools, one.rule)
    return repr((*kept, one.status, one.end, one.text, one.called))


def answers(one: Framework, alone: Told, _: list[Record], found: Through) -> str | None:
    """The script saw the same: words, pieces of streams, tool calls, tokens."""
    failed = [turn["turn"] for turn in alone if "error" in turn]
    if failed:
        return f"straight before the model, too, these failed: {failed}"
    differ = [(a, b) for a, b in zip(alone, found.told[one.name], strict=True) if a != b]
    return None if not differ else f"straight {differ[0][0]}, through {differ[0][1]}"


def requests(one: Framework, _: Told, asked: list[Record], found: Through) -> str | None:
    """The model was asked the same, and by the poor agent once: its second call did not fit any more."""
    mine = [record for record in found.asked if f"{one.name} " in record.user]
    have, want = Counter(map(question, mine)), Counter(map(question, asked))
    if have != want:
        return f"more {have - want}, less {want - have}"
    poor = [record.user for record in found.asked if f"{one.poor} " in record.user]
    return None if len(poor) == 1 else f"the poor one was let through: {poor}"


def bodies(one: Framework, _: Told, asked: list[Record], found: Through) -> str | None:
    """To the byte, but for streams of chat: where their usage was not asked for, the gateway does."""
    sent = Counter(r.body_sha256 for r in asked if not (r.api == "chat" and r.stream))
    came = Counter(r.body_sha256 for r in found.asked)
    return None if not sent - came else f"{(sent - came).total()} of {len(asked)} bodies differ"


def ledger(one: Framework, _: Told, asked: list[Record], found: Through) -> str | None:
    """Each call has its row, settled, with the model's own figures, to the nano-dollar."""
    want = Counter((r.model, r.input_tokens, r.output_tokens, cost_nusd(r)) for r in asked)
    rows = found.ledger[one.name]
    have = Counter(
        (row["model"], row["input_tokens"], row["output_tokens"], row["cost_nusd"]) for row in rows
    )
    loose = [row for row in rows if (row["state"], row["outcome"]) != ("settled", "ok")]
    if have == want and not loose:
        return None
    return f"more {have - want}, less {want - have}, not settled well {loose}"


def cost_nusd(one: Record) -> int:
    """Return what a call costs by its provider's price; OpenAI and Google bill no writing to a cache."""
    fresh, cached, written, out = PRICES[one.model]
    kept = one.written_tokens if one.api == "messages" else 0
    return (
        (one.input_tokens - one.cached_tokens - kept) * fresh
        + one.cached_tokens * cached
        + kept * written
        + one.output_tokens * out
    )


def spans(one: Framework, _: Told, asked: list[Record], found: Through) -> str | None:
    """The hub has each call once, for its agent, with its tokens."""
    want = Counter((r.input_tokens, r.output_tokens) for r in asked)
    have = Counter((t["input_tokens"], t["output_tokens"]) for t in found.traces[one.name])
    return None if have == want else f"more {have - want}, less {want - have}"


def refused(one: Framework, alone: Told, _: list[Record], found: Through) -> str | None:
    """Without money each turn ends at its first refusal, whose sentence its user reads."""
    turns, traces = found.told[one.poor], found.traces[one.poor]
    for turn in turns:
        error = turn.get("error")
        if error is None:
            return f"{turn['turn']} was not refused: {turn}"
        if error["status"] not in (403, 429) or f"midwatch_budget: {one.poor} has used" not in error["says"]:  # fmt: skip
            return f"{turn['turn']} ended with {error}"
    if turns[0]["error"]["status"] != 429:
        return f"the first refusal can be healed by time: {turns[0]['error']}"
    refusals = sum(trace["errors"] for trace in traces)
    if (len(turns), refusals) != (len(alone), len(alone)):
        return f"{len(alone)} turns, {refusals} refusals: somebody tried again"
    return None


Judge = Callable[[Framework, Told, list[Record], Through], str | None]
COLUMNS: tuple[Judge, ...] = (answers, requests, bodies, ledger, spans, refused)


def versions(python: Path) -> dict[str, str]:
    """Return the versions of all packages that are named."""
    names = sorted({name for one in FRAMEWORKS for name in one.packages})
    code = "import sys, json, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    out = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True, check=True)  # fmt: skip
    return json.loads(out.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    python = parser.parse_args().home.absolute() / ".venv/bin/python"
    with tempfile.TemporaryDirectory(prefix="midwatch-through-") as made:
        folder = Path(made)
        (folder / "straight").mkdir()
        with ThreadPoolExecutor(2) as pool:
            alone = list(pool.map(lambda one: straight(one, python, folder / "straight"), FRAMEWORKS))  # fmt: skip
        found = through(python, folder)
    installed, wrong = versions(python), list[str]()
    lines: list[tuple[str, ...]] = [("framework", "calls", *(j.__name__ for j in COLUMNS), "of")]
    for one, (told, asked) in zip(FRAMEWORKS, alone, strict=True):
        cells: list[str] = []
        for judge in COLUMNS:
            why = judge(one, told, asked, found)
            cells.append("ok" if why is None else "WRONG")
            if why is not None:
                wrong.append(f"{one.name} {judge.__name__}: {why}")
        of = ", ".join(f"{name} {installed[name]}" for name in one.packages)
        lines.append((one.name, str(len(asked)), *cells, of))
    print(aligned(lines))
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
