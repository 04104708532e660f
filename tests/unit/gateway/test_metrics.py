"""/metrics of the gateway: nothing that is counted is left out, nothing hostile gets in."""

from __future__ import annotations

import re
from pathlib import Path

from midwatch.core.calls.breaker import Breaker
from midwatch.core.calls.pool import KeyHealth, KeyState
from midwatch.core.calls.route import Health
from midwatch.core.models import Breaker as Terms
from midwatch.gateway import metrics

ROOM = Path(metrics.__file__).parent


def test_every_word_that_the_gateway_counts_has_a_metric() -> None:
    words = {
        word
        for path in ROOM.glob("*.py")
        for word in re.findall(r'counts\[f?"([a-z_]+)\.', path.read_text())
    }
    assert {"refused", "attempt", "stream"} <= words
    assert words <= set(metrics.COUNTED) == set(metrics.NAMES)


def test_what_is_counted_is_on_the_page_and_what_has_no_metric_too() -> None:
    page = metrics.render({"refused.midwatch_budget": 3, "odd.thing": 1}, {}, {"malformed": 2}, {})
    lines = page.splitlines()
    assert 'midwatch_gateway_refused_total{type="midwatch_budget"} 3' in lines
    assert 'midwatch_gateway_other_total{what="odd.thing"} 1' in lines
    assert 'midwatch_gateway_http_lost_total{reason="malformed"} 2' in lines
    assert "midwatch_gateway_connections" not in page  # no data is no series


def test_labels_are_escaped() -> None:
    page = metrics.render({'closed.a"b\\c\nd': 1}, {}, {}, {})
    assert 'midwatch_gateway_not_carried_total{what="a\\"b\\\\c\\nd"} 1' in page.splitlines()


def test_breakers_that_are_open_come_first_and_their_number_is_bounded() -> None:
    terms = Terms(failures=1)
    health = Health(terms)
    for number in range(metrics.MAX_SERIES + 5):
        health.breakers["openai", f"m{number:05}"] = Breaker(terms)
    health.breakers["openai", "m00900"].failed(0.0, "down", 0.0)
    health.pools["openai"] = [KeyHealth("a"), KeyHealth("b", state=KeyState.MISSING)]
    found = metrics.places(health, 1.0)
    assert len(found["breaker_state"]) == metrics.MAX_SERIES
    assert found["breaker_state"][0] == (
        {"provider": "openai", "model": "m00900", "key": ""},
        2,
    )
    assert found["key_rests"] == [({"provider": "openai", "key": "b", "state": "missing"}, 1)]


def test_the_breaker_of_a_key_alone_is_on_the_page_beside_that_of_its_place() -> None:
    terms = Terms(failures=1)
    health = Health(terms, {("openai", "m"): Breaker(terms)}, {"openai": [KeyHealth("a"), KeyHealth("b")]})  # fmt: skip
    health.pools["openai"][1].blame("m", terms).failed(0.0, "down", 0.0)
    page = metrics.render({}, {}, {}, metrics.places(health, 1.0)).splitlines()
    assert [line for line in page if line.startswith("midwatch_gateway_breaker_")] == [
        'midwatch_gateway_breaker_state{provider="openai",model="m",key="b"} 2',
        'midwatch_gateway_breaker_state{provider="openai",model="m"} 0',
        'midwatch_gateway_breaker_opened_total{provider="openai",model="m",key="b"} 1',
        'midwatch_gateway_breaker_opened_total{provider="openai",model="m"} 0',
    ]


def test_the_table_names_what_a_page_names() -> None:
    filled = dict.fromkeys(metrics.GAUGES, 0.0)
    page = metrics.render({}, {}, {}, filled)
    served = re.findall(r"^# TYPE (\S+)", page, re.MULTILINE)
    assert sorted(served) == sorted(name for name, *_ in metrics.table())
    assert len(set(served)) == len(served)
