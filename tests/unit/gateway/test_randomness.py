"""Random bytes in blocks."""

from midwatch.gateway.randomness import BLOCK_BYTES, Randomness
from midwatch.wire.ids import new_id


def test_no_bytes_are_given_twice_also_over_the_end_of_a_block() -> None:
    random = Randomness()
    given = [random(10) for _ in range(3 * BLOCK_BYTES // 10)]
    assert {len(one) for one in given} == {10}
    assert len(set(given)) == len(given)


def test_ids_made_of_them_are_ids() -> None:
    random = Randomness()
    ids = {new_id(1_700_000_000_000, random) for _ in range(2_000)}
    assert len(ids) == 2_000
    assert {(one[14], one[:13]) for one in ids} == {("7", "018bcfe5-6800")}
    assert {one[19] for one in ids} <= set("89ab")
