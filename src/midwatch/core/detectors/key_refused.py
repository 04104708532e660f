"""key-refused: a provider does not accept one of its keys."""

from __future__ import annotations

from midwatch.core.calling import LATER, because, is_event, noted, past, until
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.plain import text_of, whole_of

KIND = "key-refused"


@detector(KIND, on=("key.refused", *LATER))
def key_refused(facts: Facts) -> Verdict:
    """Find keys that were refused: no retry mends that, a person does."""
    if not is_event(facts, "key.refused"):
        return past(facts, KIND, "until", "the key's rest is over; it is asked again")
    data = facts.data
    key, provider = text_of(data, "key") or "", text_of(data, "provider") or "a provider"
    left, keys = whole_of(data, "keys_left") or 0, whole_of(data, "keys") or 1
    said = f"{provider} refuses its key {key}{because(facts)}"
    rest = f"{left} of {keys} keys left; it rests{until(facts, 'until')}"
    return noted(KIND, facts, "critical", "class credentials", said, rest)
