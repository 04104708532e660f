"""orphan-session: processes in sessions of their own outlived the run that started them."""

from __future__ import annotations

from typing import Any, Final, cast

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import told
from midwatch.core.incident import Finding
from midwatch.core.plain import flag_of, number_of, text_of, whole_of
from midwatch.core.units import show_duration

KIND: Final = "orphan-session"

NAMED: Final = 3
"""How many processes a sentence names."""

LONGEST: Final = 40
"""Characters of a command in a sentence."""

SHOWN: Final = 20


@detector(KIND, on=("run.leftovers",))
def orphan_session(facts: Facts) -> Verdict:
    """Tell what was left and is stopped. Less, when somebody asked the run to stop: then there was
    little time to clean up."""
    count = whole_of(facts.data, "count") or 0
    if count < 1:
        return None
    processes = _processes(facts)
    names = ", ".join(_named(p) for p in processes[:NAMED])
    more = f" and {count - NAMED:,} more" if count > NAMED and names else ""
    noun = "process" if count == 1 else "processes"
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity="info" if flag_of(facts.data, "asked") else "warning",
        sentence=told(
            facts,
            f"left {count:,} {noun} behind" + (f": {names}{more}" if names else ""),
            "stopped with all that they had started",
        ),
        reason="processes of an ended run, in sessions of their own",
        evidence_at=facts.item["at"],
        evidence={
            "run_id": text_of(facts.data, "run_id", 80),
            "count": count,
            "processes": processes,
        },
        done=("kill",),
        transient=True,
    )


def _processes(facts: Facts) -> list[dict[str, Any]]:
    given: object = facts.data.get("processes")
    if not isinstance(given, list):
        return []
    found: list[dict[str, Any]] = []
    for entry in cast("list[object]", given)[:SHOWN]:
        if isinstance(entry, dict):
            data = cast("dict[str, Any]", entry)
            found.append(
                {
                    "pid": whole_of(data, "pid"),
                    "name": text_of(data, "name"),
                    "age_s": number_of(data, "age_s"),
                    "session": whole_of(data, "session"),
                }
            )
    return found


def _named(process: dict[str, Any]) -> str:
    name, age = process["name"] or "a process", process["age_s"]
    program, space, rest = name.partition(" ")
    whole = program.rpartition("/")[2] + space + rest
    short = whole if len(whole) <= LONGEST else whole[: LONGEST - 1] + "…"
    old = f", {show_duration(age)} old" if age else ""
    return f"{short} (pid {process['pid']}{old})"
