"""Agents of the great frameworks, unchanged, through the gateway: what they see, what is asked, charged and told.

    python tests/emitters/through.py --home DIR

DIR/.venv holds the frameworks (`record.py --install`). Each script holds three turns by every interface that its
framework has - one whole with a tool, one streamed, one streamed with a tool - once straight before the rehearsal
model, once as an agent of `midwatch up`, with nothing but its environment changed, and once as an agent whose budget
is used up. Prints a table; exit 1 when a cell is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from expected import PRICES

from midwatch.drills.instance import Instance
from midwatch.drills.rehearsal import script
from midwatch.drills.rehearsal.calls import Record
from midwatch.drills.rehearsal.model import Rehearsal
from midwatch.drills.rehearsal.thread import running

HERE = Path(__file__).parent
DEADLINE_S = 180.0
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
    """Return the agents: each framework twice, one of them with a budget that nothing fits into."""
    agents: dict[str, dict[str, Any]] = {}
    for one in FRAMEWORKS:
        for name in (one.name, one.poor):
            agents[name] = {
                "command": [str(python), str(HERE / "agents" / one.script)],
                "env": {"SAYS": str(folder / f"{name}.json"), **QUIET},
                "restart": {"when": "never"},
                "liveness": "process",
            }
        agents[one.poor]["budget"] = {"per_day": "$0.000001"}
    return agents


def providers(url: str) -> dict[str, Any]:
    keys = [{"name": "main", "from": "env:DRILL_MAIN_KEY"}]
    return {
        "openai": {"base_url": f"{url}/v1", "keys": keys},
        "anthropic": {"kind": "anthropic", "base_url": url, "keys": keys},
        "gemini": {"kind": "gemini", "base_url": url, "keys": keys, "price_of": "google"},
    }


@dataclass
class Through:
    """What came of it all behind the gateway."""

    told: dict[str, Told]
    asked: list[Record]
    ledger: dict[str, list[dict[str, Any]]]
    traces: dict[str, list[dict[str, Any]]]
    refused: dict[str, int]
    """Refusals of budgets that the gateway gave, by agent."""


def through(python: Path, folder: Path) -> Through:
    """Run all of them as agents of one instance. Raises RuntimeError when one of them does not end well."""
    names = [name for one in FRAMEWORKS for name in (one.name, one.poor)]
    with model() as playing:
        models = {"providers": providers(playing.url)}
        with Instance(folder / "instance", fleet(python, folder), models=models) as instance:
            files = {name: folder / f"{name}.json" for name in names}
            if not instance.wait(lambda: all(f.exists() for f in files.values()), DEADLINE_S):
                missing = [name for name, file in files.items() if not file.exists()]
                raise RuntimeError(f"{missing} did not end:\n{instance.last_words(40)}")
            time.sleep(0.1)  # the last of them may still be writing
            told = {name: json.loads(file.read_text()) for name, file in files.items()}
            asked = playing.calls.records()

            def items(name: str, path: str, key: str) -> list[dict[str, Any]]:
                found = instance.get(path) if key == "items" else instance.gateway(path)
                return [dict(row) for row in found[key]]

            def counted() -> bool:
                return sum(len(items(n, f"/api/traces?agent={n}&limit=200", "items")) for n in names) >= len(asked) + len(FRAMEWORKS)  # fmt: skip

            instance.wait(counted, 20)
            return Through(
                told,
                asked,
                {n: items(n, f"calls?agent={n}", "calls") for n in names},
                {n: items(n, f"/api/traces?agent={n}&limit=200", "items") for n in names},
                {n: 0 for n in names},
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    home = parser.parse_args().home.absolute()
    python = home / ".venv/bin/python"
    with tempfile.TemporaryDirectory(prefix="midwatch-through-") as made:
        folder = Path(made)
        (folder / "straight").mkdir()
        with ThreadPoolExecutor(2) as pool:
            alone = dict(zip([f.name for f in FRAMEWORKS], pool.map(lambda f: straight(f, python, folder / "straight"), FRAMEWORKS)))
        t = through(python, folder)
    import pickle
    pickle.dump((alone, t), open("/tmp/gateway/through.pkl", "wb"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
