"""`midwatch migrate`: the way back to an older version, while nothing runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from midwatch.core.errors import SetupError
from midwatch.store.migrate import HEAD, REVISIONS
from midwatch.store.state import StateDb

from .conftest import Midwatch  # noqa: TID252  there is no tests package


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "hub" / "state.db"
    path.parent.mkdir(parents=True)
    db = StateDb(path)
    db.open()
    db.close()
    return path


def test_it_goes_back_when_told_so_and_forward_by_itself(midwatch: Midwatch, state: Path) -> None:
    data = state.parents[1]
    ended = midwatch("migrate", "--to", REVISIONS[0], "--data", data)
    assert ended.code != 0
    assert "what only newer tables hold is lost; give --yes" in ended.err
    ended = midwatch("migrate", "--to", REVISIONS[0], "--yes", "--data", data)
    assert (ended.code, ended.err) == (0, "")
    assert f"{state} is at revision {REVISIONS[0]}" in ended.out
    ended = midwatch("migrate", "--data", data)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"{state} is at revision {HEAD}\n"


def test_what_is_not_there_is_said(midwatch: Midwatch, state: Path, tmp_path: Path) -> None:
    ended = midwatch("migrate", "--to", "0815", "--data", state.parents[1])
    assert (ended.code, ended.out) == (2, "")
    assert f"expected one of {', '.join(REVISIONS)}" in ended.err
    ended = midwatch("migrate", "--data", tmp_path / "elsewhere")
    assert "there is no state database" in ended.err
    assert not (tmp_path / "elsewhere").exists()


def test_an_older_version_is_told_how_to_have_its_tables_back(state: Path) -> None:
    engine = create_engine(f"sqlite:///{state}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(SetupError, match=f"midwatch migrate --to {HEAD}"):
        StateDb(state).open()
