"""What explains a hang, as an incident keeps it: where the process stood, its stacks, its last lines. Pure.

It comes in two reports, and the incident lays the second over the first: so neither may take away what
the other told. All of an incident's evidence stays below 16 KiB.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, cast

from midwatch.core.detection import Facts
from midwatch.core.excerpt import first_lines, last_lines, lines_of
from midwatch.core.incident import Finding
from midwatch.core.plain import text_of

MAX_TAIL_BYTES: Final = 5_000
MAX_STACK_BYTES: Final = 6_000
MAX_LIST_BYTES: Final = 2_000


def explained(finding: Finding, facts: Facts) -> Finding:
    """Return the finding with what `run.hung` or `run.ended` says beside its reason."""
    evidence = dict(finding.evidence)
    tail = last_lines(lines_of(facts.data.get("tail")), MAX_TAIL_BYTES)
    if facts.item.get("kind") == "run.ended":
        evidence.pop("tail", None)  # the lines before the hang tell more than those of its end
    elif tail:
        evidence["tail"] = tail
    if stack := first_lines(lines_of(facts.data.get("stack")), MAX_STACK_BYTES):
        evidence["stack"] = stack
    return replace(finding, evidence=evidence | _standing(facts.data.get("standing")))


def _standing(value: object) -> dict[str, Any]:
    data = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    texts = {name: text_of(data, name, 80) for name in ("state", "waits_in")}
    lists = {
        name: first_lines(lines_of(data.get(name)), MAX_LIST_BYTES, 160)
        for name in ("threads", "sockets")
    }
    return {name: told for name, told in (texts | lists).items() if told}
