"""One suite for the state database, in a file and on PostgreSQL: what one hub and what several do with it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, text

import midwatch.store.migrations
from midwatch.core.access import Scope
from midwatch.core.counts import Counts
from midwatch.core.errors import SetupError, StoreError
from midwatch.store import migrate
from midwatch.store.agents import AgentStore
from midwatch.store.marks import StateMarks
from midwatch.store.runs import RunStore
from midwatch.store.state import StateDb
from midwatch.store.tables import HEAD, metadata
from midwatch.store.tokens import LoginStore, TokenStore

sys.path.insert(0, str(Path(__file__).parents[1]))
from databases import Postgres

Opened = Callable[[], StateDb]


@pytest.fixture(params=["sqlite", "postgres"])
def at(request: pytest.FixtureRequest, server: Postgres, tmp_path: Path) -> Path | str:
    return tmp_path / "state.db" if request.param == "sqlite" else server.fresh()


@pytest.fixture
async def another(at: Path | str) -> AsyncIterator[Opened]:
    """Opens the database once more, as another hub does."""
    opened: list[StateDb] = []

    def start() -> StateDb:
        db = StateDb(at)
        db.open()
        opened.append(db)
        return db

    yield start
    for db in opened:
        await db.stop()


# -- tables and migrations -------------------------------------------------------------------


def engine_of(at: Path | str) -> Any:
    if isinstance(at, Path):
        return create_engine(f"sqlite:///{at}")
    return create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(at))


def shape_of(connection: Connection) -> dict[str, Any]:
    """Return columns, keys and indexes by table, as the database has them."""
    looks = inspect(connection)
    return {
        name: (
            [(c["name"], str(c["type"]), c["nullable"]) for c in looks.get_columns(name)],
            looks.get_pk_constraint(name)["constrained_columns"],
            sorted(str(i) for i in looks.get_indexes(name)),
            sorted(str(u["column_names"]) for u in looks.get_unique_constraints(name)),
        )
        for name in sorted(looks.get_table_names())
    }


async def test_a_new_database_and_a_migrated_one_are_the_same(
    at: Path | str, another: Opened, server: Postgres, tmp_path: Path
) -> None:
    another()
    new = engine_of(at)
    with new.connect() as connection:
        shape = shape_of(connection)
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == HEAD
    new.dispose()
    migrated = engine_of(tmp_path / "other.db" if isinstance(at, Path) else server.fresh())
    with migrated.begin() as connection:
        migrate.migrate(connection)
        assert shape_of(connection) == shape
    migrated.dispose()
    config = Config()
    config.set_main_option("script_location", midwatch.store.migrations.__path__[0])
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_each_migration_goes_both_ways(at: Path | str) -> None:
    engine = engine_of(at)
    config = Config()
    config.set_main_option("script_location", midwatch.store.migrations.__path__[0])
    revisions = [one.revision for one in ScriptDirectory.from_config(config).walk_revisions()][::-1]
    shapes: list[dict[str, Any]] = []
    with engine.begin() as connection:
        for revision in revisions:
            migrate.migrate(connection, revision)
            shapes.append(shape_of(connection))
        for revision, shape in zip(reversed(revisions), reversed(shapes), strict=True):
            assert shape_of(connection) == shape, revision
            migrate.retreat(connection, "-1")
        assert set(shape_of(connection)) == {"alembic_version"}
        migrate.migrate(connection)
        assert shape_of(connection) == shapes[-1]
    engine.dispose()
    assert len(revisions) >= 2


def test_a_database_goes_back_for_an_older_version_and_forward_again_with_what_it_holds(
    at: Path | str,
) -> None:
    for to in migrate.REVISIONS:
        db = StateDb(at)
        db.open()
        row = {"name": f"a{to}"}
        db.write_now(lambda c, row=row: c.execute(_AGENT, row))
        db.retreat(to)
        db.close()
        engine = engine_of(at)
        with engine.connect() as connection:
            assert migrate.revision(connection) == to
        engine.dispose()
    db = StateDb(at)
    db.open()
    names = db.write_now(lambda c: c.execute(text("SELECT name FROM agents ORDER BY name")).all())
    db.close()
    assert [name for (name,) in names] == [f"a{to}" for to in migrate.REVISIONS]


_AGENT = text("INSERT INTO agents (name, registered_at, \"by\") VALUES (:name, 1.5, 'node')")


async def test_a_database_of_an_older_version_is_brought_up_with_what_it_holds(
    at: Path | str, another: Opened
) -> None:
    engine = engine_of(at)
    with engine.begin() as connection:
        migrate.migrate(connection, "0001")
        connection.execute(
            text("INSERT INTO agents (name, registered_at, \"by\") VALUES ('inbox', 1.5, 'node')")
        )
    engine.dispose()
    assert await AgentStore(another()).names() == ["inbox"]


async def test_a_database_of_a_newer_version_is_refused_untouched(
    at: Path | str, another: Opened
) -> None:
    await another().stop()
    engine = engine_of(at)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SetupError, match=r"newer Midwatch \(revision '9999'"):
        StateDb(at).open()
    with engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == "9999"
    engine.dispose()


async def test_hubs_that_start_together_make_the_tables_once(
    server: Postgres,
) -> None:
    at = server.fresh()
    hubs = [StateDb(at) for _ in range(3)]
    await asyncio.gather(*(asyncio.to_thread(hub.open) for hub in hubs))
    for hub in hubs:
        await hub.probe(1000.0)
    for hub in hubs:
        await hub.stop()


def test_an_address_that_leads_nowhere_says_so_without_its_password(tmp_path: Path) -> None:
    hidden = "open-sesame"
    with pytest.raises(
        SetupError, match=r"cannot use PostgreSQL at .*hub\.stores\.state"
    ) as refused:
        StateDb(f"postgresql://ann:{hidden}@/fleet?host={tmp_path}").open()
    assert hidden not in str(refused.value)
    with pytest.raises(SetupError, match="no address of PostgreSQL") as refused:
        StateDb(f"postgresql://ann:{hidden}@host/fleet?nonsense=1")
    assert hidden not in str(refused.value)


# -- reading and writing ----------------------------------------------------------------------


async def test_what_fails_halfway_was_never_there(another: Opened) -> None:
    db = another()
    insert = text("INSERT INTO marks (name, value) VALUES ('a', 1)")

    def work(connection: Connection) -> None:
        connection.execute(insert)
        connection.execute(text("INSERT INTO nowhere VALUES (1)"))

    with pytest.raises(StoreError, match="the state store cannot write"):
        await db.write(work)
    await db.write(lambda c: c.execute(insert))
    assert await db.read(lambda c: c.execute(text("SELECT count(*) FROM marks")).scalar()) == 1


async def test_a_read_cannot_write_beside_the_writers(server: Postgres) -> None:
    db = StateDb(server.fresh())
    db.open()
    with pytest.raises(StoreError, match="read-only transaction"):
        await db.read(lambda c: c.execute(text("DELETE FROM marks")))
    await db.stop()


async def test_hubs_that_count_together_lose_nothing(another: Opened) -> None:
    hubs = [another(), another()]
    await hubs[0].write(
        lambda c: c.execute(text("INSERT INTO marks (name, value) VALUES ('n', 0)"))
    )

    def count(connection: Connection) -> None:
        seen = connection.execute(text("SELECT value FROM marks WHERE name = 'n'")).scalar_one()
        connection.execute(text("UPDATE marks SET value = :n WHERE name = 'n'"), {"n": seen + 1})

    await asyncio.gather(*(hub.write(count) for hub in hubs for _ in range(20)))
    seen = text("SELECT value FROM marks WHERE name = 'n'")
    assert [await hub.read(lambda c: c.execute(seen).scalar()) for hub in hubs] == [40, 40]


async def test_a_connection_that_was_lost_is_made_anew(server: Postgres) -> None:
    at = server.fresh()
    db = StateDb(at)
    db.open()
    await db.probe(1.0)
    with psycopg.connect(at, autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE application_name = 'midwatch-hub'"
        )
    await db.probe(2.0)
    await db.stop()


async def test_a_transaction_that_dies_underway_is_told_and_the_next_one_works(
    server: Postgres,
) -> None:
    db = StateDb(server.fresh())
    db.open()
    kill = text("SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(StoreError, match="the state store cannot write") as told:
        await db.write(lambda c: c.execute(kill))
    assert not told.value.permanent
    await db.probe(2.0)
    await db.stop()


async def test_what_is_closed_says_so(another: Opened) -> None:
    db = another()
    await db.probe(1.0)
    await db.stop()
    for attempt in (lambda: db.probe(2.0), lambda: db.read(lambda _: None)):
        with pytest.raises(StoreError, match="is closed"):
            await attempt()


# -- books ------------------------------------------------------------------------------------


def run(run_id: str, **more: Any) -> dict[str, Any]:
    return {"id": f"i-{run_id}", "run_id": run_id, "agent": "inbox", "at": 100.0, **more}


async def test_reports_of_a_run_are_merged_and_a_neighbours_refused(another: Opened) -> None:
    runs = RunStore(another(), Counts())
    runs.start()
    await runs.merge([run("r1", started_at=90.0, state="running", node="n1")])
    merged = await runs.merge([run("r1", state="ended", ended_at=99.0), run("r1", agent="other")])
    assert (len(merged.items), merged.foreign) == (1, [1])
    found = await runs.get("r1")
    assert found is not None
    assert (found["started_at"], found["state"], found["node"]) == (90.0, "ended", "n1")
    assert await runs.get("r2") is None
    await runs.stop()


async def test_pages_of_runs_go_newest_first(another: Opened) -> None:
    runs = RunStore(another(), Counts())
    runs.start()
    # the ids' order differs between languages, and must not
    await runs.merge([run(name, started_at=1.0) for name in ("b", "B", "a", "_")])
    seen: list[str] = []
    while found := await runs.page(agent="inbox", after=seen[-1] if seen else None, limit=1):
        seen += [one["run_id"] for one in found]
    assert seen == ["b", "a", "_", "B"]
    await runs.stop()


async def test_names_stay_registered_once(another: Opened) -> None:
    agents = AgentStore(another())
    for name in ("b", "A", "b", "_"):
        await agents.add(name, by="create", now=1.0)
    assert await AgentStore(another()).names() == ["A", "_", "b"]


async def test_a_number_is_what_any_hub_wrote_last(another: Opened) -> None:
    here, there = StateMarks(another()), StateMarks(another())
    assert await here.get("clock") is None
    await here.put("clock", 2**62)
    assert await there.get("clock") == 2**62
    await there.put("clock", 5)
    assert await here.get("clock") == 5
    assert await here.get("other") is None


async def test_a_links_code_is_good_once_at_whichever_hub_and_is_no_cookie(another: Opened) -> None:
    here, there = LoginStore(another()), LoginStore(another())
    code = await here.create_code(1_000.0, 60.0, 20)
    assert not await there.valid(code, 1_001.0)
    assert not await there.valid(f"code:{code}", 1_001.0)
    assert [await hub.use_code(code, 1_001.0) for hub in (there, here)] == [True, False]
    late = await here.create_code(1_000.0, 60.0, 20)
    assert not await there.use_code(late, 1_060.0)
    cookie = await here.create(1_000.0)
    codes = [await here.create_code(1_000.0 + n, 60.0, 2) for n in range(3)]
    assert [await there.use_code(each, 1_003.0) for each in codes] == [False, True, True]
    assert await there.valid(cookie, 1_003.0)
    assert not await there.use_code(cookie, 1_003.0)


async def test_tokens_and_logins_last_until_they_are_over(another: Opened) -> None:
    db = another()
    tokens, logins = TokenStore(db), LoginStore(db)
    secret, token = await tokens.create("ci", frozenset({Scope.READ}), 10.0, expires_at=20.0)
    assert await tokens.find(secret, 15.0) == token
    assert await tokens.find(secret, 20.0) is None
    assert await tokens.revoke("ci", 16.0) is True
    assert await tokens.revoke("ci", 17.0) is False
    assert await tokens.find(secret, 15.0) is None
    assert [one.revoked_at for one in await tokens.all()] == [16.0]
    login = await logins.create(10.0)
    assert await logins.valid(login, 11.0)
    await logins.end(login)
    assert not await logins.valid(login, 11.0)
