"""Which process is of which sub-agent: the innermost, by run id, by acquaintance, by parents."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.descent import Branch, claimants, place
from midwatch.core.family import SILENT, Born, Claim, Slight, claim_of, read_claim, unread_limits


@dataclass(frozen=True)
class One:
    pid: int
    parent: int = 1
    run_id: str = "run"
    claim: Claim = SILENT
    started: float = 1.0
    age_s: float = 10.0


def branch(name: str, above: Branch | None = None, *known: int, claimed: bool = False) -> Branch:
    born = Born(name, f"inbox:{name}", None, None, outlive=False, claimed=claimed)
    return Branch(born, above, {(pid, 1.0) for pid in known})


def named(found: dict[int, Branch]) -> dict[int, str]:
    return {pid: one.born.run_id for pid, one in found.items()}


def test_a_branch_is_what_carries_its_run_and_all_below_it() -> None:
    a = branch("a")
    living = [One(2), One(3, 2, "a"), One(4, 3, ""), One(5, 4), One(6, 99, "a"), One(7, 2)]
    assert named(place(living, [a])) == dict.fromkeys((3, 4, 5, 6), "a")


def test_a_process_is_of_the_innermost_branch() -> None:
    a = branch("a")
    b = branch("b", a)
    c = branch("c", b, 5, claimed=True)
    # what carries the run of a branch further up is of the one it stands in
    living = [One(3, 1, "a"), One(4, 3, "b"), One(5, 4, "b"), One(6, 5, "a"), One(7, 4, "a")]
    assert named(place(living, [a, b, c])) == {3: "a", 4: "b", 5: "c", 6: "c", 7: "b"}


def test_who_was_of_a_branch_stays_of_it_without_parents_but_not_its_number() -> None:
    a = branch("a", None, 4, 5, claimed=True)
    assert named(place([One(4, 1), One(5, 1, started=2.0)], [a])) == {4: "a"}


def test_parents_in_a_circle_do_not_hang_it() -> None:
    assert place([One(2, 3), One(3, 2)], [branch("a")]) == {}


trees = st.lists(st.integers(0, 12), min_size=1, max_size=13)


@given(trees, st.lists(st.sampled_from(["", "run", "a", "b", "c"]), min_size=13, max_size=13))
def test_each_process_is_of_its_parents_branch_or_one_that_it_names(
    parents: list[int], runs: list[str]
) -> None:
    a = branch("a")
    b = branch("b", a)
    branches = {"a": a, "b": b, "c": branch("c")}
    living = [One(pid, parent, runs[pid]) for pid, parent in enumerate(parents)]
    found = place(living, branches.values())
    for one in living:
        of = found.get(one.pid)
        parent = found.get(one.parent) if one.parent < len(living) else None
        own = branches.get(one.run_id)
        assert of in (parent, own)
        assert own is None or (of is not None and own in of.line())


def says(pid: int, parent: int, name: str, run_id: str = "run") -> One:
    return One(pid, parent, run_id, Claim(name))


def test_who_inherited_a_name_does_not_claim_it() -> None:
    living = [
        says(2, 1, "inbox:a:b"),
        says(3, 1, "inbox:a"),
        says(4, 3, "inbox:a"),
        says(5, 1, "inbox"),
        says(6, 1, "inbox:x", "another run"),
        says(7, 4, "inbox:a:c"),
    ]
    found = claimants(living, {}, {"run"}, "inbox")
    assert [(one.pid, above) for one, above in found] == [(3, None), (2, None), (7, None)]
    a = branch("a", None, 3, 4, claimed=True)
    placed = place(living, [a])
    assert [(one.pid, above) for one, above in claimants(living, placed, {"run"}, "inbox")] == [
        (2, None),
        (7, a),
    ]


def test_an_environment_is_read_with_the_fleet_files_units() -> None:
    env = {
        b"MIDWATCH_AGENT": b"inbox:a",
        b"MIDWATCH_TTL": b"1h30m",
        b"MIDWATCH_MEMORY": b"512MiB",
        b"MIDWATCH_OUTLIVE": b"1",
    }
    assert read_claim(claim_of(env), "r", "inbox") == Born(
        "r", "inbox:a", 5400.0, 512 << 20, outlive=True, claimed=True
    )
    bare = read_claim(Claim("inbox:a", "90", "1000000"), "r", "inbox")
    assert isinstance(bare, Born)
    assert (bare.ttl_s, bare.memory_bytes) == (90.0, 1_000_000)
    assert read_claim(Claim("billing:a"), "r", "inbox") is Slight.MALFORMED


@given(st.binary(max_size=300), st.text(max_size=50), st.text(max_size=50))
def test_no_environment_breaks_the_reader(name: bytes, ttl: str, memory: str) -> None:
    claim = claim_of({b"MIDWATCH_AGENT": name})
    read_claim(claim, "r", "inbox")
    odd = Claim("inbox:a", ttl, memory)
    born = read_claim(odd, "r", "inbox")
    assert isinstance(born, Born)
    assert born.ttl_s is None or born.ttl_s > 0
    assert unread_limits(odd) == (
        (bool(ttl) and born.ttl_s is None) or (bool(memory) and born.memory_bytes is None)
    )
