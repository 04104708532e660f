"""What callers may say of their own calls."""

from __future__ import annotations

import pytest

from midwatch.core.calls.labels import Labels, own_tags, unfit

ACME = Labels(tasks=["triage", "batch-*"], tags={"customer": ["acme", "b*"], "step": ["*"]})


@pytest.mark.parametrize(
    ("task", "tags", "says"),
    [
        (None, {}, None),
        ("triage", {"customer": "acme", "step": "anything"}, None),
        ("batch-7", {"customer": "beta"}, None),
        ("monitoring", {}, "the task 'monitoring'"),
        ("Triage", {}, "the task 'Triage'"),
        (None, {"customer": "other"}, "the tag 'customer=other'"),
        (None, {"poll": ""}, "the tag 'poll='"),
    ],
)
def test_what_is_not_allowed_is_named(
    task: str | None, tags: dict[str, str], says: str | None
) -> None:
    said = unfit(ACME, task, tags)
    assert (said or "").startswith(says or "")
    assert (said is None) == (says is None)


def test_without_a_list_anything_may_be_said_and_nothing_is_ones_own() -> None:
    assert unfit(Labels(), "monitoring", {"customer": "acme"}) is None
    assert own_tags(Labels(), {"customer": "acme"}) == {}
    assert own_tags(ACME, {"customer": "acme", "x": "y"}) == {"customer": "acme"}
