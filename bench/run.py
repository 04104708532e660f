"""Runs the benchmarks, each against its peers, and prints both figures side by side.

    python bench/run.py [NAME ...]

A benchmark is a program in this folder. It may print what it likes; its last line on stdout is a
JSON document: `{"bench", "machine", "rows": [{"what", "ours", "peer", "peer_name", "unit",
"target", "ok"}]}`. `peer` may be null (nothing comparable), `target` too; `ok` is false when ours
misses the target. Exit 1 when a benchmark fails or a target is missed. Each document is kept in
bench/out/NAME.json.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
OUT = HERE / "out"
LIMIT_S = 900.0
"""Longest time that one benchmark may take."""

REQUIRED = ("what", "ours", "unit", "ok")


class BadDocument(Exception):
    """A benchmark's last line is not what it should be."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one benchmark gave; `document` is None when it failed, and `why` says how."""

    name: str
    seconds: float
    document: dict[str, Any] | None
    why: str = ""

    @property
    def ok(self) -> bool:
        return self.document is not None and all(row["ok"] for row in self.document["rows"])


def names() -> list[str]:
    """Return every benchmark in this folder: a file that is not this one and not private."""
    return sorted(
        p.stem for p in HERE.glob("*.py") if p.stem != "run" and not p.name.startswith("_")
    )


def machine() -> str:
    """Return the machine in a few words, so that a figure never stands alone."""
    model = ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        model = platform.processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model or platform.machine()}, {cores} cores, Python {platform.python_version()}, {platform.system()} {platform.release()}"


def read(stdout: str) -> dict[str, Any]:
    """Return the document on the last line. Raises BadDocument that says what is missing."""
    lines = [line for line in stdout.splitlines() if line.strip()]
    if not lines:
        raise BadDocument("printed nothing; its last line must be a JSON document")
    try:
        document = json.loads(lines[-1])
    except ValueError:
        raise BadDocument(f"its last line is not JSON: {lines[-1][:120]!r}") from None
    rows = document.get("rows") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not rows:
        raise BadDocument("its document has no rows")
    for row in rows:
        missing = [key for key in REQUIRED if key not in row]
        if missing:
            raise BadDocument(f"a row lacks {', '.join(missing)}: {row!r}")
    document.setdefault("machine", machine())
    return document


def run(name: str) -> Result:
    """Run one benchmark in a process of its own and keep its document."""
    started = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, str(HERE / f"{name}.py")],
            stdout=subprocess.PIPE,
            text=True,
            timeout=LIMIT_S,
            check=False,
            cwd=HERE.parent,
        )
    except subprocess.TimeoutExpired:
        return Result(name, LIMIT_S, None, f"took longer than {LIMIT_S:.0f} s")
    seconds = time.monotonic() - started
    # 1 means: a target was missed; the document says which
    if done.returncode not in (0, 1):
        return Result(name, seconds, None, f"exit {done.returncode}")
    try:
        document = read(done.stdout)
    except BadDocument as problem:
        return Result(name, seconds, None, str(problem))
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    return Result(name, seconds, document)


def _cell(value: Any, unit: str) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        value = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value} {unit}".strip()


def table(results: list[Result]) -> str:
    """Return all rows as one table: what, ours, peer, target, verdict."""
    lines = [("what", "ours", "peer", "", "target", "")]
    for result in results:
        if result.document is None:
            lines.append((result.name, "failed", "", result.why, "", "FAILED"))
            continue
        for row in result.document["rows"]:
            unit = str(row["unit"])
            target = row.get("target")
            lines.append(
                (
                    str(row["what"]),
                    _cell(row["ours"], unit),
                    _cell(row.get("peer"), unit),
                    str(row.get("peer_name") or ""),
                    target if isinstance(target, str) else _cell(target, unit),
                    "ok" if row["ok"] else "MISSED",
                )
            )
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main(arguments: list[str]) -> int:
    known = names()
    unknown = [a for a in arguments if a not in known]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    if not known:
        print("there is no benchmark in this folder", file=sys.stderr)
        return 2
    results: list[Result] = []
    for name in arguments or known:
        print(f"running {name} ...", file=sys.stderr, flush=True)
        results.append(run(name))
        print(f"  {results[-1].seconds:.0f} s {results[-1].why}".rstrip(), file=sys.stderr)
    print(f"\n{machine()}\n\n{table(results)}")
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
