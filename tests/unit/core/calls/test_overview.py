"""How the gateway is, in a line, and what of it is wrong."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.calls.overview import overview

WELL: dict[str, Any] = {"providers": {"openai": "openai", "local": "openai"}, "ready": True}


def test_a_gateway_that_is_well_takes_one_line() -> None:
    found = overview({**WELL, "calls_under_way": 3, "holds": [{"agent": "inbox"}]}, {})
    assert found.headline == "local, openai: well, 3 calls under way, 1 held"
    assert (found.well, found.troubles) == (True, ())


def test_what_is_wrong_is_said_with_what_it_means() -> None:
    health = {
        "breakers": [
            {"provider": "openai", "model": "gpt-4o", "state": "open", "reason": "status 503",
             "asked_again_in_s": 12.0},
            {"provider": "openai", "model": "gpt-4o-mini", "state": "closed"},
        ],
        "pools": [
            {"provider": "openai", "forecast": {"left": 1, "empty_in_s": 600.0}, "keys": [
                {"name": "a", "state": "quota", "reason": "insufficient_quota", "rests_for_s": 3600.0},
                {"name": "b", "state": "active", "models": {"gpt-4o": 30.0, "gpt-4o-mini": 0}},
                {"name": "c", "state": "missing", "reason": "env:C leads to no key"},
            ]},
        ],
    }  # fmt: skip
    state = {
        **WELL,
        "ready": False,
        "why_not": "disk full",
        "problems": ["models.providers.openai: no"],
    }
    found = overview(state, health)
    assert found.headline == "local, openai: 6 to look at"
    assert found.troubles == (
        "it refuses calls: disk full",
        "openai/gpt-4o is passed over, it failed too often (status 503); asked again in 12 seconds",
        "key a of openai is quota for 1 hour: insufficient_quota",
        "key b of openai rests for gpt-4o alone, 30 seconds",
        "all keys of openai will be used up in 10 minutes",
        "models.providers.openai: no",
    )


def test_without_a_provider_it_is_well_while_nobody_misses_one() -> None:
    found = overview({"providers": {}, "ready": True, "unserved": 0}, {})
    assert (found.well, found.troubles) == (True, ())
    assert found.headline.startswith(
        "no provider: well, and nobody has asked for a model; for calls"
    )
    assert "OPENAI_API_KEY" in found.headline


def test_calls_that_found_no_provider_are_told_with_where_keys_are_looked_for() -> None:
    found = overview({"providers": {}, "ready": True, "unserved": 3}, {})
    assert (found.well, found.headline) == (False, "no provider: 1 to look at")
    assert found.troubles[0].startswith("3 calls were refused because it has no provider: export")
    assert "OPENAI_API_KEY" in found.troubles[0]
    assert overview({**WELL, "unserved": 3}, {}).well  # a name of a model that is none


def test_without_a_provider_what_else_is_wrong_comes_first() -> None:
    found = overview({"providers": {}, "ready": False, "why_not": "disk full"}, {})
    assert (found.headline, found.troubles) == (
        "no provider: 1 to look at",
        ("it refuses calls: disk full",),
    )


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)  # fmt: skip
_FIELDS = st.sampled_from(
    [
        "providers",
        "holds",
        "problems",
        "breakers",
        "pools",
        "calls_under_way",
        "past",
        "ready",
        "unserved",
    ]
)


@given(st.dictionaries(_FIELDS, _JSON), st.dictionaries(_FIELDS, _JSON))
def test_an_odd_answer_is_left_out_and_harms_nobody(
    state: dict[str, Any], health: dict[str, Any]
) -> None:
    assert overview(state, health).headline
