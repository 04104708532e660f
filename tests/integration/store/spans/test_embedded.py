"""The embedded store beyond the suite: sealing under readers, resends, disk given back, failing disks."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from midwatch.core.counts import Counts
from midwatch.core.errors import SetupError, StoreError
from midwatch.core.spans.form import Batch, Rank, Signal
from midwatch.core.spans.store import Selector
from midwatch.store.spans.embedded import Due, EmbeddedSpans
from midwatch.store.spans.engine import View
from midwatch.store.spans.manifest import MemoryManifest, StateManifest
from midwatch.store.spans.sealing import COMPACT_AT, Beside
from midwatch.store.spans.segments import Shelf
from midwatch.store.state import StateDb

sys.path.insert(0, str(Path(__file__).parents[3]))
from spans import NOON_NS, NOON_S, S, batch, content, point, record, span

LATER = NOON_S + 86_400.0
NOW = Due(age_s=0.0)
"""Whatever is settled is sealed."""


class House:
    """A folder and its manifest; every store that was opened is closed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = MemoryManifest()
        self.stores: list[EmbeddedSpans] = []

    async def open(self, **more: Any) -> EmbeddedSpans:
        store = EmbeddedSpans(self.folder, self.manifest, Counts(), **{"due": NOW, **more})
        await store.open()
        self.stores.append(store)
        return store

    def segments(self, kind: str = "spans") -> list[Path]:
        return sorted((self.folder / "segments").glob(f"{kind}-*.parquet"))

    def size(self) -> int:
        return sum(p.stat().st_size for p in self.folder.rglob("*") if p.is_file())


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path / "spans")
    yield made
    for store in made.stores:
        await store.stop()


def many(first: int, count: int, **more: Any) -> Batch:
    rows = [span(f"n{at}", f"t{at // 8}", start_s=at / 100, **more) for at in range(first, first + count)]  # fmt: skip
    return batch(*rows)


async def names(store: EmbeddedSpans) -> list[str]:
    def ask(view: View) -> list[str]:
        rows = view.cursor.execute(f"SELECT name FROM {view.rows(Signal.SPANS)}").fetchall()
        return sorted(row[0] for row in rows)

    return await store.read(ask)


async def test_a_sealed_generation_leaves_nothing_but_segments(house: House) -> None:
    store = await house.open()
    await store.append(batch(span("a"), points=[point()], logs=[record()], resources={b"r" * 16: "{}"}))  # fmt: skip
    assert (await store.settle(LATER)).sealed == 1
    kinds = sorted(path.name.rpartition("-")[0] for path in (house.folder / "segments").glob("*.parquet"))  # fmt: skip
    assert kinds == ["logs", "points", "resources", "spans"]
    assert [path.name for path in house.folder.glob("g*.duckdb")] == ["g00000002.duckdb"]
    read = duckdb.connect().execute(f"SELECT name FROM '{house.segments()[0]}'").fetchall()
    assert read == [("a",)]


async def test_a_store_in_which_nothing_happens_writes_nothing(house: House) -> None:
    store = await house.open()
    before = house.size()
    for _ in range(5):
        done = await store.settle(LATER)
        assert (done.sealed, done.left) == (0, 0)
    assert house.size() == before
    assert house.segments() == []


async def test_whoever_reads_while_it_is_written_and_sealed_sees_each_row_once(
    house: House,
) -> None:
    store = await house.open(due=Due(rows=100))
    done = 0
    ended = asyncio.Event()

    async def read() -> int:
        looks = 0
        while not ended.is_set():
            least = done
            found = await names(store)
            assert len(found) == len(set(found))
            assert len(found) >= least
            looks += 1
        return looks

    reading = [asyncio.create_task(read()) for _ in range(2)]
    for number in range(30):
        await store.append(many(number * 40, 40))
        done = (number + 1) * 40
    ended.set()
    assert min(await asyncio.gather(*reading)) > 0
    assert len(await names(store)) == 1_200
    assert len(house.segments()) > 1


async def test_a_reader_keeps_what_it_reads_until_it_is_done(house: House) -> None:
    store = await house.open()
    await store.append(many(0, 50))
    await store.settle(LATER)
    (file,) = house.segments()
    reading, go_on = threading.Event(), threading.Event()

    def slowly(view: View) -> int:
        reading.set()
        assert go_on.wait(20)
        return len(view.cursor.execute(f"FROM {view.rows(Signal.SPANS)}").fetchall())

    job = asyncio.create_task(store.read(slowly, 30.0))
    assert await asyncio.to_thread(reading.wait, 20)
    dropping = asyncio.create_task(store.drop(Selector(agents=frozenset({"inbox"}))))
    while len(store._engine.layout.segments) > 0:
        await asyncio.sleep(0.005)
    assert file.exists()
    assert not dropping.done()
    go_on.set()
    assert await job == 50
    proof = await dropping
    assert (proof.before[Signal.SPANS], proof.complete) == (50, True)
    assert not file.exists()


async def test_a_resend_of_everything_is_known_however_it_lies(house: House) -> None:
    store = await house.open()
    parts = [many(at, 100) for at in range(0, 400, 100)]
    extra = batch(points=[point()], logs=[record()])
    await store.append(parts[0])
    await store.append(extra)
    await store.settle(LATER)  # in a segment
    await store.append(parts[1])
    await store.stop()
    store = await house.open(due=Due())  # in a generation that was found on disk
    await store.append(parts[2])
    await store.append(many(400, 1))
    for part in (*parts[:3], extra):
        kept = await store.append(part)
        assert (kept.new, kept.replaced, kept.duplicates) == (0, 0, len(part))
    assert (await store.append(parts[3])).new == 100
    assert len(await names(store)) == 401


async def test_what_only_looks_like_a_duplicate_is_kept(house: House, monkeypatch: Any) -> None:
    # every fingerprint alike: what decides are the rows themselves
    from midwatch.store.spans import sealing, sifting

    store = await house.open()
    await store.append(batch(span("a")))
    await store.settle(LATER)
    (segment,) = store._engine.layout.segments
    number = store._engine.shelf.prints(segment)._numbers[0]
    for module in (sifting, sealing):
        monkeypatch.setattr(module, "fingerprint", lambda _: number)
    kept = await store.append(batch(span("a"), span("b")))
    assert (kept.new, kept.duplicates) == (1, 1)


async def test_the_end_of_a_span_that_was_sealed_as_lost_replaces_it_for_good(house: House) -> None:
    store = await house.open()
    await store.append(batch(span("a", rank=Rank.OPEN.value, run_id="r"), span("b")))
    await store.close_lost("r", NOON_S + 5.0)
    await store.settle(LATER)
    (before,) = house.segments()
    assert (await store.append(batch(span("a", run_id="r")))).replaced == 1
    assert await names(store) == ["a", "b"]
    await store.settle(LATER)
    assert not before.exists()
    files = [str(path) for path in house.segments()]
    rows = duckdb.connect().execute("SELECT name, rank FROM read_parquet(?) ORDER BY 1", [files]).fetchall()  # fmt: skip
    assert rows == [("a", 2), ("b", 2)]


async def test_an_open_span_outlives_its_generation(house: House) -> None:
    store = await house.open()
    row = span("a", rank=Rank.OPEN.value, run_id="r")
    await store.append(batch(row, span("b"), contents=[content(row, "k", "x")]))
    await store.settle(LATER)
    await store.stop()
    store = await house.open()
    assert dict(await store.open_runs()) == {"r": 1}
    kept = await store.append(batch(span("a"), contents=[content(row, "k", "x"), content(row, "l", "y")]))  # fmt: skip
    assert (kept.replaced, len(kept.fresh.contents)) == (1, 1)
    assert await names(store) == ["a", "b"]


async def test_small_segments_become_one(house: House) -> None:
    store = await house.open()
    for at in range(COMPACT_AT):
        await store.append(many(at * 10, 10))
        await store.settle(LATER)
    assert len(house.segments()) == 1
    assert len(await names(store)) == 10 * COMPACT_AT
    kept = await store.append(many(0, 10 * COMPACT_AT))
    assert kept.duplicates == 10 * COMPACT_AT


async def test_what_expires_gives_its_disk_back(house: House) -> None:
    store = await house.open(keep_s={Signal.CONTENTS: 3600.0})
    rows = [span(f"n{at}", start_s=at) for at in range(100)]
    texts = [content(row, "k", f"{at:04d}" * 500) for at, row in enumerate(rows)]
    await store.append(batch(*rows, contents=texts))
    await store.settle(NOON_S + 200.0)
    assert len(house.segments("contents")) == 1
    done = await store.settle(NOON_S + 3800.0)
    assert dict(done.expired) == {Signal.CONTENTS: 100}
    assert done.freed_bytes > 0
    assert house.segments("contents") == []
    assert len(await names(store)) == 100


async def test_what_expires_beside_what_does_not_goes_as_well(house: House) -> None:
    store = await house.open(keep_s={Signal.SPANS: 86_400.0})
    await store.append(batch(span("old", start_s=-5 * 86_400), span("new")))
    done = await store.settle(NOON_S + 60.0)
    assert dict(done.expired) == {Signal.SPANS: 1}
    assert await names(store) == ["new"]


async def test_what_was_dropped_is_in_no_file(house: House) -> None:
    store = await house.open(due=Due())
    row = span("a", session="s", user="SECRETUSER7")
    opened = span("o", "t2", session="s", user="SECRETUSER7", rank=Rank.OPEN.value)
    await store.append(batch(row, opened, span("b", "other"), contents=[content(row, "k", "SECRETTEXT7"), content(opened, "k", "SECRETTEXT8")]))  # fmt: skip
    logs = b"".join(path.read_bytes() for path in house.folder.glob("g*"))
    assert b"SECRETUSER7" in logs
    assert b"SECRETTEXT7" in logs
    proof = await store.drop(Selector(sessions=frozenset({"s"})))
    assert (dict(proof.before), proof.complete) == (
        {Signal.SPANS: 2, Signal.CONTENTS: 2, Signal.LOGS: 0, Signal.POINTS: 0},
        True,
    )
    for path in house.folder.rglob("*"):
        if path.suffix == ".parquet":
            found = duckdb.connect().execute("FROM read_parquet(?)", [str(path)]).fetchall()
            assert "SECRET" not in str(found)
        elif path.is_file():
            assert b"SECRET" not in path.read_bytes()
    assert await names(store) == ["b"]
    assert dict((await store.footprint()).agents["inbox"]).keys() == {Signal.SPANS}


async def test_what_only_an_open_span_says_selects_its_whole_trace(house: House) -> None:
    store = await house.open()
    opened = span("o", session="s", rank=Rank.OPEN.value)
    await store.append(batch(span("a"), opened, span("b", "other")))
    await store.settle(LATER)
    proof = await store.drop(Selector(sessions=frozenset({"s"})))
    assert (proof.before[Signal.SPANS], proof.complete) == (2, True)
    assert await names(store) == ["b"]
    await store.stop()
    assert await names(await house.open()) == ["b"]


async def test_settling_samples_sums_and_may_be_repeated(house: House) -> None:
    seen: list[int] = []

    def settling(view: View, generation: int, spans: str, contents: str) -> Beside:
        seen.append(generation)
        before = view.cursor.execute(f"SELECT count(*) FROM {view.sealed(Signal.SPANS)}").fetchone()
        assert before == (0,)
        return Beside(
            keep="status = 2",
            tables={"traces": f"SELECT trace_id, count(*) AS spans FROM {spans} GROUP BY 1"},
            sampled=1,
        )

    store = await house.open(settling=settling)
    rows = [span("good"), span("bad", status=2)]
    await store.append(batch(*rows, contents=[content(row, "k", str(row[7])) for row in rows]))
    house.manifest.broken = True
    with pytest.raises(StoreError):
        await store.settle(LATER)
    house.manifest.broken = False
    assert len(await names(store)) == 2
    done = await store.settle(LATER)
    assert (done.sealed, done.sampled) == (1, 1)
    assert set(seen) == {1}
    assert len(seen) >= 2
    assert await names(store) == ["bad"]

    def ask(view: View) -> tuple[Any, Any]:
        sums = view.other("traces")
        return (
            view.cursor.execute(f"SELECT spans FROM {sums}").fetchall(),
            view.cursor.execute(f"SELECT text FROM {view.rows(Signal.CONTENTS)}").fetchall(),
        )

    assert await store.read(ask) == ([(2,)], [("bad",)])


async def test_a_fault_in_settling_does_not_end_sealing(house: House) -> None:
    faults = 2

    def settling(view: View, generation: int, spans: str, contents: str) -> Beside:
        nonlocal faults
        faults -= 1
        if faults >= 0:
            raise ValueError("a fault")
        return Beside()

    store = await house.open(due=Due(rows=10), settling=settling)
    for at in range(0, 60, 10):
        await store.append(many(at, 10))
    deadline = asyncio.get_running_loop().time() + 20
    while len(store._engine.layout.frozen) > 0:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    assert len(await names(store)) == 60
    assert store._counts.value("keeping_failures", "fault") == 2


async def test_a_folder_belongs_to_one_process(house: House) -> None:
    store = await house.open()
    await store.append(many(0, 10))
    half = house.folder / "segments" / "spans-00000099.parquet"
    half.write_bytes(b"what the first one is writing")
    code = (
        "import asyncio, pathlib, sys\n"
        "from midwatch.core.counts import Counts\n"
        "from midwatch.store.spans.embedded import EmbeddedSpans\n"
        "from midwatch.store.spans.manifest import MemoryManifest\n"
        "asyncio.run(EmbeddedSpans(pathlib.Path(sys.argv[1]), MemoryManifest(), Counts()).open())\n"
    )
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(house.folder), stderr=asyncio.subprocess.PIPE
    )
    _, said = await other.communicate()
    assert other.returncode == 1
    assert b"SetupError" in said
    assert half.exists()
    await store.append(many(10, 10))
    assert len(await names(store)) == 20


async def test_a_question_that_takes_too_long_is_stopped(house: House) -> None:
    store = await house.open()

    def forever(view: View) -> Any:
        return view.cursor.execute("SELECT count(*) FROM range(10000000000) a, range(1000) b WHERE a.range % 7 = b.range").fetchall()  # fmt: skip

    with pytest.raises(StoreError, match="took longer than"):
        await store.read(forever, 0.2)
    await store.append(batch(span("a")))
    assert await names(store) == ["a"]


async def test_one_batch_that_cannot_be_stored_fails_alone(house: House) -> None:
    store = await house.open()
    bad = span("bad")
    bad[5] = "no time"
    results = await asyncio.gather(
        *(store.append(part) for part in (many(0, 5), batch(bad), many(5, 5))),
        return_exceptions=True,
    )
    assert [isinstance(each, StoreError) and each.permanent for each in results] == [False, True, False]  # fmt: skip
    assert len(await names(store)) == 10


async def test_a_generation_that_was_removed_under_the_hub_is_noticed(house: House) -> None:
    store = await house.open()
    await store.probe()
    for path in house.folder.glob("g*"):
        path.unlink()
    with pytest.raises(StoreError, match="removed or replaced"):
        await store.probe()


async def test_a_segment_that_is_missing_stops_the_start_and_says_which(house: House) -> None:
    store = await house.open()
    await store.append(batch(span("a")))
    await store.settle(LATER)
    await store.stop()
    (file,) = house.segments()
    file.unlink()
    with pytest.raises(SetupError, match=file.name):
        await house.open()


async def test_files_that_nobody_named_are_swept(house: House) -> None:
    store = await house.open()
    await store.append(batch(span("a")))
    await store.settle(LATER)
    await store.stop()
    strange = house.folder / "segments" / "spans-00000099.parquet"
    strange.write_bytes(b"half")
    await house.open()
    assert not strange.exists()
    assert len(house.segments()) == 1


async def test_sealing_that_fails_leaves_nothing_behind(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await house.open()
    await store.append(batch(span("a")))
    faults = 3

    def failing(shelf: Shelf) -> None:
        nonlocal faults
        faults -= 1
        if faults >= 0:
            raise OSError(28, "No space left on device")
        sync(shelf)

    sync = Shelf.sync
    monkeypatch.setattr(Shelf, "sync", failing)
    with contextlib.suppress(StoreError):
        await store.settle(LATER)
    while faults > 0:
        with pytest.raises(StoreError):
            await store.settle(LATER)
    assert list((house.folder / "segments").iterdir()) == []
    await store.settle(LATER)
    assert len(house.segments()) == 1
    assert await names(store) == ["a"]


async def test_what_is_sealed_while_a_failed_store_opens_anew_is_seen_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await house.open(due=Due())
    await store.append(batch(span("a")))
    engine = store._engine
    engine.rotate()
    written = await store._sealer.run(lambda c: store._sealer._write(c, engine.layout.frozen[0]))
    await house.manifest.change(written[0], written[1], 1)
    begin = engine._begin

    def sealed_meanwhile(*given: Any) -> Any:
        made = begin(*given)
        engine.swap(written[0], written[1], 1)
        return made

    monkeypatch.setattr(engine, "_begin", sealed_meanwhile)
    engine.open(engine.layout.segments)
    store._begun()
    assert await names(store) == ["a"]
    await store.settle(LATER)
    await store.stop()
    assert await names(await house.open()) == ["a"]


async def test_the_manifest_in_the_state_database_says_what_it_was_told(tmp_path: Path) -> None:
    state = StateDb(tmp_path / "state.db")
    state.open()
    manifest = StateManifest(state)
    store = EmbeddedSpans(tmp_path / "spans", manifest, Counts(), due=NOW)
    await store.open()
    await store.append(batch(span("a"), span("b", agent="other", start_s=3)))
    await store.settle(LATER)
    named = await manifest.load()
    assert (named.sealed, [s.kind for s in named.segments]) == (1, ["spans"])
    (segment,) = named.segments
    assert (segment.rows, segment.from_ns, segment.to_ns) == (2, NOON_NS, NOON_NS + 3 * S)
    assert dict(segment.agents) == {"inbox": (1, NOON_NS), "other": (1, NOON_NS + 3 * S)}
    with pytest.raises(StoreError, match="not in the manifest"):
        await manifest.change([segment], [segment, segment.__class__(77, "spans", 1, 0, 0, 1, 1, 1)], 5)  # fmt: skip
    assert (await manifest.load()) == named
    await store.stop()
    await state.stop()
