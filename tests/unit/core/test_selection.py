"""Names, groups and patterns: which agents a person means."""

from __future__ import annotations

import pytest

from midwatch.core.selection import NoneSelected, is_pattern, select

AGENTS = {"inbox": "support", "prices": None, "web.1": "site", "web.2": "site", "webs": None}


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("inbox", ["inbox"]),
        ("web", ["web.1", "web.2"]),
        ("web.*", ["web.1", "web.2"]),
        ("web.[2-9]", ["web.2"]),
        ("*", list(AGENTS)),
        ("group:site", ["web.1", "web.2"]),
    ],
)
def test_a_word_means_these_agents(word: str, meant: list[str]) -> None:
    assert select(word, AGENTS) == meant


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("inbx", "did you mean 'inbox'"),
        ("group:suport", "did you mean 'support'"),
        ("group:nobody", "known: site, support"),
        ("zz*", "no agent's name fits 'zz*'"),
        ("Web.*", "no agent's name fits"),
    ],
)
def test_a_word_that_means_nobody_says_which_is_near(word: str, says: str) -> None:
    with pytest.raises(NoneSelected, match=says.replace("*", r"\*")):
        select(word, AGENTS)


def test_only_what_may_mean_several_is_looked_up_first() -> None:
    assert [is_pattern(w) for w in ("inbox", "web", "web.*", "group:a")] == [
        False,
        False,
        True,
        True,
    ]
