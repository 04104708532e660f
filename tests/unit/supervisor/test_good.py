"""What is kept of agents that may be rolled back, written and read again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.fleet import Agent
from midwatch.core.versions import Revision
from midwatch.supervisor.change.good import Back, Good, Kept

AGENT = Agent.model_validate({"command": ["agent"], "rollback": True})


@given(
    st.none() | st.binary(max_size=200),
    st.booleans() | st.none(),
    st.booleans(),
    st.text(max_size=50),
)
def test_whatever_is_kept_comes_back(
    env_file: bytes | None, dirty: bool | None, code: bool, note: str
) -> None:
    good = Good(AGENT, env_file, Revision("a" * 40, "main", dirty))
    for kept in (
        Kept(good),
        Kept(
            good, Back("hash", "env", "b" * 40, edited=bool(dirty), code=code, place="x", note=note)
        ),
    ):
        assert Kept.of(kept.to_json()) == kept


def test_what_nobody_was_told_of_yet_is_not_kept() -> None:
    waits = Kept(Good(AGENT), Back("hash", code=True, note="taken back"))
    assert Kept.of(waits.to_json()) == Kept(Good(AGENT))


def test_a_file_of_an_older_version_is_read() -> None:
    old = {"good": AGENT.model_dump(mode="json"), "refused": "hash", "note": "taken back"}
    assert Kept.of(old) == Kept(Good(AGENT), Back("hash", note="taken back"))
    assert Kept.of({"good": None, "refused": "", "note": ""}) == Kept()


@pytest.mark.parametrize(
    ("there", "tried"),
    [
        (None, True),
        (Revision("b" * 40, dirty=False), True),
        (Revision("b" * 40), True),
        (Revision("b" * 40, dirty=True), False),
        (Revision("c" * 40, dirty=False), False),
    ],
)
def test_other_code_than_what_failed_is_tried(there: Revision | None, tried: bool) -> None:
    assert Back("hash", commit="b" * 40).tried(there) is tried
    assert Back("hash").tried(there), "what failed is not known yet"


@pytest.mark.parametrize("broken", [{}, {"good": {"command": 7}, "refused": "", "note": ""}])
def test_what_makes_no_sense_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises((KeyError, ValueError, TypeError)):
        Kept.of(broken)
