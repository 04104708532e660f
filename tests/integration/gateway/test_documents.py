"""What the gateway keeps in small files: holds, keys, runs that ended."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.access import mint_key
from midwatch.core.calls.labels import Labels
from midwatch.core.errors import SetupError
from midwatch.core.fleet import Fleet
from midwatch.gateway import settings
from midwatch.gateway.dialects import Refusal
from midwatch.gateway.holds import MAX_BELOW, HoldKind, Holds
from midwatch.gateway.identify import Identify, Known
from midwatch.gateway.kept import MAX_PENDING, RETRY_S, Kept
from midwatch.gateway.keys import BadKey, Keys, digest_of
from midwatch.gateway.runs import REMEMBERED, Runs
from midwatch.wire.ids import new_id

SECRET = bytes(32)


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(path: Path) -> Kept:
    kept = Kept(path)
    kept.open()
    return kept


async def test_what_is_put_counts_at_once_and_is_on_disk_when_saved(tmp_path: Path) -> None:
    kept = opened(tmp_path / "new" / "doc.json")
    kept.put("a", {"x": 1})
    assert kept.entries == {"a": {"x": 1}}
    await kept.saved()
    assert stat.S_IMODE((tmp_path / "new" / "doc.json").stat().st_mode) == 0o600
    assert opened(tmp_path / "new" / "doc.json").entries == {"a": {"x": 1}}
    kept.drop("a")
    await kept.saved()
    assert opened(tmp_path / "new" / "doc.json").entries == {}


async def test_two_gateways_share_a_document_entry_by_entry(tmp_path: Path) -> None:
    one, two = opened(tmp_path / "d"), opened(tmp_path / "d")
    for number in range(20):
        one.put(f"one{number}", {})
        two.put(f"two{number}", {})
    await asyncio.gather(one.saved(), two.saved())
    await one.look()
    await two.look()
    assert (
        one.entries == two.entries == {f"{who}{n}": {} for who in ("one", "two") for n in range(20)}
    )
    two.drop("one3")
    await two.saved()
    await one.look()
    assert "one3" not in one.entries


async def test_what_cannot_be_written_is_in_force_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    kept = opened(folder / "doc.json")
    kept.put("a", {})
    await kept.saved()
    (folder / "doc.json.new").mkdir()
    kept.put("b", {})
    with pytest.raises(OSError, match=r"doc\.json cannot be written"):
        await kept.saved()
    assert (kept.entries, kept.failures) == ({"a": {}, "b": {}}, 1)
    await kept.look()
    assert kept.failures == 1  # not at once
    (folder / "doc.json.new").rmdir()
    async with asyncio.timeout(RETRY_S + 20):
        while kept.problem is not None:
            await kept.look()
            await asyncio.sleep(0.02)
    assert opened(folder / "doc.json").entries == {"a": {}, "b": {}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"v": 2, "entries": {}}', "update midwatch"),
        ('{"v": 1}', "damaged"),
        ('{"v": 1, "entries": {"a": 1}}', "damaged"),
        ("", "damaged"),
        ("[[[", "damaged"),
    ],
)
async def test_a_document_that_is_not_ours_is_refused_and_never_overwritten(tmp_path: Path, text: str, says: str) -> None:  # fmt: skip
    (tmp_path / "d").write_text(text)
    with pytest.raises(SetupError, match=says):
        opened(tmp_path / "d")
    kept = Kept(tmp_path / "d")
    kept.put("a", {})
    with pytest.raises(OSError, match=says):
        await kept.saved()
    assert (tmp_path / "d").read_text() == text


async def test_a_hold_holds_the_agents_below_and_a_weaker_one_replaces_none(
    tmp_path: Path, clock: Clock
) -> None:
    holds = Holds(tmp_path / "h", clock)
    holds.open()
    assert holds.find("inbox") is None
    holds.hold("inbox", HoldKind.LOOP, "again and again")
    holds.hold("inbox", HoldKind.SUSPENDED, "let me look", by="ada")
    assert holds.hold("inbox", HoldKind.BUDGET, "used up").kind is HoldKind.SUSPENDED
    holds.hold("inbox:search", HoldKind.LOOP, "turns")
    assert [h.kind if (h := holds.find(n)) else None for n in ("inbox", "inbox:read:deep", "inbox:search", "inboxes", "inbo")] == [
        HoldKind.SUSPENDED, HoldKind.SUSPENDED, HoldKind.LOOP, None, None,
    ]  # fmt: skip
    await holds.document.saved()
    again = Holds(tmp_path / "h", clock)
    again.open()
    assert again.all() == holds.all()
    assert {hold.agent for hold in again.lift("inbox")} == {"inbox", "inbox:search"}
    await again.document.saved()
    await holds.document.look()
    assert holds.all() == []


async def test_where_too_many_sub_agents_are_held_the_agent_is(
    tmp_path: Path, clock: Clock
) -> None:
    holds = Holds(tmp_path / "h", clock)
    holds.open()
    for number in range(MAX_BELOW):
        holds.hold(f"inbox:{number}", HoldKind.LOOP, "turns")
    assert holds.find("inbox") is None
    assert holds.hold("inbox:one:more", HoldKind.LOOP, "turns").agent == "inbox"
    assert holds.find("inbox:any") is not None
    assert len(holds.lift("inbox")) == MAX_BELOW + 1
    await holds.document.saved()


async def test_no_change_of_a_key_undoes_that_of_another_gateway(
    tmp_path: Path, clock: Clock
) -> None:
    """One revokes and rotates; the other has not looked since, and notes that it served both keys."""
    one, other = Keys(tmp_path / "k", clock), Keys(tmp_path / "k", clock)
    one.open()
    leaked, ci = one.create({"name": "leaked", "agent": "x"}), one.create({"name": "ci", "agent": "x"})  # fmt: skip
    await one.document.saved()
    other.open()
    one.revoke("leaked")
    fresh = one.rotate("ci", 50)
    await one.document.saved()
    for name in ("leaked", "ci"):
        known = other.named(name)
        assert known is not None
        other.used(known, clock.now)
    newest = other.rotate("ci", 50)
    await other.document.saved()
    await one.document.look()
    for keys in (one, other):
        leak, kept = keys.find(digest_of(leaked)), keys.named("ci")
        assert leak is not None
        assert kept is not None
        assert (leak.revoked_at, leak.entry["used_at"]) == (clock.now, clock.now)
        good = clock.now + 49
        assert [kept.over(digest_of(key), good) for key in (ci, fresh, newest)] == [None] * 3
        assert "rotated" in str(kept.over(digest_of(fresh), clock.now + 51))


async def test_changes_that_wait_for_a_full_disk_are_bounded_and_all_in_force(
    tmp_path: Path,
) -> None:
    kept = opened(tmp_path / "doc.json")
    (tmp_path / "doc.json.new").mkdir()
    for _ in range(MAX_PENDING * 3):
        kept.change("a", lambda entry: {"n": (entry or {"n": 0})["n"] + 1})
    with pytest.raises(OSError, match="cannot be written"):
        await kept.saved()
    (tmp_path / "doc.json.new").rmdir()
    await kept.saved()
    assert opened(tmp_path / "doc.json").entries == kept.entries == {"a": {"n": MAX_PENDING * 3}}


async def test_keys_expire_rotate_and_end(tmp_path: Path, clock: Clock) -> None:
    keys = Keys(tmp_path / "k", clock)
    keys.open()
    known, _ = identify(keys, tmp_path, clock)
    first = keys.create(
        {"name": "ci", "group": "support", "expires_at": clock.now + 100, "budget": {"per_day": 7}}
    )
    found = known(first)
    assert isinstance(found, Known)
    assert (found.payer.key, found.payer.group, found.payer.agent) == ("ci", "support", "")
    assert found.budget is not None
    assert found.budget.per_day == 7
    second = keys.rotate("ci", 50)
    assert isinstance(known(first), Known)
    clock.now += 51
    assert says(known(first)) == "the key 'ci' was rotated, and this one is no longer good"
    assert isinstance(known(second), Known)
    clock.now += 50
    assert says(known(second)) == "the key 'ci' has expired"
    assert [key["state"] for key in keys.all()] == ["expired"]
    keys.revoke("ci")
    assert "was revoked" in says(known(second))
    await keys.document.saved()
    text = (tmp_path / "k").read_text()
    assert (first in text, second in text, json.loads(text)["v"]) == (False, False, 1)


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"name": "a b", "agent": "x"}, "name: expected letters"),
        ({"name": "ok"}, "exactly one of agent, group and person"),
        ({"name": "ok", "agent": "x", "person": "y"}, "exactly one of"),
        ({"name": "ok", "agent": "x", "expires_at": 5.0}, "a time to come"),
        ({"name": "ok", "agent": "x", "model": ["a"]}, "model: Extra inputs"),
        ({"name": "ok", "agent": "x", "models": "gpt"}, "models: "),
        ({"name": "ok", "agent": "x", "budget": {"per_week": 1}}, "per_week: "),
        ({"agent": "x"}, "name: "),
    ],
)
async def test_a_key_that_cannot_be_is_refused_with_what_is_wrong(tmp_path: Path, clock: Clock, wanted: Any, says: str) -> None:  # fmt: skip
    keys = Keys(tmp_path / "k", clock)
    keys.open()
    with pytest.raises(BadKey) as bad:
        keys.create(wanted)
    assert says in str(bad.value)
    assert keys.all() == []


async def test_a_key_says_what_its_calls_may_say(tmp_path: Path, clock: Clock) -> None:
    keys = Keys(tmp_path / "k", clock)
    keys.open()
    known, _ = identify(keys, tmp_path, clock)
    bound = {"tasks": ["triage"], "tags": {"customer": ["acme"]}}
    narrow = known(keys.create({"name": "narrow", "person": "ana", **bound}))
    free = known(keys.create({"name": "free", "person": "ana"}))
    assert isinstance(narrow, Known)
    assert isinstance(free, Known)
    assert (narrow.labels, free.labels) == (Labels(["triage"], {"customer": ["acme"]}), None)
    await keys.document.saved()


async def test_ended_runs_are_known_for_ever_in_bounded_room(tmp_path: Path, clock: Clock) -> None:
    runs = Runs(tmp_path / "r", clock)
    runs.open()
    names = [f"{n:05}" for n in range(REMEMBERED * 3)]
    for name in names:
        runs.ended("inbox", name, 0)
    assert all(runs.is_over("inbox", name, clock.now) for name in names)
    assert not runs.is_over("inbox", "99999", clock.now)
    assert not runs.is_over("other", names[0], clock.now)
    assert len(runs.document.entries["inbox"]["ended"]) == REMEMBERED
    runs.began("inbox", "00000-after-the-clock-was-set-back")
    assert not runs.is_over("inbox", "00000-after-the-clock-was-set-back", clock.now)
    runs.ended("inbox", "00000-after-the-clock-was-set-back", 10)
    assert not runs.is_over("inbox", "00000-after-the-clock-was-set-back", clock.now)
    clock.now += 10
    assert runs.is_over("inbox", "00000-after-the-clock-was-set-back", clock.now)
    await runs.document.saved()
    again = Runs(tmp_path / "r", clock)
    again.open()
    assert all(again.is_over("inbox", name, clock.now) for name in names)


async def test_a_run_whose_end_was_never_told_is_over_when_the_supervisor_tells_which_live(
    tmp_path: Path, clock: Clock
) -> None:
    runs = Runs(tmp_path / "r", clock)
    runs.open()
    old, lost, lives, ending = (new_id(int(clock.now * 1000) + n) for n in range(4))
    runs.ended("inbox", ending, 30)
    at = clock.now + 1
    same_moment, later = new_id(int(at * 1000)), new_id(int(at * 1000) + 1)
    runs.told({"inbox": [lives]}, at)
    over = [
        runs.is_over(agent, run, clock.now)
        for agent, run in (
            ("inbox", lives),
            ("inbox", ending),
            ("inbox", same_moment),
            ("inbox", later),
            ("inbox", old),
            ("never-heard-of", lost),
        )
    ]
    assert over == [False, False, False, False, True, True]
    early = new_id(0)
    runs.began("inbox", early)  # the clock was set back
    await runs.document.saved()
    again = Runs(tmp_path / "r", clock)
    again.open()
    assert [again.is_over("inbox", r, clock.now) for r in (lives, early, old)] == [False, False, True]  # fmt: skip
    runs.told({}, at)
    assert [runs.is_over("inbox", r, clock.now) for r in (lives, early, later)] == [True, True, False]  # fmt: skip
    await runs.document.saved()


async def test_the_key_of_a_run_names_its_agent_and_ends_with_it(
    tmp_path: Path, clock: Clock
) -> None:
    keys = Keys(tmp_path / "k", clock)
    known, runs = identify(keys, tmp_path, clock)
    key = mint_key(SECRET, "inbox.2", "run-7", "inbox")
    found = known(key, "inbox.2:search")
    assert isinstance(found, Known)
    payer = found.payer
    assert (payer.tree(), payer.run, payer.group) == (("inbox", "inbox:search"), "run-7", "support")
    assert "is no sub-agent of inbox.2" in says(known(key, "inbox:search"))
    assert "its signature is not ours" in says(known(mint_key(b"x" * 32, "inbox", "r")))
    runs.ended("inbox.2", "run-7", 5)
    assert isinstance(known(key), Known)
    clock.now += 5
    assert says(known(key)) == "this key is of a run that has ended"
    assert says(known(key, "inbox.2:search")) == "this key is of a run that has ended"


async def test_who_shows_a_revoked_key_is_told_of_and_whose_key_only_expired_is_not(
    tmp_path: Path, clock: Clock
) -> None:
    keys = Keys(tmp_path / "k", clock)
    keys.open()
    known, _ = identify(keys, tmp_path, clock)
    told: list[tuple[str, str, str]] = []
    known.revoked = lambda *said: told.append(said)
    leaked = keys.create({"name": "ci", "agent": "inbox"})
    short = keys.create({"name": "ana", "person": "ana", "expires_at": clock.now + 1})
    keys.revoke("ci")
    clock.now += 2
    for key in (leaked, short, "mwk_unknown"):
        assert isinstance(known(key), Refusal)
    assert told == [("ci", "inbox", "the key 'ci' was revoked")]
    await keys.document.saved()


def identify(keys: Keys, folder: Path, clock: Clock) -> tuple[Identify, Runs]:
    fleet = Fleet.model_validate({"agents": {"inbox.1": {"command": ["x"], "group": "support"}}})
    known, runs = settings.build(fleet, {}), Runs(folder / "r", clock)
    return Identify(SECRET, keys, runs, lambda: known, clock), runs


def says(answer: Known | Refusal) -> str:
    assert isinstance(answer, Refusal)
    return answer.message
