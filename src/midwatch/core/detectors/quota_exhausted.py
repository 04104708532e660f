"""quota-exhausted: the quota of a provider's key is used up; the pool of keys moves on, or is empty soon."""

from __future__ import annotations

from midwatch.core.calling import LATER, because, is_event, noted, past, until
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.plain import number_of, text_of, whole_of
from midwatch.core.units import show_duration

KIND = "quota-exhausted"


@detector(KIND, on=("key.quota", "pool.low", *LATER))
def quota_exhausted(facts: Facts) -> Verdict:
    """Find keys without quota. A person is needed when the pool is empty, or will be within two hours."""
    if not is_event(facts, "key.quota", "pool.low"):
        return past(facts, KIND, "until", "the key's rest is over")
    data = facts.data
    provider = text_of(data, "provider") or "a provider"
    keys, left = whole_of(data, "keys") or 1, whole_of(data, "keys_left") or 0
    of_keys = f"{left} of {keys} keys left"
    if is_event(facts, "pool.low"):
        soon = number_of(data, "empty_in_s") or 0.0
        said = f"the keys of {provider} will be used up in about {show_duration(soon)}"
        if text_of(data, "by") == "budgets":
            of_keys = "by what they may spend in a month"
            if soon <= 0:
                said = f"the keys of {provider} have spent their budgets"
        elif left == 0 or soon <= 0:
            said = f"all keys of {provider} are used up"
        held = number_of(facts.open_evidence.get(KIND, {}), "until")
        known = [at for at in (held, number_of(data, "until")) if at is not None]
        over = max(known, default=None)
        return noted(KIND, facts, "critical", "the pool's forecast", said, of_keys, until=over)
    said = f"the quota of {provider}'s key {text_of(data, 'key') or ''} is used up{because(facts)}"
    rest = f"it rests{until(facts, 'until')}"
    severity = "critical" if left == 0 else "warning"
    return noted(KIND, facts, severity, "class quota: permanent for this key", said, of_keys, rest)
