"""Questions over many spans: how long lists, traces, pages and text take, what they need of memory and of disk.

    python bench/query.py [--spans 1000000] [--long 100000] [--rounds 40] [--keep DIR]

A million spans are made, asked about and gone in two minutes; issue 5's ten million (`--spans 10000000`) take ten, most
of it for filling, and 1.2 GB of disk: too long for `make bench`, whose limit is a quarter of an hour. Peers are not
asked: what they take in, a hundred to three hundred spans a second, would fill them in a day. What is said of a span, of a trace or of an answer is the same at any size.

Spans are made by DuckDB inside the store's own generations and sealed and settled as always: 16 to a trace, of 20 agents
over 30 days, every fourth a call with a model, usage and cost, every second trace in a session, one in a hundred failed,
names, messages and contents of a few random words. A quarter of a million, as many as a hub has at most, is not sealed
when it is asked. Each question is asked many times with other agents, filters and times, one after the other. `p95` is
of those; the first, with cold caches, stands on stderr beside it. Memory is that of a process with the store and no hub.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from hashlib import md5
from pathlib import Path
from typing import Any

from _table import row
from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.spans.form import Rank, Role
from midwatch.core.spans.questions import Choice, Metric, SqlLimits, Window
from midwatch.store.questions.embedded import EmbeddedQuestions
from midwatch.store.spans.embedded import Due, EmbeddedSpans
from midwatch.store.spans.manifest import MemoryManifest
from midwatch.store.spans.settled import Books, Terms

PER_TRACE = 16
AGENTS = 20
DAYS = 30
NEVER = Due(rows=10**12, log_bytes=10**15, age_s=1e9)
END_NS = 1_790_000_000 * 10**9 // (86_400 * 10**9) * 86_400 * 10**9
BEGIN_NS = END_NS - DAYS * 86_400 * 10**9
GENERATION = 250_000
GROUPS = {f"agent-{n}": f"group-{n % 4}" for n in range(AGENTS)}

WORDS = [
    "".join(random.Random(n).choices("abcdefghijklmnopqrstuvwxyz", k=3 + n % 7))
    for n in range(4000)
]

SPANS = f"""
INSERT INTO {{hot}}.spans (agent, trace_id, span_id, parent_id, rank, start_ns, duration_ns, name, kind, status,
    status_message, role, operation, run_id, session, turn, "user", tags, provider, model, response_model, tool,
    response_id, first_token_ns, input_tokens, cached_tokens, output_tokens, cost_nusd, cost_from, outcome, goal_met,
    content_count, dialect, scope, scope_version, resource_id, attributes)
SELECT 'agent-' || (t % {AGENTS}), unhex(md5('t' || t)), unhex(substr(md5('s' || i), 1, 16)),
    CASE WHEN k > 0 THEN unhex(substr(md5('s' || (CASE WHEN k % 4 = 0 THEN i - k ELSE i - k % 4 END)), 1, 16)) END, {Rank.ENDED.value},
    began + k * 700000000, 500000000 + (hash(i) % 3000000000)::BIGINT,
    CASE k % 4 WHEN 0 THEN 'step ' || word[1 + (hash(i, 1) % 4000)::INT] WHEN 1 THEN 'chat gpt-4o-mini'
        WHEN 2 THEN 'search_orders' ELSE 'send ' || word[1 + (hash(i, 2) % 40)::INT] END, 1,
    CASE WHEN hash(i, 3) % 1600 = 0 THEN 2 ELSE 0 END,
    CASE WHEN hash(i, 3) % 1600 = 0 THEN 'timeout: ' || word[1 + (hash(i, 4) % 4000)::INT] END,
    CASE WHEN k = 0 THEN {Role.AGENT.value} WHEN k % 4 = 1 THEN {Role.CALL.value} WHEN k % 4 >= 2 THEN {Role.TOOL.value} ELSE {Role.CHAIN.value} END,
    CASE WHEN k % 4 = 1 THEN 'chat' END, 'run-' || (t % {AGENTS}) || '-' || (began // 86400000000000),
    CASE WHEN t % 2 = 0 THEN 'session-' || (t // 8) END, CASE WHEN t % 2 = 0 THEN (1 + t % 8)::VARCHAR END,
    'user-' || (hash(t) % 5000), '{{{{"customer":"customer-' || (hash(t) % 100) || '","task":"task-' || (t % 7) || '"}}}}',
    CASE WHEN k % 4 = 1 THEN 'openai' END, CASE WHEN k % 4 = 1 THEN (['gpt-4o-mini', 'gpt-4o', 'o3'])[1 + (hash(t, 1) % 3)::INT] END,
    CASE WHEN k % 4 = 1 THEN 'gpt-4o-mini-2024-07-18' END, CASE WHEN k % 4 >= 2 THEN 'tool-' || (k % 8) END,
    CASE WHEN k % 4 = 1 THEN 'chatcmpl-' || md5('r' || i) END, CASE WHEN k % 4 = 1 THEN (hash(i, 5) % 2000000000)::BIGINT END,
    CASE WHEN k % 4 = 1 THEN 200 + (hash(i, 6) % 4000)::BIGINT END, CASE WHEN k % 4 = 1 THEN (hash(i, 7) % 200)::BIGINT END,
    CASE WHEN k % 4 = 1 THEN (hash(i, 8) % 800)::BIGINT END, CASE WHEN k % 4 = 1 THEN (hash(i, 9) % 5000000)::BIGINT END,
    CASE WHEN k % 4 = 1 THEN 1 END, CASE WHEN k = 0 THEN 'success' END, CASE WHEN k = 0 THEN hash(t, 2) % 10 <> 0 END,
    CASE WHEN k % 16 = 1 THEN 1 END, 'genai', 'bench', '1', unhex(md5('resource')),
    '{{{{"request.id":"' || md5('q' || i) || '","note":"' || word[1 + (hash(i, 10) % 4000)::INT] || ' ' || word[1 + (hash(i, 11) % 4000)::INT] || '"}}}}'
FROM (SELECT i, i // {PER_TRACE} AS t, i % {PER_TRACE} AS k, {BEGIN_NS} + (i // {PER_TRACE}) * {{gap}} AS began, w.word
    FROM range({{first}}, {{last}}) AS r(i), words AS w)
"""

CONTENTS = """
INSERT INTO {hot}.contents (agent, trace_id, span_id, place, start_ns, kind, key, text, is_json, characters, hash)
SELECT agent, trace_id, span_id, 0, start_ns, 2, 'gen_ai.input.messages',
    array_to_string(list_transform(range(40), lambda x: word[1 + (hash(span_id, x) % 4000)::INT]), ' '), false, 200, span_id
FROM (SELECT s.*, w.word FROM {hot}.spans AS s, words AS w WHERE content_count = 1)
"""


def say(line: str) -> None:
    """Say how far it is, at once: whoever waits for ten minutes sees that it goes on."""
    print(line, file=sys.stderr, flush=True)


async def fill(store: EmbeddedSpans, spans: int) -> float:
    """Fill the store; return seconds."""
    began = time.monotonic()
    gap = DAYS * 86_400 * 10**9 // (spans // PER_TRACE)
    store._engine.cursor().execute("CREATE TABLE IF NOT EXISTS memory.main.words AS SELECT ? AS word", [WORDS])  # fmt: skip
    for first in range(0, spans, GENERATION):
        last = min(spans, first + GENERATION)

        def write(first: int = first, last: int = last) -> None:
            hot, cursor = store._engine.layout.hot, store._engine.cursor()
            cursor.execute("USE memory.main")
            cursor.begin()
            cursor.execute(SPANS.format(hot=hot.name, gap=gap, first=first, last=last))
            cursor.execute(CONTENTS.format(hot=hot.name))
            cursor.commit()
            hot.recall()
            if last < spans:
                store._rotate()

        await store._in_writer(write)
        async with store._sealer.turn:
            await store._seal_all()
            # as the hub's keeper does in each of its rounds
            await store._tidier.join({})
        say(f"{last:,} spans, {time.monotonic() - began:.0f} s, {resident():.0f} MiB of memory")
    return time.monotonic() - began


async def long_trace(store: EmbeddedSpans, spans: int) -> str:
    """Add one trace of many spans: a loop of calls and tools."""

    def write() -> None:
        hot, cursor = store._engine.layout.hot, store._engine.cursor()
        cursor.execute(
            f"INSERT INTO {hot.name}.spans (agent, trace_id, span_id, parent_id, rank, start_ns, duration_ns, name, kind,"
            " status, role, model, input_tokens, output_tokens, cost_nusd, attributes)"
            f" SELECT 'agent-1', unhex(md5('long')), unhex(substr(md5('l' || i), 1, 16)),"
            f" CASE WHEN i > 0 THEN unhex(substr(md5('l' || CASE WHEN i % 3 = 1 THEN 0 ELSE i - (i - 1) % 3 END), 1, 16)) END,"
            f" 2, {END_NS - 86_400 * 10**9} + i * 1000000, 900000, CASE i % 3 WHEN 1 THEN 'loop ' || (i % 50) WHEN 2 THEN 'chat' ELSE 'tool' END,"
            f" 1, 0, CASE i % 3 WHEN 1 THEN 4 WHEN 2 THEN 5 ELSE 7 END, CASE WHEN i % 3 = 2 THEN 'gpt-4o' END, 100, 10, 5,"
            " '{\"note\":\"' || md5(i::VARCHAR) || '\"}'"
            f" FROM range({spans}) AS r(i)"
        )
        hot.recall()

    await store._in_writer(write)
    return store._engine.cursor().execute("SELECT md5('long')").fetchall()[0][0]


Ask = Callable[[random.Random], Awaitable[Any]]


MONTH = Window(BEGIN_NS, END_NS)
DAY = Window(END_NS - 86_400 * 10**9, END_NS)


def summed(q: EmbeddedQuestions) -> dict[str, tuple[float, Ask]]:
    """Return questions that sums answer: their limit in milliseconds, and how they are asked."""

    async def overview(_: random.Random) -> None:
        for metric in (Metric.CALLS, Metric.ERRORS, Metric.COST, Metric.TRACE_LATENCY):
            await q.series(metric, "agent", MONTH)

    async def agent(dice: random.Random) -> None:
        name = (f"agent-{dice.randrange(AGENTS)}",)
        for metric in (Metric.CALLS, Metric.COST, Metric.TRACE_LATENCY, Metric.TOOL_ERROR_RATE, Metric.FIRST_TOKEN):  # fmt: skip
            await q.series(metric, "fleet", MONTH, agents=name)
        await q.traces(Choice(agents=name, window=DAY), None, 20)

    async def cost(_: random.Random) -> None:
        await q.cost("agent", DAY)

    async def sql(dice: random.Random) -> None:
        await q.sql(f"SELECT model, count(*), sum(cost_nusd) FROM calls WHERE agent = 'agent-{dice.randrange(AGENTS)}' GROUP BY model", SqlLimits())  # fmt: skip

    return {
        "fleet overview, 30 days, four metrics": (100, overview),
        "agent page, 30 days, five metrics and its traces": (150, agent),
        "cost of a day by agent": (1_000, cost),
        "SQL, sum over an agent": (10_000, sql),
    }


def listed(q: EmbeddedQuestions, traces: int) -> dict[str, tuple[float, Ask]]:
    """Return questions that traces answer, in the same way."""

    def one_of(dice: random.Random) -> str:
        return trace_id(dice.randrange(traces))

    def failed(dice: random.Random) -> Choice:
        return Choice(agents=(f"agent-{dice.randrange(AGENTS)}",), failed=True)

    return {
        "trace by id": (50, lambda dice: q.spans(one_of(dice), None, 200)),
        "trace by id, as a tree": (50, lambda dice: q.tree(one_of(dice), None, None, 200)),
        "trace list of a day": (300, lambda _: q.traces(Choice(window=DAY), None, 50)),
        "trace list of all": (300, lambda _: q.traces(Choice(), None, 50)),
        "trace list, agent and failed": (300, lambda dice: q.traces(failed(dice), None, 50)),
        "trace list, tag": (300, lambda dice: q.traces(Choice(tags={"customer": f"customer-{dice.randrange(100)}"}), None, 50)),
        "session list, agent and failed": (300, lambda dice: q.sessions(failed(dice), None, 50)),
        "session list, user": (300, lambda dice: q.sessions(Choice(users=(f"user-{dice.randrange(5000)}",)), None, 50)),
        "text over a day": (1_000, lambda dice: q.find(dice.choice(WORDS), DAY, None, 50)),
    }  # fmt: skip


def trace_id(trace: int) -> str:
    """Return the id of the nth trace, as DuckDB's md5 made it."""
    return md5(f"t{trace}".encode(), usedforsecurity=False).hexdigest()


async def timed(ask: Ask, rounds: int) -> tuple[float, list[float]]:
    dice, took = random.Random(7), list[float]()
    for _ in range(rounds + 1):
        began = time.perf_counter()
        await ask(dice)
        took.append((time.perf_counter() - began) * 1000)
    return took[0], sorted(took[1:])


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


async def long_page(store: EmbeddedSpans, q: EmbeddedQuestions, long: int) -> list[dict[str, Any]]:
    """Ask for the first page of one trace of many spans."""
    identity = await long_trace(store, long)
    before = resident()
    began = time.perf_counter()
    page = await q.tree(identity, None, None, 200)
    tree_ms = (time.perf_counter() - began) * 1000
    began = time.perf_counter()
    await q.spans(identity, None, 500)
    spans_ms = (time.perf_counter() - began) * 1000
    assert page is not None
    assert page.total == long
    return [
        row(f"trace of {long:,} spans: first page of its tree", tree_ms, "ms", 1_000),
        row(f"trace of {long:,} spans: first page of its spans", spans_ms, "ms", 1_000),
        row(f"trace of {long:,} spans: growth of memory", resident() - before, "MiB", 50),
    ]


async def main(spans: int, long: int, rounds: int, folder: Path) -> list[dict[str, Any]]:
    terms = Terms(lambda: GROUPS, lambda _: {"gpt-4o-mini": 128_000}, lambda: ("customer", "task"))
    store = EmbeddedSpans(folder, MemoryManifest(), Counts(), due=NEVER, settling=Books(terms))
    await store.open()
    took_s = await fill(store, spans)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    say(f"{size / spans:.0f} bytes a span on disk, {size / 2**20:,.0f} MiB")
    q = EmbeddedQuestions(store, lambda: GROUPS, lambda: {"gpt-4o-mini": 128_000})
    rows = [
        row(f"{spans:,} spans: made, settled and sealed", took_s, "s"),
        row("disk, sums and fingerprints with it", size / spans, "bytes a span", 150),
    ]
    for name, (limit, ask) in {**summed(q), **listed(q, spans // PER_TRACE)}.items():
        try:
            first, took = await timed(ask, rounds)
        except StoreError as error:
            rows.append({**row(f"{name}: {error}", limit, "ms", limit), "ok": False})
            say(f"{name:50} {error}")
            continue
        p50, p95 = took[len(took) // 2], took[min(len(took) - 1, int(len(took) * 0.95))]
        rows.append(row(f"{name}, p95", p95, "ms", limit))
        missed = "" if p95 <= limit else "  MISSED"
        say(f"{name:50} first {first:8.1f}  p50 {p50:8.1f}  p95 {p95:8.1f}  limit {limit:6.0f} ms{missed}")  # fmt: skip
    rows.append(row("memory after the questions", resident(), "MiB", 600))
    rows += await long_page(store, q, long)
    rows.append(row("memory after all of it", resident(), "MiB", 600))
    await store.stop()
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument("--long", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--keep", type=Path, default=None)
    asked = parser.parse_args()
    made = asked.keep or Path(tempfile.mkdtemp(prefix="midwatch-query-"))
    try:
        found = asyncio.run(main(asked.spans, asked.long, asked.rounds, made))
    finally:
        if asked.keep is None:
            shutil.rmtree(made, ignore_errors=True)
    print(json.dumps({"bench": "query", "rows": found}))
    sys.exit(0 if all(each["ok"] for each in found) else 1)
