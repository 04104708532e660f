"""The table of docs/reference/reload.md is the one that decides."""

from __future__ import annotations

import re
from pathlib import Path

from midwatch.core.change import EFFECTS, Effect

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/reload.md"

SAID = {
    Effect.RESTART: "restart",
    Effect.NEXT: "from the next run on",
    Effect.LIVE: ("live", "started or stopped"),
    Effect.SHORTER: "live when it gets longer",
}


def test_the_page_says_of_each_key_what_the_code_does() -> None:
    section = PAGE.read_text(encoding="utf-8").partition("## Which key needs a restart")[2]
    rows = dict(
        re.findall(r"^\| `([^`]+)` \| (.+) \|$", section.partition("\n## ")[0], re.MULTILINE)
    )
    assert set(rows) == set(EFFECTS)
    assert [key for key, effect in EFFECTS.items() if not rows[key].startswith(SAID[effect])] == []
