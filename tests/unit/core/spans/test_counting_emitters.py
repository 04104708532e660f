"""What real emitters sent, counted once: the tokens of the calls that were made, and of no others."""

from __future__ import annotations

import pytest
from tests.emitters.expected import EXPECTED
from tests.emitters.recorded import read, request

from midwatch.core.spans.counted import Sum, sums
from midwatch.core.spans.counting import judge
from midwatch.core.spans.facts import fact


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_recording_comes_to_the_calls_that_were_made(name: str) -> None:
    calls = EXPECTED[name].calls
    total = Sum()
    for part in sums(judge(map(fact, read(request(name)).rows))).values():
        total = total.plus(part)
    assert (total.calls, total.input_tokens, total.cached_tokens, total.output_tokens) == (
        len(calls),
        sum(call.input for call in calls),
        sum(call.cached or 0 for call in calls),
        sum(call.output for call in calls),
    )
    assert total.cache_write_tokens == sum(call.written or 0 for call in calls)
    assert total.reasoning_tokens == sum(call.reasoning or 0 for call in calls)
