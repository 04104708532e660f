from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.access import (
    Caller,
    RunKey,
    Scope,
    mint_key,
    mint_node,
    mint_run,
    verify,
    verify_key,
)

SECRET = b"s" * 32


def test_a_run_token_writes_for_its_own_agent_and_nothing_else() -> None:
    caller = verify(SECRET, mint_run(SECRET, "inbox", "r1"))
    assert caller == Caller("run r1", frozenset({Scope.WRITE}), "inbox", "r1")
    assert caller is not None
    assert [s for s in Scope if caller.may(s)] == [Scope.WRITE]


def test_a_node_token_may_report_and_take_commands_but_not_act() -> None:
    caller = verify(SECRET, mint_node(SECRET, "host"))
    assert caller is not None
    assert not caller.may(Scope.ACT)
    assert not caller.may(Scope.ADMIN)
    assert caller.may(Scope.NODE)


def test_admin_includes_everything_but_being_a_node() -> None:
    admin = Caller("admin", frozenset({Scope.ADMIN}))
    assert [s for s in Scope if not admin.may(s)] == [Scope.NODE]


@pytest.mark.parametrize("mint", [mint_run(SECRET, "a", "r"), mint_node(SECRET, "n")])
def test_another_secret_verifies_nothing(mint: str) -> None:
    assert verify(b"t" * 32, mint) is None


def test_a_run_token_cannot_be_relabelled_as_a_node_token() -> None:
    assert verify(SECRET, mint_run(SECRET, "a", "r").replace("mwr_", "mwn_")) is None


@given(st.text(max_size=200))
def test_no_text_is_an_error_and_none_is_a_token(text: str) -> None:
    assert verify(SECRET, text) is None
    assert verify(SECRET, "mwr_" + text) is None


@given(st.integers(0, 200), st.characters(min_codepoint=33, max_codepoint=126))
def test_a_changed_character_invalidates_a_token(position: int, character: str) -> None:
    token = mint_run(SECRET, "inbox", "01890000-0000-7000-8000-000000000000")
    index = position % len(token)
    changed = token[:index] + character + token[index + 1 :]
    if changed != token and index != len(token) - 1:  # the last base64 digit carries unused bits
        assert verify(SECRET, changed) is None


def test_a_runs_key_names_agent_and_run_and_is_no_token() -> None:
    key = mint_key(SECRET, "inbox.2", "r1", "inbox")
    assert verify_key(SECRET, key) == RunKey("inbox.2", "r1", "inbox")
    assert verify_key(SECRET, mint_key(SECRET, "inbox", "r1", "inbox")) == RunKey("inbox", "r1")
    assert verify(SECRET, key) is None
    assert verify_key(SECRET, mint_run(SECRET, "inbox", "r1")) is None
    assert verify_key(b"t" * 32, key) is None
    assert verify_key(SECRET, "mwk_" + "a" * 40) is None
