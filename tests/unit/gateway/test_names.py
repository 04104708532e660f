"""Words that agents say of themselves: bounded in number, and in what they may be."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, Gate
from midwatch.core.calls.account import Payer
from midwatch.gateway import names
from midwatch.gateway.names import OTHER, Names
from midwatch.gateway.upstream.scripted import Answer

DAY = 86_400.0
SMALL: dict[str, Any] = {"stream": False, "max_tokens": 5}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"sub-agent": 3, "session": 2, "tag": 2, "value": 3}
    monkeypatch.setattr(names, "MAX_NEW", few)


@pytest.mark.usefixtures("few")
def test_names_beyond_a_days_share_are_charged_as_one_and_the_sums_above_stay_whole() -> None:
    counts: Counter[str] = Counter()
    known = Names(counts)
    accounts: set[str] = set()
    for n in range(50):
        payer = Payer(
            f"inbox:{n}", run="r", session=f"s{n}", tags={"customer": f"c{n}", f"junk{n}": "x"}
        )
        bound = known.bound(payer, 0.0)
        accounts |= set(bound.accounts())
        assert {"fleet", "agent:inbox", "run:r"} <= set(bound.accounts())
        assert not n or bound.tags["customer"] in (f"c{n}", OTHER), (
            "a budget of all customers holds"
        )
    assert accounts == {
        "fleet", "run:r", "agent:inbox",
        "agent:inbox:0", "agent:inbox:1", "agent:inbox:2", f"agent:inbox:{OTHER}",
        "session:inbox/s0", "session:inbox/s1", f"session:inbox/{OTHER}",
        "tag:customer=c0", "tag:junk0=x", "tag:customer=c1", f"tag:customer={OTHER}", f"tag:{OTHER}={OTHER}",
    }  # fmt: skip
    assert counts["names.sub-agent_other"] == 47
    first = Payer("inbox:0", run="r", session="s0", tags={"customer": "c0"})
    assert known.bound(first, 0.0) is first, "who is known stays known"
    late = Payer("inbox:49", run="r")
    assert known.bound(Payer("other:49", run="r"), 0.0).agent == "other:49", "of others, others"
    assert known.bound(late, 0.0).agent == f"inbox:{OTHER}"
    assert known.bound(late, DAY) is late, "tomorrow is another day"


def test_whoever_brings_no_names_costs_nothing() -> None:
    known, plain = Names(Counter()), Payer("inbox", run="r")
    assert known.bound(plain, 0.0) is plain


async def test_an_agent_says_of_task_and_tags_what_the_fleet_file_lets_it(tmp_path: Path) -> None:
    calls = {"tasks": ["triage"], "tags": {"customer": ["acme"]}}
    gate = Gate(tmp_path, [Answer(400, [b"{}"])] * 2, agent={"calls": calls})

    async def said(**headers: str) -> tuple[int, str]:
        given = [(f"x-midwatch-{name}", value) for name, value in headers.items()]
        out = await gate.ask(CHAT, headers=given, **SMALL)
        error = json.loads(out.whole).get("error", {})
        return out.status, error.get("message", "")

    assert (await said(task="triage", tags="customer=acme"))[0] == 400, "it was asked"
    status, why = await said(task="monitoring")
    assert (status, "'monitoring'" in why, "inbox" in why, "calls.tasks" in why) == (
        403,
        True,
        True,
        True,
    )
    assert (await said(tags="customer=other"))[0] == 403
    assert len(await gate.rows()) == 1
