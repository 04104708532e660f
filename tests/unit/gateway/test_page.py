"""docs/reference/gateway.md names what the code says to clients, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from midwatch.gateway import refusals

ROOM = Path(refusals.__file__).parent
PAGE = (Path(__file__).resolve().parents[3] / "docs/reference/gateway.md").read_text()
CODE = "\n".join(path.read_text() for path in ROOM.rglob("*.py"))


def rows(pattern: str) -> set[str]:
    return set(re.findall(rf"^\| `({pattern})`", PAGE, re.MULTILINE))


def test_every_type_of_refusal_is_documented_and_the_reverse() -> None:
    said = set(re.findall(r'"(midwatch_[a-z_]+)"', CODE))
    assert rows("midwatch_[a-z_]+") == {
        one for one in said if not one.startswith("midwatch_gateway")
    }


def test_every_header_of_ours_is_documented_and_the_reverse() -> None:
    named = set(re.findall(r'"(x-midwatch-[a-z-]*[a-z])"', CODE))
    # labels() builds the name of these
    named |= {"x-midwatch-session", "x-midwatch-task"}
    assert rows("x-midwatch-[a-z-]+") == named
