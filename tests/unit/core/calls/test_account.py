"""Accounts: who is charged, under which name."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.calls.account import MAX_DEPTH, MAX_PART, Payer, clean, in_words, is_brief

ANY = st.text(st.characters(exclude_categories=()), max_size=300)


def test_a_call_is_charged_to_everyone_above_it() -> None:
    payer = Payer(
        "inbox:search",
        group="support",
        run="r1",
        session="42",
        key="ci",
        tags={"customer": "acme", "tier": "gold"},
    )
    assert payer.accounts() == (
        "fleet",
        "group:support",
        "agent:inbox",
        "agent:inbox:search",
        "run:r1",
        "session:inbox/42",
        "key:ci",
        "tag:customer=acme",
        "tag:tier=gold",
    )


def test_a_session_belongs_to_its_agent_and_its_sub_agents() -> None:
    assert Payer("a", session="1").session_account == "session:a/1"
    assert Payer("a:sub", session="1").session_account == "session:a/1"
    assert Payer("b", session="1").session_account == "session:b/1"
    assert Payer(key="team/x", session="1").session_account == "session:key team%2Fx/1"


def test_a_tree_of_sub_agents_has_an_end() -> None:
    tree = Payer(":".join("abcdefghijklm")).tree()
    assert len(tree) == MAX_DEPTH
    assert tree[-1] == "a:b:c:d:e:f:g:h"


def test_runs_and_sessions_come_and_go() -> None:
    assert is_brief("run:r1")
    assert is_brief("session:inbox/1")
    assert not is_brief("agent:inbox")


def test_an_account_is_named_in_words() -> None:
    named = ["fleet", "group:a", "agent:a:b", "run:r", "session:a/1", "key:ci", "tag:c=d"]
    assert [in_words(x) for x in named] == [
        "the fleet",
        "group a",
        "a:b",
        "run r",
        "session 1 of a",
        "key ci",
        "c=d",
    ]


@given(ANY)
def test_a_name_becomes_text_that_every_database_takes(text: str) -> None:
    cleaned = clean(text)
    assert len(cleaned) <= MAX_PART
    assert cleaned.isprintable()
    assert json.loads(json.dumps(cleaned)).encode().decode() == cleaned
    assert clean(cleaned) == cleaned


@given(ANY, ANY)
def test_two_names_never_share_an_account(one: str, other: str) -> None:
    assert (clean(one) == clean(other)) == (one == other) or clean(one) in (one, other)
